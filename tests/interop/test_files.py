"""Files of weights: what is read from them, and what is refused, and how."""

import io
import json
import os
import pickle
import struct
import sys
import tracemalloc
import zipfile

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jaxnorm.interop import read_weights
from jaxnorm.interop.keras import batch_normalization, from_keras, to_keras
from jaxnorm.interop.torch import batch_norm, from_torch, to_torch

BFLOAT16 = np.dtype(jnp.bfloat16)
STATE = {
    "fc.weight": np.float32([[1, 2, 3], [4, 5, np.nan]]),
    "fc.bias": np.float32([-0.0, 1e-40]),
    "half.weight": np.float16([1, 2]),
    "brain.weight": np.array([1.5, -2], BFLOAT16),
    "count": np.array(7, np.int64),
    "mask": np.array([True, False]),
    "none": np.zeros((0, 3), np.float32),
    "λ": np.uint8([255]),
}
TEMPLATE = {"fc": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}}
FC = {name: array for name, array in STATE.items() if name.startswith("fc")}


def same(got, wanted):
    """Equal bit for bit, in any order."""
    assert {name: (each.dtype, each.shape) for name, each in got.items()} == {
        name: (each.dtype, each.shape) for name, each in wanted.items()
    }
    assert all(got[name].tobytes() == each.tobytes() for name, each in wanted.items())


def equal(variables, wanted):
    """Nested variables, bit for bit."""
    assert jax.tree.structure(variables) == jax.tree.structure(wanted)
    leaves = (dict(enumerate(jax.tree.leaves(each))) for each in (variables, wanted))
    same(*leaves)


def write_safetensors(path, state):
    safetensors.numpy.save_file(state, path)


def write_npz(path, state):
    np.savez(path, **state)


def write_h5(path, state):
    with h5py.File(path, "w") as file:
        for name, array in state.items():
            file[name] = array


WRITERS = {"safetensors": write_safetensors, "npz": write_npz, "h5": write_h5}
each_format = pytest.mark.parametrize("format", WRITERS)


@pytest.fixture
def write(tmp_path):
    """Writes a state as a file of a format, or bytes, and returns the path."""

    def written(name, content):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            WRITERS[name.rpartition(".")[2]](path, content)
        return path

    return written


@each_format
def test_what_was_written_is_read(format, write):
    path = write(f"model.{format}", STATE)
    same(read_weights(path), STATE)
    same(read_weights(str(path)), STATE)


@each_format
def test_a_path_is_as_good_as_its_arrays(format, write):
    path = write(f"model.{format}", FC)
    variables, report = from_torch(path, TEMPLATE)
    wanted = from_torch(FC, TEMPLATE)
    equal(variables, wanted.arrays)
    assert set(report.entries) == set(wanted.report.entries)
    np.testing.assert_equal(to_torch(variables, str(path)).arrays, FC)


def test_a_norm_from_a_file(write):
    arrays = {f"bn.{name}": np.float32([2]) for name in ("running_mean", "running_var")}
    assert batch_norm(write("a.npz", arrays), "bn").batch_stats["mean"].tolist() == [2]
    arrays = {f"bn/{name}": np.float32([3]) for name in ("moving_mean", "moving_variance")}
    path = write("a.h5", arrays)
    assert batch_normalization(path, "bn").batch_stats["mean"].tolist() == [3]
    with pytest.raises(
        ValueError, match=r"no name starts with 'cn\.', only bn/moving_mean"
    ):
        batch_norm(path, "cn")


def test_the_contents_determine_the_format(write, tmp_path):
    path = write("model.safetensors", FC).rename(tmp_path / "weights")
    same(read_weights(path), FC)
    path = write("model.npz", FC).rename(tmp_path / "model.pt")
    same(read_weights(path), FC)


def test_complex_numbers_are_read_and_left_out(write):
    """As a rotary embedding's, which have no place here."""
    state = FC | {"freqs": np.complex64([1j])}
    path = write("model.safetensors", state)
    same(read_weights(path), state)
    with pytest.raises(ValueError, match="freqs"):
        from_torch(path, TEMPLATE)
    with pytest.raises(ValueError, match="complex64 is given, but float32 is expected"):
        from_torch({"m.bias": np.complex64([1])}, {"m": {"bias": jnp.zeros(1)}})


