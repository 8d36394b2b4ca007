"""Files that torch, keras and onnx wrote: the same variables as from their models."""

import contextlib
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxnorm.linen as jn
import jaxnorm.nnx as jx
from jaxnorm.interop import read_weights
from jaxnorm.interop.keras import from_keras
from jaxnorm.interop.torch import flattened, from_torch, to_torch

pytestmark = [pytest.mark.peer, pytest.mark.usefixtures("lenient")]


class Ours(nn.Module):
    """A network with three norms, for torch and keras."""

    epsilon: float

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), padding="VALID", name="conv")(x)
        x = jn.BatchNorm(epsilon=self.epsilon, train=False, name="bn")(x)
        x = nn.relu(jn.GroupNorm(2, epsilon=self.epsilon, name="gn")(x))
        x = nn.Dense(5, name="fc")(x.reshape(len(x), -1))
        return jn.LayerNorm(epsilon=self.epsilon, name="ln")(x)


class OursInNnx(nnx.Module):
    """The same network, with torch's names."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), padding="VALID", rngs=rngs)
        self.bn = jx.BatchNorm(4, epsilon=1e-5, rngs=rngs)
        self.gn = jx.GroupNorm(4, 2, epsilon=1e-5, rngs=rngs)
        self.fc = nnx.Linear(16, 5, rngs=rngs)
        self.ln = jx.LayerNorm(5, epsilon=1e-5, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.gn(self.bn(self.conv(x), train=False)))
        return self.ln(self.fc(x.reshape(len(x), -1)))


X = np.float32(np.random.default_rng(0).normal(1, 2, (2, 4, 4, 3)))
RULES = {"fc": flattened(4, 2, 2)}


def template(epsilon=1e-5):
    return jax.eval_shape(Ours(epsilon).init, jax.random.key(0), X)


def close(got, want):
    np.testing.assert_allclose(got, np.asarray(want), rtol=2e-4, atol=2e-5)


def same(got, wanted):
    """Equal bit for bit, with the same dtypes."""
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert one.dtype == other.dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


# Torch


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch is not installed")


@pytest.fixture
def theirs(torch):
    """The same network in torch."""
    from tests.interop.torch_models import randomize

    net = torch.nn
    model = net.Sequential()
    for name, layer in (
        ("conv", net.Conv2d(3, 4, 3)),
        ("bn", net.BatchNorm2d(4)),
        ("gn", net.GroupNorm(2, 4)),
        ("relu", net.ReLU()),
        ("flatten", net.Flatten()),
        ("fc", net.Linear(16, 5)),
        ("ln", net.LayerNorm(5)),
    ):
        model.add_module(name, layer)
    randomize(model)
    return model.eval()


def saved_by_torch(torch, state, folder):
    torch.save(state, folder / "model.pt")
    return folder / "model.pt"


def saved_in_a_checkpoint(torch, state, folder):
    checkpoint = {"epoch": 3, "state_dict": state, "optimizer": {"state": {}}}
    checkpoint |= {"best": torch.ones(())}
    torch.save(checkpoint, folder / "model.pth")
    return folder / "model.pth"


def saved_as_parameters(torch, state, folder):
    torch.save({"model": dict(state)}, folder / "a.bin")
    return folder / "a.bin"


def saved_by_safetensors(torch, state, folder):
    save = pytest.importorskip("safetensors.torch").save_file
    save(dict(state), folder / "model.safetensors")
    return folder / "model.safetensors"


SAVES = [
    saved_by_torch,
    saved_in_a_checkpoint,
    saved_as_parameters,
    saved_by_safetensors,
]


def evaluated(theirs):
    from tests.interop.torch_models import evaluate, first

    return evaluate(theirs, first(X))


def close_in_both(path, wanted, missing=()):
    """Converts a file for Linen and NNX, and compares the outputs."""
    variables, _ = from_torch(path, template(), rules=RULES)
    close(Ours(1e-5).apply(variables, X), wanted)
    model = OursInNnx(nnx.Rngs(0))
    converted, _ = from_torch(path, nnx.to_pure_dict(nnx.state(model)), rules=RULES)
    nnx.update(model, converted)
    close(model(X), wanted)
    return variables, converted


@pytest.mark.parametrize("save", SAVES)
def test_torch(save, torch, theirs, tmp_path):
    from tests.interop.torch_models import state_of

    path, state = save(torch, theirs.state_dict(), tmp_path), state_of(theirs)
    same(read_weights(path), state)
    variables, converted = close_in_both(path, evaluated(theirs))
    same(variables, from_torch(state, template(), rules=RULES).arrays)
    like = nnx.to_pure_dict(nnx.state(OursInNnx(nnx.Rngs(0))))
    same(converted, from_torch(state, like, rules=RULES).arrays)
    same(to_torch(variables, path, rules=RULES).arrays, state)


def test_torchs_data_parallel(torch, theirs, tmp_path):
    path = saved_by_torch(torch, torch.nn.DataParallel(theirs).state_dict(), tmp_path)
    with pytest.raises(ValueError, match="DataParallel"):
        from_torch(path, template(), rules=RULES)
    names, rules = {"module.**": "{}"}, {"module.fc": RULES["fc"]}
    variables, _ = from_torch(path, template(), names, rules=rules)
    close(Ours(1e-5).apply(variables, X), evaluated(theirs))


DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64")
DTYPES += ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")


@pytest.mark.parametrize("dtype", DTYPES)
def test_torchs_dtypes(dtype, torch, tmp_path):
    values = [[0, 1, 2], [3, 4, 5]]
    tensor = torch.tensor(values).to(getattr(torch, dtype)).T  # not contiguous
    parts = {"a": tensor, "b": tensor[1], "c": tensor[0, 1], "tied": tensor}
    if dtype.startswith("complex"):
        parts["conjugate"] = tensor.conj() * 1j
    arrays = read_weights(saved_by_torch(torch, parts, tmp_path))
    assert arrays["a"].dtype == jnp.dtype(dtype)
    for name, array in arrays.items():
        assert array.astype(complex).tolist() == parts[name].to(torch.complex128).tolist()


def test_parameters_that_need_gradients(torch, tmp_path):
    parameters = {"a": torch.nn.Parameter(torch.ones(2))}
    path = saved_by_torch(torch, parameters, tmp_path)
    assert read_weights(path)["a"].tolist() == [1, 1]


def test_a_checkpoint_of_several_states(torch, tmp_path):
    states = {"model": {"a": torch.zeros(1)}, "ema": {"a": torch.ones(1)}}
    path = saved_by_torch(torch, states, tmp_path)
    with pytest.raises(ValueError, match=r"'model', 'ema', and nothing .*entry='model'"):
        read_weights(path)
    with pytest.raises(ValueError, match="'model', 'ema', and not 'net'"):
        read_weights(path, entry="net")
    assert read_weights(path, entry="ema")["a"].tolist() == [1]
    alone = saved_by_torch(torch, states["model"], tmp_path)
    with pytest.raises(ValueError, match="holds no state dict in 'ema'"):
        read_weights(alone, entry="ema")


@pytest.mark.filterwarnings("ignore")
def test_what_torch_saved_and_is_refused(torch, tmp_path):
    one = torch.ones(2)
    for saved, match in (
        (torch.nn.Linear(2, 2), r"holds torch\.nn\.modules\.linear\.Linear that is no"),
        ({"a": os.system}, r"holds posix\.system that is no"),
        (one, "holds Tensor, but a state dict is expected"),
        ([one], "holds list"),
        ({}, "holds no state dict"),
        ({"epoch": 3}, "'epoch' is something else"),
        ({"a": one, "b._extra_state": None, "c": 1}, r"'b\._extra_state', 'c' are somet"),
        ({1: one}, "holds no state dict"),
        ({"a": one.to(torch.float8_e4m3fn)}, "'a' is of dtype float8_e4m3fn"),
        ({"a": torch.quantize_per_tensor(one, 0.1, 0, torch.qint8)}, "dtype qint8"),
        ({"a": one.to_sparse()}, "dtype sparse_coo"),
        ({"a": one.to("meta")}, r"dtype meta \(no values\)"),
        ({"a": torch.ones(1).expand(10**12)}, "claims to hold arrays of 4000000000000"),
        ({"a\ud800": one}, "not UTF-8"),
    ):
        with pytest.raises(ValueError, match=match) as raised:
            read_weights(saved_by_torch(torch, saved, tmp_path))
        assert "weights_only" not in str(raised.value)
    path = tmp_path / "old.pt"
    torch.save({"a": one}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="is a pickle, which can run any code"):
        read_weights(path)
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    with pytest.raises(ValueError, match="is a TorchScript program"):
        read_weights(path)


def test_damage_to_a_file_of_torch(torch, tmp_path):
    """A file that is cut off, and one whose tensor claims more than is stored."""
    path = saved_by_torch(torch, {"a": torch.zeros(5)}, tmp_path)
    content = path.read_bytes()
    for stop in range(0, len(content), 50):
        path.write_bytes(content[:stop])
        with pytest.raises(ValueError, match=r"is empty|cannot be read|begins with"):
            read_weights(path)
    # The number of values, as the pickle has it: one byte, and then four.
    path.write_bytes(content.replace(b"K\x05", b"K\xff"))
    with pytest.raises(ValueError, match="cannot be read"):
        read_weights(path)


def test_a_torch_that_runs_code_is_refused(torch, tmp_path, monkeypatch):
    path = saved_by_torch(torch, {"a": torch.zeros(5)}, tmp_path)
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(ImportError, match=r"install torch 2\.6 or later"):
        read_weights(path)


# Keras


@pytest.fixture
def keras():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    return pytest.importorskip("keras", reason="keras is not installed")


@pytest.fixture
def sequential(keras):
    """The same network in keras, trained for a step."""
    keras.backend.clear_session()
    make = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            make.Conv2D(4, 3, name="conv"),
            make.BatchNormalization(name="bn"),
            make.GroupNormalization(2, name="gn"),
            make.ReLU(),
            make.Flatten(),
            make.Dropout(0.5),
            make.Dense(5, name="fc"),
            make.LayerNormalization(name="ln"),
        ]
    )
    model.compile("adam", "mse")
    model.fit(X, np.ones((2, 5)), verbose=0)
    return model


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.weights.h5", "old.h5"])
def test_keras(name, sequential, tmp_path):
    """From every kind of file, by the names of the layers in the model."""
    path = tmp_path / name
    if name == "old.h5":  # as by save_weights of Keras 2
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            for each in sequential.weights:
                layer, weight = each.path.split("/")[-2:]
                file[f"{layer}/{layer}/{weight}:0"] = np.asarray(each)
    else:
        (sequential.save_weights if "weights" in name else sequential.save)(path)
    variables, report = from_keras(path, template(1e-3))
    weights = {each.path: np.asarray(each) for each in sequential.weights}
    start = f"{sequential.name}/"
    weights = {name.removeprefix(start): each for name, each in weights.items()}
    same(variables, from_keras(weights, template(1e-3)).arrays)
    close(Ours(1e-3).apply(variables, X), sequential(X))
    assert len(report.entries) == len(read_weights(path))


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_keras_in_bfloat16(name, keras, tmp_path):
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, name="fc", dtype="bfloat16")]
    )
    model.save(tmp_path / name)
    like = {
        "fc": {"kernel": jnp.zeros((3, 2), "bfloat16"), "bias": jnp.zeros(2, "bfloat16")}
    }
    variables, _ = from_keras(tmp_path / name, like)
    same(variables["fc"]["kernel"], model.layers[0].kernel.value)


def test_nested_models_of_keras(keras, tmp_path):
    dense = keras.layers.Dense
    inner = keras.Sequential([keras.Input((3,)), dense(2, name="fc")], name="inner")
    start = keras.Input((3,))
    model = keras.Model(start, dense(2, name="fc")(inner(start)))
    model.save(tmp_path / "model.keras")
    fc = {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}
    like = {"inner": {"fc": fc}, "fc": fc | {"kernel": jnp.zeros((2, 2))}}
    variables, _ = from_keras(tmp_path / "model.keras", like)
    same(variables["inner"]["fc"]["kernel"], inner.layers[0].kernel.value)


# ONNX


@pytest.fixture
def onnx():
    return pytest.importorskip("onnx", reason="onnx is not installed")


def modelled(onnx, *tensors, sparse=()):
    graph = onnx.helper.make_graph([], "graph", [], [], list(tensors))
    graph.sparse_initializer.extend(sparse)
    return onnx.helper.make_model(graph)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("external", [False, True])
def test_onnx(external, onnx, torch, theirs, tmp_path):
    """As torch exports it, with the values in a file beside it or not."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    from tests.interop.torch_models import first, state_of

    torch.onnx.export(
        theirs,
        (torch.from_numpy(first(X)),),
        tmp_path / "model.onnx",
        dynamo=True,
        optimize=False,
        external_data=external,
        verbose=False,
    )
    assert (tmp_path / "model.onnx.data").exists() == external
    state = state_of(theirs)
    del state["bn.num_batches_tracked"]
    same(
        dict(sorted(read_weights(tmp_path / "model.onnx").items())),
        dict(sorted(state.items())),
    )
    variables, _ = close_in_both(tmp_path / "model.onnx", evaluated(theirs))
    same(variables, from_torch(state, template(), rules=RULES).arrays)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_of_onnx(dtype, raw, onnx, tmp_path):
    array = np.arange(6).reshape(2, 3).astype(jnp.dtype(dtype))
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    values = array.tobytes() if raw else array.ravel().tolist()
    tensor = onnx.helper.make_tensor("a", kind, array.shape, values, raw=raw)
    onnx.save(modelled(onnx, tensor), tmp_path / "a.onnx")
    same(read_weights(tmp_path / "a.onnx"), {"a": array})


