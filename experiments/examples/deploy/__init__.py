"""A residual network folded for deployment: what it costs before and after.

It is trained on digits, and its batch norms are then folded into the convolutions before
them. The network that results is compared with the one it was: on every image of the test
data, in float32 and in bfloat16; by the operations of its compiled program; and by the time
it takes, in turns with the other.
"""

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """The status of the process: 0, or 2 if refused, or 130 if interrupted."""
    # Only now: a part of the package can be imported without all that it runs.
    from experiments.examples.deploy import command

    return command.STUDY(arguments)
