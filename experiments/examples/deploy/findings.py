"""Presents the measurements: progress lines, claims, the table and the figure."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from rich.table import Table

from experiments.examples.deploy.measuring import ALL, DTYPES, FORMS, ONE, ORIGINAL
from experiments.harness import plotting
from experiments.harness.comparing import History
from experiments.harness.results import Verdict, make_table, mean_sd, on_every_seed

FOLDED = f"{ORIGINAL}, folded"
TOLERANCE = 1e-5  # relative to the largest logit
HEADING = " seed   epoch    loss  test accuracy, %"


def line(history: History, seed: int, epoch: int) -> str:
    """Returns the line of an epoch; the last epoch's also says what folding did."""
    training = history["training"]
    seeds, epochs = training["loss"].shape
    loss, running = (training[name][seed, epoch] for name in ("loss", "running"))
    said = (
        f"{f'{seed + 1}/{seeds}':>5} {f'{epoch + 1}/{epochs}':>7}  "
        f"{loss:6.4f}  {100 * running:16.1f}"
    )
    if epoch < epochs - 1:
        return said
    found = history[FOLDED]
    return (
        f"{said}  folded: {found['changed'][seed]:.0f} predictions changed, "
        f"{ratios(history, ALL)[seed]:.2f} of the time"
    )


def ratios(history: History, time: str, dtype: str = ORIGINAL) -> np.ndarray:
    """Returns the time after folding over the time before, (seeds,): medians of rounds."""
    before, after = (
        np.asarray(history[form][time]) for form in (dtype, f"{dtype}, folded")
    )
    return np.median(after / before, axis=1)


def verdicts(history: History) -> list[Verdict]:
    """Returns the verdicts; thresholds were fixed before the run that is shown."""
    before, after = history[ORIGINAL], history[FOLDED]
    left = after["rsqrt"] + after["statistics"] + after["norms"]
    fewer = before["total"] - after["total"]
    all_at_once, one = ratios(history, ALL), ratios(history, ONE)
    return [
        on_every_seed(
            "folded, every prediction on the test data is the same",
            (11,),
            after["changed"],
            after["changed"] == 0,
            "predictions changed",
        ),
        on_every_seed(
            "folded, logits in float32 agree within 0.00001 of the largest",
            (11,),
            1e6 * after["error"],
            after["error"] <= TOLERANCE,
            "millionths of the largest logit",
        ),
        on_every_seed(
            "folded, no norm, no statistic and no rsqrt is left",
            (11,),
            left,
            left == 0,
            "left",
        ),
        on_every_seed(
            "folded, the compiled program has fewer operations",
            (11,),
            fewer,
            fewer > 0,
            "fewer",
        ),
        on_every_seed(
            "folded, evaluating the test data takes no longer",
            (11,),
            all_at_once,
            all_at_once <= 1,
            "of the time",
        ),
        on_every_seed(
            "folded, evaluating one image takes no longer",
            (11,),
            one,
            one <= 1,
            "of the time",
        ),
    ]


def rows(history: History) -> dict[str, list[str]]:
    """Returns the rows of the table: by name, a cell for each form."""

    def cells(key: str, shown: Callable[[np.ndarray], str]) -> list[str]:
        return [shown(np.asarray(history[form][key], float)) for form in FORMS]

    def medians(scale: float) -> Callable[[np.ndarray], str]:
        return lambda seconds: mean_sd(scale * np.median(seconds, axis=1))

    return {
        "test accuracy, %": cells("accuracy", lambda each: mean_sd(100 * each)),
        "predictions that differ": _but_first(cells("changed", span)),
        "largest error of a logit": _but_first(
            cells("error", lambda each: f"{each.max():.1e}")
        ),
        "operations of the program": cells("total", span),
        "rsqrt among them": cells("rsqrt", span),
        "kernels it calls": cells("kernels", span),
        "arrays of variables": cells("arrays", span),
        "kB of variables": cells("bytes", lambda each: span(each / 1e3)),
        "ms, the test data": cells(ALL, medians(1e3)),
        "of the time before": _ratios(history, ALL),
        "µs, one image": cells(ONE, medians(1e6)),
        "of its time before": _ratios(history, ONE),
    }


