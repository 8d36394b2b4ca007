"""What XLA makes of the norms for a GPU and a TPU, compiled on a machine without either.

Each norm, and two blocks of a network, is compiled for an NVIDIA H100 and a TPU v5e, with
jaxnorm's and with flax's norms. For each program this counts the kernels, the bytes that
they read and write in sizes of x ("passes"), the temporaries, the residuals, and the
collectives over eight devices. Passes are not times: they are a lower bound on what a
memory-bound kernel needs. An interrupted run resumes where it stopped.
"""

import os
from collections.abc import Sequence

from experiments.benchmarks import environment


def main(arguments: Sequence[str]) -> int:
    """Runs in a process with the right environment; returns its exit status."""
    environment.ensure(__name__, arguments, environment.compiling(os.environ))
    # Imported late, because jax reads the environment once.
    from experiments.benchmarks.compiled import command

    return command.main(arguments)
