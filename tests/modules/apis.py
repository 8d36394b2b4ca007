"""A common interface to flax's APIs: maps variables and x to outputs and new state."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import jaxnorm.linen
import jaxnorm.nnx
from tests.support.cases import rows

KEY = jax.random.key(0)
NORMS = ("BatchNorm", "LayerNorm", "RMSNorm", "GroupNorm", "InstanceNorm")


@dataclass(frozen=True)
class Model:
    """A module of either API as a function.

    Attributes:
      variables: {"params": ..., "batch_stats": ...}, as initialised.
      apply: `apply(variables, x, **call) -> (y, batch_stats)`.
    """

    variables: dict[str, Any]
    apply: Callable[..., tuple[jax.Array, Any]]

    def __call__(self, x: Any, **call: Any) -> jax.Array:
        return self.apply(self.variables, x, **call)[0]


def _linen(norm: type, x: Any, num_features: int, **arguments: Any) -> Model:
    """Makes a Linen model, which infers the number of features from x."""
    module = norm(**arguments)
    mode = {"use_running_average": True} if norm.__name__.startswith("Batch") else {}

    def apply(variables: Any, x: Any, **call: Any) -> tuple[jax.Array, Any]:
        y, updates = module.apply(variables, x, mutable=["batch_stats"], **call)
        return y, updates.get("batch_stats", {})

    variables = module.init(KEY, x, **mode)
    return Model({"params": {}, "batch_stats": {}} | variables, apply)


def _nnx(norm: type, x: Any, num_features: int, **arguments: Any) -> Model:
    """Makes an NNX model, which takes the number of features as an argument."""
    module = norm(num_features, rngs=nnx.Rngs(KEY), **arguments)
    graph, params, statistics = nnx.split(module, nnx.Param, nnx.BatchStat)

    def apply(variables: Any, x: Any, **call: Any) -> tuple[jax.Array, Any]:
        # A copy, because the call writes to its variables.
        state = variables["params"], variables["batch_stats"]
        module = nnx.merge(graph, *state, copy=True)
        return module(x, **call), nnx.state(module, nnx.BatchStat)

    return Model({"params": params, "batch_stats": statistics}, apply)


@dataclass(frozen=True)
class Api:
    """One of the two APIs.

    Attributes:
      ours: the modules of jaxnorm.
      theirs: the modules of flax.
      model: `model(norm, x, num_features, **arguments) -> Model`.
    """

    name: str
    ours: ModuleType
    theirs: ModuleType
    model: Callable[..., Model]

    def pair(
        self, norm: str, x: Any, num_features: int | None = None, **arguments: Any
    ) -> tuple[Model, Model]:
        """Returns our model and flax's, with the same arguments."""
        features = x.shape[-1] if num_features is None else num_features
        ours, theirs = (
            self.model(getattr(each, norm), x, features, **arguments)
            for each in (self.ours, self.theirs)
        )
        return ours, theirs


LINEN = Api("linen", jaxnorm.linen, nn, _linen)
NNX = Api("nnx", jaxnorm.nnx, nnx, _nnx)

each_api = pytest.mark.parametrize("api", [LINEN, NNX], ids=lambda api: api.name)
each_norm = pytest.mark.parametrize("norm", NORMS)
# For tests that compile for seconds: the norm with a state, and the one with groups.
most_different_norms = pytest.mark.parametrize(
    "norm", rows(NORMS, ["BatchNorm", "GroupNorm"])
)


def training(norm: str) -> dict[str, bool]:
    """Returns the arguments that a call in training needs."""
    return {"use_running_average": False} if norm == "BatchNorm" else {}


def normal(*shape: int, dtype: Any = jnp.float32) -> jax.Array:
    """An input with a mean and standard deviation of about 1."""
    return (1 + jax.random.normal(jax.random.key(1), shape)).astype(dtype)
