"""Scaled inputs make the loss rounder and descent faster: contours, condition and steps.

Rows 1, 6 and 46 of the claims. A linear model with squared loss is trained by gradient
descent on all samples from w = 0, each kind of inputs at its own best constant rate. Two
problems are drawn anew for each seed: the quadratic of row 6, with two inputs of mean 0,
standard deviations 1 and 8 and a correlation of .6; and the rental-car prices of row 46,
from age (0 to 30 years) and distance (0 to 300,000 km, depending on age), with a bias.

The inputs are raw, mean-normalised, standardised, batch-normalised (in batches of 50) or
whitened. Descent has converged when the mean squared difference to the best predictions is
1/10,000 of the variance of the target. This study trains no network and uses no images.
"""

import functools
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
from rich.table import Table

import jaxnorm
from experiments.harness import options, plotting
from experiments.harness.comparing import History
from experiments.harness.data import Dataset
from experiments.harness.results import Verdict, make_table, on_every_seed
from experiments.harness.runs import Run
from experiments.harness.study import Study
from experiments.studies.contours.quadratic import Quadratic, quadratic, whiten

NAME = "contours"
SAMPLES = 1000
GHOST = 50
TOLERANCE = 1e-4
SHADES = mpl.colormaps["cividis"]


def two_inputs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns row 6's inputs (samples, 2) and outputs; both have mean 0."""
    first, other, noise = rng.standard_normal((3, SAMPLES))
    x = np.stack([first, 8 * (0.6 * first + 0.8 * other)], axis=1)
    y = x @ [2.0, 0.6] + noise
    return x - x.mean(0), y - y.mean()


