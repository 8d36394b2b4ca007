"""The study of estimators: one network, evaluated by each of them."""

import json

import jax
import numpy as np
import pytest

from experiments import estimators
from experiments.runs import read_measurements

pytestmark = pytest.mark.usefixtures("lenient")
SMALL = ["--data", "digits", "--seeds", "1", "--epochs", "2"]


def measured(**points):
    """A history in which all arms have 80 %, but for so many points after epoch 1."""
    flat = np.full((5, 3), 0.80)
    flat[:, -1] += np.linspace(0, 1e-4, 5)
    history = {name: {"running": flat.copy()} for name in estimators.ESTIMATORS}
    history["EMA"] |= {name: flat.copy() for name in ("calibrated", "test batch")}
    for name, more in points.items():
        arm, key = ("EMA", name) if name in history["EMA"] else (name, "running")
        history[arm][key][:, 0] += more / 100
    return history


AHEAD = {
    "EMA, debiased": 3.01,
    "EMA, warmed up": 3.01,
    "cumulative": 3.01,
    "calibrated": 3.01,
    "test batch": 4.5,
}


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({}, []),
        ({"EMA, debiased": 2.99}, [0]),
        ({"EMA, warmed up": 2.99}, [1, 4]),
        ({"cumulative": 2.99}, [2]),
        ({"calibrated": 6.01}, [5]),
        ({"test batch": 1.5}, [4, 5]),
    ],
)
def test_the_thresholds_of_the_claims(change, failed):
    verdicts = estimators.verdicts(measured(**AHEAD | change))
    words = [each.word for each in verdicts[:-1]]
    assert [i for i, word in enumerate(words) if word != "PASS"] == failed


def test_the_last_claim_is_of_the_last_epoch():
    history = measured(**AHEAD)
    assert estimators.verdicts(history)[-1].word == "FAIL"  # they are the same
    history["EMA"]["running"][:, -1] += 0.01
    assert estimators.verdicts(history)[-1].word == "PASS"


@pytest.mark.slow  # each arm is compiled
def test_all_arms_are_one_network_evaluated_by_each_estimator(tmp_path, capsys):
    assert estimators.STUDY([*SMALL, "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    history = read_measurements(tmp_path / "run" / "result.json")
    losses = [history[name]["loss"] for name in estimators.ESTIMATORS]
    jax.tree.map(lambda each: np.testing.assert_array_equal(each, losses[0]), losses)
    curves = estimators.accuracies(history)
    assert all(name in shown for name in curves)
    assert curves["EMA, debiased"][0, 0] > curves["EMA"][0, 0] + 3
    assert (tmp_path / "run" / "figure.png").stat().st_size > 10_000
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [each["claim"] for each in result["verdicts"]] == [
        each.claim for each in estimators.verdicts(history)
    ]
    assert estimators.STUDY([*SMALL, "--out", str(tmp_path / "run")]) == 0
    assert "finished already" in capsys.readouterr().out
