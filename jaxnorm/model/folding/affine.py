"""Folding: a norm with fixed statistics and the dense or conv layer beside it, made one."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxnorm._core.dtypes import accumulation_dtype, as_floating
from jaxnorm._core.normalization import inverse_deviation
from jaxnorm.statistics.averages import or_default
from jaxnorm.statistics.estimator import Estimator, State, as_statistics
from jaxnorm.statistics.state_names import named

Padding = str | int | Sequence[Any]


class Affine(NamedTuple):
    """y = scale·(x − centre) + shift, for each feature: what a norm is in evaluation.

    Attributes:
      scale: γ/√(σ² + ε), of shape (C,), in at least float32.
      centre: μ, likewise.
      shift: β, likewise.

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
    """What `batch_norm(x, statistics, scale, bias, train=False)` does to each feature.

        y = γ(x − μ)/√(σ² + ε) + β

    As there, a feature whose σ² + ε is 0 gives β, whatever x is.

    Args:
      statistics: the estimator's state, of C features.
      scale: γ of shape (C,); None is 1.
      bias: β of shape (C,); None is 0.
      epsilon: added to the variance, ≥ 0.
      estimator: what reads the statistics; defaults to `ema(0.99)`.

    Raises:
      TypeError: statistics are not those of the estimator.
      ValueError: epsilon is negative, or what is given has other shapes than (C,).

    Source: Ioffe & Szegedy 2015 (arXiv:1502.03167), algorithm 2, line 11.

    >>> from jaxnorm import Statistics
    >>> statistics = Statistics(mean=jnp.array([1.0]), var=jnp.array([4.0]))
    >>> as_affine(statistics, scale=jnp.array([3.0]), epsilon=0.0).scale
    Array([1.5], dtype=float32)
    """
    if epsilon < 0:
        raise ValueError(f"epsilon={epsilon}, but it is added to a variance: give one ≥ 0.")
    shape = jnp.shape(named(statistics).get("mean", 0.0))
    follower = or_default(estimator)
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
    """The kernel and bias of the layer that does x ↦ affine(layer(x)).

        W′ = scale·W,  b′ = scale·(b − centre) + shift

    Exact for every dense and conv layer, whatever its strides, dilation and padding are,
    transposed ones too: what follows acts on each output feature by itself.

    Args:
      kernel: the weights of the layer.
      bias: of shape (C,), C being the layer's output features; None is 0.
      affine: of the C features.
      layout: which axis of the kernel is of Input and which of Output features, by these
        letters, the others being any: "OI" and "OIHW" are torch's, "IOHW" of its transposed
        layers. None is flax's, where they are the last two, "IO" and "HWIO".
      groups: into how many groups the features are split. The kernel has the size of
        one along I, or for torch's transposed layers along O.

    Returns:
      (kernel, bias), in the dtype of the kernel; the bias in that which it had. They are
      computed in at least float32.

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
    # Subtracted before it is scaled: b and μ may be alike, and the scale very large.
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
    """The kernel and bias of the layer that does x ↦ layer(affine(x)).

        W′ = W·scale,  b′ = b + Σ W·(shift − scale·centre)

    over the inputs and the positions of the kernel. Exact for dense layers, and for conv
    layers that are not transposed and do not pad with zeros: these would stand for an
    affine(x) of 0, where the norm gives shift − scale·centre for an x of 0.

    Args:
      kernel: the weights of the layer.
      bias: of shape (features out,); None is 0.
      affine: of the layer's input features.
      layout: as of `fold_output`.
      groups: likewise.
      padding: of the conv layer, as of flax's: "VALID", "CIRCULAR", "REFLECT" and 0 are
        possible, and "SAME" and "CAUSAL" with a kernel of size 1.

    Returns:
      (kernel, bias), as of `fold_output`.

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
            "with zeros, which the norm before it does not give for zeros: it cannot be "
            "folded into the layer; pad with 'VALID', 'CIRCULAR' or 'REFLECT', or keep it."
        )
    if groups > 1 and kernel.shape[into] == len(affine.scale):
        raise ValueError(
            f"a kernel of shape {kernel.shape} with all {len(affine.scale)} input features "
            f"and groups={groups} is of a transposed layer, into which no norm before it "
            "can be folded; keep the norm."
        )
    size = (kernel.shape[out],)
    given = jnp.zeros(size, kernel.dtype) if bias is None else _expected(bias, "bias", size)
    fine, old, scale, centre, shift = _accumulating(kernel, given, *affine)
    scaled = fine * _over(kernel, scale, into, out, groups, "input")
    offset = fine * _over(kernel, shift - scale * centre, into, out, groups, "input")
    moved = old + jnp.sum(offset, [axis for axis in range(kernel.ndim) if axis != out])
    return scaled.astype(kernel.dtype), moved.astype(given.dtype)


def pads_with_zeros(padding: Padding, window: Sequence[int]) -> bool:
    """Whether a conv layer whose kernel has this size may put zeros around its input."""
    if isinstance(padding, str):
        inside = padding.upper() in ("VALID", "CIRCULAR", "REFLECT")
        return not inside and any(size > 1 for size in window)
    if isinstance(padding, Sequence):
        return any(pads_with_zeros(each, window) for each in padding)
    return padding != 0


def _expected(values: ArrayLike, name: str, shape: tuple[int, ...]) -> Array:
    """The values as an array, if they have this shape."""
    values = as_floating(values, name)
    if values.shape != shape:
        raise ValueError(
            f"{name} has shape {values.shape}, but {shape} is expected, one for each of "
            "the features."
        )
    return values


def _accumulating(*arrays: Array) -> tuple[Array, ...]:
    """The arrays in one dtype, at least float32."""
    dtype = accumulation_dtype(*(each.dtype for each in arrays))
    return tuple(each.astype(dtype) for each in arrays)


def _axes_of(kernel: Array, layout: str | None) -> tuple[int, int]:
    """The axes of input and of output features."""
    if layout is None and kernel.ndim >= 2:
        return kernel.ndim - 2, kernel.ndim - 1
    letters = layout or "IO"
    once = letters.count("I") == letters.count("O") == 1
    if not once or len(letters) != kernel.ndim:
        raise ValueError(
            f"layout={layout!r} and a kernel of shape {kernel.shape}; give a letter for "
            "each of its axes, I for that of input and O for that of output features, such "
            "as 'HWIO'."
        )
    return letters.index("I"), letters.index("O")


def _over(
    kernel: Array, values: Array, along: int, across: int, groups: int, name: str
) -> Array:
    """The values of features, to be multiplied with a kernel that has them along an axis.

    Where the kernel has those of one group only, which of the groups goes by the place
    across, along its axis of the other features.
    """
    size, others = kernel.shape[along], kernel.shape[across]
    features = jnp.shape(values)
    whole = features == (size,)
    if not whole and (features != (size * groups,) or others % groups):
        raise ValueError(
            f"a norm of {features} features, and a kernel of shape {kernel.shape} with "
            f"{size} {name} features along axis {along} and groups={groups}; they do not "
            "fit: check the layout and the groups."
        )
    axes = [axis for axis in range(kernel.ndim) if axis != along]
    if whole:
        return jnp.expand_dims(values, axes)
    table = jnp.repeat(values.reshape(groups, size), others // groups, axis=0)
    table = table if across < along else table.T
    return jnp.expand_dims(table, [axis for axis in axes if axis != across])
