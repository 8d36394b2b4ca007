"""Claims about the percentiles: speed and robustness, drift and saturation."""

import numpy as np

from experiments.harness.comparing import History
from experiments.harness.results import Verdict, above_zero, on_every_seed

INPUT = "standardised input"  # plain, except for its input
ARMS = ("plain", INPUT, "batch_norm")
SCALES = (0.01, 0.1)  # σ of the first weights
EVERY = 100  # steps between two observations

# Fixed before the run whose figures are shown.
EARLY = 1000  # steps
FAST, CHANCE = 80.0, 20.0  # percent


def trial_name(arm: str, scale: float) -> str:
    """Returns the key of a trial in the history."""
    return f"{arm}, {scale:g}"


def accuracies(history: History, arm: str, scale: float) -> np.ndarray:
    """Returns test accuracies in percent, (seeds, rounds)."""
    return 100 * history[trial_name(arm, scale)]["accuracy"]


def drifts(history: History, arm: str, scale: float = SCALES[-1]) -> np.ndarray:
    """Returns the drift of each layer, (seeds, layers)."""
    return history[trial_name(arm, scale)]["drift"]


def late_ends(history: History, arm: str, scale: float = SCALES[-1]) -> np.ndarray:
    """Saturated inputs in the last quarter of training, in percent, (seeds, layers)."""
    ends = history[trial_name(arm, scale)]["ends"]
    return 100 * ends[:, -(ends.shape[1] // 4) :].mean(1)


def first_ends(history: History, arm: str, scale: float = SCALES[-1]) -> np.ndarray:
    """Saturated inputs at the first observation, in percent, (seeds, layers)."""
    return 100 * history[trial_name(arm, scale)]["ends"][:, 0]


def verdicts(history: History) -> list[Verdict]:
    """Returns the verdicts; thresholds were fixed before the run that is shown."""
    return [*_of_accuracy(history), *_of_drift(history), *_of_ends(history)]


def _of_accuracy(history: History) -> list[Verdict]:
    small, large = SCALES
    early = EARLY // EVERY - 1
    slowest = np.min([accuracies(history, "batch_norm", s)[:, early] for s in SCALES], 0)
    stuck = accuracies(history, "plain", small)
    ahead = accuracies(history, "batch_norm", large) - accuracies(history, "plain", large)
    last = EVERY * ahead.shape[1]
    return [
        on_every_seed(
            f"with BN, {FAST:g} % or more at step {EARLY}, from either σ",
            (12,),
            slowest,
            slowest >= FAST,
            "%",
        ),
        on_every_seed(
            f"without BN, at most {CHANCE:g} % at step {last} from σ = {small:g}",
            (),
            stuck[:, -1],
            stuck[:, -1] <= CHANCE,
            "%",
        ),
        above_zero(
            f"from σ = {large:g}, BN is ahead at step {EARLY}",
            (12,),
            ahead[:, early],
            "points",
        ),
        above_zero(
            f"from σ = {large:g}, BN is ahead at step {last}",
            (13,),
            ahead[:, -1],
            "points",
        ),
    ]


def _of_drift(history: History) -> list[Verdict]:
    last = {arm: drifts(history, arm)[:, -1] for arm in ARMS}
    depth = drifts(history, "plain")[:, -1] / drifts(history, "plain")[:, 0]
    ratios = {
        f"from σ = {SCALES[-1]:g}, the last layer's inputs drift less with BN": (
            (2, 24, 26),
            last["plain"] / last["batch_norm"],
        ),
        "they drift less with BN, too, than with a standardised input alone": (
            (2, 35),
            last[INPUT] / last["batch_norm"],
        ),
        "without BN, the last layer's inputs drift more than the first's": ((34,), depth),
    }
    return [
        on_every_seed(claim, rows, ratio, ratio > 1, "times as far")
        for claim, (rows, ratio) in ratios.items()
    ]


def _of_ends(history: History) -> list[Verdict]:
    """Layer 1 is separate: its inputs come from fixed images, which do not shift."""
    plain, norm = (late_ends(history, arm) for arm in ("plain", "batch_norm"))
    more, grown = plain - norm, plain - first_ends(history, "plain")
    inner, outer = slice(1, None), slice(0, 1)
    claims = (
        ("layers 2 and 3: late, more inputs are saturated without BN", (25,), more, inner),
        ("layers 2 and 3: without BN, more are so than at first", (25,), grown, inner),
        ("layer 1: late, more inputs are saturated without BN", (), more, outer),
    )
    found = []
    for claim, rows, by_layer, layers in claims:
        of = by_layer[:, layers].mean(1)
        found.append(on_every_seed(claim, rows, of, of > 0, "points more"))
    return found
