"""Folding: merges a norm with fixed statistics into an adjacent dense or conv layer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxnorm._core.dtypes import accumulation_dtype, as_floating
from jaxnorm._core.normalization import inverse_deviation
from jaxnorm.statistics.averages import or_reader
from jaxnorm.statistics.estimator import Estimator, State, as_statistics
from jaxnorm.statistics.state_names import named

Padding = str | int | Sequence[Any]


class Affine(NamedTuple):
    """A norm in evaluation: y = scale·(x − centre) + shift, for each feature.

    Attributes:
      scale: γ/√(σ² + ε), of shape (C,), in at least float32.
      centre: μ, same shape and dtype.
      shift: β, same shape and dtype.

    >>> affine = Affine(scale=jnp.array([2.0]), centre=jnp.array([5.0]), shift=jnp.ones(1))
    >>> affine.scale * (jnp.array([6.0]) - affine.centre) + affine.shift
    Array([3.], dtype=float32)
    """

    scale: Float[Array, " C"]
    centre: Float[Array, " C"]
    shift: Float[Array, " C"]


def as_affine(
    statistics: State,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    epsilon: float = 1e-5,
    estimator: Estimator[State] | None = None,
) -> Affine:
    """Returns `batch_norm(x, statistics, scale, bias, train=False)` as an affine function.

        y = γ(x − μ)/√(σ² + ε) + β

    As in `batch_norm`, the output is β for any x where σ² + ε is 0.

    Args:
      statistics: the estimator's state for C features.
      scale: γ of shape (C,); defaults to 1.
      bias: β of shape (C,); defaults to 0.
      epsilon: added to the variance, ≥ 0.
      estimator: estimator that the statistics belong to; defaults to `ema(0.99)`.

    Raises:
      TypeError: statistics are not a state of the estimator.
      ValueError: epsilon is negative, or an array does not have shape (C,).

    Source: Ioffe & Szegedy 2015 (arXiv:1502.03167), algorithm 2, line 11.

    >>> from jaxnorm import Statistics
    >>> statistics = Statistics(mean=jnp.array([1.0]), var=jnp.array([4.0]))
    >>> as_affine(statistics, scale=jnp.array([3.0]), epsilon=0.0).scale
    Array([1.5], dtype=float32)
    """
    if epsilon < 0:
        raise ValueError(f"epsilon={epsilon} is negative; give a value ≥ 0.")
    shape = jnp.shape(named(statistics).get("mean", 0.0))
    follower = or_reader(estimator, update=False)
    _, mean, var = follower.read(as_statistics(statistics, follower, shape))
    gain = jnp.ones_like(mean) if scale is None else _expected(scale, "scale", shape)
    shift = jnp.zeros_like(mean) if bias is None else _expected(bias, "bias", shape)
    mean, var, gain, shift = _accumulating(mean, var, gain, shift)
    return Affine(gain * inverse_deviation(var, epsilon), mean, shift)


def fold_output(
    kernel: ArrayLike,
    bias: ArrayLike | None,
    affine: Affine,
    *,
    layout: str | None = None,
    groups: int = 1,
) -> tuple[Array, Array]:
    """Returns the kernel and bias of the layer that computes x ↦ affine(layer(x)).

        W′ = scale·W,  b′ = scale·(b − centre) + shift

    Exact for every dense and conv layer, including transposed ones, with any strides,
    dilation and padding, because the norm acts on each output feature separately.

    Args:
      kernel: the weights of the layer.
      bias: array of shape (C,) for C output features; defaults to 0.
      affine: the norm, for the C features.
      layout: a letter per axis of the kernel, with I for the Input and O for the Output
        features: "OI" and "OIHW" in torch, "IOHW" for its transposed layers. Defaults to
        flax's layout, whose last two axes are I and O, as in "IO" and "HWIO".
      groups: number of groups of features. The kernel has the features of one group along
        I, or for torch's transposed layers along O.

    Returns:
      (kernel, bias), each in its original dtype; a new bias has the dtype of the kernel.
      They are computed in at least float32.

    Raises:
      TypeError: the kernel does not have a real floating dtype.
      ValueError: the layout does not describe the kernel; features do not fit.

    Source: Ioffe & Szegedy 2015 (arXiv:1502.03167), algorithm 2, line 11.

    >>> affine = Affine(jnp.array([2.0]), jnp.array([5.0]), jnp.array([1.0]))
    >>> fold_output(jnp.array([[3.0]]), None, affine)
    (Array([[6.]], dtype=float32), Array([-9.], dtype=float32))
    """
    kernel = as_floating(kernel, "kernel")
    size = affine.scale.shape
    given = jnp.zeros(size, kernel.dtype) if bias is None else _expected(bias, "bias", size)
    fine, old, scale, centre, shift = _accumulating(kernel, given, *affine)
    into, out = _axes_of(kernel, layout)
    scaled = fine * _over(kernel, scale, out, into, groups, "output")
    # Subtract before scaling: b and μ may be close, and the scale very large.
    moved = scale * (old - centre) + shift
    return scaled.astype(kernel.dtype), moved.astype(given.dtype)


def fold_input(
    kernel: ArrayLike,
    bias: ArrayLike | None,
    affine: Affine,
    *,
    layout: str | None = None,
    groups: int = 1,
    padding: Padding = "VALID",
) -> tuple[Array, Array]:
    """Returns the kernel and bias of the layer that computes x ↦ layer(affine(x)).

        W′ = W·scale,  b′ = b + Σ W·(shift − scale·centre)

    summed over the input features and the kernel window. Exact for dense layers, and for
    conv layers that are not transposed and do not pad with zeros: padding is 0 after the
    norm, but the norm maps an x of 0 to shift − scale·centre.

    Args:
      kernel: the weights of the layer.
      bias: array of shape (output features,); defaults to 0.
      affine: the norm, for the layer's input features.
      layout: layout of the kernel, as for `fold_output`.
      groups: number of groups of features, as for `fold_output`.
      padding: padding of the conv layer, as in flax: "VALID", "CIRCULAR", "REFLECT" or 0,
        or "SAME" or "CAUSAL" with a kernel of size 1.

    Returns:
      (kernel, bias), as for `fold_output`.

    Raises:
      TypeError: the kernel does not have a real floating dtype.
      ValueError: the layout does not describe the kernel; features do not fit; the layer
        pads with zeros.

    >>> affine = Affine(jnp.array([2.0]), jnp.array([5.0]), jnp.array([1.0]))
    >>> fold_input(jnp.array([[3.0]]), None, affine)
    (Array([[6.]], dtype=float32), Array([-27.], dtype=float32))
    """
    kernel = as_floating(kernel, "kernel")
    into, out = _axes_of(kernel, layout)
    window = [n for axis, n in enumerate(kernel.shape) if axis not in (into, out)]
    if pads_with_zeros(padding, window):
        raise ValueError(
            f"a layer with padding={padding!r} and a kernel of size {tuple(window)} pads "
            "with zeros, so the norm before it cannot be folded into it; use padding "
            "'VALID', 'CIRCULAR' or 'REFLECT', or keep the norm."
        )
    if groups > 1 and kernel.shape[into] == len(affine.scale):
        raise ValueError(
            f"a kernel of shape {kernel.shape} with all {len(affine.scale)} input features "
            f"and groups={groups} belongs to a transposed layer, and a norm before one "
            "cannot be folded into it; keep the norm."
        )
    size = (kernel.shape[out],)
    given = jnp.zeros(size, kernel.dtype) if bias is None else _expected(bias, "bias", size)
    fine, old, scale, centre, shift = _accumulating(kernel, given, *affine)
    scaled = fine * _over(kernel, scale, into, out, groups, "input")
    offset = fine * _over(kernel, shift - scale * centre, into, out, groups, "input")
    moved = old + jnp.sum(offset, [axis for axis in range(kernel.ndim) if axis != out])
    return scaled.astype(kernel.dtype), moved.astype(given.dtype)


def pads_with_zeros(padding: Padding, window: Sequence[int]) -> bool:
    """Whether a conv layer with a kernel of this size may pad its input with zeros."""
    if isinstance(padding, str):
        inside = padding.upper() in ("VALID", "CIRCULAR", "REFLECT")
        return not inside and any(size > 1 for size in window)
    if isinstance(padding, Sequence):
        return any(pads_with_zeros(each, window) for each in padding)
    return padding != 0


def _expected(values: ArrayLike, name: str, shape: tuple[int, ...]) -> Array:
    """Returns the values as an array, or raises if they do not have this shape."""
    values = as_floating(values, name)
    if values.shape != shape:
        raise ValueError(
            f"{name} has shape {values.shape}, but {shape} is expected: one value per "
            "feature."
        )
    return values


def _accumulating(*arrays: Array) -> tuple[Array, ...]:
    """Casts the arrays to a common dtype, at least float32."""
    dtype = accumulation_dtype(*(each.dtype for each in arrays))
    return tuple(each.astype(dtype) for each in arrays)


def _axes_of(kernel: Array, layout: str | None) -> tuple[int, int]:
    """Returns the axes of the input and the output features."""
    if layout is None and kernel.ndim >= 2:
        return kernel.ndim - 2, kernel.ndim - 1
    letters = layout or "IO"
    once = letters.count("I") == letters.count("O") == 1
    if not once or len(letters) != kernel.ndim:
        raise ValueError(
            f"layout={layout!r} does not describe a kernel of shape {kernel.shape}; give "
            "one letter per axis, with I for input and O for output features, such as "
            "'HWIO'."
        )
    return letters.index("I"), letters.index("O")


def _over(
    kernel: Array, values: Array, along: int, across: int, groups: int, name: str
) -> Array:
    """Reshapes per-feature values to multiply a kernel; the features lie along `along`.

    If the kernel has only the features of one group along that axis, the group depends on
    the index along the axis of the other features, `across`.
    """
    size, others = kernel.shape[along], kernel.shape[across]
    features = jnp.shape(values)
    whole = features == (size,)
    if not whole and (features != (size * groups,) or others % groups):
        raise ValueError(
            f"a norm of {features} features does not fit a kernel of shape {kernel.shape} "
            f"with {size} {name} features along axis {along} and groups={groups}; check "
            "the layout and the groups."
        )
    axes = [axis for axis in range(kernel.ndim) if axis != along]
    if whole:
        return jnp.expand_dims(values, axes)
    table = jnp.repeat(values.reshape(groups, size), others // groups, axis=0)
    table = table if across < along else table.T
    return jnp.expand_dims(table, [axis for axis in axes if axis != across])
