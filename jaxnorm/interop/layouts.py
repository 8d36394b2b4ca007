"""Converts between the array layouts of two libraries, both ways, by permutations only."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MOST_BATCHES = 2**24


@dataclass(frozen=True)
class Layout:
    """A change of layout and its inverse, which preserve every value.

    Attributes:
      name: a description for the report.
      into: converts the other library's array to ours; a ValueError if that is impossible.
      back: converts our array to the other library's.
    """

    name: str
    into: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]


AS_IT_IS = Layout("as it is", lambda array: array, lambda array: array)
LINEAR = Layout("(out, in) → (in, out)", np.transpose, np.transpose)


def permuted(name: str, axes: tuple[int, ...], flipped: tuple[int, ...] = ()) -> Layout:
    """Transposes the axes into this order, then flips some of them.

    >>> permuted("reversed", (1, 0), flipped=(0,)).into(np.array([[1, 2, 3]]))
    array([[3],
           [2],
           [1]])
    """
    inverse = tuple(int(each) for each in np.argsort(axes))
    return Layout(
        name,
        lambda array: np.flip(np.transpose(array, axes), flipped),
        lambda array: np.transpose(np.flip(array, flipped), inverse),
    )


def reshaped(there: tuple[int, ...], here: tuple[int, ...]) -> Layout:
    """Changes the shape, and keeps the values in order.

    >>> reshaped((2, 1), (2,)).name
    '(2, 1) → (2,)'
    """
    return Layout(
        f"{there} → {here}",
        lambda array: array.reshape(here),
        lambda array: array.reshape(there),
    )


def positions(rank: int) -> str:
    """The spatial axes of a kernel of this rank: W, HW or DHW."""
    return "DHW"[5 - rank :]


def conv(rank: int) -> Layout:
    """Torch's convolution kernel, (out, in/groups, …), with its spatial axes first.

    >>> conv(4).into(np.zeros((8, 3, 5, 7))).shape
    (5, 7, 3, 8)
    """
    letters = positions(rank)
    return permuted(f"OI{letters} → {letters}IO", (*range(2, rank), 1, 0))


def flattened_rows(shape: tuple[int, ...]) -> Layout:
    """Torch's (out, C·H·W) kernel after a flatten of (C, H, W), as (H·W·C, out).

    >>> flattened_rows((2, 3)).into(np.arange(6).reshape(1, 6))[:, 0]
    array([0, 3, 1, 4, 2, 5])
    """
    channels, *positions = shape
    rear = tuple(range(2, len(shape) + 1))

    def into(array: np.ndarray) -> np.ndarray:
        if array.ndim != 2 or array.shape[1] != math.prod(shape):
            raise ValueError(f"rows of {math.prod(shape)} values are expected, for {shape}")
        maps = array.reshape(-1, *shape)
        return maps.transpose(*rear, 1, 0).reshape(math.prod(shape), -1)

    def back(array: np.ndarray) -> np.ndarray:
        maps = array.reshape(*positions, channels, -1)
        return maps.transpose(-1, -2, *range(len(positions))).reshape(-1, math.prod(shape))

    rows = "·".join(map(str, (*positions, channels)))
    return Layout(f"(out, {'·'.join(map(str, shape))}) → ({rows}, out)", into, back)


def features_last(there: tuple[int, ...], here: tuple[int, ...]) -> Layout:
    """Moves the first axis, C, last; flattens the result if `here` is flat, as in NNX.

    >>> features_last((2, 3), (3, 2)).into(np.zeros((2, 3))).shape
    (3, 2)
    """
    shape = (*there[1:], there[0])
    laid = here if len(here) == 1 else shape
    return Layout(
        f"{there} → {laid}, channels last",
        lambda array: np.moveaxis(array, 0, -1).reshape(laid),
        lambda array: np.moveaxis(array.reshape(shape), -1, 0),
    )


def counted(features: tuple[int, ...]) -> Layout:
    """Repeats a number of batches for every feature, as a float.

    >>> counted((3,)).into(np.array(7))
    array([7., 7., 7.], dtype=float32)
    """

    def into(array: np.ndarray) -> np.ndarray:
        number = array.ravel()[0] if array.size == 1 else -1
        if not 0 <= number <= MOST_BATCHES or number != int(number):
            raise ValueError(
                f"{array} is not a number of batches from 0 to 2²⁴ = {MOST_BATCHES}, at "
                "which a count in float32 stops; for more batches, pass this limit"
            )
        return np.full(features, array.reshape(()), np.float32)

    def back(array: np.ndarray) -> np.ndarray:
        if array.size == 0 or (array != array.flat[0]).any():
            some = [int(each) for each in np.rint(np.unique(array)[:3])]
            raise ValueError(
                f"features have had {some} batches, but the other library keeps a single "
                "number"
            )
        if not np.isfinite(array).all():
            raise ValueError("their number is unknown (infinite)")
        return np.rint(array.ravel()[0:1]).astype(np.int64).reshape(())

    return Layout("for every feature", into, back)