def test_masks_are_left_out_or_refused():
    state, template = FC | {"fc.mask": np.array([True, False])}, TEMPLATE
    with pytest.raises(ValueError, match=r"left over(.|\n)*fc.mask"):
        from_torch(state, template)
    from_torch({"m.mask": state["fc.mask"]}, {"m": {"mask": jnp.zeros(2, bool)}})
    for dtype in (jnp.float32, jnp.int32, jnp.complex64):
        with pytest.raises(ValueError, match=r"bool is given, but .* is expected"):
            from_torch({"m.mask": state["fc.mask"]}, {"m": {"mask": jnp.zeros(2, dtype)}})


@pytest.mark.parametrize("wrapper", ["module", "_orig_mod", "model"])
def test_names_below_a_wrapper_are_kept_and_explained(wrapper, write):
    path = write("model.npz", {f"{wrapper}.{name}": each for name, each in FC.items()})
    with pytest.raises(ValueError, match="DataParallel") as raised:
        from_torch(path, TEMPLATE)
    assert f"""pass {{"{wrapper}.**": "{{}}"}}""" in str(raised.value)
    variables, _ = from_torch(path, TEMPLATE, {f"{wrapper}.**": "{}"})
    equal(variables, from_torch(FC, TEMPLATE).arrays)


# Keras


def keras_file(path, named=True):
    """As Keras 3 writes .weights.h5 for Sequential([Dense(name="head"), a norm])."""
    with h5py.File(path, "w") as file:
        for group, name, arrays in (
            ("layers/dense", "head", (FC["fc.weight"].T, FC["fc.bias"])),
            ("layers/sequential", "inner", ()),
            ("layers/sequential/layers/dense", "head", (np.ones((2, 1), BFLOAT16),)),
            ("optimizer", "adam", (np.int32(1),)),
        ):
            made = file.create_group(f"{group}/vars")
            if named:
                made.attrs["name"] = name
            for place, array in enumerate(arrays):
                made[str(place)] = array
    return path


def test_layers_of_keras_have_their_own_names(tmp_path):
    path = keras_file(tmp_path / "model.weights.h5")
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.write(path, "model.weights.h5")
        archive.writestr("config.json", "{}")
    template = {"head": TEMPLATE["fc"], "inner": {"kernel": jnp.ones((2, 1))}}
    names = {"inner/head": "inner", "**": "{}"}
    for each in (path, tmp_path / "model.keras"):
        weights = read_weights(each)
        assert sorted(weights) == [
            "layers/head/vars/0",
            "layers/head/vars/1",
            "layers/inner/layers/head/vars/0",
            "optimizer/vars/0",
        ]
        variables, report = from_keras(each, template, names)
        assert "optimizer/vars/0 → —: left out, optimizer state" in str(report)
        assert variables["inner"]["kernel"].dtype == np.float32
        np.testing.assert_equal(variables["head"]["kernel"], FC["fc.weight"].T)
        np.testing.assert_equal(to_keras(variables, each, names).arrays, weights)


def test_layers_of_an_older_keras_are_named_after_their_classes(tmp_path):
    weights = read_weights(keras_file(tmp_path / "model.weights.h5", named=False))
    assert "layers/sequential/layers/dense/vars/0" in weights


def test_two_layers_of_keras_with_one_name_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        for layer in ("dense", "dense_1"):
            file[f"layers/{layer}/vars/0"] = np.ones(1)
            file[f"layers/{layer}/vars"].attrs["name"] = "same"
    with pytest.raises(ValueError, match=r"several .* name 'layers/same/vars/0'"):
        read_weights(tmp_path / "a.weights.h5")


@pytest.fixture
def frugal():
    """Allows a refusal a megabyte, whatever the file claims."""
    tracemalloc.start()
    yield
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1_000_000


def h5(path, change):
    with h5py.File(path, "w") as file:
        change(file)
    return path


