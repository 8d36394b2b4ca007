"""How smooth a loss is along its gradient, and how much a layer's gradient shifts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Loss = Callable[[Any], jax.Array]  # a function of the parameters
STEPS = (0.5, 1.0, 2.0, 4.0)  # of gradient descent, in learning rates


def landscape(
    loss: Loss, params: Any, rate: float, layers: tuple[str, ...]
) -> dict[str, jax.Array]:
    """Measures a loss as Santurkar et al. do (1805.11604).

    Along the gradient, over several step sizes η: how the loss and the gradient g vary.
    By definition 2.1: the internal covariate shift of each kernel except the first. Here
    G is the gradient with respect to the kernel, and G′ the same after a step of gradient
    descent of all layers before it, including the norms between them.

    Args:
      loss: a function of the parameters.
      params: parameters by module name; modules of one layer end in the same number.
      rate: the learning rate of the step.
      layers: the names of the modules that have the kernels, in order.

    Returns:
      range: the largest minus the smallest loss where a step would lead.
      change: the largest ‖g(θ) − g(θ − ηg)‖, divided by ‖g(θ)‖.
      ics: ‖G − G′‖, (layers − 1,).
      cosine: the cosine of the angle between G and G′.
    """
    whole = [rate * size for size in STEPS]
    places = range(1, len(layers))
    sizes = {
        name: [0.0, *whole, *(rate * (number(name) < place) for place in places)]
        for name in params
    }
    losses, gradients = descended(loss, params, sizes)

    def at(place: int) -> Any:
        return jax.tree.map(lambda each: each[place], gradients)

    here, after = at(0), len(STEPS) + 1
    changes = [norm(jax.tree.map(jnp.subtract, at(i), here)) for i in range(1, after)]
    pairs = [
        (here[name]["kernel"], gradients[name]["kernel"][after + place])
        for place, name in enumerate(layers[1:])
    ]
    return {
        "range": jnp.ptp(losses[1:after]),
        "change": jnp.stack(changes).max() / norm(here),
        "ics": jnp.stack([norm(g - h) for g, h in pairs]),
        "cosine": jnp.stack([jnp.vdot(g, h) / (norm(g) * norm(h)) for g, h in pairs]),
    }


def descended(
    loss: Loss, params: Any, sizes: dict[str, list[float]]
) -> tuple[jax.Array, Any]:
    """Returns losses and gradients after gradient steps from the same parameters.

    All are computed in one loop, whose body is compiled once: a separate gradient for each
    step would take several times as long to compile.

    Args:
      loss: a function of the parameters.
      params: parameters by module name.
      sizes: step sizes for each module's parameters; the first is 0 for all modules.

    Returns:
      The losses, and the gradients with the steps as the first axis.
    """

    def body(gradient: Any, step: tuple[jax.Array, dict[str, jax.Array]]):
        first, size = step
        moved = {
            name: jax.tree.map(
                lambda p, g, name=name: p - size[name] * g, params[name], gradient[name]
            )
            for name in params
        }
        value, there = jax.value_and_grad(loss)(moved)
        kept = jax.tree.map(lambda g, h: jnp.where(first, h, g), gradient, there)
        return kept, (value, there)

    arrays = {name: jnp.asarray(each, jnp.float32) for name, each in sizes.items()}
    first = jnp.arange(len(next(iter(sizes.values())))) == 0
    none = jax.tree.map(jnp.zeros_like, params)
    return jax.lax.scan(body, none, (first, arrays))[1]


def number(name: str) -> int:
    """Returns the number of the layer, at the end of a module's name."""
    return int(name.rpartition("_")[2])


def norm(tree: Any) -> jax.Array:
    """Returns the Euclidean norm of all arrays in a tree."""
    return jnp.sqrt(sum(jnp.sum(each**2) for each in jax.tree.leaves(tree)))
