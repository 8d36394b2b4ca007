"""Gradients of deep batch-normalised networks at initialisation, and the theory."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jaxnorm
from experiments.harness.comparing import History
from experiments.harness.runs import Run

Activation = Callable[[jax.Array], jax.Array]


BATCHES = (8, 16, 64, 256)
DEPTHS = (5, 20, 60)
BATCH, DEPTH = 64, 60
FITTED = slice(5, -10)  # layers
STATIC = ("depth", "width", "batch", "activation", "normalized")


@functools.partial(jax.jit, static_argnames=STATIC)
def squared_gradients(
    key: jax.Array,
    *,
    depth: int,
    width: int,
    batch: int,
    activation: Activation,
    normalized: bool = True,
) -> jax.Array:
    """Returns ‖∂L/∂W‖², (depth,), of stacked layers x ↦ activation(batch_norm(xW)).

    The inputs are standard normal and the loss is a random linear function of the outputs,
    drawn anew for each sample: the setting of Yang et al. W ~ N(0, 2/width), as in He et
    al.; batch norm is invariant to the 2.
    """
    keys = jax.random.split(key, 3)
    weights = jax.random.normal(keys[0], (depth, width, width)) * math.sqrt(2 / width)
    x, direction = (jax.random.normal(each, (batch, width)) for each in keys[1:])
    state = jaxnorm.ema(0.99).init((width,))

    def loss(weights: jax.Array) -> jax.Array:
        def layer(x: jax.Array, w: jax.Array) -> tuple[jax.Array, None]:
            y = x @ w
            if normalized:
                y, _ = jaxnorm.batch_norm(
                    y, state, train=True, estimator=jaxnorm.ema(0.99), epsilon=0.0
                )
            return activation(y), None

        return jnp.vdot(direction, jax.lax.scan(layer, x, weights)[0])

    return jnp.sum(jax.grad(loss)(weights) ** 2, axis=(1, 2))


def relu_kernel(c: float) -> tuple[float, float]:
    """2·E[relu(u)·relu(v)] of unit normals with correlation c, and its derivative."""
    angle = math.pi - math.acos(c)
    return (math.sqrt(1 - c * c) + angle * c) / math.pi, angle / math.pi


def linear_kernel(c: float) -> tuple[float, float]:
    """E[u·v] of unit normals with correlation c, and its derivative."""
    return c, 1.0


def rate(kernel: Callable[[float], tuple[float, float]], batch: int) -> float:
    """Returns the factor by which ‖gradient‖² grows per layer, at any width.

    The growth is from the last layer to the first. From Yang et al. 2019, for an activation
    with kernel J at infinite width: after normalisation the samples of a batch of B have
    the correlation c = −1/(B − 1), and

        rate = ((B − 1 + J′(c))/(1 − J(c)) − 1)/(B − 3).

    With relu it tends to π/(π − 1) for large B; without activation it is (B − 2)/(B − 3).
    """
    value, slope = kernel(-1 / (batch - 1))
    return ((batch - 1 + slope) / (1 - value) - 1) / (batch - 3)


def linear(x: jax.Array) -> jax.Array:
    """Returns x: no activation."""
    return x


KERNELS = {"relu": relu_kernel, "linear": linear_kernel}
NETWORKS = {
    "relu": {"activation": jax.nn.relu},
    "linear": {"activation": linear},
    "plain": {"activation": jax.nn.relu, "normalized": False},
}


def network_name(network: str, batch: int, depth: int) -> str:
    """Returns the key of a network in the history."""
    return f"{network}, batch of {batch}, {depth} layers"


def measure_gradients(run: Run, width: int, seeds: int) -> History:
    """Returns ‖∂L/∂W‖² of each layer of each network, (seeds, layers)."""

    def on_all(network: str, batch: int, depth: int) -> dict[str, np.ndarray]:
        gradients = functools.partial(
            squared_gradients, batch=batch, depth=depth, width=width, **NETWORKS[network]
        )
        return {"gradients": np.stack([gradients(jax.random.key(s)) for s in range(seeds)])}

    def line(name: str, found: dict[str, np.ndarray]) -> str:
        growth = found["gradients"][:, 0] / found["gradients"][:, -1]
        return f"{name:>32}  {np.median(growth):.1e}"

    networks = dict.fromkeys(
        [(each, batch, DEPTH) for each in KERNELS for batch in BATCHES]
        + [(each, BATCH, depth) for each in ("relu", "plain") for depth in DEPTHS]
    )
    parts = {
        network_name(*network): functools.partial(on_all, *network) for network in networks
    }
    return run.collect(parts, "                         network  growth", line)


def growth(history: History, network: str, batch: int) -> np.ndarray:
    """Returns the fitted factor per layer, (seeds,)."""
    gradients = history[network_name(network, batch, DEPTH)]["gradients"]
    layers = np.arange(DEPTH)[FITTED]
    return np.exp(-np.polyfit(layers, np.log(gradients[:, FITTED]).T, 1)[0])