def car_rental(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns age in years and distance in km, (cars, 2), and prices per day."""
    age = rng.uniform(0, 30, SAMPLES)
    distance = np.clip(age * rng.normal(10_000, 4_000, SAMPLES), 0, 300_000)
    price = 80 - 1.2 * age - 0.0001 * distance + rng.normal(0, 3, SAMPLES)
    return np.stack([age, distance], axis=1), price


def mean_normalized(x: np.ndarray) -> np.ndarray:
    """Applies `jaxnorm.mean_normalize`."""
    x = x.astype(np.float32)
    return np.asarray(jaxnorm.mean_normalize(x, jaxnorm.summarize(x)))


def standardized(x: np.ndarray) -> np.ndarray:
    """Applies `jaxnorm.standardize`."""
    x = x.astype(np.float32)
    return np.asarray(jaxnorm.standardize(x, jaxnorm.summarize(x)))


def batch_normed(x: np.ndarray) -> np.ndarray:
    """Applies `jaxnorm.batch_norm`, with the statistics of each batch of 50."""
    x = x.astype(np.float32)
    state = jaxnorm.ema(0.99).init(x.shape[1:])
    return np.asarray(
        jaxnorm.batch_norm(
            x, state, train=True, estimator=jaxnorm.ema(0.99), ghost_size=GHOST
        )[0]
    )


INPUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "raw": np.asarray,
    "mean-normalised": mean_normalized,
    "standardised": standardized,
    "batch-normalised": batch_normed,
    "whitened": whiten,
}
COLOURS = {
    "raw": "plain",
    "mean-normalised": "mean-normalised",
    "standardised": "standardised",
    "batch-normalised": "batch_norm",
    "whitened": "whitened",
}
PROBLEMS = {"two inputs": two_inputs, "car rental": car_rental}


def make(problem: str, inputs: str, seed: int) -> tuple[Quadratic, float]:
    """Returns the loss, and the excess loss at which descent has converged."""
    x, y = PROBLEMS[problem](np.random.default_rng(seed))
    x = INPUTS[inputs](x)
    if problem == "car rental":  # the other problem's bias is 0
        x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    return quadratic(x, y), TOLERANCE * y.var() / 2


def descend(problem: str, inputs: str, seed: int) -> dict[str, np.ndarray | float]:
    """Returns the measurements for one seed."""
    loss, tolerance = make(problem, inputs, seed)
    standard, _ = make(problem, "standardised", seed)
    rate = loss.best_rate
    return {
        "condition": loss.condition,
        "steps": loss.steps_until(rate, tolerance),
        "factor": abs(1 - standard.best_rate * loss.eigenvalues[-1]),
        "minimum": loss.minimum,
        "hessian": (loss.directions * loss.eigenvalues) @ loss.directions.T,
    }


def measure(run: Run, dataset: Dataset, chosen: Namespace) -> History:
    """Runs descent on both problems with each kind of inputs."""

    def on_all(problem: str, inputs: str) -> dict[str, np.ndarray]:
        each = [descend(problem, inputs, seed) for seed in range(chosen.seeds)]
        return {name: np.stack([found[name] for found in each]) for name in each[0]}

    def line(name: str, found: dict[str, np.ndarray]) -> str:
        condition, steps = (np.median(found[each]) for each in ("condition", "steps"))
        return f"{name:>28}  {condition:16,.1f}  {steps:,.0f}"

    parts = {
        part_name(problem, inputs): functools.partial(on_all, problem, inputs)
        for problem in PROBLEMS
        for inputs in INPUTS
    }
    heading = "             problem, inputs  condition number  steps"
    return run.collect(parts, heading, line)


def part_name(problem: str, inputs: str) -> str:
    """Returns the key of a part in the history."""
    return f"{problem}, {inputs}"


def verdicts(history: History) -> list[Verdict]:
    """Returns the verdicts; thresholds were fixed before the run that is shown."""

    def of(problem: str, inputs: str, name: str) -> np.ndarray:
        return history[part_name(problem, inputs)][name]

    def times(problem: str, name: str) -> np.ndarray:
        """Returns the ratio of raw to standardised."""
        return of(problem, "raw", name) / of(problem, "standardised", name)

    found = []
    for problem, row in zip(PROBLEMS, (6, 46), strict=True):
        rounder, faster = times(problem, "condition"), times(problem, "steps")
        claim = f"{problem}: standardising lowers the condition number"
        found.append(on_every_seed(claim, (row,), rounder, rounder > 1, "times"))
        claim = f"{problem}: raw inputs need at least 10 times the steps of standardised"
        found.append(on_every_seed(claim, (row,), faster, faster >= 10, "times"))
    factor = np.log10(of("car rental", "raw", "factor"))
    whitened = of("car rental", "whitened", "condition")
    correlated = of("car rental", "standardised", "condition")
    return [
        *found,
        on_every_seed(
            "car rental: at the rate that is best for standardised inputs raw ones explode",
            (46,),
            factor,
            factor > 0,
            "powers of ten a step",
        ),
        on_every_seed(
            "car rental: whitening takes the condition number to 1 (within 1 %)",
            (),
            whitened,
            whitened <= 1.01,
            "(condition number)",
        ),
        on_every_seed(
            "car rental: standardising whitens, its condition number is 1 (within 1 %)",
            (1,),
            correlated,
            correlated <= 1.01,
            "(condition number)",
        ),
    ]


def table(history: History) -> Table:
    """Tabulates condition number and steps for each kind of inputs."""
    drawn = make_table(
        "inputs",
        title="condition number κ, and steps to converge: medians over seeds",
    )
    for problem in PROBLEMS:
        drawn.add_column(f"{problem}: κ", justify="right")
        drawn.add_column("steps", justify="right")
    for inputs in INPUTS:
        of = [history[part_name(problem, inputs)] for problem in PROBLEMS]
        medians = [np.median(each[name]) for each in of for name in ("condition", "steps")]
        drawn.add_row(inputs, *(short(each) for each in medians))
    return drawn


def short(value: float) -> str:
    """Formats a number with its meaningful digits, however large."""
    if value < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}" if value < 1e6 else f"{value:.0e}"


def draw(history: History, path: Path) -> None:
    """Draws the contours and descent paths of two inputs, and the cars' steps."""
    with plotting.figure(path, rows=2, columns=3, height=3.3, width=3.3) as axes:
        *contours, steps = axes.flat
        for panel, inputs in zip(contours, INPUTS, strict=True):
            draw_contours(panel, inputs, history[part_name("two inputs", inputs)])
        draw_steps(steps, history)


def draw_contours(axes, inputs: str, found: dict[str, np.ndarray]) -> None:
    """Draws the first seed's loss over both weights, and the path of descent."""
    hessian, minimum, steps = (found[name][0] for name in ("hessian", "minimum", "steps"))
    descent = Quadratic(*np.linalg.eigh(hessian), minimum)
    path = descent.path(descent.best_rate, np.arange(steps + 1))
    reach = 1.2 * np.abs(path - minimum).max()
    grid = np.linspace(-reach, reach, 300)
    offset = np.stack(np.meshgrid(grid, grid), axis=-1)
    loss = np.einsum("...i,ij,...j->...", offset, hessian, offset) / 2
    start = minimum @ hessian @ minimum / 2
    levels = start * 4.0 ** np.arange(-5, 3)
    colours = SHADES(np.linspace(0, 1, len(levels)))
    x, y = minimum[0] + grid, minimum[1] + grid
    axes.contourf(x, y, loss, [0, *levels[1:]], colors=colours, extend="max")
    axes.contour(x, y, loss, levels, colors="white", linewidths=0.5)
    colour = plotting.COLOURS[COLOURS[inputs]]
    thin = 0.5 if steps > 50 else 1.0
    axes.plot(*path.T, "-o", color="white", lw=1.2 + 1.2 * thin, ms=5.5 * thin)
    axes.plot(*path.T, "-o", color=colour, lw=1.2 * thin, ms=3.5 * thin)
    axes.plot(*minimum, "*", color="black", ms=12, mec="white", zorder=3)
    axes.set(aspect="equal", xlabel="weight of input 1", ylabel="weight of input 2")
    counted = "1 step" if steps == 1 else f"{steps:.0f} steps"
    title = f"{inputs}\nκ = {short(found['condition'][0])}, {counted}"
    axes.set_title(title, color=colour, fontsize=11)
    axes.grid(visible=False)


def draw_steps(axes, history: History) -> None:
    """Draws the number of steps for the cars."""
    steps = {each: history[part_name("car rental", each)]["steps"] for each in INPUTS}
    plotting.each_seed(axes, steps, COLOURS)
    axes.set(xscale="log", xlim=(0.5, 1e12), xticks=10.0 ** np.arange(0, 13, 3))
    axes.set(xlabel="steps (each seed)")
    axes.set_title("car rental,\nage and distance", fontsize=11)


STUDY = Study(NAME, options.parser(NAME, __doc__ or ""), measure, verdicts, table, draw)
