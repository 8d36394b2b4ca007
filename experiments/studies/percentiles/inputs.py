"""The inputs of a network's sigmoids: percentiles, their drift, and saturation."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness.training import accuracy

PERCENTILES = (15, 50, 85)
SIGMOIDS = 10  # per layer, for the percentiles
ENDS = 4.0  # σ′(4) is 1/14 of σ′(0)


def observe(model, variables, data) -> dict[str, jax.Array]:
    """Returns test accuracy, and the inputs of the sigmoids on the test images.

    The network predicts with running statistics. `bands` are percentiles of the first
    sigmoids of each layer, of shape (layers, sigmoids, percentiles); `ends` is the share of
    each layer's inputs with |z| > `ENDS`, over all its sigmoids.
    """
    logits, sown = model.apply(
        variables, data.test_images, train=False, mutable=["intermediates"]
    )
    inputs = jnp.stack(sown["intermediates"]["inputs"])  # (layers, images, sigmoids)
    percentiles = jnp.array(PERCENTILES, jnp.float32)
    bands = jnp.percentile(inputs[..., :SIGMOIDS], percentiles, axis=1)
    return {
        "accuracy": accuracy(logits, data.test_labels),
        "bands": jnp.moveaxis(bands, 0, -1),
        "ends": jnp.mean(jnp.abs(inputs) > ENDS, axis=(1, 2)),
    }


def summed_up(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds `drift`, (seeds, layers), and keeps the bands of only one sigmoid per layer."""
    bands = found["bands"]
    return found | {"drift": drift(bands).mean(-1), "bands": bands[..., 0, :]}


def drift(bands: np.ndarray) -> np.ndarray:
    """Returns how far each median moves in training, in widths of its band.

    Args:
      bands: percentiles, of shape (seeds, rounds, …, 3).

    Returns:
      An array of shape (seeds, …).
    """
    low, middle, high = np.moveaxis(bands, -1, 0)
    return np.ptp(middle, axis=1) / np.mean(high - low, axis=1)
