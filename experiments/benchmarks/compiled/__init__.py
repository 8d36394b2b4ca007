"""What XLA makes of the norms for a GPU and a TPU, compiled on a machine without either.

Each norm, and two blocks of a network, is compiled for an NVIDIA H100 and a TPU v5e, as
jaxnorm and as flax have it. For each program this counts the kernels, the bytes that they
read and write in sizes of x ("passes"), the temporaries, what is kept for the backward
pass, and the collectives over eight devices. Passes are not times: they bound from below
what a memory-bound kernel needs. A run that is stopped goes on where it was.
"""

import os
from collections.abc import Sequence

from experiments.benchmarks import environment


def main(arguments: Sequence[str]) -> int:
    """Runs in a process with the right environment; returns its exit status."""
    environment.ensure(__name__, arguments, environment.compiling(os.environ))
    # Only now: jax reads the environment once.
    from experiments.benchmarks.compiled import command

    return command.main(arguments)
