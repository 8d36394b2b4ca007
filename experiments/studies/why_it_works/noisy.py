"""Batch norm whose outputs are shifted and scaled anew in each training step."""

import flax.linen as nn
import jax

from experiments.models.deep import batch_norm


class NoisyBatchNorm(nn.Module):
    """Batch norm, followed in training by the noise of Santurkar et al. (1805.11604).

    At each step, each unit draws a mean in [−.5, .5] and a standard deviation in [1, 1.25]
    for its noise; the shift and scale of each sample are drawn around them.
    """

    train: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = batch_norm(self.train)(x)
        if not self.train:
            return y
        keys = jax.random.split(self.make_rng("noise"), 4)
        unit = (*[1] * (y.ndim - 1), y.shape[-1])
        mean = jax.random.uniform(keys[0], unit, minval=-0.5, maxval=0.5)
        deviation = jax.random.uniform(keys[1], unit, minval=1.0, maxval=1.25)
        shift = mean + jax.random.uniform(keys[2], y.shape, minval=-0.1, maxval=0.1)
        scale = deviation + 0.1 * jax.random.normal(keys[3], y.shape)
        return y * scale + shift
