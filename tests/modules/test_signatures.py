"""Modules have flax's constructor and call arguments, in its order, with its defaults."""

import inspect

import pytest

from tests.modules.apis import each_api, each_norm

# Added by Linen, always last.
LAST = ("parent", "name")


def parameters(function):
    return list(inspect.signature(function).parameters.values())


def kept(ours, theirs):
    """Returns our parameters that flax has too."""
    names = [each.name for each in theirs]
    return [each for each in ours if each.name in names]


@each_api
@each_norm
@pytest.mark.parametrize("method", ["__init__", "__call__"])
def test_takes_the_arguments_of_flax_with_their_order_kinds_and_defaults(api, norm, method):
    ours, theirs = (
        parameters(getattr(getattr(each, norm), method)) for each in (api.ours, api.theirs)
    )
    assert [(each.name, each.kind) for each in kept(ours, theirs)] == [
        (each.name, each.kind) for each in theirs
    ]
    for mine, other in zip(kept(ours, theirs), theirs, strict=True):
        # flax creates some initialisers anew for each module; they are equivalent.
        assert same(mine.default, other.default), mine.name


def same(mine, other):
    return mine == other or (
        callable(mine) and callable(other) and mine.__qualname__ == other.__qualname__
    )


@each_api
@each_norm
def test_adds_to_them_what_the_functions_take_besides(api, norm):
    def added(method):
        ours, theirs = (
            parameters(getattr(getattr(each, norm), method))
            for each in (api.ours, api.theirs)
        )
        names = [each.name for each in theirs]
        return {each.name for each in ours if each.name not in names}

    switches = {"train", "update", "frozen"} if norm == "BatchNorm" else set()
    state = {"estimator", "ghost_size"} if norm == "BatchNorm" else set()
    kernels = {"implementation"} if norm in ("LayerNorm", "RMSNorm") else set()
    axes = {"feature_axes"} if norm == "GroupNorm" else set()
    assert added("__init__") == {"rounding"} | kernels | axes | switches | state
    assert added("__call__") == {"weights", "scale", "bias"} | switches


@each_api
@each_norm
def test_no_added_argument_displaces_a_positional_one_of_flax(api, norm):
    ours, theirs = (
        [each for each in parameters(getattr(module, norm)) if each.name not in LAST]
        for module in (api.ours, api.theirs)
    )
    positional = [e.name for e in theirs if e.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert [each.name for each in ours][: len(positional)] == positional
