"""Eight host devices, and JAX as strict as it gets, for every test."""

import os
import signal
from collections import Counter

# Before jax is imported: it reads this once.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax
import jaxtyping
import numpy as np
import pytest

from tests.support import annotations

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Every annotation of jaxnorm is checked at run time.
jaxtyping.install_import_hook("jaxnorm", f"{annotations.__name__}.check")

# With their annotations checked.
from jaxnorm._core import normalization  # noqa: E402
from jaxnorm._core.variance import blocks, choice, formulas  # noqa: E402

# The devices are for tests of sharding, which ask for `several_devices`. All else is tested
# by the formula that a machine with one CPU device has.
has_several_devices = choice.has_several_devices
choice.has_several_devices = lambda platform: False

hypothesis.settings.register_profile("default", deadline=None, derandomize=True)
hypothesis.settings.load_profile("default")


def pytest_configure(config):
    """Turns off optimisation in the default run, and where `optimized` tests are left out.

    This saves about a third of the time. No backend, which reads the flags, is started yet.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As in the background of a shell. What tests interrupt would ignore it, too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    selected = config.getoption("markexpr")
    if selected == "not slow" or "not optimized" in selected:
        os.environ["XLA_FLAGS"] += (
            " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
        )
        if jax.__version_info__ < (0, 11):  # later ones abort: they do not know the flag
            os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"


def pytest_terminal_summary(terminalreporter):
    """Prints how near the drawn layouts came to the documented bounds, by platform."""
    cases, largest = Counter(), {}
    for report in terminalreporter.getreports("passed"):
        recorded = dict(report.user_properties).get("error over bound")
        if recorded:
            platform, number, found = recorded
            cases[platform] += number
            most = largest.setdefault(platform, dict(found))
            most |= {name: max(each, most[name]) for name, each in found.items()}
    for platform, found in largest.items():
        ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in found.items() if ratio)
        terminalreporter.write_line(
            f"largest error over its bound, {platform}, {cases[platform]} cases: {ratios}"
        )


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def unchecked():
    """No run-time check of annotations, which would answer before our own errors do."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def lenient():
    """JAX's usual promotion, for code that is not ours."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def several_devices(monkeypatch):
    """The formula of a process with several CPU devices, which has eight of them here."""
    monkeypatch.setattr(choice, "has_several_devices", has_several_devices)
    yield from without_caches()


@pytest.fixture
def of_platform(request, monkeypatch):
    """The formulas of another platform, on a CPU; for a test that is parametrized by it."""
    choose = choice.formulas_for

    def of_one(*arguments):
        found = choose(*arguments)
        return {"default": found.get(request.param, found["default"])}

    monkeypatch.setattr(choice, "formulas_for", of_one)
    if request.param == "cuda":
        for module in (formulas, blocks):
            monkeypatch.setattr(module, "sum_over", summed_in_a_tree)
        by_factors = normalization._factor_by_factor
        monkeypatch.setattr(normalization, "_by_one_factor", by_factors)
    yield from without_caches(request.param)


def summed_in_a_tree(values, axes):
    """The sum over axes in the order of a GPU, which is more exact than a CPU's."""
    for axis in axes:
        while values.shape[axis] > 1:
            half = values.shape[axis] // 2
            first, second, rest = (
                jax.lax.slice_in_dim(values, *ends, axis=axis)
                for ends in ((0, half), (half, 2 * half), (2 * half, None))
            )
            values = jax.numpy.concatenate([first + second, rest], axis)
    return values


def without_caches(value=None):
    """Yields `value` with none of what was traced before, and leaves nothing behind."""
    jax.clear_caches()
    yield value
    jax.clear_caches()