def in_a_cycle(file):
    file["a/b"] = np.ones(1)
    file["a/c"] = file["a"]


def many_paths(file):
    """Few groups, with 2⁶⁰ paths through them."""
    group = file
    for i in range(60):
        below = group.create_group(f"a{i}")
        group[f"b{i}"] = below
        group = below


def deep(file):
    file["/".join("a" * 100)] = np.ones(1)


def virtual(file):
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "a", (2,))
    file.create_virtual_dataset("a", layout)


def external(file):
    file.create_dataset("a", (2,), "u1", external=[("/etc/passwd", 0, 2)])


H5 = {
    "soft link": (lambda file: file.update(a=h5py.SoftLink("/b")), "'a' is a link"),
    "external link": (
        lambda file: file.update(a=h5py.ExternalLink("/etc/x.h5", "b")),
        "'a' is a link",
    ),
    "cycle": (in_a_cycle, "'a/c' is a link"),
    "many paths": (many_paths, "is a link"),
    "depth": (deep, "is a link"),
    "named type": (lambda file: file.update(a=np.dtype("f4")), "a named type"),
    "virtual": (virtual, "'a' is an array in another file"),
    "external": (external, "'a' is an array in another file"),
    "empty": (lambda file: file.update(a=h5py.Empty("f4")), "'a' is empty"),
    "compressed": (
        lambda file: file.create_dataset("a", data=np.zeros(9), compression="gzip"),
        "'a' is compressed",
    ),
    "claim": (
        lambda file: file.create_dataset("a", (2**40,), "f4"),
        "'a' is an array of 4398046511104 bytes, of which not all are there",
    ),
    "claim of chunks": (
        lambda file: file.create_dataset("a", (2**40,), "f4", chunks=(1024,)),
        "of which not all are there",
    ),
    "text": (lambda file: file.update(a="text"), "'a' is of dtype object"),
    "bytes": (lambda file: file.update(a=np.bytes_("text")), "'a' is of dtype bytes"),
    "records": (lambda file: file.update(a=np.zeros(1, "f4, f4")), "'a' is of dtype void"),
    "float8": (lambda file: file.update(a=np.zeros(1, "V1")), "'a' is of dtype void8"),
    "name": (lambda file: file.create_dataset(b"\xff", data=1), "can't decode byte 0xff"),
    "nothing": (lambda file: None, "holds no arrays"),
}


@pytest.mark.parametrize(("change", "match"), H5.values(), ids=H5)
def test_an_hdf5_file_that_is_refused(change, match, tmp_path, frugal):
    path = h5(tmp_path / "model.h5", change)
    with pytest.raises(ValueError, match=match) as raised:
        read_weights(path)
    assert str(path) in str(raised.value)


# safetensors


def header(entries, data=b"", length=None):
    """A file of safetensors by its header: pairs of names and entries."""
    text = entries
    if not isinstance(entries, bytes):
        parts = (f"{json.dumps(name)}: {json.dumps(each)}" for name, each in entries)
        text = f"{{{', '.join(parts)}}}".encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype, shape, stop):
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, stop]}


FOUR = entry("F32", [1], 4)
DAMAGED = "cannot be read as safetensors: .*; download it or save it again"
SAFETENSORS = {
    "truncated": (header([("a", entry("F32", [9], 36))], b"1234"), DAMAGED),
    "longer": (header([("a", FOUR)], b"12345678"), DAMAGED),
    "claim": (header([("a", entry("F32", [2**40, 2**40], 4))], b"1234"), DAMAGED),
    "claim of the header": (header([("a", FOUR)], length=90_000_000), DAMAGED),
    "impossible header": (header([("a", FOUR)], length=2**60), "begins with"),
    "json": (header(b'{"a": '), DAMAGED),
    "text": (header(b'{"a\xff": {}}'), DAMAGED),
    "surrogate": (header(b'{"a\\ud800": {}}'), DAMAGED),
    "unknown": (header([("a", entry("Q3", [1], 4))], b"1234"), DAMAGED),
    "float8": (
        header([("a", entry("F8_E4M3", [4], 4))], b"1234"),
        "'a' is of dtype F8_E4M3",
    ),
    "float4": (header([("a", entry("F4", [8], 4))], b"1234"), "'a' is of dtype F4"),
    "twice": (header([("a", FOUR), ("a", FOUR)], b"1234"), "several arrays .* name 'a'"),
    "nothing": (header([("__metadata__", {"format": "pt"})]), "holds no arrays"),
}


