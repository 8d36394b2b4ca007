"""Every example in a docstring runs."""

import doctest
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import pytest

import jaxnorm

MODULES = [
    module.name for module in pkgutil.walk_packages(jaxnorm.__path__, prefix="jaxnorm.")
]


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.usefixtures("lenient")
def test_examples_run(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, extraglobs={"jax": jax, "jnp": jnp})
    assert failed == 0


@pytest.mark.parametrize("name", ["torch", "keras"])
def test_every_name_of_interop_has_an_example(name):
    module = importlib.import_module(f"jaxnorm.interop.{name}")
    assert len(module.__all__) > 7
    for each in module.__all__:
        assert ">>> " in getattr(module, each).__doc__, each


def test_every_public_name_has_an_example():
    documented = (getattr(jaxnorm, name) for name in jaxnorm.__all__)
    types = {
        jaxnorm.Moments,
        jaxnorm.Statistics,
        jaxnorm.CountedStatistics,
        jaxnorm.SkipNonfiniteState,
        jaxnorm.AccumulateState,
        jaxnorm.CollectState,
        jaxnorm.Estimator,
        jaxnorm.Diagnosis,
        jaxnorm.NormReport,
    }
    for public in documented:
        assert public.__doc__
        assert public in types or ">>> " in public.__doc__, public
