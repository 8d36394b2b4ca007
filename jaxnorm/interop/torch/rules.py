"""Rules for `from_torch` and `to_torch`, for what the shapes of arrays do not show."""

from collections.abc import Sequence

from jaxnorm.interop.layouts import (
    Layout,
    features_last,
    flattened_rows,
    permuted,
    positions,
)
from jaxnorm.interop.plan import Rule, Shape


def flattened(*shape: int) -> Rule:
    """A rule for a linear layer after a flatten: reorders its kernel from C·H·W to H·W·C.

    Args:
      *shape: the shape that torch flattens, without the batch: C, H, W.

    >>> from jaxnorm.interop.torch import from_torch
    >>> state = {"fc.weight": jnp.arange(6.0)[None]}
    >>> template = {"fc": {"kernel": jnp.zeros((6, 1))}}
    >>> variables, _ = from_torch(state, template, rules={"fc": flattened(2, 3)})
    >>> variables["fc"]["kernel"].ravel()
    Array([0., 3., 1., 4., 2., 5.], dtype=float32)
    """
    return Rule(lambda source, target: flattened_rows(shape))


def transposed(*, transpose_kernel: bool = False) -> Rule:
    """A rule for transposed convolutions: torch's kernel (in, out, H, W) in Flax's layout.

    Torch flips the kernel; Flax's ConvTranspose does so only with transpose_kernel=True.
    The padding differs too, see `transposed_padding`; and ConvTranspose has no groups.

    Args:
      transpose_kernel: as in Flax's ConvTranspose.

    >>> from jaxnorm.interop.torch import from_torch
    >>> state = {"up.weight": jnp.array([[[1.0, 2.0, 3.0]]])}
    >>> template = {"up": {"kernel": jnp.zeros((3, 1, 1))}}
    >>> variables, _ = from_torch(state, template, rules={"up": transposed()})
    >>> variables["up"]["kernel"].ravel()
    Array([3., 2., 1.], dtype=float32)
    """

    def layout(source: Shape, target: Shape) -> Layout:
        rank = len(source)
        if rank < 3:
            raise ValueError("a convolution's kernel has spatial axes; remove the rule")
        spatial, letters = range(2, rank), positions(rank)
        if transpose_kernel:
            return permuted(f"IO{letters} → {letters}OI", (*spatial, 1, 0))
        flipped = tuple(range(rank - 2))
        return permuted(f"IO{letters} → {letters}IO, flipped", (*spatial, 0, 1), flipped)

    return Rule(layout)


def channels_last() -> Rule:
    """A rule for a norm over (C, …): converts its scale and bias to (…, C).

    >>> from jaxnorm.interop.torch import from_torch
    >>> state = {"norm.weight": jnp.zeros((3, 8, 8))}
    >>> template = {"norm": {"scale": jnp.ones((8, 8, 3))}}
    >>> variables, _ = from_torch(state, template, rules={"norm": channels_last()})
    >>> variables["norm"]["scale"].shape
    (8, 8, 3)
    """
    return Rule(features_last)


def transposed_padding(
    kernel_size: Sequence[int],
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> list[tuple[int, int]]:
    """The padding for Flax's ConvTranspose that corresponds to these arguments of torch.

        d·(k − 1) − p  before, and that plus the output_padding after

    Args:
      kernel_size: the size k along each spatial axis.
      padding: p, as in torch.
      output_padding: as in torch.
      dilation: d, as in torch.

    >>> transposed_padding((4, 3), padding=1)
    [(2, 2), (1, 1)]
    """
    each = [
        [value] * len(kernel_size) if isinstance(value, int) else value
        for value in (padding, output_padding, dilation)
    ]
    before = [d * (k - 1) - p for k, p, _, d in zip(kernel_size, *each, strict=True)]
    return [(low, low + more) for low, more in zip(before, each[1], strict=True)]
