"""Claims about saturation: depth, the remedies, and the gradients by layer."""

import numpy as np

from experiments.harness.comparing import History
from experiments.harness.results import Verdict, on_every_seed
from experiments.studies.saturation import slope

DEPTHS = {False: (2, 4, 6, 8, 12), True: (2, 6)}  # by whether the run is quick
LABELS = {
    "plain": "sigmoid",
    "batch_norm": "with batch norm",
    "layer_norm": "with layer norm",
    "sigmoid, dropout": "with dropout",
    "skip": "with skips",
    "relu": "relu",
}

# Fixed before the run whose figures are shown.
DEEP, LAYER_NORM_DEPTH = 6, 8  # layers
TRAINED, CHANCE = 85.0, 20.0  # percent
LOSS = 10.0  # points
DECADES = 2.0  # between the gradients of the first and the last layer
TIMES = 50.0


def trial_name(arm: str, depth: int) -> str:
    """Returns the key of a trial in the history."""
    return f"{arm}, {depth}"


def at_rest(arm: str) -> str:
    """Returns the key of an arm's deepest network, untrained, in the history."""
    return f"{arm}, untrained"


def depths_of(history: History) -> list[int]:
    """Returns the depths that were run, in ascending order."""
    return [each for each in DEPTHS[False] if trial_name("plain", each) in history]


def accuracies(history: History, arm: str) -> np.ndarray:
    """Returns final test accuracies in percent, (seeds, depths); 0 where diverged."""
    names = [trial_name(arm, depth) for depth in depths_of(history)]
    final = [history[name]["accuracy"][:, -1] for name in names]
    return 100 * np.nan_to_num(np.stack(final, axis=1))


def gradients(history: History, arm: str) -> np.ndarray:
    """Returns gradient norms before training in the deepest network, (seeds, layers)."""
    return history[at_rest(arm)]["gradient"][:, 0]


def verdicts(history: History) -> list[Verdict]:
    """Returns the verdicts; thresholds were fixed before the run that is shown."""
    return [_of_the_sigmoid(), *_of_accuracy(history), *_of_gradients(history)]


def _of_the_sigmoid() -> Verdict:
    share = slope.share_between(-8, -4, mean=-6)
    far, near = (slope.mean_derivative(mean) for mean in (-6, 0))
    return Verdict(
        "on N(−6, 1), with 95 % of the inputs in [−8, −4], σ′ is on average at least "
        f"{TIMES:g} times smaller than on N(0, 1)",
        (14,),
        abs(share - 0.95) < 0.01 and near / far >= TIMES,
        f"computed: {100 * share:.1f} %, {far:.4f} against {near:.4f}, {near / far:.0f} "
        "times",
    )


def _of_accuracy(history: History) -> list[Verdict]:
    depths = np.array(depths_of(history))
    deep = depths >= DEEP
    plain = accuracies(history, "plain")
    lost = plain[:, 0] - plain[:, -1]
    best = plain[:, deep].max(1)
    remedies = {
        "batch_norm": (deep, (18, 23)),
        "layer_norm": (depths == min(LAYER_NORM_DEPTH, depths[-1]), (18,)),
        "sigmoid, dropout": (deep, (23,)),
        "skip": (deep, (23,)),
        "relu": (deep, (23,)),
    }
    return [
        on_every_seed(
            f"sigmoid, {depths[-1]} layers: at least {LOSS:g} points below {depths[0]}",
            (22,),
            lost,
            lost >= LOSS,
            "points",
        ),
        on_every_seed(
            f"sigmoid, {DEEP} layers and more: at most {CHANCE:g} %",
            (23,),
            best,
            best <= CHANCE,
            "% at the best",
        ),
        *(
            _trains(arm, depths[where], accuracies(history, arm)[:, where].min(1), rows)
            for arm, (where, rows) in remedies.items()
        ),
    ]


def _trains(
    arm: str, depths: np.ndarray, lowest: np.ndarray, rows: tuple[int, ...]
) -> Verdict:
    layers = f"{depths[0]} layers{' and more' * (len(depths) > 1)}"
    return on_every_seed(
        f"{LABELS[arm]}, {layers}: at least {TRAINED:g} %",
        rows,
        lowest,
        lowest >= TRAINED,
        "% at the worst",
    )


def _of_gradients(history: History) -> list[Verdict]:
    """Compares the first layer's gradient with the last layer's, in decades."""
    apart = {}
    for arm in ("plain", "batch_norm", "layer_norm"):
        norms = gradients(history, arm)
        apart[arm] = np.log10(norms[:, 0] / norms[:, -1])
    share = f"1/{10**DECADES:g} of the last's"
    vanishes = on_every_seed(
        f"sigmoid, before training: the first layer's gradient is below {share}",
        (23,),
        apart["plain"],
        apart["plain"] < -DECADES,
        "decades",
    )
    return [
        vanishes,
        *(
            on_every_seed(
                f"{LABELS[arm]}, before training: the first layer's gradient is within "
                f"a factor of {10**DECADES:g} of the last's",
                (18,),
                apart[arm],
                np.abs(apart[arm]) <= DECADES,
                "decades",
            )
            for arm in ("batch_norm", "layer_norm")
        ),
    ]
