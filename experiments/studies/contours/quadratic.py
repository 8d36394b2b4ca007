"""Gradient descent on the squared error of a linear model, in closed form.

Along each eigenvector of the Hessian, a step multiplies the error by 1 − rate·eigenvalue.
Any number of steps is computed at once: raw inputs need more steps than could be run.
"""

from typing import NamedTuple

import numpy as np


class Quadratic(NamedTuple):
    """L(w) = mean of ½(xw − y)², equal to ½(w − w*)ᵀH(w − w*) + L(w*).

    Attributes:
      eigenvalues: the eigenvalues of H, in ascending order.
      directions: the eigenvectors, as columns.
      minimum: w*.
    """

    eigenvalues: np.ndarray
    directions: np.ndarray
    minimum: np.ndarray

    @property
    def condition(self) -> float:
        """The ratio of the largest to the smallest eigenvalue."""
        return float(self.eigenvalues[-1] / self.eigenvalues[0])

    @property
    def best_rate(self) -> float:
        """The rate at which the slowest direction converges fastest."""
        return float(2 / (self.eigenvalues[-1] + self.eigenvalues[0]))

    def errors(self, rate: float, steps: np.ndarray) -> np.ndarray:
        """Returns errors along each direction from w = 0, (steps, directions)."""
        start = -self.directions.T @ self.minimum
        with np.errstate(over="ignore"):
            return start * (1 - rate * self.eigenvalues) ** np.asarray(steps)[:, None]

    def excess(self, rate: float, steps: np.ndarray) -> np.ndarray:
        """Returns L(w) − L(w*) after each number of steps, (steps,)."""
        with np.errstate(over="ignore"):
            return self.errors(rate, steps) ** 2 @ self.eigenvalues / 2

    def path(self, rate: float, steps: np.ndarray) -> np.ndarray:
        """Returns w after each number of steps, (steps, weights)."""
        return self.minimum + self.errors(rate, steps) @ self.directions.T

    def steps_until(self, rate: float, excess: float) -> float:
        """Returns the steps until the excess is at most this; inf if never reached."""
        if self.excess(rate, np.asarray([2.0**60]))[0] > excess:
            return np.inf
        low, high = 0, 2**60
        while low < high:
            middle = (low + high) // 2
            reached = self.excess(rate, np.asarray([float(middle)]))[0] <= excess
            low, high = (low, middle) if reached else (middle + 1, high)
        return float(low)


def quadratic(x: np.ndarray, y: np.ndarray) -> Quadratic:
    """Returns the loss for inputs (samples, weights) and targets, in float64."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    # The eigenvalues are squared singular values; computed from xᵀx, small ones are lost.
    _, singular, directions = np.linalg.svd(x / np.sqrt(len(x)), full_matrices=False)
    minimum = np.linalg.lstsq(x, y, rcond=None)[0]
    return Quadratic(singular[::-1] ** 2, directions[::-1].T, minimum)


def whiten(x: np.ndarray) -> np.ndarray:
    """Returns uncorrelated linear combinations of the centred inputs, with variance 1.

    Among all such combinations, these are nearest to the standardised inputs: x·C^(−1/2).
    """
    x = np.asarray(x, float)
    centred = (x - x.mean(0)) / x.std(0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(x))
    return centred @ (vectors / np.sqrt(values)) @ vectors.T
