"""Converting an array of any shape there and back returns it bit for bit."""

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnorm.interop import keras, torch

SIZES = st.lists(st.integers(1, 3), min_size=3, max_size=5)


def bits(*shape):
    """Floats with random bits: NaNs with a payload, infinities, denormals."""
    drawn = np.random.default_rng(0).integers(0, 2**32, shape, dtype=np.uint32)
    return drawn.view(np.float32)


def check(there, back, name, array, shape, rules):
    template = {"m": {"kernel": jax.ShapeDtypeStruct(tuple(shape), np.float32)}}
    state = {name: array}
    variables, _ = there(state, template, rules=rules)
    again = back(variables, state, rules=rules).arrays[name]
    assert again.shape == array.shape
    assert (again.view(np.uint32) == array.view(np.uint32)).all()


@settings(max_examples=20)
@given(sizes=SIZES, transposed=st.booleans(), swapped=st.booleans())
def test_kernels_of_torch(sizes, transposed, swapped):
    out, inner, *positions = sizes
    flipped = transposed and not swapped
    shape = (*positions, *((out, inner) if flipped else (inner, out)))
    rules = {"m": torch.transposed(transpose_kernel=swapped)} if transposed else {}
    array = bits(*sizes)
    check(torch.from_torch, torch.to_torch, "m.weight", array, shape, rules)


@settings(max_examples=10)
@given(sizes=SIZES)
def test_rows_of_torch(sizes):
    out, *shape = sizes
    rules = {"m": torch.flattened(*shape)}
    rows = int(np.prod(shape))
    array = bits(out, rows)
    check(torch.from_torch, torch.to_torch, "m.weight", array, (rows, out), rules)


@settings(max_examples=20)
@given(sizes=SIZES, kind=st.sampled_from(["conv", "depthwise", "transposed"]))
def test_kernels_of_keras(sizes, kind):
    *positions, inner, out = sizes
    shape, rules = sizes, {}
    if kind == "depthwise":
        shape = (*positions, 1, inner * out)
    if kind == "transposed":
        shape, rules = (*positions, out, inner), {"m": keras.transposed()}
    check(keras.from_keras, keras.to_keras, "m/kernel", bits(*sizes), shape, rules)
