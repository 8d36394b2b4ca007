"""How exact y and dx of batch norm are as the mean grows, beside flax, haiku and others.

In train mode, on data N(μ, 1), compared with the formulas in float64 on the same numbers:
in float32 for |μ|/σ up to 10⁶, and on 16-bit data. There y is float32 in every library that
supports it, which shows the error of the statistics instead of the rounding of y.
"""

from collections.abc import Sequence

from experiments.benchmarks import environment


def main(arguments: Sequence[str]) -> int:
    """Runs the study in a process with the right environment; returns its status."""
    environment.ensure(__name__, arguments)
    # Imported late, because these modules read the environment once, when imported.
    from experiments.benchmarks.accuracy import command

    return command.main(arguments)
