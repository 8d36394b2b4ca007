"""Moments and their merge: the only place where statistics are combined.

Masks, shards, microbatches and groups of channels are not special cases: the statistics of
each are `Moments`, and `merge` combines them.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxnorm._core.axes import Axis, canonical_axes, sizes_of
from jaxnorm._core.dtypes import accumulation_dtype


class Moments(NamedTuple):
    """The first two moments of weighted samples; a commutative monoid under `merge`.

    All three arrays have the shape of the axes that `measure` does not reduce, and one
    dtype, at least float32.

    Attributes:
      count: the sum of the weights, or the number of samples; 0 means "no data yet".
      mean: Σw·x / Σw, or 0 where count is 0.
      var: the biased variance Σw·(x−mean)² / Σw, or 0 where count is 0. (The state of
        `population` starts at variance 1, with which it is read; there it has no weight.)
    """

    count: Float[Array, "*kept"]  # pyright: ignore[reportIncompatibleMethodOverride]
    mean: Float[Array, "*kept"]
    var: Float[Array, "*kept"]

    @classmethod
    def empty(
        cls, shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32
    ) -> "Moments":
        """Returns the moments of no samples, the identity of `merge`.

        >>> Moments.empty((2,)).count
        Array([0., 0.], dtype=float32)
        """
        return cls(*(jnp.zeros(shape, dtype) for _ in cls._fields))


def pool(moments: Moments, axes: Axis) -> Moments:
    """Merges moments along array axes into the moments of all their samples.

    With n = Σnᵢ (the pairwise update of Chan et al. 1983, for any number of parts),

        μ = Σ nᵢ·μᵢ / n,  σ² = Σ nᵢ·(σᵢ² + (μᵢ − μ)²) / n.

    Args:
      moments: Moments, all of whose arrays have one shape.
      axes: the axis or axes to merge.

    Returns:
      Moments with the shape of the axes not merged.

    >>> from jaxnorm import measure
    >>> parts = measure(jnp.arange(6.0).reshape(2, 3), reduction_axes=1)
    >>> pool(parts, axes=0).var, jnp.var(jnp.arange(6.0))
    (Array(2.9166667, dtype=float32), Array(2.9166667, dtype=float32))
    """
    axes = canonical_axes(axes, moments.count.ndim)
    count = total_of_few(moments.count, axes)
    # Shares are at most 1, so that no sum overflows unless the mean itself does.
    share = moments.count / jnp.where(count > 0, count, 1)
    mean = total_of_few(share * moments.mean, axes)
    # The shares add up to 1 only up to rounding, an error of |μ|·eps in the mean; one more
    # step removes it, unless it overflows between two of the largest means.
    off = total_of_few(share * (moments.mean - mean), axes)
    mean = jnp.where(jnp.isfinite(mean) & ~jnp.isfinite(off), mean, mean + off)
    spread = jnp.square(moments.mean - mean)
    var = total_of_few(share * (moments.var + spread), axes)
    return Moments(*(jnp.squeeze(each, axes) for each in (count, mean, var)))


def total_of_few(values: Float[Array, "..."], axes: tuple[int, ...]) -> Float[Array, "..."]:
    """Returns the sum over axes, kept at size 1, for few elements.

    Computed as a product with ones, which costs XLA on a CPU less overhead than a sum: this
    takes a third off the forward pass of group norm on 64×14×14×256.

    >>> total_of_few(jnp.arange(6.0).reshape(2, 3), (1,))
    Array([[ 3.],
           [12.]], dtype=float32)
    """
    ones = jnp.ones(sizes_of(values.shape, axes), values.dtype)
    contracted = (axes, tuple(range(len(axes))))
    total = jnp.tensordot(values, ones, contracted, precision=lax.Precision.HIGHEST)
    return jnp.expand_dims(total, axes)


def merge(*moments: Moments) -> Moments:
    """Returns the moments of all samples together, from the moments of their parts.

    Up to rounding, merging is associative and commutative, and `Moments.empty()` changes
    nothing. All Moments must have the same shape, except that shape () broadcasts to all
    features.

    Raises:
      ValueError: no Moments are given, or their shapes differ.

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
            "features, as measured over the same axes, or have shape ()."
        )
    shape = featured.pop() if featured else ()
    dtype = accumulation_dtype(*(each.count.dtype for each in moments))
    alike = (
        [jnp.broadcast_to(leaf, shape).astype(dtype) for leaf in each] for each in moments
    )
    return pool(Moments(*map(jnp.stack, zip(*alike, strict=True))), axes=0)


