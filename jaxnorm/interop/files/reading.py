"""Finds out what a file is by its first bytes, and reads it."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxnorm.interop.files import archives, hdf5, onnx, pytorch, safetensors, shards
from jaxnorm.interop.files.checks import check_names

EXPECTED = (
    ".safetensors; .pt, .pth, .bin or .ckpt from torch.save; .keras, .weights.h5 or .h5 "
    "from keras; .onnx; .npz from numpy.savez; or a .index.json that lists such files"
)

PICKLE = (
    "is a pickle, which can run any code, and is not read: if you trust its source, load "
    "it with the program that wrote it, and save the weights by today's "
    "torch.save(state, path), by safetensors or by numpy.savez(path, **weights)"
)

# What else is found under such names, by its first bytes in lower case, and what to do.
STRANGERS = {
    b"": "is empty: it was not written or downloaded to the end",
    b"version https://git-lfs": "is a Git LFS pointer to the file: run git lfs pull",
    b"<!doctype": "is a web page: download the file itself, by its raw or resolve link",
    b"<html": "is a web page: download the file itself, by its raw or resolve link",
    b"gguf": "is of quantised weights: take the model's safetensors",
    b"\x93numpy": "is a single array without a name: use numpy.savez(path, name=array)",
    **dict.fromkeys((bytes([0x80, protocol]) for protocol in range(2, 6)), PICKLE),
}


def read_weights(
    path: str | os.PathLike[str], *, entry: str | None = None
) -> dict[str, np.ndarray]:
    """Returns the arrays of a file, by name.

    The file's contents determine how it is read, not its name:

        .safetensors, and a .index.json or a folder with one, for a model in several files;
        .pt, .pth, .bin, .ckpt of torch.save, which torch loads with weights_only=True;
        .keras, .weights.h5 and .h5 of keras;
        .onnx, its initialisers, whose external data must be in the model's folder;
        .npz of numpy.savez.

    Names and values are those in the file, except that layers in a .keras or .weights.h5
    file have their own names instead of their classes', if the file has them. bfloat16 is
    ml_dtypes'. Nothing is unpickled or extracted, and no array is read that claims more
    bytes than the file has. The libraries of the formats are imported when they are needed:
    safetensors, h5py, onnx (`pip install 'jaxnorm[interop]'`), and torch, 2.6 or later.

    Args:
      path: the file.
      entry: the key of the state dict, if a checkpoint of torch has several; defaults to
        the only one.

    Returns:
      Names to arrays, as `from_torch` and `from_keras` take them; these also take the path
      itself.

    Raises:
      FileNotFoundError: there is no such file.
      ImportError: the library for this format is not installed.
      ValueError: the file is of an unknown format, damaged, ambiguous, or holds something
        else than arrays of numbers by name.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "weights.npz")
    >>> np.savez(file, **{"fc.bias": np.float32([1, 2])})
    >>> read_weights(file)
    {'fc.bias': array([1., 2.], dtype=float32)}
    """
    file = _file(Path(path))
    if file.name.endswith(shards.ENDING):
        arrays = shards.read(file, lambda each: _read(_file(each), entry))
    else:
        arrays = _read(file, entry)
    check_names(file, arrays)
    if not arrays:
        raise ValueError(
            f"{file} holds no arrays, but the weights of a model are expected; save the "
            "weights, not only the architecture."
        )
    return arrays


def _file(path: Path) -> Path:
    """The file at a path, or the index in a folder."""
    if path.is_dir():
        indices = sorted(path.glob(f"*{shards.ENDING}"))
        if len(indices) == 1:
            return indices[0]
        inside = sorted(each.name for each in path.iterdir())[:5]
        raise ValueError(
            f"{path} is a folder with {len(indices)} files that end in {shards.ENDING}, "
            f"but a file is expected, or a folder with one; it has {', '.join(inside)}. "
            "Pass one of its files. A SavedModel of TensorFlow is not read: load it with "
            'keras, and call model.save_weights("model.weights.h5").'
        )
    if not path.exists():
        raise FileNotFoundError(
            f"there is no file {path}; the current folder is {Path.cwd()}."
        )
    if not path.is_file():
        raise ValueError(f"{path} is no regular file, but one of {EXPECTED}, is expected.")
    return path


def _read(path: Path, entry: str | None) -> dict[str, np.ndarray]:
    read = _reader(path)
    if read is pytorch.read:
        return pytorch.read(path, entry)
    if entry is not None:
        raise ValueError(
            f"entry is {entry!r}, but {path} is no checkpoint of torch.save, and has none; "
            "leave it out."
        )
    return read(path)


def _reader(path: Path) -> Callable[[Path], dict[str, np.ndarray]]:
    """The function that reads this file, by its contents."""
    with path.open("rb") as file:
        start = file.read(32)
    if safetensors.begins(start):
        return safetensors.read
    if start.startswith(hdf5.START):
        return hdf5.read
    if start.startswith(archives.START):
        return _reader_of_archive(path)
    for begin, advice in STRANGERS.items():
        if start.lower().startswith(begin) if begin else not start:
            raise ValueError(f"{path} {advice}.")
    if path.suffix.lower() == ".onnx":  # which has no mark of its own
        return onnx.read
    raise ValueError(
        f"{path} begins with {start[:12]!r}, but a file of one of these formats is "
        f"expected: {EXPECTED}. Save the weights as one of them, or pass {{name: array}}."
    )


def _reader_of_archive(path: Path) -> Callable[[Path], dict[str, np.ndarray]]:
    members = archives.members(path)
    names = [each.filename for each in members]
    of_torch = {name.partition("/")[2] for name in names}
    if "constants.pkl" in of_torch:
        raise ValueError(
            f"{path} is a TorchScript program, but a state dict is expected: call "
            "torch.save(torch.jit.load(path).state_dict(), other), if you trust the file."
        )
    archives.check_members(path, members)
    if "data.pkl" in of_torch:
        return pytorch.read
    if hdf5.IN_ARCHIVE in names:
        return hdf5.read_archive
    if all(name.endswith(".npy") for name in names):
        return archives.read_npz
    raise ValueError(
        f"{path} is a zip file with {', '.join(sorted(names)[:4])}, but none that torch, "
        "keras or numpy.savez wrote; unzip it, and pass the file of weights in it."
    )
