"""Zip archives: what is in them, and NumPy's own. Nothing is extracted or unpacked."""

import math
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np

from jaxnorm.interop.files.checks import (
    check_claims,
    check_dtypes,
    check_names,
    dtype_name,
    reading,
    with_bfloat16,
)

START = b"PK\x03\x04"
NPZ = "arrays of numpy.savez"


def members(path: Path) -> list[zipfile.ZipInfo]:
    """What the archive lists."""
    with reading(path, "a zip file"), zipfile.ZipFile(path) as archive:
        return archive.infolist()


def check_members(path: Path, found: list[zipfile.ZipInfo]) -> None:
    """Raises a ValueError if reading these members would not be safe.

    No program that saves weights compresses them, as they hardly get smaller; refusing what
    is compressed bounds what reading costs by the size of the file.
    """
    check_names(path, (each.filename for each in found))
    for each in found:
        name = PurePosixPath(each.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in each.filename:
            raise ValueError(
                f"{path} has a member {each.filename!r}, whose name leads out of the "
                "archive, as none of a file of weights does; save the weights again."
            )
        if each.compress_type != zipfile.ZIP_STORED or each.flag_bits & 1:
            raise ValueError(
                f"{path} has a member {each.filename!r} that is compressed or encrypted, "
                "but torch, keras and numpy.savez store members as they are; save the "
                "weights again, or repack the archive without compression, as zip -0 does."
            )
    check_claims(path, sum(each.file_size for each in found), path.stat().st_size)


def read_member(path: Path, name: str) -> bytes:
    """The bytes of one member."""
    with reading(path, "a zip file"), zipfile.ZipFile(path) as archive:
        return archive.read(name)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays that numpy.savez saved."""
    with reading(path, NPZ), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        claims = {each.removesuffix(".npy"): _claim(archive, each) for each in names}
    check_dtypes(path, {name: dtype_name(dtype) for name, (_, dtype) in claims.items()})
    claimed = sum(math.prod(shape) * dtype.itemsize for shape, dtype in claims.values())
    check_claims(path, claimed, path.stat().st_size)
    with reading(path, NPZ), np.load(path, allow_pickle=False) as archive:
        return {name: with_bfloat16(archive[name]) for name in archive.files}


def _claim(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and the dtype in the header of an array."""
    with archive.open(name) as member:
        first = np.lib.format.read_magic(member) == (1, 0)
        read = "read_array_header_1_0" if first else "read_array_header_2_0"
        shape, _, dtype = getattr(np.lib.format, read)(member)
    return shape, dtype
