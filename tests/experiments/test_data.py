import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from experiments.harness.console import Refused
from experiments.harness.data import load, read_idx

SHARED_MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


NAMES = {
    "train-images-idx3-ubyte": (6, 4, 3),
    "train-labels-idx1-ubyte": (6,),
    "t10k-images-idx3-ubyte": (4, 4, 3),
    "t10k-labels-idx1-ubyte": (4,),
}


@pytest.fixture
def folder(tmp_path, rng):
    """Four good files, two of them gzipped."""
    for name, shape in NAMES.items():
        content = idx(rng.integers(0, 10 if len(shape) == 1 else 256, shape))
        if name.startswith("train"):
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (tmp_path / name).write_bytes(content)
    return tmp_path


def test_reads_raw_and_gzipped_files(folder):
    data = load(directory=folder)
    assert data.size == (4, 3)
    assert data.train_images.shape == (6, 12)
    assert data.test_images.shape == (4, 12)
    raw = read_idx(folder / "t10k-images-idx3-ubyte", 3)
    np.testing.assert_allclose(data.test_images, raw.reshape(4, 12) / 255, rtol=1e-6)
    assert data.test_labels.dtype == np.int32


def test_reads_names_with_a_dot(folder):
    for path in list(folder.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert load(directory=folder).train_images.shape == (6, 12)


def remove(path):
    path.unlink()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0")


def behead(path):
    path.write_bytes(path.read_bytes()[:3])


def other_magic(path):
    path.write_bytes(b"\0\0\x0d\x03" + path.read_bytes()[4:])


def fewer(path):
    array = read_idx(path, 1 if "labels" in path.name else 3)
    path.write_bytes(idx(array[:-1]))


def wider(path):
    array = read_idx(path, 3)
    path.write_bytes(idx(np.concatenate([array, array], 2)))


def emptied(path):
    path.write_bytes(idx(np.zeros((0, 4, 3))))


IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("spoil", "name", "message"),
    [
        (remove, IMAGES, ": no such file"),
        (remove, LABELS, ": no such file"),
        (
            truncate,
            IMAGES,
            "4×4×3 = 48 bytes of data, but 43 follow; the file is truncated",
        ),
        (truncate, "train-images-idx3-ubyte.gz", "is not a complete gzip file"),
        (truncate, LABELS, "truncated"),
        (lengthen, IMAGES, "too long"),
        (behead, IMAGES, "header alone takes 16"),
        (other_magic, IMAGES, "magic number 0x00000d03, but .* begin with 0x00000803"),
        (fewer, LABELS, "has 3 labels, but t10k-images-idx3-ubyte has 4 images"),
        (wider, IMAGES, "its images are 4×6, but the images in .* are 4×3"),
        (emptied, IMAGES, "is empty"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(folder, spoil, name, message):
    spoil(folder / name)
    with pytest.raises(Refused, match=message) as refused:
        load(directory=folder)
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "train", "test", "size"),
    [("mnist5k", 4000, 1000, (28, 28)), ("digits", 1437, 360, (8, 8))],
)
def test_packaged_data_is_split_by_class(name, train, test, size):
    data = load(name)
    assert data.size == size
    assert data.train_images.shape == (train, size[0] * size[1])
    assert (len(data.train_labels), len(data.test_labels)) == (train, test)
    for images in (data.train_images, data.test_images):
        assert images.dtype == np.float32
        assert (images.min(), images.max()) == (0, 1)
    shares = np.bincount(data.test_labels) / np.bincount(data.train_labels)
    np.testing.assert_allclose(shares, 0.25, atol=0.01)
    assert load(name).describe() == data.describe()  # the split is fixed


@pytest.mark.skipif(
    not SHARED_MNIST.is_dir(), reason="full MNIST is not beside the project"
)
def test_reads_full_mnist():
    data = load(directory=SHARED_MNIST)
    assert data.train_images.shape == (60_000, 784)
    assert data.test_images.shape == (10_000, 784)
    np.testing.assert_array_equal(np.bincount(data.test_labels)[:3], [980, 1135, 1032])


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ((0x0803, 10**6, 28, 28), "its header says 1000000×28×28 = 784000000 bytes"),
        ((0x0803, 2**31, 2**20, 2**20), "at most 1,073,741,824 are read"),
        ((0x0803, 10, 28, 28), "but more follow; the file is too long"),
        ((0x1234, 10, 28, 28), "begins with the magic number 0x00001234"),
    ],
)
def test_a_file_that_unpacks_to_gigabytes_costs_what_its_header_says(
    tmp_path, monkeypatch, header, message
):
    """A gzip of 50 kB that holds 50 MB."""
    content = struct.pack(">4I", *header) + bytes(50_000_000)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(content))
    assert path.stat().st_size < 60_000
    unpack, unpacked = gzip.GzipFile.read, []

    def read(self, size=-1):
        found = unpack(self, size)
        unpacked.append(len(found))
        return found

    monkeypatch.setattr(gzip.GzipFile, "read", read)
    with pytest.raises(Refused, match=message):
        read_idx(path, 3)
    assert sum(unpacked) <= 16 + 10 * 28 * 28 + 1
