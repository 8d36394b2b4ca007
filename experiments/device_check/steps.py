"""Times training steps of ResNet-50 and a transformer, with jaxnorm and with flax."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from experiments.benchmarks.timing import interleaved
from experiments.device_check import timing
from experiments.device_check.budget import Budget
from experiments.device_check.compiling import LATE, Source, compile_all, reason
from experiments.device_check.networks import ResNet, Transformer
from experiments.device_check.training import LIBRARIES, Network, Training, step_of

BATCH_NORM = ("BatchNorm", {"use_running_average": False, "momentum": 0.9})
TOKENS, IMAGES = (32, 512, 2048), (128, 224, 224, 3)


def networks(dtype: str) -> list[Network]:
    """Returns the networks that are measured."""
    return [
        *(
            Network(
                f"transformer, {norm}", (norm, {}), Transformer, TOKENS, None, dtype, 15
            )
            for norm in ("LayerNorm", "RMSNorm")
        ),
        Network("ResNet-50", BATCH_NORM, ResNet, IMAGES, 1000, dtype, 60),
    ]


def rehearsed(dtype: str) -> list[Network]:
    """Returns the same networks, as small as possible."""
    resnet = functools.partial(ResNet, stages=(1, 1), width=8, classes=10)
    transformer = functools.partial(Transformer, blocks=1, heads=2)
    norm = ("RMSNorm", {})
    return [
        Network("transformer, RMSNorm", norm, transformer, (2, 8, 16), None, dtype, 5),
        Network("ResNet-50", BATCH_NORM, resnet, (4, 32, 32, 3), 10, dtype, 5),
    ]


def measure(
    chosen: Sequence[Network], rounds: int, calls: int, budget: Budget
) -> Iterator[dict[str, Any] | str]:
    """Yields a row for each network, or the reason why there is none."""
    for network in chosen:
        if not budget.allows(network.seconds):
            yield f"{network}: {LATE}"
            continue
        budget.tell(f"compiling {network}")
        sources = {library: step_of(network, library) for library in LIBRARIES}
        ready, missing = compile_all(sources, budget.left)
        if missing or not budget.allows(network.seconds / 10):
            yield f"{network}: {next(iter(missing.values()), LATE)}"
            continue
        yield _timed(network, sources, ready, rounds, calls)


def _timed(
    network: Network,
    sources: dict[str, Source],
    compiled: dict[str, Any],
    rounds: int,
    calls: int,
) -> dict[str, Any] | str:
    try:
        training = {
            library: Training(source.arguments, network.classes, compiled[library], calls)
            for library, source in sources.items()
        }
        seconds = interleaved(training, rounds)
        losses = {library: float(each.loss) for library, each in training.items()}
    except Exception as error:  # most likely too large for this device
        return f"{network}: {reason(error)}"
    return {
        "network": network.name,
        "shape": "x".join(map(str, network.shape)),
        "dtype": network.dtype,
        # JSON cannot express NaN or infinity.
        "losses": {k: each if np.isfinite(each) else None for k, each in losses.items()},
        "microseconds": {
            library: timing.microseconds(each, np.zeros(1), calls)
            for library, each in seconds.items()
        },
        "temporary_bytes": {
            library: timing.temporaries(each) for library, each in compiled.items()
        },
    }
