"""Reads HDF5, in which keras saves weights, by h5py."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxnorm.interop.files.archives import read_member
from jaxnorm.interop.files.checks import (
    check_claims,
    check_dtypes,
    check_names,
    dtype_name,
    library,
    reading,
    with_bfloat16,
)

START = b"\x89HDF\r\n\x1a\n"
IN_ARCHIVE = "model.weights.h5"
KIND = "an HDF5 file"
DEEPEST = 64  # groups in groups; a model has a few


def read(path: Path) -> dict[str, np.ndarray]:
    """All data sets by their path, with keras's layers under their own names."""
    return _read(path, path, path.stat().st_size)


def read_archive(path: Path) -> dict[str, np.ndarray]:
    """The data sets in a .keras file, which is a zip archive."""
    content = read_member(path, IN_ARCHIVE)
    return _read(path, io.BytesIO(content), len(content))


def _read(path: Path, content: Path | io.BytesIO, size: int) -> dict[str, np.ndarray]:
    h5py = library("h5py", path)
    with reading(path, KIND):
        file = h5py.File(content, "r")
    with file:
        found = _datasets(h5py, file, path)
        with reading(path, KIND):
            names = {each: "/".join(_renamed(file, each.split("/"))) for each in found}
        check_names(path, names.values())
        check_dtypes(path, {name: dtype_name(each.dtype) for name, each in found.items()})
        check_claims(path, sum(each.nbytes for each in found.values()), size)
        with reading(path, KIND):
            arrays = {names[each]: np.asarray(found[each][()]) for each in found}
    return {name: with_bfloat16(array) for name, array in arrays.items()}


def _datasets(h5py: Any, file: Any, path: Path) -> dict[str, Any]:
    """The data sets that lie in the file itself, in full and uncompressed."""
    with reading(path, KIND):
        found = dict(_walk(h5py, file, "", {}, 0))
        odd = {name: _oddity(h5py, each) for name, each in found.items()}
    for name, oddity in odd.items():
        if oddity:
            raise ValueError(
                f"{path}: {name!r} is {oddity}, but arrays written in full in the file "
                "itself are expected, as keras writes them; save the weights again with "
                "keras, or read them with h5py and pass {name: dataset[()]}."
            )
    return found


def _walk(
    h5py: Any, group: Any, above: str, seen: dict, depth: int
) -> Iterator[tuple[str, Any]]:
    """Everything below a group but groups, by path; links, which may lead anywhere, too."""
    for key in group:
        name = f"{above}{key}"
        child = group.get(key, getlink=True)
        if isinstance(child, h5py.HardLink):
            child = group[key]
            # A group may be linked below itself, or so often that a walk never ends.
            place = h5py.h5o.get_info(child.id).addr
            if place in seen or depth > DEEPEST:
                child = h5py.SoftLink(seen.get(place, name))
            seen[place] = name
        if isinstance(child, h5py.Group):
            yield from _walk(h5py, child, f"{name}/", seen, depth + 1)
        else:
            yield name, child


def _oddity(h5py: Any, child: Any) -> str | None:
    """Why a child cannot be read as an array; None if it can."""
    if not isinstance(child, h5py.Dataset):
        return "a link, or a named type"
    if child.is_virtual or child.external:
        return "an array in another file"
    if child.shape is None:
        return "empty"
    plan = child.id.get_create_plist()
    if plan.get_nfilters():
        return "compressed"
    if child.id.get_storage_size() < child.nbytes:
        return f"an array of {child.nbytes} bytes, of which not all are there"
    return None


def _renamed(file: Any, parts: list[str]) -> Iterator[str]:
    """The path of a data set, with the names of layers where the file has them.

    In a .weights.h5 file, the groups in "layers" are named after the layers' classes; the
    layers' own names are attributes from Keras 3.6 on, but not in 3.4. In which order older
    ones number the layers of a class is not guessed from config.json: if it were wrong, two
    layers of the same shape would be swapped.
    """
    for place, part in enumerate(parts):
        layer = "/".join(parts[: place + 1])
        named = place and parts[place - 1] == "layers" and f"{layer}/vars" in file
        name = file[f"{layer}/vars"].attrs.get("name") if named else None
        yield name if isinstance(name, str) else part
