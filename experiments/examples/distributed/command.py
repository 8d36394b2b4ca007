"""The command line: starts one of the processes, or all of them as its children."""

import argparse
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.examples import distributed
from experiments.examples.distributed.meeting import LOOPBACK, check_address, free_port
from experiments.examples.distributed.processes import supervise
from experiments.examples.distributed.worker import NAME, be_one, check_split
from experiments.harness import argument_types, data, options
from experiments.harness.console import Interrupted, Refused, console, exit_status

CPU_DEVICES = 2  # per process


def parser() -> options.Parser:
    """Returns the parser; --worker and --local-devices are for the processes it starts."""
    made = argparse.ArgumentParser(
        prog=f"python -m experiments {NAME}",
        description=distributed.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    one = argument_types.count(1_000_000)
    zero = argument_types.count(2**31 - 1, least=0)
    add("--processes", type=one, default=2, metavar="N", help="number of processes (2)")
    add("--process", type=zero, metavar="ID", help="start only this one, from 0 (all)")
    add("--coordinator", metavar="HOST:PORT", help="address of process 0 (loopback)")
    add("--platform", choices=("cpu", "gpu"), default="cpu", help="(cpu)")
    add("--devices", type=one, metavar="K", help="per process (2; GPUs: 1, or all it sees)")
    add("--timeout", type=one, default=60, metavar="SECONDS", help="wait for others (60)")
    add("--epochs", type=one, default=5, help="(5)")
    add("--steps", type=one, help="at most so many per epoch (all its whole batches)")
    add("--batch-size", type=one, default=120, help="samples, over all processes (120)")
    add("--seed", type=zero, default=0, help="for weights and order (0)")
    source = made.add_mutually_exclusive_group()
    source.add_argument(
        "--data", choices=data.PACKAGED, default="mnist5k", help="(mnist5k)"
    )
    source.add_argument(
        "--data-dir", type=argument_types.path, metavar="DIR", help="MNIST's four IDX files"
    )
    add(
        "--out",
        type=argument_types.path,
        metavar="DIR",
        help="result folder (results/distributed/N)",
    )
    add("--restart", action="store_true", help="discard any earlier run in --out")
    add("--worker", action="store_true", help=argparse.SUPPRESS)
    add("--local-devices", type=zero, nargs="+", help=argparse.SUPPRESS)
    return made


def check(chosen: argparse.Namespace) -> None:
    """Refuses options that cannot work, before anything is started."""
    if chosen.process is not None:
        if chosen.process >= chosen.processes:
            raise Refused(
                f"--process {chosen.process}: with --processes {chosen.processes}, the IDs "
                f"are 0 to {chosen.processes - 1}."
            )
        if chosen.coordinator is None:
            raise Refused(
                f"--process {chosen.process}: needs --coordinator HOST:PORT, the address "
                "of process 0, the same for all."
            )
    if chosen.platform == "cpu":
        check_split(chosen.batch_size, chosen.processes * (chosen.devices or CPU_DEVICES))
    if chosen.coordinator is not None:
        check_address(chosen.coordinator, serves=not chosen.process)


def launch(chosen: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Starts one of the processes, or all of them on this machine, and waits for them."""
    here = range(chosen.processes) if chosen.process is None else [chosen.process]
    check(chosen)
    coordinator = chosen.coordinator or f"{LOOPBACK}:{free_port()}"
    module = [sys.executable, "-m", "experiments", NAME, *arguments, "--worker"]
    commands = {
        f"process {each} of {chosen.processes}": [
            *module,
            *("--process", str(each), "--coordinator", coordinator),
            *_devices(chosen, each),
        ]
        for each in here
    }
    if chosen.process is not None:
        console.print(
            f"process {chosen.process} of {chosen.processes} waits up to "
            f"{chosen.timeout} s for the others at {coordinator}"
        )
    try:
        supervise(commands, environment(chosen))
    except KeyboardInterrupt:
        count = len(commands)
        ended = "its process was" if count == 1 else f"all {count} processes were"
        raise Interrupted(f"interrupted; {ended} ended, and nothing written.") from None


def _devices(chosen: argparse.Namespace, process: int) -> list[str]:
    """Returns a process's devices: its share if all run here, otherwise all it sees."""
    if chosen.platform == "cpu" or (chosen.process is not None and not chosen.devices):
        return []
    count = chosen.devices or 1
    first = process * count if chosen.process is None else 0
    return ["--local-devices", *map(str, range(first, first + count))]


def environment(chosen: argparse.Namespace) -> dict[str, str]:
    """Returns a worker's environment: ours, except for the choice of devices."""
    ours = dict(os.environ)
    ours["COLUMNS"] = str(shutil.get_terminal_size().columns)  # workers have no terminal
    ours.pop("JAX_PLATFORMS", None)
    if chosen.platform == "cpu":
        ours["JAX_PLATFORMS"] = "cpu"
        ours["JAX_NUM_CPU_DEVICES"] = str(chosen.devices or CPU_DEVICES)
        flags = ours.get("XLA_FLAGS", "")  # one of them is another way to set the number
        counted = r"--xla_force_host_platform_device_count=\S*"
        ours["XLA_FLAGS"] = re.sub(counted, "", flags).strip()
    return ours


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0, 2 if refused or failed, 130 if interrupted."""
    chosen = parser().parse_args(arguments)
    chosen.out = chosen.out or Path("results") / NAME / str(chosen.processes)
    if chosen.worker:
        be_one(chosen)
    return exit_status(lambda: launch(chosen, arguments))