def external(onnx, location, offset="0", length="8", dims=(2,), name="a"):
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=dims)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    given = {"location": location, "offset": offset, "length": length}
    for key, value in given.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def test_external_data_of_onnx(onnx, tmp_path):
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    values = np.float32([1, 2, 3])
    for file in (tmp_path / "a.bin", folder / "a.bin", folder / "inner/a.bin"):
        file.write_bytes(values.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "a.bin")
    path = folder / "model.onnx"
    for location in ("a.bin", "inner/a.bin"):
        onnx.save(modelled(onnx, external(onnx, location, "4")), path)
        same(read_weights(path), {"a": values[1:]})
    for location, arguments, match in (
        ("../a.bin", {}, r"'\.\./a\.bin', outside the model's folder"),
        ("inner/../../a.bin", {}, "outside the model's folder"),
        (str(tmp_path / "a.bin"), {}, "outside the model's folder"),
        ("link.bin", {}, "outside the model's folder"),
        ("", {}, "outside the model's folder"),
        ("nowhere.bin", {}, "which is missing; copy it"),
        ("a.bin", {"offset": "8"}, "claims to hold arrays of 16 bytes, but has only 12"),
        ("a.bin", {"offset": "-4"}, "8 bytes at -4 of"),
        ("a.bin", {"offset": "x"}, "cannot be read as an ONNX model"),
        ("a.bin", {"length": "4"}, "8 bytes, but 4 bytes at 0 of"),
        ("a.bin", {"dims": (2**40,)}, "4398046511104 bytes, but 8 bytes at"),
        (
            "a.bin",
            {"dims": (2**40,), "length": str(2**42)},
            "claims to hold arrays of 4398046511104 bytes, but has only 12",
        ),
    ):
        onnx.save(modelled(onnx, external(onnx, location, **arguments)), path)
        with pytest.raises((ValueError, FileNotFoundError), match=match):
            read_weights(path)
    tensors = [external(onnx, "a.bin", name=name) for name in "abc"]
    onnx.save(modelled(onnx, *tensors), path)
    with pytest.raises(ValueError, match="claims to hold arrays of 24 bytes"):
        read_weights(path)


