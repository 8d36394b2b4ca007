"""Estimators of population statistics: averages over batches, or all samples merged."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jaxnorm._core.dtypes import accumulation_dtype, check_number
from jaxnorm._core.moments import Moments, merge_into, unbiased_variance
from jaxnorm._core.train_flags import check_flags
from jaxnorm.statistics.estimator import Estimator, State

Method = TypeVar("Method", bound=Callable[..., Any])


class Statistics(NamedTuple):
    """Running statistics of each feature, the state of a plain `ema`.

    Attributes:
      mean: the running mean, with the shape of the features; float32 by default.
      var: the running variance, with the same shape and dtype.
    """

    mean: Float[Array, "*features"]
    var: Float[Array, "*features"]


class CountedStatistics(NamedTuple):
    """Running statistics with a count of updates: `cumulative`, or `ema` with an option.

    Attributes:
      mean: as in `Statistics`.
      var: as in `Statistics`.
      updates: the number of batches in them, for each feature, since a batch in which a
        feature has no weight does not count for it. A float, so that the state can be
        averaged, cast and differentiated like any other variable; in float32 it counts up
        to 2²⁴. Infinity is the count after a long training: `ema` then behaves as without
        an option, and `cumulative` changes no more.
    """

    mean: Float[Array, "*features"]
    var: Float[Array, "*features"]
    updates: Float[Array, "*features"]


# Maps the number of updates so far, as an array, to the decay of the next, as in optax.
Schedule = Callable[[Array], ArrayLike]


@overload
def ema(
    decay: Schedule,
    debias: Literal[False] = False,
    warmup: Literal[False] = False,
    unbiased: bool = False,
) -> Estimator[CountedStatistics]: ...
@overload
def ema(
    decay: float | Array,
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
) -> Estimator[CountedStatistics]: ...
@overload
def ema(
    decay: float,
    debias: bool = False,
    *,
    warmup: Literal[True],
    unbiased: bool = False,
) -> Estimator[CountedStatistics]: ...
@overload
def ema(
    decay: float | Array | Schedule,
    debias: bool = False,
    warmup: bool = False,
    unbiased: bool = False,
) -> Estimator[Any]: ...
def ema(
    decay: float | Array | Schedule,
    debias: bool = False,
    warmup: bool = False,
    unbiased: bool = False,
) -> Estimator[Any]:
    """The exponential moving average, the usual estimator of batch normalisation.

        s ← decay·s + (1 − decay)·batch,  started at mean 0 and variance 1.

    After t batches, the initial values still have the weight decayᵗ: with a decay of 0.99,
    37 % after 100 batches. (flax and keras call the decay `momentum`; torch's momentum is
    1 − decay.) `debias` or `warmup` removes them, so that evaluation is right from the
    first batch.

    In float32, the average stops moving when (1 − decay)·(batch − s) is less than half an
    ulp of s. With a decay of 0.9999 and identical batches, that is up to 5,000 ulps short
    of them, unless `debias` makes it start next to them.

    Args:
      decay: the weight of the old value, in [0, 1]; 1 freezes the statistics. It may also
        be a schedule, as in optax: `decay(updates)` returns the decay of the next update,
        where `updates` is the number so far, of each feature. Or it may be a traced scalar,
        whose range is not checked.
      debias: whether to divide the weights decayᵗ⁻ⁱ·(1 − decay) of the batches i = 1 … t by
        their sum 1 − decayᵗ, as in Adam, so that the initial values have no weight.
        (Kingma & Ba 2015, arXiv:1412.6980, section 3.)
      warmup: whether to use the decay min(decay, (1 + n)/(10 + n)) after n batches, as in
        TensorFlow's ExponentialMovingAverage; the weight of the initial values is 0.1
        after one batch, and 0.0005 after five.
      unbiased: whether to average m/(m − 1)·σ² for a batch of m samples instead of σ², as
        torch does; for a batch of one sample, σ² = 0 is used.

    Returns:
      An Estimator with the state `Statistics(mean, var)`; with debias, warmup or a
      schedule, `CountedStatistics(mean, var, updates)`.

    Raises:
      TypeError: decay is not a number or a schedule, or an option is not a bool.
      ValueError: decay is outside [0, 1], or is not known before tracing although debias or
        warmup need it.

    >>> estimator = ema(0.9)
    >>> state = estimator.init((1,))
    >>> batch = Moments(count=jnp.ones(1), mean=jnp.ones(1), var=jnp.zeros(1))
    >>> estimator.update(state, batch)
    Statistics(mean=Array([0.1], dtype=float32), var=Array([0.9], dtype=float32))
    >>> estimator = ema(0.9, debias=True)
    >>> estimator.update(estimator.init((1,)), batch).mean
    Array([1.], dtype=float32)
    """
    check_flags(debias=debias, warmup=warmup, unbiased=unbiased)
    if callable(decay) or isinstance(decay, Tracer):
        return _steered(decay, debias or warmup, unbiased)
    number: Any = decay
    if isinstance(decay, jax.Array) and decay.ndim == 0:
        number = decay.item()
    check_number(decay=number)
    if not 0 <= number <= 1:  # rejects NaN too
        raise ValueError(
            f"decay={decay}, but it is the weight of the old value and must lie in "
            "[0, 1]; flax and keras call it momentum, torch's momentum is 1 − decay."
        )
    if debias or warmup:
        return AgedAverage(unbiased, float(number), debias, warmup)
    return PlainAverage(unbiased, float(number))


def _steered(decay: Any, counts: bool, unbiased: bool) -> Estimator[Any]:
    """The `ema` of a schedule or of a traced decay."""
    if counts:
        raise ValueError(
            f"decay={decay} is not known before tracing, but debias= and warmup= compute "
            "with all earlier decays; leave them out, and let the schedule start at 0, so "
            "that the first batch replaces the initial values."
        )
    schedule: Any = decay
    if callable(decay):
        return ScheduledAverage(unbiased, schedule)
    if decay.ndim or not jnp.issubdtype(decay.dtype, jnp.floating):
        raise TypeError(
            f"decay is an array {decay.dtype}{list(decay.shape)}, but a scalar float is "
            "expected."
        )
    return TracedAverage(unbiased, decay)


def cumulative(unbiased: bool = False) -> Estimator[CountedStatistics]:
    """The arithmetic mean of the batches' moments; if unbiased, torch's momentum=None.

        s ← n/(n + 1)·s + 1/(n + 1)·batch  after n batches

    All batches have the same weight, including the first. This suits a network that no
    longer changes, or a reference. The variance is the mean of the batches' variances,
    without the spread of their means; `population` includes it.

    Args:
      unbiased: whether to average m/(m − 1)·σ² for a batch of m samples instead of σ².

    Returns:
      An Estimator with the state `CountedStatistics(mean, var, updates)`.

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


