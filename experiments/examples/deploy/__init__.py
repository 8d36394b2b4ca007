"""A residual network folded for deployment: its cost before and after.

The network is trained on digits, and its batch norms are then folded into the convolutions
before them. The folded network is compared with the original: on every test image, in
float32 and in bfloat16; by the operations of the compiled program; and by run time, where
the two take turns.
"""

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0, 2 if refused, 130 if interrupted."""
    # Imported late, so that parts of the package can be imported without its dependencies.
    from experiments.examples.deploy import command

    return command.STUDY(arguments)
