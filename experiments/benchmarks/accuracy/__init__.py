"""How exact y and dx of batch norm are as the mean grows, beside flax, haiku and others.

In train mode, on data N(μ, 1), against the formulas in float64 on the same numbers: in
float32 for |μ|/σ up to 10⁶, and on 16-bit data with a float32 y wherever a library has
one, so that it is the error of the statistics that is seen and not the rounding of y.
"""

from collections.abc import Sequence

from experiments.benchmarks import environment


def main(arguments: Sequence[str]) -> int:
    """Runs the study in a process with the right environment; its exit status."""
    environment.ensure(__name__, arguments)
    # Only now: what is imported here reads the environment once.
    from experiments.benchmarks.accuracy import command

    return command.main(arguments)
