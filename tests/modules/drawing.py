"""Draws cases in which flax is right, so that our modules must agree with it.

Cases in which flax is wrong or raises needlessly are in `test_differences`.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from tests.modules.apis import LINEN, Api, normal

# Few shapes, because every operation compiles anew for each.
A_SHAPE = ((4, 3, 6),)
SHAPES = ((4, 6), *A_SHAPE, (2, 3, 2, 4))
FLOATS = st.sampled_from([jnp.float32, jnp.bfloat16])
INITIALIZER = jax.nn.initializers.normal(1.0)


@dataclass(frozen=True)
class Case:
    """An input, and the arguments of the constructor and of the call."""

    shape: tuple[int, ...]
    dtype: Any
    num_features: int
    arguments: dict[str, Any]
    call: dict[str, Any]

    @property
    def x(self) -> jax.Array:
        return normal(*self.shape, dtype=self.dtype)

    @property
    def coarse(self) -> bool:
        """Whether any dtype has 16 bits."""
        dtypes = (self.dtype, self.arguments["dtype"], self.arguments["param_dtype"])
        return jnp.bfloat16 in dtypes


@st.composite
def cases(draw: Any, api: Api, norm: str, shapes: Any = SHAPES) -> Case:
    """Draws a case for a norm in an API."""
    # Instance norm raises for inputs without spatial axes.
    fitting = [each for each in shapes if norm != "InstanceNorm" or len(each) > 2]
    shape = draw(st.sampled_from(fitting))
    dtype, train = draw(FLOATS), draw(st.booleans())
    axes, features, reduced = draw(_AXES[norm](api, len(shape), train))
    arguments = draw(_arguments(norm)) | axes
    if norm == "GroupNorm":
        arguments |= draw(_groups(shape))
    call = {"mask": draw(_masks(norm, shape, reduced))}
    if norm == "BatchNorm":
        call["use_running_average"] = not train
    fewest = _fewest(shape, reduced, call["mask"], arguments)
    if fewest < 3:
        # The gradient of two values cancels; in 16 bits only rounding errors are left.
        dtype = arguments["dtype"] = jnp.float32
    _avoid_what_flax_gets_wrong(draw, api, norm, dtype, train, fewest, arguments)
    num_features = math.prod(shape[each] for each in features)
    return Case(shape, dtype, num_features, arguments, call)


def _arguments(norm: str) -> st.SearchStrategy[dict[str, Any]]:
    """Draws the arguments that norms share, and those for running statistics."""
    arguments = {
        "epsilon": st.sampled_from([1e-3, 1e-2]),
        "dtype": st.none() | FLOATS,
        "param_dtype": FLOATS,
        "use_scale": st.booleans(),
        "scale_init": st.just(INITIALIZER),
    }
    if norm != "RMSNorm":
        arguments |= {"use_bias": st.booleans(), "bias_init": st.just(INITIALIZER)}
    if norm == "BatchNorm":
        arguments["momentum"] = st.sampled_from([0.0, 0.9, 1.0])
    return st.fixed_dictionaries(arguments)


def _axes_of_a_batch(api: Api, rank: int, train: bool) -> Any:
    choices = [-1, 1, rank - 1]
    if rank > 2 and (api is LINEN or not train):  # see test_differences
        choices += [(1, 2), [-1, 1]]
    return st.sampled_from(choices).map(
        lambda axis: (
            {"axis": axis},
            _canonical(axis, rank),
            _others(_canonical(axis, rank), rank),
        )
    )


def _axes_of_a_layer(api: Api, rank: int, train: bool) -> Any:
    choices = [-1, (-1,), tuple(range(1, rank)), [-1, -2], 0]
    return st.tuples(st.sampled_from(choices), st.sampled_from(choices)).map(
        lambda axes: (
            {"reduction_axes": axes[0], "feature_axes": axes[1]},
            _canonical(axes[1], rank),
            _canonical(axes[0], rank),
        )
    )


def _axes_of_groups(api: Api, rank: int, train: bool) -> Any:
    choices = [None, tuple(range(1, rank)), [-1, *range(1, rank - 1)]]
    if api is LINEN:  # see test_differences
        choices += [(-1,), (0, -1)]
    return st.sampled_from(choices).map(
        lambda axes: (
            {"reduction_axes": axes},
            (rank - 1,),
            _canonical(range(1, rank) if axes is None else axes, rank),
        )
    )


def _axes_of_an_instance(api: Api, rank: int, train: bool) -> Any:
    choices = [-1, 1, rank - 1] + ([(1, -1), [2, 3]] if rank > 3 else [])
    return st.sampled_from(choices).map(
        lambda axes: (
            {"feature_axes": axes},
            _canonical(axes, rank),
            _others((0, *_canonical(axes, rank)), rank),
        )
    )


_AXES = {
    "BatchNorm": _axes_of_a_batch,
    "LayerNorm": _axes_of_a_layer,
    "RMSNorm": _axes_of_a_layer,
    "GroupNorm": _axes_of_groups,
    "InstanceNorm": _axes_of_an_instance,
}


def _canonical(axes: Any, rank: int) -> tuple[int, ...]:
    axes = (axes,) if isinstance(axes, int) else axes
    return tuple(sorted(each % rank for each in axes))


def _others(axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    return tuple(each for each in range(rank) if each not in axes)


def _groups(shape: tuple[int, ...]) -> st.SearchStrategy[dict[str, int | None]]:
    """Draws groups of at least two features; with one, a group may have a single value."""
    sizes = [each for each in range(2, shape[-1] + 1) if shape[-1] % each == 0]
    return st.sampled_from(sizes).flatmap(
        lambda size: st.sampled_from(
            [
                {"num_groups": None, "group_size": size},
                {"num_groups": shape[-1] // size, "group_size": None},
            ]
        )
    )


def _masks(norm: str, shape: tuple[int, ...], reduced: tuple[int, ...]) -> Any:
    """Draws a mask that broadcasts to the shape, or None."""
    grouped = norm == "GroupNorm"
    # flax fails on moments of fewer than two values, so both ends are always selected.
    ended = reduced[:-1] if grouped else reduced

    def mask(seed: int, sizes: list[int]) -> np.ndarray:
        if grouped:
            sizes[-1] = shape[-1]  # flax splits it into the groups
        drawn = np.random.default_rng(seed).uniform(size=sizes) < 0.6
        for end in (0, -1):
            drawn[tuple(end if i in ended else slice(None) for i in range(len(shape)))] = (
                True
            )
        return drawn

    sizes = st.tuples(*(st.sampled_from([1, size]) for size in shape)).map(list)
    return st.none() | st.builds(mask, st.integers(0, 9), sizes)


def _fewest(
    shape: tuple[int, ...], reduced: tuple[int, ...], mask: Any, arguments: Any
) -> int:
    """Returns the smallest number of values that moments are taken over."""
    counted = np.broadcast_to(True if mask is None else mask, shape)
    size = arguments.get("group_size")
    groups = shape[-1] // size if size else arguments.get("num_groups")
    if groups:
        counted = counted.reshape(*shape[:-1], groups, -1)
        reduced = (*reduced[:-1], -1)
    return int(counted.sum(reduced).min())


def _avoid_what_flax_gets_wrong(
    draw: Any,
    api: Api,
    norm: str,
    dtype: Any,
    train: bool,
    fewest: int,
    arguments: dict[str, Any],
) -> None:
    """Draws the remaining arguments, except those covered by test_differences."""
    # The fast variance of few values cancels if it is small relative to their mean.
    arguments["use_fast_variance"] = fewest > 3 and draw(st.booleans())
    if api is LINEN:
        # Without it, flax takes means and evaluates in 16 bits.
        coarse = jnp.bfloat16 in (dtype, arguments["dtype"])
        arguments["force_float32_reductions"] = coarse or draw(st.booleans())
    elif norm == "BatchNorm" and not train and arguments["dtype"] is not None:
        arguments["dtype"] = jnp.float32  # because flax rounds the statistics to it
