"""Compiled norms for small examples: compiling single operations would take longer."""

import functools

import jax
import numpy as np

import jaxnorm

TINY = 1e-12  # ε → 0

AXES = ("feature_axes", "reduction_axes", "epsilon")

layer_norm = jax.jit(jaxnorm.layer_norm, static_argnames=AXES)
group_norm = jax.jit(jaxnorm.group_norm, static_argnames=(*AXES, "num_groups"))
instance_norm = jax.jit(jaxnorm.instance_norm, static_argnames=AXES)
measure = jax.jit(jaxnorm.measure, static_argnames=("reduction_axes",))


@functools.partial(jax.jit, static_argnames=("axis", "epsilon"))
def normalize_batch(x, scale=None, bias=None, axis=-1, epsilon=TINY):
    """Batch norm in training, without its running statistics."""
    features = np.atleast_1d(np.arange(x.ndim)[axis])
    start = jaxnorm.ema(0.99).init(tuple(x.shape[each] for each in features))
    y, _ = jaxnorm.batch_norm(
        x,
        start,
        scale,
        bias,
        train=True,
        estimator=jaxnorm.ema(0.99),
        feature_axes=axis,
        epsilon=epsilon,
    )
    return y
