"""The operands of a norm: their checks, and their conversion to the rank and dtype of x."""

from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from jaxnorm._core.axes import Axis, Shape, canonical_axes, expand, sizes_of
from jaxnorm._core.dtypes import accumulation_dtype, check_number
from jaxnorm._core.weights import as_weights

Rounding = Literal["once", "twice"]
ScaleAndBias = tuple[ArrayLike | None, ArrayLike | None]
Wide = tuple[Array | None, Array | None]  # scale and bias in the rank and dtype of x


def check_operands(
    x: Float[Array, "..."],
    features: tuple[int, ...],
    scale: ArrayLike | None,
    bias: ArrayLike | None,
    epsilon: float,
    weights: ArrayLike | None,
) -> Shaped[Array, "..."] | None:
    """Checks the operands that all norms share; returns the weights with the rank of x.

    Looks at shapes, dtypes and epsilon only.
    """
    check_affine(x.shape, features, scale=scale, bias=bias)
    check_epsilon(epsilon)
    return None if weights is None else as_weights(weights, x)


def check_epsilon(epsilon: Any) -> None:
    """Raises a TypeError unless it is a number, and a ValueError if it is below 0."""
    check_number(epsilon=epsilon)
    if not epsilon >= 0:  # also rejects NaN
        raise ValueError(
            f"epsilon={epsilon}, but it is added to a variance under a root and must "
            "be at least 0; a usual value is 1e-5."
        )


def check_rounding(rounding: Any) -> None:
    """Raises a ValueError unless it is one of the allowed values."""
    if rounding not in get_args(Rounding):
        raise ValueError(
            f"rounding={rounding!r}, but one of {get_args(Rounding)} is expected."
        )


def check_affine(shape: Shape, features: tuple[int, ...], **arrays: Any) -> None:
    """Raises an error unless each array (or None) fits x as a scale or bias.

    It must have exactly the shape of the feature axes, or have the rank of x, with each
    size being 1 or that of x, to vary over other axes as well. A scale of shape (1,) is
    rejected: it would broadcast and hide a mistake in the axis. A complex array is rejected
    with a TypeError.

    Args:
      shape: the shape of x.
      features: the feature axes of x.
      arrays: scale and bias, by name.

    >>> check_affine((8, 28, 28, 3), (3,), scale=jnp.ones(3), bias=jnp.ones((8, 1, 1, 3)))
    """
    of_features = sizes_of(shape, features)
    for name, array in arrays.items():
        if array is not None and jnp.iscomplexobj(array):
            raise TypeError(
                f"{name} is complex, but the output of a norm is real; give its real part."
            )
        if array is None or jnp.shape(array) == of_features:
            continue
        given = jnp.shape(array)
        if len(given) == len(shape) > len(features) and all(
            one in (1, each) for one, each in zip(given, shape, strict=True)
        ):
            continue
        per_sample = tuple(n if i in (0, *features) else 1 for i, n in enumerate(shape))
        raise ValueError(
            f"{name} has shape {given}, but x has shape {shape} and features of shape "
            f"{of_features}, along feature_axes={features}; give {name} the shape "
            f"{of_features}, or, for a {name} that varies over other axes as well, the "
            "rank of x and size 1 along axes over which it does not vary, such as "
            f"{per_sample} for one {name} per sample."
        )


def varies(array: Any, ndim: int, features: tuple[int, ...]) -> bool:
    """Whether a scale or bias (or None) has the rank of x instead of its feature axes.

    >>> varies(jnp.ones(3), 4, (3,)), varies(jnp.ones((8, 1, 1, 3)), 4, (3,))
    (False, True)
    """
    return array is not None and jnp.ndim(array) == ndim > len(features)


def wide_along(
    array: ArrayLike, axes: tuple[int, ...], x: Array, dtype: np.dtype | None = None
) -> Array:
    """Expands an array with these axes of x, or with all axes, to the rank of x.

    The result has the given dtype, which defaults to the accumulation dtype of x.
    """
    wide = jnp.asarray(array).astype(dtype or accumulation_dtype(x.dtype))
    return wide if varies(wide, x.ndim, axes) else expand(wide, axes, x.ndim)


def wide_affine(
    x: Array,
    scale: ArrayLike | None,
    bias: ArrayLike | None,
    features: tuple[int, ...],
    dtype: np.dtype | None = None,
) -> Wide:
    """Returns scale and bias (or None), expanded by `wide_along` from the feature axes."""
    scale, bias = (
        None if each is None else wide_along(each, features, x, dtype)
        for each in (scale, bias)
    )
    return scale, bias


def conditioned(
    x: Array, feature_axes: Axis, own: ScaleAndBias, given: ScaleAndBias
) -> ScaleAndBias:
    """Returns the scale and bias of given_scale·(γ·x̂ + β) + given_bias, for own γ and β.

    Raises a ValueError if the given ones do not fit x.
    """
    scale, bias = given
    if scale is None and bias is None:
        return own
    features = canonical_axes(feature_axes, x.ndim)
    check_affine(x.shape, features, scale=scale, bias=bias)
    arrays = [each for each in (*given, *own) if each is not None]
    finest = accumulation_dtype(x.dtype, *map(jnp.result_type, arrays))
    outer, inner = (wide_affine(x, *each, features, finest) for each in (given, own))
    return composed(outer, inner)


def composed(outer: Wide, inner: Wide) -> Wide:
    """Returns the scale and bias of the map x ↦ outer(inner(x)); None changes nothing."""
    (scale, bias), (ratio, shift) = outer, inner
    if scale is not None:
        shift = None if shift is None else scale * shift
        ratio = scale if ratio is None else scale * ratio
    if bias is not None:
        shift = bias if shift is None else bias + shift
    return ratio, shift
