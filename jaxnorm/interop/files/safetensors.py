"""Reads safetensors, by the library of that name."""

import json
from pathlib import Path

import numpy as np

from jaxnorm.interop.files.checks import check_dtypes, check_names, library, reading

LONGEST_HEADER = 100_000_000  # of the format itself

CODES = {"BOOL": "bool", "BF16": "bfloat16", "C64": "complex64"} | {
    f"{letter}{bits}": f"{kind}{bits}"
    for letter, kind in (("I", "int"), ("U", "uint"), ("F", "float"))
    for bits in (8, 16, 32, 64)
    if (letter, bits) != ("F", 8)
}


def begins(start: bytes) -> bool:
    r"""Whether a file with these first bytes may be one: a length, and a JSON object.

    >>> begins(b"\x10" + 7 * b"\x00" + b"{")
    True
    """
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= LONGEST_HEADER


def read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file.

    The library checks that the arrays cover the file exactly, so none claims more than is
    there; of two arrays with the same name it would drop one.
    """
    safetensors = library("safetensors", path)
    with reading(path, "safetensors"):
        file = safetensors.safe_open(str(path), framework="np")
        entries = _entries(path)
    check_names(path, (name for name, _ in entries))
    found = {name: entry for name, entry in entries if name != "__metadata__"}
    codes: dict[str, str] = {name: dict(entry)["dtype"] for name, entry in found.items()}
    check_dtypes(path, {name: CODES.get(code, code) for name, code in codes.items()})
    with reading(path, "safetensors"), file:
        return {name: file.get_tensor(name) for name in found}


def _entries(path: Path) -> list[tuple[str, list]]:
    """The header, as pairs of names and values, in which names may repeat."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length), object_pairs_hook=list)
