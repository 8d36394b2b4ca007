"""The derivative σ′ of the sigmoid for normal inputs, N(μ, 1)."""

import numpy as np
from matplotlib.axes import Axes
from scipy.special import expit
from scipy.stats import norm

from experiments.harness import plotting

# Far from 0, as in the source; and as normalised by batch norm with γ = 1 and β = 0.
MEANS = {"plain": -6.0, "batch_norm": 0.0}


def derivative(z: np.ndarray) -> np.ndarray:
    """σ′ = σ(1 − σ)."""
    return expit(z) * expit(-z)


def mean_derivative(mean: float) -> float:
    """E[σ′], by a Gauss–Hermite rule, whose weight is exp(−z²/2)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    return float(weights @ derivative(mean + nodes) / weights.sum())


def share_between(low: float, high: float, mean: float) -> float:
    """P(low ≤ z ≤ high)."""
    return float(norm.cdf(high - mean) - norm.cdf(low - mean))


def _named(mean: float) -> str:
    return f"N({mean:g}, 1)".replace("-", "−")


def draw_inputs(axes: Axes) -> None:
    """Draws the densities of the inputs, and σ′."""
    z = np.linspace(-10, 10, 401)
    for arm, mean in MEANS.items():
        shown = {"color": plotting.COLOURS[arm], "alpha": 0.3, "lw": 0}
        axes.fill_between(z, norm.pdf(z - mean), label=_named(mean), **shown)
    axes.plot(z, derivative(z), color="black", label="σ′(z)")
    axes.set(title="Inputs of a sigmoid", xlabel="input z", ylabel="density, and σ′")
    axes.set(ylim=(0, 0.42), xlim=(-10, 10), xticks=range(-10, 11, 5))
    axes.legend(loc="upper right")


def draw_histogram(axes: Axes) -> None:
    """Draws the distribution of σ′, from evenly spaced quantiles of the inputs."""
    number = 20_000
    quantiles = norm.ppf((np.arange(number) + 0.5) / number)
    for arm, mean in MEANS.items():
        axes.hist(
            derivative(mean + quantiles),
            bins=np.geomspace(1e-5, 0.25, 60).tolist(),
            weights=np.full(number, 100 / number),
            color=plotting.COLOURS[arm],
            alpha=0.6,
            label=f"{_named(mean)}: mean {mean_derivative(mean):.4f}",
        )
    axes.set(title="Their σ′", xlabel="σ′(z)", ylabel="% of inputs", xscale="log")
    axes.set(yscale="log", ylim=(0.01, None))
    axes.legend(loc="upper left")
