"""What the sigmoids of a network are given: percentiles, their drift, and saturation."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness.training import accuracy

PERCENTILES = (15, 50, 85)
SIGMOIDS = 10  # of each layer, from which the percentiles are taken
ENDS = 4.0  # σ′(4) is 1/14 of σ′(0)


def observe(model, variables, data) -> dict[str, jax.Array]:
    """Test accuracy, and the inputs of the sigmoids on the test images.

    Those of the network as it predicts, by running statistics. `bands` are percentiles of
    the first sigmoids of each layer, of shape (layers, sigmoids, percentiles); `ends` is
    the share of each layer's inputs with |z| > `ENDS`, over all of its sigmoids.
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
    """With `drift`, (seeds, layers), in place of the bands of all sigmoids but one."""
    bands = found["bands"]
    return found | {"drift": drift(bands).mean(-1), "bands": bands[..., 0, :]}


def drift(bands: np.ndarray) -> np.ndarray:
    """How far each median goes in training, in widths of its band.

    Args:
      bands: percentiles, of shape (seeds, rounds, …, 3).

    Returns:
      An array of shape (seeds, …).
    """
    low, middle, high = np.moveaxis(bands, -1, 0)
    return np.ptp(middle, axis=1) / np.mean(high - low, axis=1)
