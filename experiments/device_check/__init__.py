"""jaxnorm on the GPU of this machine: whether it is right, and its times beside flax's.

Needs jax, flax and a GPU, and six minutes at most. First every norm, and every formula for
the mean and variance, is compared with float64. Then norms are timed beside flax and a
plain copy, and so are training steps of ResNet-50 and of a transformer. What matters most
comes first: what does not fit into --budget is left out, and the result says so.
"""

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Runs the check; the status of the process."""
    # Only now: the report of a result needs no jax.
    from experiments.device_check import command

    return command.main(arguments)
