"""The command line of the distributed example."""

import argparse
import hashlib
import json
import os
import re
import shutil
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from experiments import data, distributed, options
from experiments.console import Interrupted, Refused, console, exit_status, progress_bar
from experiments.distributed.processes import LOST, deadline, end_with_parent, supervise
from experiments.models import SeedNetwork
from experiments.runs import Run, identity
from experiments.training import TrainState

NAME = "distributed"
RATE = 0.02
CPU_DEVICES = 2  # of a process
LOOPBACK = "127.0.0.1"
LEAST_SILENCE = 10  # seconds; on a busy machine a shorter one is no sign of death
SHOWN = 64  # values of each parameter in the result


class Training(NamedTuple):
    """What trains, compiled for a mesh of all devices of all processes.

    Attributes:
      start: `start() -> state`, on every device.
      step: `step(state, images, labels) -> (state, loss)`.
      correct: `correct(state, images, labels) -> count`, by running statistics.
      place: `place(rows) -> array`, split over the mesh, from the rows of this process.
    """

    start: Callable[[], TrainState]
    step: Callable[..., tuple[TrainState, jax.Array]]
    correct: Callable[..., jax.Array]
    place: Callable[[np.ndarray], jax.Array]


def compile_training(dataset: data.Dataset, seed: int) -> Training:
    """Compiles the training on this data; all processes must do so alike."""
    mesh = jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec("batch"))
    model: Any = SeedNetwork((*SeedNetwork.widths[:-1], dataset.classes))
    optimizer = optax.adam(RATE)

    def start() -> TrainState:
        image = jnp.zeros((2, dataset.train_images.shape[1]))
        variables = model.init(jax.random.key(seed), image, train=False)
        params = variables["params"]
        return TrainState(params, variables["batch_stats"], optimizer.init(params))

    def loss(params: Any, statistics: Any, images: jax.Array, labels: jax.Array):
        variables = {"params": params, "batch_stats": statistics}
        logits, updates = model.apply(
            variables, images, train=True, mutable=["batch_stats"]
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), updates["batch_stats"]

    def step(state: TrainState, images: jax.Array, labels: jax.Array):
        (value, statistics), gradient = jax.value_and_grad(loss, has_aux=True)(
            state.params, state.statistics, images, labels
        )
        updates, moments = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params, statistics, moments), value

    def correct(state: TrainState, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = model.apply(state.variables, images, train=False)
        return jnp.sum(jnp.argmax(logits, axis=-1) == labels)

    return Training(
        # Said, or XLA might split the parameters as it likes.
        jax.jit(start, out_shardings=everywhere),
        jax.jit(step, out_shardings=everywhere, donate_argnums=0),
        jax.jit(correct, out_shardings=everywhere),
        lambda rows: jax.make_array_from_process_local_data(split, rows),
    )


def own(rows: np.ndarray) -> np.ndarray:
    """The rows of this process; their number is a multiple of that of all devices."""
    return np.split(rows, jax.process_count())[jax.process_index()]


def batches(dataset: data.Dataset, order: np.ndarray, size: int) -> Iterator[tuple]:
    """Images and labels of each batch in this order, only those of this process."""
    for first in range(0, len(order) - size + 1, size):
        rows = own(order[first : first + size])
        yield dataset.train_images[rows], dataset.train_labels[rows]


def test_rows(dataset: data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The test data of this process, filled up with rows whose label −1 is never right."""
    missing = -len(dataset.test_labels) % jax.device_count()
    images = np.pad(dataset.test_images, ((0, missing), (0, 0)))
    labels = np.pad(dataset.test_labels, (0, missing), constant_values=-1)
    return own(images), own(labels)


def train(chosen: argparse.Namespace, dataset: data.Dataset) -> dict[str, Any]:
    """Trains with all processes; gives the measurements, the same in each."""
    training = compile_training(dataset, chosen.seed)
    test = tuple(map(training.place, test_rows(dataset)))
    steps = steps_of_an_epoch(chosen, dataset)
    state, losses, accuracies = training.start(), [], []
    with progress_bar() as progress:
        progress.console.print(" epoch    loss  test accuracy, %, by running statistics")
        task = progress.add_task("training", total=chosen.epochs * steps)
        for epoch in range(chosen.epochs):
            # The same order in all processes, of which each loads its own rows.
            order = np.random.default_rng((chosen.seed, epoch)).permutation(
                len(dataset.train_labels)
            )[: steps * chosen.batch_size]
            for batch in batches(dataset, order, chosen.batch_size):
                state, loss = training.step(state, *map(training.place, batch))
                losses.append(loss)
                progress.advance(task)
            accuracies.append(
                int(training.correct(state, *test)) / len(dataset.test_labels)
            )
            mean = np.mean(losses[-steps:])
            reached = f"{f'{epoch + 1}/{chosen.epochs}':>6} {mean:7.4f}"
            progress.console.print(f"{reached} {100 * accuracies[-1]:7.1f}")
    return {
        "loss": np.array(losses),
        "accuracy": np.array(accuracies),
        "statistics": jax.tree.map(np.asarray, state.statistics),
        "parameters": jax.tree.map(_some, state.params),
    }


def steps_of_an_epoch(chosen: argparse.Namespace, dataset: data.Dataset) -> int:
    """As many as there are whole batches, or --steps if that is fewer."""
    available = len(dataset.train_labels) // chosen.batch_size
    return min(chosen.steps or available, available)


def _some(parameter: jax.Array) -> np.ndarray:
    """Evenly spaced values, by which two runs can be compared; all are megabytes."""
    values = np.asarray(parameter).ravel()
    return values[:: max(1, values.size // SHOWN)]


def connect(chosen: argparse.Namespace) -> None:
    """Meets the other processes, or ends this one with a line that says what is missing."""
    with deadline(chosen.timeout, lambda: nobody_came(chosen)):
        jax.distributed.initialize(
            chosen.coordinator,
            chosen.processes,
            chosen.process,
            local_device_ids=chosen.local_devices,
            cluster_detection_method="deactivate",  # all is said; it might say otherwise
            # When this runs out jax aborts the process, so ours must come first.
            initialization_timeout=chosen.timeout + 60,
            heartbeat_timeout_seconds=max(LEAST_SILENCE, chosen.timeout),
            shutdown_timeout_seconds=max(LEAST_SILENCE, chosen.timeout),
            coordinator_bind_address=chosen.coordinator,  # not all addresses there are
        )
        platform = jax.devices()[0].platform
    if platform != chosen.platform:
        raise Refused(
            f"--platform {chosen.platform}: jax finds none, only {platform}; install jax's "
            "package for it, such as jax[cuda12]."
        )


def nobody_came(chosen: argparse.Namespace) -> str:
    """Whom this process waited for in vain."""
    others, last = chosen.processes - 1, chosen.processes - 1
    whom = f"the other {others} of {chosen.processes} processes, of which not all came"
    if chosen.process and not _answers(chosen.coordinator):
        whom = f"process 0, of which there is no sign at {chosen.coordinator}"
    return (
        f"process {chosen.process} waited {chosen.timeout} s for {whom}; start "
        f"{chosen.processes} processes with --process 0 to --process {last}, the same "
        f"--coordinator {chosen.coordinator} and the same --processes {chosen.processes}, "
        "or wait longer with --timeout."
    )


def _answers(address: str) -> bool:
    try:
        socket.create_connection(_host_and_port(address), timeout=2).close()
    except OSError:
        return False
    return True


def agree(settings: dict[str, Any]) -> None:
    """Refuses processes that do not train the same; they would wait for ever, or worse."""
    told = json.dumps([identity(settings), jax.local_device_count()], sort_keys=True)
    digest = np.frombuffer(hashlib.sha256(told.encode()).digest(), np.uint8)
    digests = multihost_utils.process_allgather(digest).reshape(-1, digest.size)
    different = np.flatnonzero((digests != digests[0]).any(1))
    if different.size:
        raise Refused(
            f"processes 0 and {', '.join(map(str, different))} differ in their options, "
            "data, versions or number of devices; start all alike."
        )


def work(chosen: argparse.Namespace) -> None:
    """What one of the processes does."""
    console.quiet = chosen.process != 0
    dataset = options.open_data(chosen)
    connect(chosen)
    check_split(chosen.batch_size, jax.device_count())
    settings = {
        "experiment": NAME,
        "processes": jax.process_count(),
        "devices": jax.device_count(),
        "epochs": chosen.epochs,
        "steps": steps_of_an_epoch(chosen, dataset),
        "batch_size": chosen.batch_size,
        "seed": chosen.seed,
        "data": dataset.describe(),
    }
    agree(settings)
    first = jax.process_index() == 0
    run = Run(chosen.out, settings, restart=chosen.restart) if first else None
    console.print(
        f"{dataset.name}: batches of {chosen.batch_size} over {jax.device_count()} devices "
        f"of {jax.process_count()} process{'es' * (jax.process_count() > 1)}"
    )
    measurements = train(chosen, dataset)
    if run:
        run.finish(measurements, [])
        console.print(f"numbers: {run.result}")
    jax.distributed.shutdown()


def be_one(chosen: argparse.Namespace) -> None:
    """Works, as a child of `launch`, and ends this process."""
    end_with_parent()
    # gloo writes to stdout from C++; that goes to the log, and ours alone to the user.
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        status = exit_status(lambda: work(chosen))
    except jax.errors.JaxRuntimeError as error:
        status = _lost(chosen, error)
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # sys.exit would wait for the others, who wait for this one


def _lost(chosen: argparse.Namespace, error: Exception) -> int:
    """The status after an error of the runtime, which is most often a lost message."""
    told = str(error).splitlines()[0].rpartition("computation: ")[2]
    if not re.search("gloo|nccl|rccl|connection|coordination", told, re.IGNORECASE):
        traceback.print_exception(error)
        return 1
    who = f"process {chosen.process} of {chosen.processes}"
    print(f"error: {who} lost another, and was ended ({told}).", file=sys.stderr)
    return LOST


def launch(chosen: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Starts one of the processes, or all of them on this machine, and waits."""
    here = range(chosen.processes) if chosen.process is None else [chosen.process]
    check(chosen)
    coordinator = chosen.coordinator or f"{LOOPBACK}:{_free_port()}"
    module = [sys.executable, "-m", f"experiments.{NAME}", *arguments, "--worker"]
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
    """Which devices a process takes: its share where all run here, else what it sees."""
    if chosen.platform == "cpu" or (chosen.process is not None and not chosen.devices):
        return []
    count = chosen.devices or 1
    first = process * count if chosen.process is None else 0
    return ["--local-devices", *map(str, range(first, first + count))]


def check_split(size: int, devices: int) -> None:
    """Refuses a batch of which one device would have more than another."""
    if size % devices:
        raise Refused(
            f"--batch-size {size}: is split over {devices} devices, and must be a multiple "
            "of that."
        )


def check(chosen: argparse.Namespace) -> None:
    """Refuses what could not work, before anything is started."""
    if chosen.process is not None:
        if chosen.process >= chosen.processes:
            raise Refused(
                f"--process {chosen.process}: of {chosen.processes} processes, the IDs are "
                f"0 to {chosen.processes - 1}; see --processes."
            )
        if chosen.coordinator is None:
            raise Refused(
                f"--process {chosen.process}: needs --coordinator HOST:PORT, where process "
                "0 is met, the same for all."
            )
    if chosen.platform == "cpu":
        check_split(chosen.batch_size, chosen.processes * (chosen.devices or CPU_DEVICES))
    if chosen.coordinator is not None:
        _check_address(chosen.coordinator, serves=not chosen.process)


def _check_address(address: str, *, serves: bool) -> None:
    host, port = _host_and_port(address)
    try:
        family, kind, *_, name = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        if serves:
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(name)
    except socket.gaierror as error:
        raise Refused(
            f"--coordinator {address}: {host} is no host that can be found "
            f"({error.strerror})."
        ) from error
    except OSError as error:
        raise Refused(
            f"--coordinator {address}: process 0 cannot listen there ({error.strerror}); "
            "it takes a free port of the machine that process 0 runs on."
        ) from error


def _host_and_port(address: str) -> tuple[str, int]:
    found = re.fullmatch(r"\[?([^\s\[\]]+?)\]?:(\d{1,5})", address)
    if not found or not 0 < int(found[2]) < 2**16:
        raise Refused(
            f"--coordinator {address}: is no HOST:PORT with a port from 1 to 65535, such "
            f"as {LOOPBACK}:9876."
        )
    return found[1], int(found[2])


def _free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as server:
        return server.getsockname()[1]


def environment(chosen: argparse.Namespace) -> dict[str, str]:
    """That of a worker: ours, but for what says which devices there are."""
    ours = dict(os.environ)
    ours["COLUMNS"] = str(shutil.get_terminal_size().columns)  # it sees no terminal
    ours.pop("JAX_PLATFORMS", None)
    if chosen.platform == "cpu":
        ours["JAX_PLATFORMS"] = "cpu"
        ours["JAX_NUM_CPU_DEVICES"] = str(chosen.devices or CPU_DEVICES)
        flags = ours.get("XLA_FLAGS", "")  # of them this one says the same, otherwise
        counted = r"--xla_force_host_platform_device_count=\S*"
        ours["XLA_FLAGS"] = re.sub(counted, "", flags).strip()
    return ours


def parser() -> options.Parser:
    """The options; --worker and --local-devices are for the processes it starts."""
    made = argparse.ArgumentParser(
        prog=f"python -m experiments.{NAME}",
        description=distributed.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, one, zero = made.add_argument, _at_least(1), _at_least(0)
    add("--processes", type=one, default=2, metavar="N", help="how many (2)")
    add("--process", type=zero, metavar="ID", help="start only this one, from 0 (all)")
    add("--coordinator", metavar="HOST:PORT", help="where process 0 is met (loopback)")
    add("--platform", choices=("cpu", "gpu"), default="cpu", help="(cpu)")
    add(
        "--devices", type=one, metavar="K", help="of a process (2; GPUs: 1, or all it sees)"
    )
    add("--timeout", type=one, default=60, metavar="SECONDS", help="for the others (60)")
    add("--epochs", type=one, default=5, help="(5)")
    add("--steps", type=one, help="of an epoch at most (all its whole batches)")
    add("--batch-size", type=one, default=120, help="samples, over all processes (120)")
    add("--seed", type=zero, default=0, help="of weights and order (0)")
    source = made.add_mutually_exclusive_group()
    source.add_argument(
        "--data", choices=data.PACKAGED, default="mnist5k", help="(mnist5k)"
    )
    source.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="MNIST's four IDX files"
    )
    add("--out", type=Path, metavar="DIR", help="for the result (results/distributed/N)")
    add("--restart", action="store_true", help="throw away what another run left in --out")
    add("--worker", action="store_true", help=argparse.SUPPRESS)
    add("--local-devices", type=zero, nargs="+", help=argparse.SUPPRESS)
    return made


def _at_least(least: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"{text!r} is no whole number of at least {least}"
            )
        return int(text)

    return whole


def main(arguments: Sequence[str]) -> int:
    """The status of the process: 0, or 2 if refused or failed, or 130 if interrupted."""
    chosen = parser().parse_args(arguments)
    chosen.out = chosen.out or Path("results") / NAME / str(chosen.processes)
    if chosen.worker:
        be_one(chosen)
    return exit_status(lambda: launch(chosen, arguments))
