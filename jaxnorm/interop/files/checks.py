"""Checks that all readers share: libraries, damage, dtypes, names and claimed sizes."""

import importlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

BFLOAT16 = np.dtype(jnp.bfloat16)

READABLE = (
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
)


def library(name: str, path: Path) -> Any:
    """Imports the library that reads a file; an ImportError says how to install it.

    >>> library("json", Path("config.json")).loads("[1]")
    [1]
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ImportError(
            f"{path} is read by {package}, which is not installed or fails to import: "
            f"pip install {package}"
        ) from error


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turns whatever a library raises for a damaged file into a ValueError.

    >>> with reading(Path("model.h5"), "an HDF5 file"):  # doctest: +ELLIPSIS
    ...     raise OSError("truncated file")
    Traceback (most recent call last):
    ValueError: model.h5 cannot be read as an HDF5 file: truncated file. ...
    """
    try:
        yield
    except Exception as error:
        said = (str(error).splitlines() or [""])[0][:300].rstrip(". ")
        raise ValueError(
            f"{path} cannot be read as {kind}: {said or type(error).__name__}. It is "
            "truncated or damaged, or not what it seems; download it or save it again."
        ) from error


def some(names: Iterable[Any]) -> str:
    """Lists the first few names.

    >>> some(["a", "b", "c", "d", "e"])
    "'a', 'b', 'c' and 2 more"
    """
    names = list(names)
    listed = ", ".join(repr(name)[:200] for name in names[:3])
    return f"{listed} and {len(names) - 3} more" if len(names) > 3 else listed


def check_dtypes(path: Path, dtypes: Mapping[str, str]) -> None:
    """Raises a ValueError that names the arrays of dtypes which are no plain numbers.

    A float8 or quantised array is meaningless without its scale, which is stored elsewhere.
    """
    strange = {name: each for name, each in dtypes.items() if each not in READABLE}
    if strange:
        raise ValueError(
            f"{path}: {some(strange)} {'is' if len(strange) == 1 else 'are'} of dtype "
            f"{', '.join(sorted(set(strange.values()))[:4])}, but booleans, integers, "
            "float16, bfloat16, float32, float64 or complex numbers are expected; save the "
            "model with dequantised weights, such as float32, and without other data."
        )


def check_names(path: Path, names: Iterable[Any]) -> None:
    """Raises a ValueError if a name is no valid text, or appears twice."""
    names = list(names)
    strange = [name for name in names if not _is_text(name)]
    if strange:
        raise ValueError(
            f"{path}: the names {some(strange)} are not UTF-8 text; rename these arrays "
            "where the file was saved."
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(
            f"{path} has several arrays or members of the name {some(twice)}, and nothing "
            "says which is meant; save it again with a single one of each name."
        )


def _is_text(name: Any) -> bool:
    # Bytes that are not UTF-8 become surrogates, which a text does not have.
    return isinstance(name, str) and not any("\ud800" <= each <= "\udfff" for each in name)


def check_claims(path: Path, claimed: int, size: int) -> None:
    """Raises a ValueError if arrays would have more bytes than the file that holds them.

    Called before any memory is used for them.
    """
    if claimed > size:
        raise ValueError(
            f"{path} claims to hold arrays of {claimed} bytes, but has only {size} bytes; "
            "it is truncated, or made to exhaust memory. Download it or save it again, "
            "with every array written in full."
        )


def dtype_name(dtype: np.dtype) -> str:
    """The name of a dtype, as that of an array which `with_bfloat16` returns.

    >>> dtype_name(np.dtype(">f4")), dtype_name(np.dtype("V2"))
    ('float32', 'bfloat16')
    """
    return BFLOAT16.name if dtype == np.dtype("V2") else dtype.name


def with_bfloat16(array: np.ndarray) -> np.ndarray:
    r"""The array, as bfloat16 if NumPy and h5py stored it as values of two opaque bytes.

    Of the floats that NumPy does not have, only bfloat16 has two bytes.

    >>> with_bfloat16(np.array([b"\x80\x3f"], "V2"))
    array([1], dtype=bfloat16)
    """
    return array.view(BFLOAT16) if array.dtype == np.dtype("V2") else array
