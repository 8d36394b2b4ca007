"""Population statistics as estimators: pure (init, update, read) triples."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnorm.moments import Moments
from jaxnorm.precision import accumulation_dtype, check_number


class Statistics(NamedTuple):
    """Running statistics of each feature, the state of `ema`.

    Attributes:
      mean: the running mean, of the shape of the features, float32 unless chosen
        otherwise.
      var: the running variance, likewise.
    """

    mean: Float[Array, "*features"]
    var: Float[Array, "*features"]


class Estimator(NamedTuple):
    """An estimator of population moments from those of one batch after another.

    Like an optax transformation, it is functions and no state: the state goes in as
    an argument and comes out as a result, with the same structure, shapes and dtypes.

    Attributes:
      init: `init(shape, dtype=float32) -> state`, for features of this shape.
      update: `update(state, moments) -> state`, with one more batch seen. A count of
        0 changes nothing.
      read: `read(state) -> Moments`, to normalise with in evaluation. Its count is
        infinite: it stands for the population, not for a sample that could be merged.
    """

    init: Callable[..., Any]
    update: Callable[[Any, Moments], Any]
    read: Callable[[Any], Moments]


def ema(decay: float) -> Estimator:
    """The exponential moving average that batch normalisation commonly keeps.

        s ← decay·s + (1 − decay)·batch,  started at mean 0 and variance 1.

    After t batches decayᵗ of the start is still in it: with a decay of 0.99, 37 % after
    100. (flax and keras call the decay `momentum`; torch's momentum is 1 − decay.)

    Args:
      decay: the weight of the old value, in [0, 1]; 1 freezes the statistics.

    Returns:
      An Estimator whose state is `Statistics(mean, var)`.

    Raises:
      ValueError: decay outside [0, 1].

    >>> estimator = ema(0.9)
    >>> state = estimator.init((1,))
    >>> batch = Moments(count=jnp.ones(1), mean=jnp.ones(1), var=jnp.zeros(1))
    >>> estimator.update(state, batch)
    Statistics(mean=Array([0.1], dtype=float32), var=Array([0.9], dtype=float32))
    """
    check_number(decay=decay)
    if not 0 <= decay <= 1:  # so that NaN is refused too
        raise ValueError(
            f"decay={decay}, but it is the weight of the old value and must lie in "
            "[0, 1]; flax and keras call it momentum, torch's momentum is 1 − decay."
        )

    def init(shape: tuple[int, ...], dtype: Any = jnp.float32) -> Statistics:
        return Statistics(mean=jnp.zeros(shape, dtype), var=jnp.ones(shape, dtype))

    def update(statistics: Statistics, moments: Moments) -> Statistics:
        def blend(old: Array, new: Array) -> Array:
            dtype = accumulation_dtype(old.dtype, new.dtype)
            blended = decay * old.astype(dtype) + (1 - decay) * new.astype(dtype)
            # Back to the dtype of the state, which must not change over a scan.
            return jnp.where(moments.count > 0, blended.astype(old.dtype), old)

        return Statistics(
            mean=blend(statistics.mean, moments.mean),
            var=blend(statistics.var, moments.var),
        )

    def read(statistics: Statistics) -> Moments:
        forever = jnp.full_like(statistics.mean, jnp.inf)
        return Moments(forever, statistics.mean, statistics.var)

    return Estimator(init, update, read)


def as_statistics(statistics: Any, estimator: Estimator, shape: tuple[int, ...]) -> Any:
    """`statistics` as arrays, if they are a state of `estimator` for these features.

    Raises a TypeError if they have another structure or kind of dtype, or the estimator
    is none; a ValueError if they have another shape.
    """
    if not isinstance(estimator, Estimator):
        raise TypeError(
            f"estimator={estimator!r}, but an Estimator is expected; for a moving average "
            "write ema(decay), as in ema(0.99)."
        )
    expected = jax.eval_shape(lambda: estimator.init(shape))
    mend = f"start with estimator.init({shape}), and pass on what the last call returned."
    if jax.tree.structure(statistics) != jax.tree.structure(expected):
        raise TypeError(
            f"statistics is {_describe(statistics)}, but this estimator keeps "
            f"{_describe(expected)}, with an array in each field; {mend}"
        )
    statistics = jax.tree.map(jnp.asarray, statistics)
    given = jax.tree.map(jnp.shape, statistics)
    if given != jax.tree.map(jnp.shape, expected):
        raise ValueError(
            f"statistics has the shapes {given}, but the features of x have shape "
            f"{shape}; {mend}"
        )
    if jax.tree.map(_is_floating, statistics) != jax.tree.map(_is_floating, expected):
        dtypes = jax.tree.map(lambda each: each.dtype.name, statistics)
        raise TypeError(
            f"statistics has the dtypes {dtypes}, but would lose what it learns in these; "
            f"{mend}"
        )
    return statistics


def _is_floating(array: Any) -> bool:
    return jnp.issubdtype(array.dtype, jnp.floating)


def _describe(tree: Any) -> str:
    fields = getattr(tree, "_fields", None)
    return type(tree).__name__ + (f"({', '.join(fields)})" if fields else "")