def test_what_onnx_saved_and_is_refused(onnx, tmp_path):
    make, types = onnx.helper.make_tensor, onnx.TensorProto
    one = make("a", types.FLOAT, (1,), [1.0])
    claim = types(name="a", data_type=types.FLOAT, dims=(2**40,), raw_data=b"1234")
    path = tmp_path / "model.onnx"
    for model, match in (
        (modelled(onnx), "holds no arrays"),
        (modelled(onnx, one, one), "several arrays or members of the name 'a'"),
        (modelled(onnx, make("a", types.FLOAT8E4M3FN, (1,), [1.0])), "float8_e4m3fn"),
        (modelled(onnx, make("a", types.INT4, (2,), [1, 2])), "dtype int4"),
        (modelled(onnx, make("a", types.STRING, (1,), [b"x"])), "dtype object"),
        (modelled(onnx, types(name="a", data_type=99)), "dtype number 99"),
        (modelled(onnx, claim), "cannot be read as an ONNX model"),
        (
            modelled(onnx, sparse=[onnx.SparseTensorProto(values=one)]),
            "sparse initialisers, but dense",
        ),
    ):
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ValueError, match=match):
            read_weights(path)
    content = modelled(onnx, one).SerializeToString()
    for stop in range(1, len(content)):
        path.write_bytes(content[:stop])
        got = None
        with contextlib.suppress(ValueError):
            got = read_weights(path)
        if got is not None:  # what follows the graph is no weight
            same(got, {"a": np.float32([1])})
