"""Batch normalisation in each library; all update and return their statistics."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jaxnorm.linen as jn
from experiments.benchmarks.layers import (
    EPSILON,
    MOMENTUM,
    STEPS_BEFORE,
    Inputs,
    Layer,
    keras_policy,
)


def linen(inputs: Inputs, dtype: str, *, module: Any) -> Layer:
    """For jaxnorm and flax, which are called alike."""
    made = module(momentum=MOMENTUM, epsilon=EPSILON, dtype=dtype)

    def train(params, state, x):
        variables = {"params": params, "batch_stats": state}
        y, updates = made.apply(
            variables, x, use_running_average=False, mutable=["batch_stats"]
        )
        return y, updates["batch_stats"]

    def evaluate(params, state, x):
        variables = {"params": params, "batch_stats": state}
        return made.apply(variables, x, use_running_average=True)

    mean, var = map(jnp.asarray, inputs.statistics)
    state = {"mean": mean, "var": var}
    return Layer(train, evaluate, state, lambda state: (state["mean"], state["var"]))


def haiku(inputs: Inputs, dtype: str) -> Layer:
    """With parameters of the given dtype; haiku would have created them in x's dtype."""
    import haiku as hk

    @hk.transform_with_state
    def norm(x, is_training):
        made = hk.BatchNorm(True, True, MOMENTUM, EPSILON, name="norm")
        return made(x, is_training)

    def apply(params, state, x, is_training):
        shape = (1,) * (x.ndim - 1) + (-1,)
        scale, offset = (
            params[name].reshape(shape).astype(dtype) for name in ("scale", "bias")
        )
        variables = {"norm": {"scale": scale, "offset": offset}}
        return norm.apply(variables, state, None, x, is_training)

    def start(values: np.ndarray) -> dict[str, jax.Array]:
        average = jnp.asarray(values, dtype).reshape((1,) * (inputs.x.ndim - 1) + (-1,))
        counter = jnp.asarray(STEPS_BEFORE, jnp.int32)
        return {"counter": counter, "hidden": average, "average": average}

    names = ("norm/~/mean_ema", "norm/~/var_ema")
    return Layer(
        functools.partial(apply, is_training=True),
        lambda params, state, x: apply(params, state, x, is_training=False)[0],
        dict(zip(names, map(start, inputs.statistics), strict=True)),
        lambda state: tuple(state[name]["average"].reshape(-1) for name in names),
    )


def equinox(inputs: Inputs, dtype: str) -> Layer:
    """Maps over the batch; each example has its channels first.

    Its parameters have the given dtype, because float32 ones would make y float32.
    """
    import equinox as eqx

    made: Any
    made, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        inputs.x.shape[-1],
        "batch",
        momentum=MOMENTUM,
        eps=EPSILON,
        dtype=jnp.dtype(dtype),
        mode="batch",
    )
    statistics = made.batch_state_index
    start = tuple(jnp.asarray(each, dtype) for each in inputs.statistics)
    state = state.set(statistics, start)
    state = state.set(made.batch_counter, jnp.array(STEPS_BEFORE))  # weakly typed there

    def apply(params, state, x, inference):
        values = tuple(params[name].astype(dtype) for name in ("scale", "bias"))
        norm = eqx.tree_at(lambda made: (made.weight, made.bias), made, values)
        norm = functools.partial(norm, inference=inference)
        mapped = jax.vmap(norm, in_axes=(0, None), out_axes=(0, None), axis_name="batch")
        return mapped(x, state)

    return Layer(
        functools.partial(apply, inference=False),
        lambda params, state, x: apply(params, state, x, inference=True)[0],
        state,
        lambda state: state.get(statistics),
        channels_first=True,
    )


def keras(inputs: Inputs, dtype: str) -> Layer:
    """Uses the JAX backend, with float32 variables."""
    from keras.layers import BatchNormalization

    made = BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, dtype=keras_policy(dtype))
    made.build(inputs.x.shape)

    def apply(params, state, x, training) -> Any:
        trainable = [params["scale"], params["bias"]]
        return made.stateless_call(trainable, state, x, training=training)

    return Layer(
        functools.partial(apply, training=True),
        lambda params, state, x: apply(params, state, x, training=False)[0],
        list(map(jnp.asarray, inputs.statistics)),
        tuple,
    )


LAYERS = {
    "jaxnorm": functools.partial(linen, module=jn.BatchNorm),
    "flax": functools.partial(linen, module=nn.BatchNorm),
    "haiku": haiku,
    "equinox": equinox,
    "keras": keras,
}


def torch_forward(tensors: Any, *, train: bool) -> Any:
    """Torch's norm on `torch_programs.Tensors`; updates running statistics in place."""
    from torch.nn.functional import batch_norm

    mean, var = tensors.statistics
    scale, bias = tensors.params.values()
    return batch_norm(tensors.x, mean, var, scale, bias, train, 1 - MOMENTUM, EPSILON)


def reference(inputs: Inputs, *, train: bool) -> np.ndarray:
    """Returns y in float64."""
    x = np.asarray(inputs.x, np.float64)
    mean, var = (each.astype(np.float64) for each in inputs.statistics)
    if train:
        reduced = tuple(range(x.ndim - 1))
        mean, var = x.mean(reduced), x.var(reduced)
    return (x - mean) / np.sqrt(var + EPSILON) * inputs.params["scale"] + inputs.params[
        "bias"
    ]


def reference_dx(inputs: Inputs) -> np.ndarray:
    """Returns dx in float64, with x normalised by its own statistics."""
    x, g = np.asarray(inputs.x, np.float64), np.asarray(inputs.g, np.float64)
    reduced = tuple(range(x.ndim - 1))
    inverse = 1 / np.sqrt(x.var(reduced) + EPSILON)
    normalized = (x - x.mean(reduced)) * inverse
    centred = g - g.mean(reduced) - normalized * (g * normalized).mean(reduced)
    return inputs.params["scale"] * inverse * centred