class Finer(NamedTuple):
    """Moments with a mean in two parts, for a long chain of merges.

    Attributes:
      moments: the Moments, with the mean rounded.
      rest: the rounding error of the mean.
    """

    moments: Moments
    rest: Float[Array, "*kept"]

    @classmethod
    def of(cls, moments: Moments) -> "Finer":
        """Wraps the moments of one part, without a rest."""
        return cls(moments, jnp.zeros_like(moments.mean))


def merge_finer(one: Finer, another: Finer) -> Finer:
    """Merges two parts, keeping the rounding error of the mean (Knuth's two-sum).

    After a plain `merge`, the mean is off by half an ulp of μ, and σ² by as much of σ·|μ|;
    this adds up when many parts with sorted means are merged.

    >>> parts = [Finer.of(Moments(jnp.ones(()), mean, jnp.zeros(())))
    ...          for mean in (jnp.array(1.0), jnp.array(1.0 + 2**-23))]
    >>> float(merge_finer(*parts).rest) * 2**24
    1.0
    """
    # The larger goes first and is moved towards the other by a fraction of their distance:
    # a sum weighted with rounded shares would drift away from parts that are all alike.
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
    # Between the largest means, the distance may overflow although the mean does not.
    far = jnp.isinf(apart) & jnp.isfinite(mean) & jnp.isfinite(other_mean)
    moved = jnp.where(far, kept * mean + added * other_mean, moved)
    lost = jnp.where(far, 0, lost)
    # If one has no samples, the distance is meaningless, and its square may overflow.
    both = (kept > 0) & (added > 0)
    spread = kept * added * jnp.square(jnp.where(both, apart, 0))
    merged = Moments(count, moved, var + (added * (other_var - var) + spread))
    return Finer(merged, one.rest + lost)


def merge_into(kept: Moments, moments: Moments) -> Moments:
    """Merges one batch into many, in the dtypes of `kept`, as a scan requires.

    If all batches are alike, the moments do not change.
    """
    dtype = accumulation_dtype(kept.count.dtype, moments.count.dtype)
    old, batch = (
        Finer.of(jax.tree.map(lambda leaf: leaf.astype(dtype), each))
        for each in (kept, moments)
    )
    merged, _ = merge_finer(old, batch)
    return jax.tree.map(lambda new, old: new.astype(old.dtype), merged, kept)


def unbiased_variance(moments: Moments) -> Float[Array, "..."]:
    """Returns Bessel's n/(n − 1)·σ², for two samples or more.

    If the weights add up to less than two, the factor is max(n, 1): otherwise it would be
    unbounded near one, where the rounding of the weights would determine the result.

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
    """Merges the moments of all devices along a mapped axis, and returns them on each.

    Devices may hold different counts, or no samples: this is a merge, not a mean of means.
    Up to 15 devices exchange one message of 3 numbers per mean and device; 16 or more
    exchange two messages of 2 numbers per mean.

    Args:
      moments: this device's Moments.
      axis_name: the name, or names, given to vmap, pmap or the mesh of shard_map; None
        leaves the moments as they are.
      axis_index_groups: groups of indices along axis_name; moments are merged within each
        group only. JAX supports them under pmap, and under shard_map with check_vma=False.

    Returns:
      The merged Moments, with the shape of the input.

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
    # The result of all_gather is not known to be replicated under shard_map's check, and
    # its derivative is wrong without the check.
    mine = jnp.stack(moments)
    slots = jnp.zeros((lax.axis_size(axis_name), *mine.shape), mine.dtype)
    slots = slots.at[lax.axis_index(axis_name)].set(mine)
    return pool(Moments(*jnp.unstack(add(slots), axis=1)), axes=0)


# From this many devices on, two messages of fixed size cost less than one that grows with
# the number of devices: 4 numbers per mean instead of 3 per mean and device.
MANY_DEVICES = 16


def _merged_by_sums(moments: Moments, add: Callable[[Array], Array]) -> Moments:
    """Merges the moments of all devices like `pool`, by two sums over the devices."""
    count, mean, var = moments
    count, total = add(jnp.stack([count, count * mean]))
    near = total / jnp.where(count > 0, count, 1)
    share = moments.count / jnp.where(count > 0, count, 1)
    apart = mean - near
    off, square = add(jnp.stack([share * apart, share * (var + jnp.square(apart))]))
    return Moments(count, near + off, jnp.maximum(square - jnp.square(off), 0))


def check_axis_groups(axis_name: Any, axis_index_groups: Any) -> None:
    """Raises a ValueError if index groups are given without an axis."""
    if axis_name is None and axis_index_groups is not None:
        raise ValueError(
            f"axis_index_groups={axis_index_groups}, but axis_name= is missing; give the "
            "name of the axis whose indices they group."
        )
