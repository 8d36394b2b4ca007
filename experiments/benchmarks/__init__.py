"""Normalisation timed beside flax, haiku, equinox, keras, torch and a plain copy.

All implementations take turns in one process: a round calls each of them once, in an
order of its own, and medians over rounds are reported. Beside the times stand what is
kept from forward to backward, XLA's temporaries, the compile time and the error against
float64. A run that is stopped goes on from the case it was at.
"""

from collections.abc import Sequence

from experiments.benchmarks import environment


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmarks in a process with the right environment; its exit status."""
    environment.ensure(__name__, arguments)
    # Only now: what is imported here reads the environment once.
    from experiments.benchmarks import command

    return command.main(arguments)
