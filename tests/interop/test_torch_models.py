"""Whole torch models, from states made with NumPy: layouts, names, reports and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnorm.interop.torch import (
    channels_last,
    flattened,
    from_torch,
    to_torch,
    transposed,
)


def counting(*shape, dtype=np.float32):
    """An array that every permutation changes."""
    return np.arange(np.prod(shape, dtype=int), dtype=dtype).reshape(shape)


def shapes(**leaves):
    return {name: jax.ShapeDtypeStruct(each, np.float32) for name, each in leaves.items()}


def leaf(state, leaves, **options):
    """The converted arrays of a module "m", nested as in NNX."""
    return from_torch(state, {"m": leaves}, **options).arrays["m"]


def test_kernels():
    """Each entry connects the same input to the same output as before."""
    w = counting(5, 3)
    assert (leaf({"m.weight": w}, shapes(kernel=(3, 5)))["kernel"] == w.T).all()
    w = counting(6, 2, 3, 4)
    got = leaf({"m.weight": w}, shapes(kernel=(3, 4, 2, 6)))["kernel"]
    assert all(got[h, k, i, o] == w[o, i, h, k] for o, i, h, k in np.ndindex(w.shape))
    rules = {"m": transposed()}
    got = leaf({"m.weight": w}, shapes(kernel=(3, 4, 6, 2)), rules=rules)["kernel"]
    assert all(
        got[2 - h, 3 - k, i, o] == w[i, o, h, k] for i, o, h, k in np.ndindex(w.shape)
    )


def test_a_linear_layer_behind_a_flatten():
    """The output for an image is the same for either order of flattening."""
    image, w = counting(2, 3, 4), counting(5, 2 * 3 * 4)
    rules = {"m": flattened(2, 3, 4)}
    kernel = leaf({"m.weight": w}, shapes(kernel=(24, 5)), rules=rules)["kernel"]
    ours = np.moveaxis(image, 0, -1).reshape(-1) @ np.asarray(kernel)
    np.testing.assert_array_equal(ours, w @ image.reshape(-1))


@pytest.mark.parametrize("target", [(3, 4, 2), (24,)])
def test_a_norm_over_images(target):
    w = counting(2, 3, 4)
    rules = {"m": channels_last()}
    got = leaf({"m.weight": w}, shapes(scale=target), rules=rules)["scale"]
    np.testing.assert_array_equal(got, np.moveaxis(w, 0, -1).reshape(target))


def test_transposed_convolutions_by_their_name():
    w = counting(2, 5, 3)
    for target in ((3, 2, 5), (3, 5, 2)):
        template = {"params": {"ConvTranspose_0": shapes(kernel=target)}}
        arrays, report = from_torch({"up.weight": w}, template, {"up": "ConvTranspose_0"})
        kernel = arrays["params"]["ConvTranspose_0"]["kernel"]
        flipped = np.transpose(w, (2, 0, 1))[::-1]
        expected = flipped if target == (3, 2, 5) else np.transpose(w, (2, 1, 0))
        np.testing.assert_array_equal(kernel, expected)
        assert ("flipped" in str(report)) == (target == (3, 2, 5))


STATE = {
    "features.0.weight": counting(4, 3, 2, 2),
    "features.1.weight": counting(4),
    "features.1.bias": counting(4) + 1,
    "features.1.running_mean": counting(4) + 2,
    "features.1.running_var": counting(4) + 3,
    "features.1.num_batches_tracked": np.int64(7),
    "classifier.weight": counting(2, 4),
    "classifier.bias": counting(2),
}
PARAMS = {
    "Conv_0": shapes(kernel=(2, 2, 3, 4)),
    "BatchNorm_0": shapes(scale=(4,), bias=(4,)),
    "head": {"Dense_0": shapes(kernel=(4, 2), bias=(2,))},
}
TEMPLATE = {"params": PARAMS, "batch_stats": {"BatchNorm_0": shapes(mean=(4,), var=(4,))}}
NAMES = {"features.0": "Conv_0", "features.1": "BatchNorm_0", "classifier": "head/Dense_0"}


def with_updates(template):
    updates = {"updates": jax.ShapeDtypeStruct((4,), np.float32)}
    norm = template["batch_stats"]["BatchNorm_0"] | updates
    return template | {"batch_stats": {"BatchNorm_0": norm}}


def test_a_model_and_back():
    variables, report = from_torch(STATE, TEMPLATE, NAMES)
    norm = variables["batch_stats"]["BatchNorm_0"]
    np.testing.assert_array_equal(norm["mean"], STATE["features.1.running_mean"])
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(lambda a: a.shape, TEMPLATE)
    assert str(report).splitlines()[0] == (
        "features.0.weight → params/Conv_0/kernel: OIHW → HWIO"
    )
    assert str(report).splitlines()[-1] == (
        "features.1.num_batches_tracked → —: not kept, as the estimator has no count"
    )
    back, _ = to_torch(variables, STATE, NAMES)
    np.testing.assert_equal(back, STATE)
    assert list(back) == list(STATE)
    assert back["classifier.bias"].flags.writeable


def test_what_is_counted_is_kept():
    variables, _ = from_torch(STATE, with_updates(TEMPLATE), NAMES)
    updates = variables["batch_stats"]["BatchNorm_0"]["updates"]
    assert updates.tolist() == [7, 7, 7, 7]
    assert updates.dtype == np.float32
    later = dict(STATE) | {"features.1.num_batches_tracked": np.int64(0)}
    np.testing.assert_equal(to_torch(variables, later, NAMES).arrays, STATE)

    variables["batch_stats"]["BatchNorm_0"]["updates"] = updates.at[0].set(5)
    with pytest.raises(ValueError, match=r"had \[5, 7\] batches"):
        to_torch(variables, STATE, NAMES)


def test_without_a_number_of_batches_statistics_are_mature():
    """For states that torch saved before it counted batches."""
    state = {name: each for name, each in STATE.items() if "tracked" not in name}
    variables, report = from_torch(state, with_updates(TEMPLATE), NAMES)
    assert np.isinf(variables["batch_stats"]["BatchNorm_0"]["updates"]).all()
    assert "— → batch_stats/BatchNorm_0/updates: missing, so infinite" in str(report)
    np.testing.assert_equal(to_torch(variables, state, NAMES).arrays, state)


def test_names_by_a_function_and_by_stars():
    stars = {"features.0": "Conv_0", "f*s.1": "BatchNorm_0", "**sifier": "head/Dense_0"}
    wanted = from_torch(STATE, TEMPLATE, NAMES)
    for names in (NAMES.__getitem__, stars):
        assert from_torch(STATE, TEMPLATE, names).report == wanted.report
    state = {"a.1.b.fc.bias": counting(2)}
    template = {"params": {"b": {"Block_1": {"of": {"a": shapes(bias=(2,))}}}}}
    names = {"*.*.**.fc": "{2}/Block_{1}/of/{0}"}
    assert "b/Block_1/of/a" in str(from_torch(state, template, names).report)
    with pytest.raises(ValueError, match="does not match its pattern's 1 stars"):
        from_torch(state, template, {"**.fc": "{}/{}"})


def test_all_problems_are_in_one_error():
    state = STATE | {
        "features.0.weight": counting(4, 3, 5, 5),
        "features.0.bias": counting(4),
        "old.weight": counting(2),
        "classifier.bias": counting(2, dtype=np.int64),
    }
    del state["features.1.running_var"]
    names = NAMES | {"neck.*": "Neck_{}"}
    with pytest.raises(ValueError, match="nothing was converted") as raised:
        from_torch(state, TEMPLATE, names, rules={"fc": transposed()}, keep=["x/**"])
    message = str(raised.value)
    for line in (
        "nothing was converted: 8 arrays or patterns did not match",
        "- features.0.bias (4,): Conv_0 has kernel",
        "- old.weight (2,): there is no old",
        "- batch_stats/BatchNorm_0/var (4,)",
        "- features.0.weight (4, 3, 5, 5) for params/Conv_0/kernel (2, 2, 3, 4): "
        "OIHW → HWIO gives (5, 5, 3, 4)",
        "- params/head/Dense_0/bias: int64 is given, but float32 is expected",
        "- 'neck.*' in names",
        "- 'fc' in rules",
        "- 'x/**' in keep",
    ):
        assert line in message


def test_two_arrays_for_one_place_are_refused():
    state = {"a.bias": counting(2), "b.bias": counting(2)}
    with pytest.raises(ValueError, match=r"twice.*\n- b.bias and a.bias for m/bias"):
        from_torch(state, {"m": shapes(bias=(2,))}, {"*": "m"})


def test_what_the_shapes_do_not_say_is_refused():
    template = {"ConvTranspose_0": shapes(kernel=(3, 2, 2))}
    state = {"up.weight": counting(2, 2, 3)}
    with pytest.raises(ValueError, match=r"pass transposed\(\) or"):
        from_torch(state, template, {"up": "ConvTranspose_0"})
    with pytest.raises(ValueError, match="rows of 24 values are expected"):
        leaf(
            {"m.weight": counting(2, 12)},
            shapes(kernel=(12, 2)),
            rules={"m": flattened(2, 3, 4)},
        )
    with pytest.raises(ValueError, match="has spatial axes; remove the rule"):
        leaf({"m.weight": counting(2, 2)}, shapes(kernel=(2, 2)), rules={"m": transposed()})


def test_parts_may_be_left_out_and_kept():
    """As for a new set of classes."""
    template = {"params": {"m": {"bias": jnp.ones(3)}, "fc": {"bias": jnp.ones(5)}}}
    state = {"m.bias": counting(3), "fc.bias": counting(2)}
    names = {"fc": None, "**": "{}"}
    variables, report = from_torch(state, template, names, keep=["params/fc/*"])
    assert variables["params"]["fc"]["bias"].tolist() == [1.0] * 5
    assert "fc.bias → —: left out by names" in str(report)
    assert "— → params/fc/bias: kept as it is" in str(report)
    back, _ = to_torch(variables, state, names, keep=["params/fc/*"])
    np.testing.assert_equal(back, state)

    template["params"]["fc"] = shapes(bias=(5,))
    with pytest.raises(ValueError, match="only a shape in the template"):
        from_torch(state, template, names, keep=["params/fc/*"])


def test_dtypes_change_without_loss_or_when_told():
    template = {"m": shapes(bias=(2,))}
    half = {"m.bias": np.float16([0.1, np.nan])}
    variables, report = from_torch(half, template)
    assert "float16 → float32" in str(report)
    back, report = to_torch(variables, half)
    np.testing.assert_equal(back, half)
    assert "float32 → float16" in str(report)

    wide = {"m.bias": np.array([0.1, 1e300])}
    with pytest.raises(ValueError, match="float64 values cannot be represented in float32"):
        from_torch(wide, template)
    wide = {"m.bias": np.array([0.1, 1e30])}
    rounded = from_torch(wide, template, cast=True).arrays["m"]["bias"]
    assert rounded.tolist() == [np.float32(0.1), np.float32(1e30)]


def test_the_coarse_and_the_random():
    """Safetensors may contain bfloat16; an NNX dropout contains keys."""
    half = {"fc.bias": np.asarray(jnp.array([0.1, 2.0], jnp.bfloat16))}
    key = jax.random.key(0)
    template = {"fc": {"bias": jnp.zeros(2)}, "dropout": {"rngs": {"key": key}}}
    variables, _ = from_torch(half, template, keep=["**/rngs/**"])
    assert variables["dropout"]["rngs"]["key"] is key
    assert variables["fc"]["bias"].dtype == np.float32
    back, _ = to_torch(variables, half, keep=["**/rngs/**"])
    np.testing.assert_equal(back, half)


def test_another_byte_order_is_read():
    for order in "<>":
        state = {"m.bias": np.array([1.5, -2.0], f"{order}f4")}
        variables, _ = from_torch(state, {"m": shapes(bias=(2,))})
        assert variables["m"]["bias"].tolist() == [1.5, -2.0]
        back, _ = to_torch(variables, state)
        np.testing.assert_equal(back, state)


def test_many_strays_are_counted():
    state = {f"stray.{i}": np.zeros(1) for i in range(10_000)}
    with pytest.raises(ValueError, match=r"10000 arrays(.|\n)*and 9950 more") as raised:
        from_torch(state, {})
    assert len(str(raised.value)) < 5_000


@pytest.mark.parametrize("target", ["../norm", "./norm", "block/../norm"])
def test_a_path_starts_at_the_top(target):
    state, template = {"m.bias": counting(2)}, {"norm": shapes(bias=(2,))}
    with pytest.raises(ValueError, match=r"a path starts at the top"):
        from_torch(state, template, names={"m": target})


def test_what_is_there_is_not_kept():
    with pytest.raises(ValueError, match="'m/bias' in keep"):
        from_torch({"m.bias": counting(2)}, {"m": shapes(bias=(2,))}, keep=["m/bias"])


def test_what_is_no_array_is_refused(unchecked):
    class Tensor:
        def detach(self): ...

    template = {"m": shapes(bias=(2,))}
    for state, repair in (
        ({"m.bias": Tensor()}, r"value.detach\(\).cpu\(\).numpy\(\)"),
        ({"m.bias": Tensor()}, r"bfloat16.*value.detach\(\).cpu\(\).float\(\)"),
        ({"m.bias": np.array([None])}, "Nothing is unpickled here"),
        ({"m.bias": np.ma.array([1.0, 2.0], mask=[True, False])}, r"value.filled\(0.0\)"),
        ({"m.bias": np.ones(2, np.longdouble)}, r"m.bias.*value.astype\(np.float64\)"),
        ({"m.bias": "text"}, "not named arrays of numbers"),
        ([1.0], "a mapping of names to arrays is expected"),
    ):
        with pytest.raises(TypeError, match=repair):
            from_torch(state, template)
    with pytest.raises(TypeError, match="m/bias is only a shape"):
        to_torch(template, {"m.bias": counting(2)})
    for template in ({"m": {"bias": object()}}, [1.0]):
        with pytest.raises(TypeError, match=r"nnx.to_pure_dict\(nnx.state\(model\)\)"):
            from_torch({"m.bias": counting(2)}, template)


@pytest.mark.parametrize(
    ("value", "dtype"), [(np.int64(2**40), jnp.int32), (np.float32(1e30), jnp.float16)]
)
def test_a_cast_rounds_and_does_not_overflow(value, dtype):
    template = {"fc": {"bias": jnp.zeros(1, dtype)}}
    with pytest.raises(ValueError, match="cannot be represented in"):
        from_torch({"fc.bias": np.array([value])}, template, cast=True)


def test_counts_are_not_lost_on_the_way_back():
    norm = {"mean": jnp.zeros(2), "var": jnp.ones(2), "updates": jnp.full(2, 7)}
    state = {"bn.running_mean": np.zeros(2, "f"), "bn.running_var": np.ones(2, "f")}
    with pytest.raises(ValueError, match="7 has no place in the state"):
        to_torch({"bn": norm}, state)