@pytest.mark.parametrize(("content", "match"), SAFETENSORS.values(), ids=SAFETENSORS)
def test_safetensors_that_are_refused(content, match, write, frugal):
    path = write("model.safetensors", content)
    with pytest.raises(ValueError, match=match) as raised:
        read_weights(path)
    assert str(path) in str(raised.value)


def index(folder, weight_map, name="model.safetensors.index.json"):
    path = folder / name
    path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return path


def test_a_model_in_several_files(write, tmp_path):
    write("a.safetensors", {"fc.weight": FC["fc.weight"]})
    write("b.safetensors", {"fc.bias": FC["fc.bias"]})
    path = index(tmp_path, {"fc.weight": "a.safetensors", "fc.bias": "b.safetensors"})
    for each in (path, tmp_path):
        got = read_weights(each)
        same(got, FC)
        assert list(got) == list(FC)
    variables, _ = from_torch(tmp_path, TEMPLATE)
    equal(variables, from_torch(FC, TEMPLATE).arrays)


def test_an_index_that_does_not_fit_is_refused(write, tmp_path):
    write("a.safetensors", {"a": np.ones(1)})
    write("b.safetensors", {"a": np.ones(1), "b": np.ones(1)})
    (tmp_path / "inner").mkdir()
    for weight_map, match in (
        ({"a": "a.safetensors", "c": "a.safetensors"}, "'c' is listed, but not there"),
        ({"b": "b.safetensors"}, "'a' is there, but not listed"),
        ({"a": "a.safetensors", "b": "b.safetensors"}, "several arrays .* name 'a'"),
        ({"a": "../a.safetensors"}, r"'\.\./a\.safetensors', outside its own folder"),
        ({"a": "/etc/passwd"}, "outside its own folder"),
        ({"a": ".."}, "outside its own folder"),
        ({"a": 3}, "there is no file"),
        ("text", "cannot be read as an index"),
    ):
        path = index(tmp_path / "inner", weight_map, "x.index.json")
        for name in ("a.safetensors", "b.safetensors"):
            (path.parent / name).write_bytes((tmp_path / name).read_bytes())
        with pytest.raises((ValueError, FileNotFoundError), match=match):
            read_weights(path)
    path.write_text('{"weight_map": {"a": "a.safetensors", "a": "b.safetensors"}}')
    with pytest.raises(ValueError, match=r"several arrays .* name 'a'"):
        read_weights(path)
    path.write_text('{"layers": []}')
    with pytest.raises(ValueError, match="cannot be read as an index of files"):
        read_weights(path)


# Archives


def archive(members, compression=zipfile.ZIP_STORED):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as file:
        for name, each in members:
            # With a date of its own: contents are in the names of tests, which all workers
            # must collect alike.
            file.writestr(zipfile.ZipInfo(name), each, compression)
    return content.getvalue()


def npy(array, header=None):
    content = io.BytesIO()
    np.lib.format.write_array(content, np.asarray(array), allow_pickle=True)
    text = content.getvalue()
    return text.replace(*header) if header else text


