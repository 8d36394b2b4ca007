"""The folding study: a residual network before and after, and how it is counted."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnorm.linen as jn
from experiments.examples import deploy
from experiments.examples.deploy import findings, operations
from experiments.examples.deploy.measuring import ALL, FORMS, ONE, quantities
from experiments.harness.runs import read_measurements
from experiments.models import Residual

pytestmark = pytest.mark.usefixtures("lenient")
SMALL = ["--data", "digits", "--seeds", "1", "--epochs", "2"]

PROGRAM = """HloModule jit_f, is_scheduled=true

%fused_computation (param_0.1: f32[8]) -> f32[8] {
  %param_0.1 = f32[8]{0} parameter(0)
  %rsqrt.1 = f32[8]{0} rsqrt(%param_0.1), metadata={op_name="jit(f)/sqrt(x)"}
  ROOT %multiply.1 = f32[8]{0} multiply(%param_0.1, %rsqrt.1)
}

ENTRY %main.3 (x.1: f32[8]) -> (f32[8], f32[4]) {
  %x.1 = f32[8]{0} parameter(0)
  %fusion = f32[8]{0} fusion(%x.1), kind=kLoop, calls=%fused_computation
  %all = (f32[8]{0}, f32[4]{0}) custom-call(%fusion), custom_call_target="split"
  %one = f32[4]{0} get-tuple-element(%all), index=1
  ROOT %tuple.1 = (f32[8]{0}, f32[4]{0}) tuple(%fusion, %one)
}
"""


def test_operations_are_counted_in_and_out_of_fusions():
    assert operations.operations(PROGRAM) == (3, 2, 1)


def test_roots_are_counted_in_what_this_xla_writes():
    text = jax.jit(lambda x: jax.lax.rsqrt(x) + 1).lower(jnp.ones(3)).compile().as_text()
    found = operations.operations(text)
    assert found.rsqrt == 1
    assert found.total >= 2
    assert found.kernels >= 1


@pytest.mark.parametrize("shape", [(28, 28, 1), (8, 8, 1)])
def test_every_norm_of_the_network_is_folded(shape):
    x, model = jnp.zeros((2, *shape)), Residual()
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    variables = jax.tree.map(lambda each: jnp.ones(each.shape, each.dtype), variables)
    _, folded, report = jn.fold(model, variables, x, train=False)
    assert len(report.folded) == 9
    assert not report.kept
    assert "batch_stats" not in folded
    for each in report.folded:
        assert each.layer == each.norm.replace("BatchNorm", "Conv")


def measured(**changes):
    """A history in which all claims hold, except for changes to the folded network."""
    forms = {
        name: {key: np.ones((5, *shape)) for key, shape in quantities().items()}
        for name in FORMS
    }
    well = {"changed": 0, "error": 1e-6, "norms": 0, "statistics": 0, "rsqrt": 0}
    forms[findings.ORIGINAL]["total"] += 1
    for key, value in (well | changes).items():
        forms[findings.FOLDED][key] = np.full_like(forms[findings.FOLDED][key], value)
    return forms


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, []),
        ({"changed": 1}, [0]),
        ({"error": 1.01e-5}, [1]),
        ({"error": 1e-5}, []),
        ({"norms": 1}, [2]),
        ({"statistics": 1}, [2]),
        ({"rsqrt": 1}, [2]),
        ({"total": 2}, [3]),
        ({ALL: 1.01}, [4]),
        ({ONE: 1.01}, [5]),
    ],
)
def test_the_thresholds_of_the_claims(changes, failed):
    words = [each.word for each in findings.verdicts(measured(**changes))]
    assert [i for i, word in enumerate(words) if word != "PASS"] == failed


def test_a_time_is_the_median_over_rounds_of_what_took_turns():
    history = measured()
    history[findings.FOLDED][ONE][:, :3] = 100  # rounds in which the machine was busy
    history[findings.ORIGINAL][ONE][:, -3:] = 100
    assert (findings.ratios(history, ONE) == 1).all()


@pytest.mark.slow  # eight programs are compiled for each seed
def test_a_run_that_is_stopped_goes_on_folds_and_shows_what_that_gave(
    tmp_path, capsys, monkeypatch
):
    def stop(history, seed, epoch):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(findings, "line", stop)
        assert deploy.main([*SMALL, "--out", str(tmp_path / "run")]) == 130
    assert deploy.main([*SMALL, "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert "resuming after 1 of 2 steps" in shown
    assert "9 of 9 norms folded" in shown
    history = read_measurements(tmp_path / "run" / "result.json")
    assert all(name in shown for name in findings.rows(history))
    before, after = history[findings.ORIGINAL], history[findings.FOLDED]
    assert (before["norms"], before["statistics"]) == (9, 27)  # mean, var and updates
    assert (after["norms"], after["statistics"], after["rsqrt"]) == (0, 0, 0)
    assert after["changed"] == 0
    assert after["error"] <= findings.TOLERANCE
    assert (tmp_path / "run" / "figure.png").stat().st_size > 10_000
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [each["claim"] for each in result["verdicts"]] == [
        each.claim for each in findings.verdicts(history)
    ]
    assert deploy.main([*SMALL, "--out", str(tmp_path / "run")]) == 0
    assert "finished already" in capsys.readouterr().out
