"""Times normalisation against flax, haiku, equinox, keras, torch and a plain copy.

All implementations take turns in one process: each round calls every one of them once, in a
new order, and medians over rounds are reported. Beside the times, the report shows the size
of the residuals, XLA's temporaries, the compile time and the error against float64. An
interrupted run resumes from the case where it stopped.
"""

from collections.abc import Sequence

from experiments.benchmarks import environment


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmarks in a process with the right environment; returns its status."""
    environment.ensure(__name__, arguments)
    # Imported late, because these modules read the environment once, when imported.
    from experiments.benchmarks import command

    return command.main(arguments)
