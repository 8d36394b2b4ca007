"""Population statistics as estimators: averages of the batches', or all samples merged."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxnorm._core.dtypes import accumulation_dtype, check_number
from jaxnorm._core.moments import Moments, merge_into, unbiased_variance
from jaxnorm._core.train_flags import check_flags
from jaxnorm.statistics.estimator import Estimator, State

Method = TypeVar("Method", bound=Callable[..., Any])


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


@overload
def ema(
    decay: float,
    debias: Literal[False] = False,
    warmup: Literal[False] = False,
    unbiased: bool = False,
) -> Estimator[Statistics]: ...
@overload
def ema(
    decay: float,
    debias: Literal[True],
    warmup: bool = False,
    unbiased: bool = False,
) -> Estimator[Averages]: ...
@overload
def ema(
    decay: float,
    debias: bool = False,
    *,
    warmup: Literal[True],
    unbiased: bool = False,
) -> Estimator[Averages]: ...
@overload
def ema(
    decay: float, debias: bool = False, warmup: bool = False, unbiased: bool = False
) -> Estimator[Any]: ...
def ema(
    decay: float, debias: bool = False, warmup: bool = False, unbiased: bool = False
) -> Estimator[Any]:
    """The exponential moving average that batch normalisation commonly keeps.

        s ← decay·s + (1 − decay)·batch,  started at mean 0 and variance 1.

    After t batches decayᵗ of the start is still in it: with a decay of 0.99, 37 % after
    100. (flax and keras call the decay `momentum`; torch's momentum is 1 − decay.) An
    option takes the start out, so that evaluation is right from the first batch.

    In float32 the average stops where (1 − decay)·(batch − s) is less than half an ulp of
    s: with a decay of 0.9999 up to 5,000 ulps short of batches that are all alike, unless
    it is debiased, and so never had to come from far.

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
      TypeError: decay is no number, or an option no bool.
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
    check_flags(debias=debias, warmup=warmup, unbiased=unbiased)
    if not 0 <= decay <= 1:  # so that NaN is refused too
        raise ValueError(
            f"decay={decay}, but it is the weight of the old value and must lie in "
            "[0, 1]; flax and keras call it momentum, torch's momentum is 1 − decay."
        )
    if debias or warmup:
        return AgedAverage(unbiased, float(decay), debias, warmup)
    return PlainAverage(unbiased, float(decay))


def cumulative(unbiased: bool = False) -> Estimator[Averages]:
    """The arithmetic mean of the batches' moments; torch's momentum=None, if unbiased.

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
    check_flags(unbiased=unbiased)
    return EqualAverage(unbiased)


def or_default(estimator: Estimator[State] | None) -> Estimator[State]:
    """The estimator, or if it is None flax's default, `ema(0.99)`."""
    default: Any = ema(0.99)
    return default if estimator is None else estimator


@overload
def population(
    pooled: Literal[True] = True, unbiased: bool = True
) -> Estimator[Moments]: ...
@overload
def population(pooled: Literal[False], unbiased: bool = True) -> Estimator[Averages]: ...
@overload
def population(pooled: bool = True, unbiased: bool = True) -> Estimator[Any]: ...
def population(pooled: bool = True, unbiased: bool = True) -> Estimator[Any]:
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
    check_flags(pooled=pooled, unbiased=unbiased)
    return Pooled(unbiased) if pooled else cumulative(unbiased)


def once_traced(method: Method) -> Method:
    """Makes jax trace a method once per estimator and shape, not at every call."""
    jitted: Any = jax.jit(method, static_argnums=0, inline=True)
    return jitted


@dataclasses.dataclass(frozen=True)
class Average(Estimator[State]):
    """kept·old + added·new of the mean and of the variance, which it leaves to `shares`."""

    unbiased: bool

    def shares(self, state: Any, dtype: np.dtype) -> tuple[Any, Any]:
        """What is kept of the old, and added of the new; they add up to 1."""
        raise NotImplementedError

    @once_traced
    def update(self, state: Any, moments: Moments) -> Any:
        """The state with one more batch seen."""

        def blend(old: Array, new: Array) -> Array:
            dtype = accumulation_dtype(old.dtype, new.dtype)
            kept, added = self.shares(state, dtype)
            old, new = old.astype(dtype), new.astype(dtype)
            # The shares add up to 1 but for rounding, by which a product of each would walk
            # away from batches that are all alike.
            blended = old + added * (new - old)
            apart = jnp.isfinite(old) & jnp.isfinite(new) & ~jnp.isfinite(blended)
            blended = jnp.where(apart, kept * old + added * new, blended)
            # What has no share has none where it is NaN, either.
            return jnp.where(added == 0, old, jnp.where(kept == 0, new, blended))

        var = unbiased_variance(moments) if self.unbiased else moments.var
        blended = state._replace(
            mean=blend(state.mean, moments.mean), var=blend(state.var, var)
        )
        return _where_seen(moments, _one_older(blended), state)

    def read(self, state: Any) -> Moments:
        """The averages."""
        return _forever(state.mean, state.var)


@dataclasses.dataclass(frozen=True)
class PlainAverage(Average[Statistics]):
    """An `ema` without options."""

    decay: float

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Statistics:
        """Mean 0 and variance 1."""
        return Statistics(mean=jnp.zeros(shape, dtype), var=jnp.ones(shape, dtype))

    def shares(self, state: Statistics, dtype: np.dtype) -> tuple[float, float]:
        """The same at every step."""
        return self.decay, 1 - self.decay


@dataclasses.dataclass(frozen=True)
class EqualAverage(Average[Averages]):
    """`cumulative`."""

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Averages:
        """Mean 0 and variance 1, and no updates."""
        return Averages(
            mean=jnp.zeros(shape, dtype),
            var=jnp.ones(shape, dtype),
            updates=jnp.zeros(shape, jnp.int32),
        )

    def shares(self, state: Averages, dtype: np.dtype) -> tuple[Array, Array]:
        """n/(n + 1) and 1/(n + 1)."""
        n = state.updates.astype(dtype)
        return n / (n + 1), 1 / (n + 1)


@dataclasses.dataclass(frozen=True)
class AgedAverage(EqualAverage):
    """An `ema` that is debiased or warmed up."""

    decay: float
    debias: bool
    warmup: bool

    def shares(self, state: Averages, dtype: np.dtype) -> tuple[Array, Array]:
        """1 − decay of the step for the new; debiased over what all batches have so far."""
        n = state.updates.astype(dtype)
        added = jnp.full_like(n, 1 - self.decay)
        if self.warmup:
            added = jnp.maximum(added, 9 / (10 + n))  # 1 − (1 + n)/(10 + n)
        if self.debias and (self.warmup or self.decay < 1):
            added = jnp.where(n == 0, 1, added / self._seen(n + 1))
        return 1 - added, added

    def _seen(self, updates: Array) -> Array:
        """1 − the product of all decays so far: the weight that is not the start's."""
        if not self.warmup:  # 1 − decayⁿ, which would cancel
            return -jnp.expm1(updates * (math.log(self.decay) if self.decay else -math.inf))
        # (1 + n)/(10 + n) is the smaller one before n gets to this.
        switch = math.inf
        if self.decay < 1:
            switch = max(0.0, float(math.ceil((10 * self.decay - 1) / (1 - self.decay))))
        early = jnp.minimum(updates, switch)
        warming = math.prod(j / (early + j) for j in range(1, 10))  # n!·9!/(n + 9)!
        return 1 - warming * self.decay ** (updates - early)


@dataclasses.dataclass(frozen=True)
class Pooled(Estimator[Moments]):
    """The exact `population`."""

    unbiased: bool

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Moments:
        """Count 0, mean 0 and variance 1; in at least float32, for counts are large."""
        empty = Moments.empty(shape, accumulation_dtype(dtype))
        return empty._replace(var=jnp.ones_like(empty.var))

    @once_traced
    def update(self, state: Moments, moments: Moments) -> Moments:
        """Merged."""
        return _where_seen(moments, merge_into(state, moments), state)

    def read(self, state: Moments) -> Moments:
        """The mean and variance of all samples."""
        return _forever(
            state.mean, unbiased_variance(state) if self.unbiased else state.var
        )


def _one_older(state: Any) -> Any:
    """With one more update, if it counts them: up to 2³¹ − 1, and no further."""
    if not isinstance(state, Averages):
        return state
    last = jnp.iinfo(state.updates.dtype).max
    return state._replace(updates=jnp.minimum(state.updates, last - 1) + 1)


def _where_seen(moments: Moments, new: Any, old: Any) -> Any:
    """`new` where the moments are of anything, in the dtypes of `old`, as a scan wants."""
    return jax.tree.map(
        lambda n, o: jnp.where(moments.count > 0, n.astype(o.dtype), o), new, old
    )


def _forever(mean: Array, var: Array) -> Moments:
    return Moments(jnp.full_like(mean, jnp.inf), mean, var)