def or_reader(estimator: Estimator[State] | None, *, update: bool) -> Estimator[State]:
    """Returns the estimator; None reads the state of an `ema`, but cannot update it.

    A state does not carry its decay, so another than it was made with would go unnoticed.
    """
    if estimator is None and update:
        raise TypeError(
            "estimator= is missing, but the statistics are updated; pass the estimator "
            "that they were initialised with, such as estimator=ema(0.99), or update=False."
        )
    reader: Any = ema(1.0)
    return reader if estimator is None else estimator


@overload
def population(
    pooled: Literal[True] = True, unbiased: bool = True
) -> Estimator[Moments]: ...
@overload
def population(
    pooled: Literal[False], unbiased: bool = True
) -> Estimator[CountedStatistics]: ...
@overload
def population(pooled: bool = True, unbiased: bool = True) -> Estimator[Any]: ...
def population(pooled: bool = True, unbiased: bool = True) -> Estimator[Any]:
    """The mean and variance of everything seen, weighted by each batch's number of samples.

    If pooled, it is exact: the batches' moments are merged, and the variance includes the
    spread of their means,

        μ = Σ mᵢμᵢ / N,  σ² = Σ mᵢ(σᵢ² + (μᵢ − μ)²) / N,  N = Σ mᵢ.

    Otherwise it is the estimate of the batch normalisation paper (Ioffe & Szegedy 2015,
    algorithm 2, for batches of equal size m),

        μ = E[μᵢ],  σ² = m/(m − 1)·E[σᵢ²],

    which is `cumulative(unbiased=True)`. For random batches both are unbiased. For batches
    that differ systematically, as in sorted data, or while the network changes, the second
    omits the variance between them. Wu & Johnson 2021 (arXiv:2105.07576) use the first.

    Args:
      pooled: whether to merge the moments, or to use the paper's estimate.
      unbiased: whether the variance is multiplied by N/(N − 1), or m/(m − 1).

    Returns:
      An Estimator with the state `Moments(count, mean, var)`, with a biased variance, and
      mean 0 and variance 1 at count 0; if not pooled, the same as `cumulative`. In float32
      a count above 2²⁴ is rounded, and batches smaller than 2⁻²⁴ of it change nothing.

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
    """Makes jax trace a method once per estimator and shape, instead of at every call."""
    jitted: Any = jax.jit(method, static_argnums=0, inline=True)
    return jitted


@dataclasses.dataclass(frozen=True)
class Average(Estimator[State]):
    """Averages mean and variance as kept·old + added·new, with the factors of `shares`."""

    unbiased: bool

    def shares(self, state: Any, dtype: np.dtype) -> tuple[Any, Any]:
        """The factors of the old and the new value, which add up to 1."""
        raise NotImplementedError

    @once_traced
    def update(self, state: Any, moments: Moments) -> Any:
        """Returns the state after one more batch."""
        return self.blended(state, moments)

    def blended(self, state: Any, moments: Moments) -> Any:
        """`update`, traced at every call."""

        def blend(old: Array, new: Array) -> Array:
            dtype = accumulation_dtype(old.dtype, new.dtype)
            kept, added = self.shares(state, dtype)
            old, new = old.astype(dtype), new.astype(dtype)
            # Not kept·old + added·new: the factors add up to 1 only up to rounding, so with
            # identical batches the average would drift away from them.
            blended = old + added * (new - old)
            apart = jnp.isfinite(old) & jnp.isfinite(new) & ~jnp.isfinite(blended)
            blended = jnp.where(apart, kept * old + added * new, blended)
            # A value with factor 0 is excluded even if it is NaN.
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

    def shares(self, state: Statistics, dtype: np.dtype) -> tuple[Any, Any]:
        """The same at every step."""
        return self.decay, 1 - self.decay


@dataclasses.dataclass(frozen=True, eq=False)
class TracedAverage(PlainAverage):
    """An `ema` with a traced decay; it is not hashable."""

    decay: Any

    def update(self, state: Statistics, moments: Moments) -> Statistics:
        """Returns the state after one more batch."""
        return self.blended(state, moments)

    def shares(self, state: Statistics, dtype: np.dtype) -> tuple[Array, Array]:
        """The decay, and what it leaves."""
        decay = jnp.asarray(self.decay, dtype)
        return decay, 1 - decay


@dataclasses.dataclass(frozen=True)
class EqualAverage(Average[CountedStatistics]):
    """`cumulative`."""

    def init(
        self, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
    ) -> CountedStatistics:
        """Mean 0 and variance 1, and no updates."""
        return CountedStatistics(
            mean=jnp.zeros(shape, dtype),
            var=jnp.ones(shape, dtype),
            updates=jnp.zeros(shape, accumulation_dtype(dtype)),
        )

    def matured(self, state: CountedStatistics) -> CountedStatistics:
        """Refused: every batch counts the same."""
        raise ValueError(_uncounted("updates", "batches"))

    def shares(self, state: CountedStatistics, dtype: np.dtype) -> tuple[Array, Array]:
        """n/(n + 1) and 1/(n + 1)."""
        added = 1 / (state.updates.astype(dtype) + 1)
        return 1 - added, added


@dataclasses.dataclass(frozen=True)
class ScheduledAverage(EqualAverage):
    """An `ema` with a decay for each update."""

    decay: Schedule

    def matured(self, state: CountedStatistics) -> CountedStatistics:
        """Infinitely many updates: the schedule is at its end."""
        return state._replace(updates=jnp.full_like(state.updates, jnp.inf))

    def shares(self, state: CountedStatistics, dtype: np.dtype) -> tuple[Array, Array]:
        """The decay of this step, and what it leaves."""
        decay = jnp.broadcast_to(self.decay(state.updates), state.updates.shape)
        return decay.astype(dtype), 1 - decay.astype(dtype)


@dataclasses.dataclass(frozen=True)
class AgedAverage(EqualAverage):
    """An `ema` that is debiased or warmed up."""

    decay: float
    debias: bool
    warmup: bool

    def matured(self, state: CountedStatistics) -> CountedStatistics:
        """Infinitely many updates: neither debiased nor warmed up any more."""
        return state._replace(updates=jnp.full_like(state.updates, jnp.inf))

    def shares(self, state: CountedStatistics, dtype: np.dtype) -> tuple[Array, Array]:
        """1 − decay of this step for the new value; divided by `_seen` if debiased."""
        n = state.updates
        # A count that can grow no more, as of a state cast to 16 bits, is that of a long
        # training.
        n = jnp.where(n + 1 == n, jnp.inf, n.astype(dtype))
        added = jnp.full_like(n, 1 - self.decay)
        if self.warmup:
            added = jnp.maximum(added, 9 / (10 + n))  # 1 − (1 + n)/(10 + n)
        if self.debias and (self.warmup or self.decay < 1):
            added = jnp.where(n == 0, 1, added / self._seen(n + 1))
        return 1 - added, added

    def _seen(self, updates: Array) -> Array:
        """1 − the product of all decays so far: the total weight of the batches."""
        if not self.warmup:  # 1 − decayⁿ, without its cancellation
            return -jnp.expm1(updates * (math.log(self.decay) if self.decay else -math.inf))
        # (1 + n)/(10 + n) is the smaller decay until n reaches this.
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
        """Count 0, mean 0 and variance 1; at least float32, since counts are large."""
        empty = Moments.empty(shape, accumulation_dtype(dtype))
        return empty._replace(var=jnp.ones_like(empty.var))

    @once_traced
    def update(self, state: Moments, moments: Moments) -> Moments:
        """Merges the batch into the state."""
        return _where_seen(moments, merge_into(state, moments), state)

    def matured(self, state: Moments) -> Moments:
        """Refused: every sample counts the same."""
        raise ValueError(_uncounted("count", "samples"))

    def read(self, state: Moments) -> Moments:
        """The mean and variance of all samples."""
        return _forever(
            state.mean, unbiased_variance(state) if self.unbiased else state.var
        )


def _uncounted(name: str, what: str) -> str:
    return (
        f"the number of {what} in them, {name!r}, is missing, but this estimator averages "
        f"all {what}; set {name!r} to their number, or use ema() to go on from them."
    )


def _one_older(state: Any) -> Any:
    """Adds one update, if the state counts them."""
    if not isinstance(state, CountedStatistics):
        return state
    return state._replace(updates=state.updates + 1)


def _where_seen(moments: Moments, new: Any, old: Any) -> Any:
    """`new` where the count is above 0, else `old`; in old's dtypes, as scan requires."""
    return jax.tree.map(
        lambda n, o: jnp.where(moments.count > 0, n.astype(o.dtype), o), new, old
    )


def _forever(mean: Array, var: Array) -> Moments:
    return Moments(jnp.full_like(mean, jnp.inf), mean, var)
