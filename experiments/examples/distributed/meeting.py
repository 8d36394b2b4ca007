"""How the processes of one job meet at an address and check that they train the same."""

import argparse
import hashlib
import json
import re
import socket
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.examples.distributed.processes import deadline
from experiments.harness.console import Refused
from experiments.harness.runs import identity

LOOPBACK = "127.0.0.1"
LEAST_SILENCE = 10  # seconds; on a busy machine, a shorter silence does not mean death


def connect(chosen: argparse.Namespace) -> None:
    """Meets the other processes, or ends this one with a line that says who is missing."""
    with deadline(chosen.timeout, lambda: nobody_came(chosen)):
        jax.distributed.initialize(
            chosen.coordinator,
            chosen.processes,
            chosen.process,
            local_device_ids=chosen.local_devices,
            cluster_detection_method="deactivate",  # it might override the options given
            # When this expires jax aborts the process, so our deadline must come first.
            initialization_timeout=chosen.timeout + 60,
            heartbeat_timeout_seconds=max(LEAST_SILENCE, chosen.timeout),
            shutdown_timeout_seconds=max(LEAST_SILENCE, chosen.timeout),
            coordinator_bind_address=chosen.coordinator,  # rather than all addresses
        )
        platform = jax.devices()[0].platform
    if platform != chosen.platform:
        raise Refused(
            f"--platform {chosen.platform}: jax finds only {platform}; install jax's "
            "package for it, such as jax[cuda12]."
        )


def nobody_came(chosen: argparse.Namespace) -> str:
    """Describes whom this process waited for in vain."""
    others, last = chosen.processes - 1, chosen.processes - 1
    whom = f"the other {others} of {chosen.processes} processes, but not all came"
    if chosen.process and not _answers(chosen.coordinator):
        whom = f"process 0, but nothing answers at {chosen.coordinator}"
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
    """Refuses processes that do not train the same; they could wait for ever, or worse."""
    told = json.dumps([identity(settings), jax.local_device_count()], sort_keys=True)
    digest = np.frombuffer(hashlib.sha256(told.encode()).digest(), np.uint8)
    digests = multihost_utils.process_allgather(digest).reshape(-1, digest.size)
    different = np.flatnonzero((digests != digests[0]).any(1))
    if different.size:
        raise Refused(
            f"processes 0 and {', '.join(map(str, different))} differ in their options, "
            "data, versions or number of devices; start them all alike."
        )


def free_port() -> int:
    """Returns a free port of this machine, where all processes can meet."""
    with socket.create_server((LOOPBACK, 0)) as server:
        return server.getsockname()[1]


def check_address(address: str, *, serves: bool) -> None:
    """Refuses an invalid address, or one where process 0, if it `serves`, cannot listen."""
    host, port = _host_and_port(address)
    try:
        family, kind, *_, name = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        if serves:
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(name)
    except socket.gaierror as error:
        raise Refused(
            f"--coordinator {address}: the host {host} cannot be found ({error.strerror})."
        ) from error
    except OSError as error:
        raise Refused(
            f"--coordinator {address}: process 0 cannot listen there ({error.strerror}); "
            "choose a free port of the machine that process 0 runs on."
        ) from error


def _host_and_port(address: str) -> tuple[str, int]:
    found = re.fullmatch(r"\[?([^\s\[\]]+?)\]?:(\d{1,5})", address)
    if not found or not 0 < int(found[2]) < 2**16:
        raise Refused(
            f"--coordinator {address}: is not HOST:PORT with a port from 1 to 65535, such "
            f"as {LOOPBACK}:9876."
        )
    return found[1], int(found[2])
