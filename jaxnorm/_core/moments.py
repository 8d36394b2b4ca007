"""Moments and their merge: the only place where statistics are combined.

A mask, a shard, a microbatch or a group of channels is not a special case: each is a
`Moments`, and `merge` makes one of several.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxnorm._core.axes import Axis, canonical_axes, take
from jaxnorm._core.dtypes import accumulation_dtype


class Moments(NamedTuple):
    """The first two moments of weighted samples; a commutative monoid under `merge`.

    All three have one shape, that of the axes kept by `measure`, and one dtype, at
    least float32.

    Attributes:
      count: the sum of the weights, or the number of samples; 0 is "nothing seen".
      mean: Σw·x / Σw, and 0 where count is 0.
      var: the biased variance Σw·(x−mean)² / Σw, and 0 where count is 0.
    """

    count: Float[Array, "*kept"]  # pyright: ignore[reportIncompatibleMethodOverride]
    mean: Float[Array, "*kept"]
    var: Float[Array, "*kept"]

    @classmethod
    def empty(
        cls, shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32
    ) -> "Moments":
        """The moments of no samples, the identity of `merge`.

        >>> Moments.empty((2,)).count
        Array([0., 0.], dtype=float32)
        """
        return cls(*(jnp.zeros(shape, dtype) for _ in cls._fields))


def pool(moments: Moments, axes: Axis) -> Moments:
    """Merges the moments that lie along array axes into those of all their samples.

    With n = Σnᵢ (the pairwise update of Chan et al. 1983, for any number of parts),

        μ = Σ nᵢ·μᵢ / n,  σ² = Σ nᵢ·(σᵢ² + (μᵢ − μ)²) / n.

    Args:
      moments: Moments of one shape.
      axes: the axes to merge, one or several.

    >>> from jaxnorm import measure
    >>> parts = measure(jnp.arange(6.0).reshape(2, 3), reduction_axes=1)
    >>> pool(parts, axes=0).var, jnp.var(jnp.arange(6.0))
    (Array(2.9166667, dtype=float32), Array(2.9166667, dtype=float32))
    """
    axes = canonical_axes(axes, moments.count.ndim)
    count = total_of_few(moments.count, axes)
    # A share is at most 1, so that no sum overflows where the mean itself does not.
    share = moments.count / jnp.where(count > 0, count, 1)
    mean = total_of_few(share * moments.mean, axes)
    # The shares add up to 1 only up to rounding, which costs the mean |μ|·eps; one more
    # step removes it, unless two of the largest means are so far apart that it overflows.
    off = total_of_few(share * (moments.mean - mean), axes)
    mean = jnp.where(jnp.isfinite(mean) & ~jnp.isfinite(off), mean, mean + off)
    spread = jnp.square(moments.mean - mean)
    var = total_of_few(share * (moments.var + spread), axes)
    return Moments(*(jnp.squeeze(each, axes) for each in (count, mean, var)))


def total_of_few(values: Float[Array, "..."], axes: tuple[int, ...]) -> Float[Array, "..."]:
    """The sum over axes, kept at size 1, where there is little to add.

    As a product with ones, for which XLA on a CPU has less to set up than for a sum: that
    takes a third off the forward pass of group norm on 64×14×14×256.

    >>> total_of_few(jnp.arange(6.0).reshape(2, 3), (1,))
    Array([[ 3.],
           [12.]], dtype=float32)
    """
    ones = jnp.ones(take(values.shape, axes), values.dtype)
    contracted = (axes, tuple(range(len(axes))))
    total = jnp.tensordot(values, ones, contracted, precision=lax.Precision.HIGHEST)
    return jnp.expand_dims(total, axes)


def merge(*moments: Moments) -> Moments:
    """The moments of all samples together, from the moments of their parts.

    Up to rounding it is associative and commutative, and `Moments.empty()` changes nothing.
    All have one shape, but for those of shape (), which stand for every feature.

    >>> from jaxnorm import measure
    >>> x = jnp.array([1.0, 2.0, 4.0, 9.0])
    >>> float(merge(measure(x[:1], 0), measure(x[1:], 0)).var), float(jnp.var(x))
    (9.5, 9.5)
    """
    if not moments:
        raise ValueError(
            "merge was given no Moments; give at least one, or start with Moments.empty()."
        )
    shapes = [each.count.shape for each in moments]
    featured = {shape for shape in shapes if shape}
    if len(featured) > 1:
        raise ValueError(
            f"merge was given Moments of the shapes {shapes}; they must be of the same "
            "features, as measured over the same axes, or of none."
        )
    shape = featured.pop() if featured else ()
    dtype = accumulation_dtype(*(each.count.dtype for each in moments))
    alike = (
        [jnp.broadcast_to(leaf, shape).astype(dtype) for leaf in each] for each in moments
    )
    return pool(Moments(*map(jnp.stack, zip(*alike, strict=True))), axes=0)


class Finer(NamedTuple):
    """Moments whose mean is kept in two parts, for a long chain of merges.

    Attributes:
      moments: the Moments, their mean rounded.
      rest: what the rounding of the mean has left out.
    """

    moments: Moments
    rest: Float[Array, "*kept"]

    @classmethod
    def of(cls, moments: Moments) -> "Finer":
        """Those of one part, taken as they are."""
        return cls(moments, jnp.zeros_like(moments.mean))


def merge_finer(one: Finer, another: Finer) -> Finer:
    """The merge of two, whose mean does not lose its rounding (Knuth's two-sum).

    That of a plain `merge` is half an ulp of μ off, and σ² by as much of σ·|μ|; which adds
    up where many are merged whose means are in order.

    >>> parts = [Finer.of(Moments(jnp.ones(()), mean, jnp.zeros(())))
    ...          for mean in (jnp.array(1.0), jnp.array(1.0 + 2**-23))]
    >>> float(merge_finer(*parts).rest) * 2**24
    1.0
    """
    # The larger goes first, and is moved by its distance from the other: shares that add up
    # to 1 but for rounding would walk away from parts that are all alike.
    larger = another.moments.count > one.moments.count
    one, another = (
        jax.tree.map(functools.partial(jnp.where, larger), *pair)
        for pair in ((another, one), (one, another))
    )
    (n, mean, var), (m, _, other_var) = one.moments, another.moments
    count = n + m
    kept, added = (each / jnp.where(count > 0, count, 1) for each in (n, m))
    other_mean = another.moments.mean
    apart = (other_mean - mean) + (another.rest - one.rest)
    step = added * apart
    moved = mean + step
    taken = moved - mean
    lost = (mean - (moved - taken)) + (step - taken)
    # Of the largest means the distance alone may overflow.
    far = jnp.isinf(apart) & jnp.isfinite(mean) & jnp.isfinite(other_mean)
    moved = jnp.where(far, kept * mean + added * other_mean, moved)
    lost = jnp.where(far, 0, lost)
    # Where one is of nothing, their distance means nothing, and its square may overflow.
    both = (kept > 0) & (added > 0)
    spread = kept * added * jnp.square(jnp.where(both, apart, 0))
    merged = Moments(count, moved, var + (added * (other_var - var) + spread))
    return Finer(merged, one.rest + lost)


def merge_into(kept: Moments, moments: Moments) -> Moments:
    """The merge of one batch into many, in the dtypes of `kept`, as a scan wants it.

    Batches that are all alike leave it as it is.
    """
    dtype = accumulation_dtype(kept.count.dtype, moments.count.dtype)
    old, batch = (
        Finer.of(jax.tree.map(lambda leaf: leaf.astype(dtype), each))
        for each in (kept, moments)
    )
    merged, _ = merge_finer(old, batch)
    return jax.tree.map(lambda new, old: new.astype(old.dtype), merged, kept)


def unbiased_variance(moments: Moments) -> Float[Array, "..."]:
    """Bessel's n/(n − 1)·σ², where there are two samples or more.

    Below two, which weights may add up to, the factor is n: it would else be without bound
    near one, where a rounding of the weights decides over the result.

    >>> float(unbiased_variance(Moments(jnp.array(4.0), jnp.array(0.0), jnp.array(3.0))))
    4.0
    """
    count, _, var = moments
    return var * jnp.maximum(count, 1) / jnp.maximum(count - 1, 1)


def synchronize(
    moments: Moments,
    axis_name: str | tuple[str, ...] | None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
) -> Moments:
    """The moments of the samples of all devices along a mapped axis, on each of them.

    Devices may hold different counts, and none: it is a merge, not a mean of means. Up to
    15 devices it is one message of 3 numbers for each mean and device, from 16 on two of 2
    for each mean.

    Args:
      moments: this device's Moments.
      axis_name: the name, or names, given to vmap, pmap or the mesh of shard_map; None
        leaves the moments as they are.
      axis_index_groups: merge within these groups of indices only. JAX has them under
        pmap, and under shard_map with check_vma=False.

    >>> x = jnp.array([[1.0, 2.0], [3.0, 6.0]])  # two devices, two samples each
    >>> from jaxnorm import measure
    >>> local = lambda x: synchronize(measure(x, reduction_axes=0), "devices").mean
    >>> jax.vmap(local, axis_name="devices")(x)
    Array([3., 3.], dtype=float32)
    """
    check_axis_groups(axis_name, axis_index_groups)
    if axis_name is None:
        return moments
    groups = axis_index_groups
    devices = len(groups[0]) if groups else lax.axis_size(axis_name)
    add = functools.partial(lax.psum, axis_name=axis_name, axis_index_groups=groups)
    if devices >= MANY_DEVICES:
        return _merged_by_sums(moments, add)
    # Each device fills its own slot among empty Moments, so that one sum is a gather.
    # all_gather itself is either not known to be replicated under shard_map's check,
    # or not differentiated rightly without it.
    mine = jnp.stack(moments)
    slots = jnp.zeros((lax.axis_size(axis_name), *mine.shape), mine.dtype)
    slots = slots.at[lax.axis_index(axis_name)].set(mine)
    return pool(Moments(*jnp.unstack(add(slots), axis=1)), axes=0)


# From so many on, two messages of a fixed size are less than one that grows with the
# devices: 4 numbers for each mean in place of 3 of each device.
MANY_DEVICES = 16


def _merged_by_sums(moments: Moments, add: Callable[[Array], Array]) -> Moments:
    """What `pool` makes of the moments of all devices, by two sums over them."""
    count, mean, var = moments
    count, total = add(jnp.stack([count, count * mean]))
    near = total / jnp.where(count > 0, count, 1)
    share = moments.count / jnp.where(count > 0, count, 1)
    apart = mean - near
    off, square = add(jnp.stack([share * apart, share * (var + jnp.square(apart))]))
    return Moments(count, near + off, jnp.maximum(square - jnp.square(off), 0))


def check_axis_groups(axis_name: Any, axis_index_groups: Any) -> None:
    """Raises a ValueError for groups of indices of no axis."""
    if axis_name is None and axis_index_groups is not None:
        raise ValueError(
            f"axis_index_groups={axis_index_groups}, but there is no axis whose "
            "indices they group; name it with axis_name=."
        )
