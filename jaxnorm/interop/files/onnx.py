"""Reads the initialisers of ONNX models, by the library of that name."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnorm.interop.files.checks import (
    check_claims,
    check_dtypes,
    check_names,
    library,
    reading,
)

KIND = "an ONNX model"


def read(path: Path) -> dict[str, np.ndarray]:
    """The initialisers of the graph, also those in files beside the model."""
    onnx, helper = library("onnx", path), library("onnx.numpy_helper", path)
    with reading(path, KIND):
        model = onnx.load(path, load_external_data=False)
    if model.graph.sparse_initializer:
        raise ValueError(
            f"{path} has sparse initialisers, but dense ones are expected; export the "
            "model with dense weights."
        )
    tensors = model.graph.initializer
    check_names(path, [each.name for each in tensors])
    dtypes = {each.name: _dtype(onnx, each) for each in tensors}
    check_dtypes(path, dtypes)
    _load_external(onnx, path, tensors)
    with reading(path, KIND):
        return {each.name: helper.to_array(each) for each in tensors}


def _dtype(onnx: Any, tensor: Any) -> str:
    """The dtype as NumPy names it."""
    try:
        return onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name
    except (KeyError, ValueError, TypeError):
        return f"number {tensor.data_type}, which this version of onnx does not know"


def _load_external(onnx: Any, path: Path, tensors: Any) -> None:
    """Puts the bytes of tensors that lie in other files into the tensors."""
    external = onnx.TensorProto.EXTERNAL
    tensors = [each for each in tensors if each.data_location == external]
    slices = [_slice(onnx, path, each) for each in tensors]
    for file in {each.file for each in slices}:
        claimed = sum(each.length for each in slices if each.file == file)
        check_claims(file, claimed, file.stat().st_size)
    for tensor, each in zip(tensors, slices, strict=True):
        with each.file.open("rb") as content:
            content.seek(each.offset)
            tensor.raw_data = content.read(each.length)
        tensor.data_location = onnx.TensorProto.DEFAULT


class Slice(NamedTuple):
    """The part of a file that holds a tensor, in bytes."""

    file: Path
    offset: int
    length: int


def _slice(onnx: Any, path: Path, tensor: Any) -> Slice:
    """Where the values of a tensor are, after checks that they may be read."""
    given = {each.key: each.value for each in tensor.external_data}
    file = _beside(path, tensor.name, given.get("location", ""))
    with reading(path, KIND):
        size = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        size *= math.prod(tensor.dims)
        offset, length = int(given.get("offset", 0)), int(given.get("length", size))
    if length != size or min(offset, length) < 0:
        raise ValueError(
            f"{path}: {tensor.name!r} has the shape {tuple(tensor.dims)} and {size} bytes, "
            f"but {length} bytes at {offset} of {file.name} are given for it; export the "
            "model again."
        )
    check_claims(file, offset + length, file.stat().st_size)
    return Slice(file, offset, length)


def _beside(path: Path, name: str, location: str) -> Path:
    """The file of external data, which must lie in the model's folder or below it."""
    folder = path.resolve().parent
    file = (folder / location).resolve()
    if not location or folder not in file.parents:
        raise ValueError(
            f"{path}: the data of {name!r} are said to be in {location!r}, outside the "
            "model's folder, and are not read; move both into one folder and export the "
            "model again."
        )
    if not file.is_file():
        raise FileNotFoundError(
            f"{path}: the data of {name!r} are in {location!r}, which is missing; copy it "
            "into the folder of the model."
        )
    return file
