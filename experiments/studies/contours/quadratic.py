"""Gradient descent on the squared error of a linear model, in closed form.

Along each eigenvector of the Hessian a step multiplies the error by 1 − rate·eigenvalue,
so that any number of steps costs nothing: raw inputs need more than could be taken.
"""

from typing import NamedTuple

import numpy as np


class Quadratic(NamedTuple):
    """L(w) = mean of ½(xw − y)², which is ½(w − w*)ᵀH(w − w*) + L(w*).

    Attributes:
      eigenvalues: of H, in ascending order.
      directions: the eigenvectors, as columns.
      minimum: w*.
    """

    eigenvalues: np.ndarray
    directions: np.ndarray
    minimum: np.ndarray

    @property
    def condition(self) -> float:
        """The largest eigenvalue over the smallest."""
        return float(self.eigenvalues[-1] / self.eigenvalues[0])

    @property
    def best_rate(self) -> float:
        """That by which the slowest direction is as fast as can be."""
        return float(2 / (self.eigenvalues[-1] + self.eigenvalues[0]))

    def errors(self, rate: float, steps: np.ndarray) -> np.ndarray:
        """Along each direction after so many steps from w = 0: (steps, directions)."""
        start = -self.directions.T @ self.minimum
        with np.errstate(over="ignore"):
            return start * (1 - rate * self.eigenvalues) ** np.asarray(steps)[:, None]

    def excess(self, rate: float, steps: np.ndarray) -> np.ndarray:
        """L(w) − L(w*) after so many steps: (steps,)."""
        with np.errstate(over="ignore"):
            return self.errors(rate, steps) ** 2 @ self.eigenvalues / 2

    def path(self, rate: float, steps: np.ndarray) -> np.ndarray:
        """W after so many steps: (steps, weights)."""
        return self.minimum + self.errors(rate, steps) @ self.directions.T

    def steps_until(self, rate: float, excess: float) -> float:
        """How many it takes until the excess is no more than this; inf if it never is."""
        if self.excess(rate, np.asarray([2.0**60]))[0] > excess:
            return np.inf
        low, high = 0, 2**60
        while low < high:
            middle = (low + high) // 2
            reached = self.excess(rate, np.asarray([float(middle)]))[0] <= excess
            low, high = (low, middle) if reached else (middle + 1, high)
        return float(low)


def quadratic(x: np.ndarray, y: np.ndarray) -> Quadratic:
    """That of inputs (samples, weights) and what they are to predict, in float64."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    # The eigenvalues are the squared singular values: those of xᵀx would lose the small.
    _, singular, directions = np.linalg.svd(x / np.sqrt(len(x)), full_matrices=False)
    minimum = np.linalg.lstsq(x, y, rcond=None)[0]
    return Quadratic(singular[::-1] ** 2, directions[::-1].T, minimum)


def whiten(x: np.ndarray) -> np.ndarray:
    """Linear combinations of centred inputs that are uncorrelated, of variance 1.

    Of all those, the ones nearest to the standardised inputs: x·C^(−1/2).
    """
    x = np.asarray(x, float)
    centred = (x - x.mean(0)) / x.std(0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(x))
    return centred @ (vectors / np.sqrt(values)) @ vectors.T
