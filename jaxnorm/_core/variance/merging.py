"""Mean and variance on a TPU: a reduction whose operation is the merge of moments."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from jaxnorm._core.variance.formulas import (
    Measured,
    as_measured,
    count_of,
    seen_count,
    seen_overflow,
    used_samples,
)
from jaxnorm._core.weights import clear


def one_pass_of_merges(x: Array, weights: Array | None, axes: tuple[int, ...]) -> Measured:
    """Reduces x with the merge of moments (Chan et al. 1983) as the operation.

    A sample is (w, x, 0), for weight, mean and Σw(x − μ)², with the rounding error of each:
    a TPU merges one sample after another into a lane, and without these errors, a mean
    close enough to all samples would stop changing.
    """
    count = count_of(x, weights, axes)
    used, x, w = used_samples(x, weights)
    if used is not None:
        w = clear(jnp.asarray(weights).astype(x.dtype), used)
    if weights is not None and weights.dtype != bool:
        # Shares that sum to 1, so that no product with the largest or the smallest weights
        # leaves the range.
        w = w / seen_count(count)
    zero, nothing = np.zeros((), x.dtype), jnp.zeros_like(x)
    sample = (jnp.broadcast_to(w, x.shape), x, *[nothing] * 4)
    total, mean, square, *lost = (
        jnp.expand_dims(each, axes)
        for each in lax.reduce(sample, (zero,) * len(sample), _merged, axes)
    )
    near = mean + lost[1]
    rest, var = lost[1] - (near - mean), (square + lost[2]) / seen_count(total + lost[0])
    return as_measured(count, near, rest, seen_overflow(var))


Partial = tuple[Array, Array, Array, Array, Array, Array]


def _merged(one: Partial, other: Partial) -> Partial:
    n1, mean1, square1, *lost1 = one
    n2, mean2, square2, *lost2 = other
    n, n_error = _two_sum(n1, n2)
    n_lost = lost1[0] + lost2[0] + n_error
    share = (n2 + lost2[0]) / jnp.where(n > 0, n + n_lost, 1)
    apart = mean2 - mean1
    mean, mean_error = _two_sum(mean1, apart * share)
    further = lost2[1] - lost1[1]
    apart += further
    # In this order, 0 samples and the largest number give 0.
    square, error = _two_sum(square1, apart * ((n1 + lost1[0]) * share) * apart)
    square, square_error = _two_sum(square, square2)
    return (
        n,
        mean,
        square,
        n_lost,
        lost1[1] + further * share + mean_error,
        lost1[2] + lost2[2] + (error + square_error),
    )


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Returns the sum and its rounding error (Knuth)."""
    total = a + b
    added = total - a
    return total, (a - (total - added)) + (b - added)