def span(values: np.ndarray) -> str:
    """Formats integers of all seeds, which are mostly equal, as one number or a range."""
    low, high = f"{values.min():.0f}", f"{values.max():.0f}"
    return low if low == high else f"{low} to {high}"


def _ratios(history: History, time: str) -> list[str]:
    cells = []
    for dtype in DTYPES:
        each = ratios(history, time, dtype)
        cells += ["–", f"{each.min():.2f} to {each.max():.2f}"]
    return cells


def _but_first(cells: list[str]) -> list[str]:
    """Blanks the cell of the form that the others are compared with."""
    return ["–", *cells[1:]]


def table(history: History) -> Table:
    """Returns the table, with a column for each form."""
    seeds = len(history[ORIGINAL]["accuracy"])
    drawn = make_table(
        "",
        *(form.rpartition(", ")[2] for form in FORMS),
        title=f"mean ± sd, or the range, over {seeds} seed{'s' * (seeds > 1)}",
    )
    for name, cells in rows(history).items():
        drawn.add_row(name, *cells)
    return drawn


def draw(history: History, path: Path) -> None:
    """Draws errors, operations and times."""
    with plotting.figure(path, rows=2, columns=2) as axes:
        (errors, counts), (times, compared) = axes
        _draw_errors(history, errors)
        _draw_counts(history, counts)
        _draw_times(history, times)
        _draw_ratios(history, compared)


def _draw_errors(history: History, axes: Axes) -> None:
    """Draws a point for each seed."""
    others = FORMS[1:]
    for place, form in enumerate(others):
        errors = np.asarray(history[form]["error"])
        colour = plotting.COLOURS[form]
        axes.plot(errors, [place] * len(errors), "o", color=colour, ms=6, alpha=0.6)
    axes.axvline(TOLERANCE, color="grey", lw=1, ls=":", label="claimed")
    axes.set_yticks(range(len(others)), others)
    axes.set(xscale="log", ylim=(len(others) - 0.5, -0.5))
    axes.set(title="Largest error of a logit", xlabel="of the largest logit of float32")
    axes.legend(loc="upper right")
    axes.grid(axis="y", visible=False)


def _draw_counts(history: History, axes: Axes) -> None:
    """Draws the counts of the compiled float32 program, before and after."""
    names = {
        "total": "operations",
        "kernels": "kernels called",
        "arrays": "arrays of variables",
        "rsqrt": "rsqrt",
    }
    for offset, form in ((-0.2, ORIGINAL), (0.2, FOLDED)):
        counts = [np.mean(history[form][name]) for name in names]
        places = np.arange(len(names)) + offset
        bars = axes.barh(places, counts, 0.38, color=plotting.COLOURS[form], label=form)
        axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set_yticks(range(len(names)), list(names.values()))
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(title="The compiled program", xlabel="count")
    axes.legend(loc="lower right")
    axes.grid(axis="y", visible=False)


def _draw_times(history: History, axes: Axes) -> None:
    """Draws the medians of rounds: a point for each seed, and their mean."""
    for place, form in enumerate(FORMS):
        medians = 1e3 * np.median(history[form][ALL], axis=1)
        colour = plotting.COLOURS[form]
        axes.barh(place, medians.mean(), 0.7, color=colour, alpha=0.6)
        axes.plot(medians, [place] * len(medians), "o", color=colour, ms=5)
    axes.set_yticks(range(len(FORMS)), FORMS)
    axes.invert_yaxis()
    axes.set(title="Time for the test data", xlabel="milliseconds")
    axes.grid(axis="y", visible=False)


def _draw_ratios(history: History, axes: Axes) -> None:
    """Draws a point for each seed, and their mean."""
    sizes = {"test data": ALL, "one image": ONE}
    names = []
    for dtype, (size, time) in itertools.product(DTYPES, sizes.items()):
        each, colour = ratios(history, time, dtype), plotting.COLOURS[f"{dtype}, folded"]
        axes.plot(each, [len(names)] * len(each), "o", color=colour, ms=6, alpha=0.6)
        axes.plot(each.mean(), len(names), "|", color=colour, ms=16, mew=2.5)
        names.append(f"{dtype}, {size}")
    axes.axvline(1, color="grey", lw=1, ls=":")
    axes.set_yticks(range(len(names)), names)
    axes.set(title="Time folded over time before", xlabel="ratio of rounds, their median")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
