"""Population statistics as estimators: averages of the batches', or all samples merged."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxnorm.moments import Moments, merge, unbiased_variance
from jaxnorm.precision import accumulation_dtype, check_number
from jaxnorm.running import Estimator


class Statistics(NamedTuple):
    """Running statistics of each feature, the state of a plain `ema`.

    Attributes:
      mean: the running mean, of the shape of the features, float32 unless chosen
        otherwise.
      var: the running variance, likewise.
    """

    mean: Float[Array, "*features"]
    var: Float[Array, "*features"]


class Averages(NamedTuple):
    """Running statistics that know their age: `cumulative`, or `ema` with an option.

    Attributes:
      mean: as of `Statistics`.
      var: likewise.
      updates: how many batches went into them, int32, of the shape of the features, for
        a batch in which a feature has no weight is none for it.
    """

    mean: Float[Array, "*features"]
    var: Float[Array, "*features"]
    updates: Int[Array, "*features"]


def ema(
    decay: float, debias: bool = False, warmup: bool = False, unbiased: bool = False
) -> Estimator:
    """The exponential moving average that batch normalisation commonly keeps.

        s ← decay·s + (1 − decay)·batch,  started at mean 0 and variance 1.

    After t batches decayᵗ of the start is still in it: with a decay of 0.99, 37 % after
    100. (flax and keras call the decay `momentum`; torch's momentum is 1 − decay.) An
    option takes the start out, so that evaluation is right from the first batch.

    Args:
      decay: the weight of the old value, in [0, 1]; 1 freezes the statistics.
      debias: the weights decayᵗ⁻ⁱ·(1 − decay) of the batches i = 1 … t are divided by
        their sum 1 − decayᵗ, as Adam does it; so none is left for the start, whatever
        it was. (Kingma & Ba 2015, arXiv:1412.6980, section 3.)
      warmup: the decay after n batches is min(decay, (1 + n)/(10 + n)), as in
        TensorFlow's ExponentialMovingAverage; 0.1 of the start is left after one batch,
        and 0.0005 after five.
      unbiased: averages m/(m − 1)·σ² for a batch of m samples in place of σ², as torch
        does; a batch of one sample has its σ² of 0.

    Returns:
      An Estimator whose state is `Statistics(mean, var)`; with debias or warmup
      `Averages(mean, var, updates)`.

    Raises:
      TypeError: decay is no number.
      ValueError: decay outside [0, 1].

    >>> estimator = ema(0.9)
    >>> state = estimator.init((1,))
    >>> batch = Moments(count=jnp.ones(1), mean=jnp.ones(1), var=jnp.zeros(1))
    >>> estimator.update(state, batch)
    Statistics(mean=Array([0.1], dtype=float32), var=Array([0.9], dtype=float32))
    >>> estimator = ema(0.9, debias=True)
    >>> estimator.update(estimator.init((1,)), batch).mean
    Array([1.], dtype=float32)
    """
    check_number(decay=decay)
    if not 0 <= decay <= 1:  # so that NaN is refused too
        raise ValueError(
            f"decay={decay}, but it is the weight of the old value and must lie in "
            "[0, 1]; flax and keras call it momentum, torch's momentum is 1 − decay."
        )
    if not (debias or warmup):
        return _average(lambda *_: (decay, 1 - decay), unbiased, aged=False)

    def shares(updates: Array, dtype: np.dtype) -> tuple[Array, Array]:
        n = updates.astype(dtype)
        start = (1 + n) / (10 + n) if warmup else jnp.ones_like(n)
        added = 1 - jnp.minimum(decay, start)
        if debias and (warmup or decay < 1):
            seen = 1 - _left_of_start(n + 1, decay, warmup)
            added = jnp.where(n == 0, 1, added / seen)
        return 1 - added, added

    return _average(shares, unbiased, aged=True)


def _left_of_start(updates: Array, decay: float, warmup: bool) -> Array:
    """The weight of the start after so many updates: the product of all decays so far."""
    # With warmup, (1 + n)/(10 + n) is the smaller one before n gets to this.
    switch = 0.0
    if warmup:
        switch = math.ceil((10 * decay - 1) / (1 - decay)) if decay < 1 else math.inf
    early = jnp.clip(updates, 0, max(switch, 0))
    warming = math.prod(j / (early + j) for j in range(1, 10))  # n!·9!/(n + 9)!
    return warming * decay ** (updates - early)


def cumulative(unbiased: bool = False) -> Estimator:
    """The arithmetic mean of the batches' moments, as torch keeps it for momentum=None.

        s ← n/(n + 1)·s + 1/(n + 1)·batch  after n batches

    Every batch counts the same, the first too: for a network that does not change any more,
    or as a reference. The variance is the mean of the batches', without the spread of their
    means; `population` has that.

    Args:
      unbiased: averages m/(m − 1)·σ² for a batch of m samples in place of σ².

    Returns:
      An Estimator whose state is `Averages(mean, var, updates)`.

    >>> estimator = cumulative()
    >>> state = estimator.init(())
    >>> for mean in (1.0, 2.0, 6.0):
    ...     batch = Moments(jnp.array(4.0), jnp.array(mean), jnp.array(0.5))
    ...     state = estimator.update(state, batch)
    >>> float(state.mean), float(state.var)
    (3.0, 0.5)
    """

    def shares(updates: Array, dtype: np.dtype) -> tuple[Array, Array]:
        n = updates.astype(dtype)
        return n / (n + 1), 1 / (n + 1)

    return _average(shares, unbiased, aged=True)


def population(pooled: bool = True, unbiased: bool = True) -> Estimator:
    """The mean and variance of all that was seen, of every batch by its number of samples.

    Pooled it is exact: the batches' moments are merged, and the variance has within it how
    far their means lie apart,

        μ = Σ mᵢμᵢ / N,  σ² = Σ mᵢ(σᵢ² + (μᵢ − μ)²) / N,  N = Σ mᵢ.

    Otherwise it is what the paper on batch normalisation has (Ioffe & Szegedy 2015,
    algorithm 2, for batches of one size m),

        μ = E[μᵢ],  σ² = m/(m − 1)·E[σᵢ²],

    which is `cumulative(unbiased=True)`. Of random batches both are unbiased. Of batches
    that are not alike, as of sorted data, or while the network changes, the second leaves
    out what lies between them. Wu & Johnson 2021 (arXiv:2105.07576) take the first.

    Args:
      pooled: which of the two.
      unbiased: whether the variance is multiplied by N/(N − 1), or m/(m − 1).

    Returns:
      An Estimator whose state is `Moments(count, mean, var)`, of a biased variance and
      0 and 1 at count 0, or as that of `cumulative`. In float32 a count above 2²⁴
      is rounded, and batches of less than a 2²⁴th of it change nothing any more.

    >>> estimator = population(unbiased=False)
    >>> state = estimator.init(())
    >>> for mean in (1.0, 3.0):
    ...     batch = Moments(jnp.array(4.0), jnp.array(mean), jnp.array(0.5))
    ...     state = estimator.update(state, batch)
    >>> float(state.mean), float(state.var)
    (2.0, 1.5)
    """
    if not pooled:
        return cumulative(unbiased)

    def init(shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Moments:
        return Moments.empty(shape, dtype)._replace(var=jnp.ones(shape, dtype))

    def update(state: Moments, moments: Moments) -> Moments:
        return _where_seen(moments, merge(state, moments), state)

    def read(state: Moments) -> Moments:
        return _forever(state.mean, unbiased_variance(state) if unbiased else state.var)

    return Estimator(init, update, read)


def _average(
    shares: Callable[[Any, np.dtype], tuple[Any, Any]], unbiased: bool, *, aged: bool
) -> Estimator:
    """kept·old + added·new, where `shares(updates, dtype) -> (kept, added)`."""

    def init(shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Any:
        start = Statistics(mean=jnp.zeros(shape, dtype), var=jnp.ones(shape, dtype))
        return Averages(*start, updates=jnp.zeros(shape, jnp.int32)) if aged else start

    def update(state: Any, moments: Moments) -> Any:
        def blend(old: Array, new: Array) -> Array:
            dtype = accumulation_dtype(old.dtype, new.dtype)
            kept, added = shares(state.updates if aged else None, dtype)
            # What is forgotten is so also where it is NaN.
            left = jnp.where(kept == 0, 0, kept * old.astype(dtype))
            return left + added * new.astype(dtype)

        blended = state._replace(
            mean=blend(state.mean, moments.mean),
            var=blend(state.var, unbiased_variance(moments) if unbiased else moments.var),
        )
        if aged:
            blended = blended._replace(updates=state.updates + 1)
        return _where_seen(moments, blended, state)

    def read(state: Any) -> Moments:
        return _forever(state.mean, state.var)

    return Estimator(init, update, read)


def _where_seen(moments: Moments, new: Any, old: Any) -> Any:
    """`new` where the moments are of anything, in the dtypes of `old`, as a scan wants."""
    return jax.tree.map(
        lambda n, o: jnp.where(moments.count > 0, n.astype(o.dtype), o), new, old
    )


def _forever(mean: Array, var: Array) -> Moments:
    return Moments(jnp.full_like(mean, jnp.inf), mean, var)
