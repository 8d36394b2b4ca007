"""jaxnorm on the GPU of this machine: its correctness, and its times beside flax's.

Needs jax, flax and a GPU, and takes six minutes at most. First every norm, and every
formula for the mean and variance, is compared with float64. Then norms are timed beside
flax and a plain copy, and so are training steps of ResNet-50 and of a transformer. The most
important parts come first; those that do not fit into --budget are left out, and the result
lists them.
"""

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Runs the check; returns the exit status."""
    # Imported late, because the report of a result needs no jax.
    from experiments.device_check import command

    return command.main(arguments)