BOMB = archive([("a.npy", bytes(10_000_000))], zipfile.ZIP_DEFLATED)
PLAIN = archive([("a.npy", npy(np.ones(3)))])
LYING = PLAIN.replace(struct.pack("<LL", 152, 152), struct.pack("<LL", 2**31, 2**31))
ARCHIVES = {
    "bomb": (BOMB, "is compressed or encrypted"),
    "claim of the archive": (LYING, "claims to hold arrays of 2147483648 bytes"),
    "truncated": (PLAIN[:-30], "cannot be read as a zip file"),
    "objects": (archive([("a.npy", npy([None]))]), "'a' is of dtype object"),
    "claim of an array": (
        archive([("a.npy", npy(np.ones(3), (b"(3,), }", b"(3333333333,), }")))]),
        "claims to hold arrays of 26666666664 bytes",
    ),
    "a header of code": (
        archive([("a.npy", npy(np.ones(3), (b"(3,), }", b"f(33), }")))]),
        "cannot be read as arrays of numpy",
    ),
    "text": (archive([("a.npy", npy(["text"]))]), "'a' is of dtype str"),
    "float8": (archive([("a.npy", npy(np.zeros(1, "V1")))]), "'a' is of dtype void8"),
    "wide": (archive([("a.npy", npy(np.ones(1, np.longdouble)))]), "float128"),
    "outside": (archive([("../a.npy", npy(np.ones(1)))]), "leads out of the archive"),
    "root": (archive([("/etc/a.npy", npy(np.ones(1)))]), "leads out of the archive"),
    "another": (archive([("model/saved_model.pb", b"")]), "unzip it, and pass the file"),
    "TorchScript": (
        archive([("a/constants.pkl", b""), ("a/data.pkl", b"")]),
        "TorchScript program",
    ),
    "damaged keras": (
        archive([("model.weights.h5", b"text")]),
        "cannot be read as an HDF5",
    ),
}


@pytest.mark.parametrize(("content", "match"), ARCHIVES.values(), ids=ARCHIVES)
def test_an_archive_that_is_refused(content, match, write, frugal):
    path = write("model.npz", content)
    with pytest.raises(ValueError, match=match) as raised:
        read_weights(path)
    assert str(path) in str(raised.value)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_a_name_twice_is_refused(write):
    content = archive([("a.npy", npy(np.ones(1))), ("a.npy", npy(np.zeros(1)))])
    with pytest.raises(ValueError, match=r"several arrays or members of the name 'a\.npy'"):
        read_weights(write("model.npz", content))


# Other files


class Malicious:
    def __reduce__(self):
        return os.system, ("touch harmed",)


STRANGERS = {
    "nothing": (b"", "is empty"),
    "text": (b"import os", "begins with b'import os', but a file of one"),
    "a pickle": (pickle.dumps(STATE["fc.bias"]), "is a pickle, which can run any code"),
    "an evil pickle": (pickle.dumps(Malicious()), "is a pickle, which can run any code"),
    "an old torch file": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "is a pickle"),
    "npy": (npy(np.ones(1)), r"use numpy.savez\(path, name=array\)"),
    "npy of objects": (npy([None]), "without a name"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid", "run git lfs pull"),
    "HTML": (b"<!DOCTYPE html>", "is a web page: download the file itself"),
    "GGUF": (b"GGUF\x03\0\0\0", "quantised"),
}


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "model.h5"])
@pytest.mark.parametrize(("content", "match"), STRANGERS.values(), ids=STRANGERS)
def test_a_file_of_another_kind_is_refused(
    name, content, match, write, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=match) as raised:
        read_weights(write(name, content))
    assert name in str(raised.value)
    assert not (tmp_path / "harmed").exists()


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"there is no file .*nowhere\.pt; the current"
    ):
        read_weights(tmp_path / "nowhere.pt")
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is a folder .* has saved_model\.pb"):
        from_torch(tmp_path, TEMPLATE)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is no regular file"):
        read_weights(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("name", "content", "package", "install"),
    [
        ("a.safetensors", FC, "safetensors", "pip install safetensors"),
        ("a.h5", FC, "h5py", "pip install h5py"),
        ("a.onnx", b"\x08\x07", "onnx", "pip install onnx"),
        ("a.pt", archive([("a/data.pkl", b"")]), "torch", "pip install torch"),
    ],
    ids=["safetensors", "h5py", "onnx", "torch"],
)
def test_a_missing_library_is_named(name, content, package, install, write, monkeypatch):
    path = write(name, content)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"is read by {package}.*{install}"):
        read_weights(path)


def test_an_entry_is_of_a_checkpoint_only(write):
    with pytest.raises(ValueError, match=r"is no checkpoint of torch\.save"):
        read_weights(write("a.npz", FC), entry="model")
