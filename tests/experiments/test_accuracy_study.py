"""The accuracy study: its oracle matches ours, known errors are recorded and reported."""

import json
import re

import numpy as np
import pytest

from experiments import __main__ as listing
from experiments.benchmarks.accuracy.tables import DTYPES, NAMES, tables

PEERS = ("haiku", "equinox", "keras", "torch")
pytestmark = pytest.mark.usefixtures("lenient")


def drawn(dtype, mean, shape=(64, 3)):
    from experiments.benchmarks.accuracy import errors

    case = errors.Case(dtype, mean)
    return case, errors.draw(case, shape)


def test_it_is_listed_without_importing_it(capsys):
    assert listing.main([]) == 0
    assert re.search(r"benchmarks\.accuracy +How exact y and dx", capsys.readouterr().out)


@pytest.mark.parametrize("mean", [0, 1e6])
@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_what_errors_are_taken_against_is_the_formula_in_float64(dtype, mean):
    from experiments.benchmarks.accuracy import errors
    from tests.support import oracle

    _, inputs = drawn(dtype, mean)
    assert (inputs.params["scale"] == 1).all()
    assert (inputs.params["bias"] == 0).all()
    want = oracle.norm_by_own_moments(
        inputs.x, *inputs.params.values(), inputs.g,
        reduced=(0,), features=(1,), epsilon=1e-5, weights=None,
    )  # fmt: skip
    close = {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(errors.OP.reference(inputs, train=True), want.y, **close)
    np.testing.assert_allclose(errors.OP.reference_dx(inputs), want.dx, **close)


def test_data_has_the_mean_asked_for_and_is_what_its_dtype_represents():
    import jax.numpy as jnp

    for dtype in DTYPES:
        _, inputs = drawn(dtype, 100, (4096, 2))
        np.testing.assert_allclose(inputs.x.mean(0), 100, atol=0.1)
        np.testing.assert_allclose(inputs.x.std(0), 1, atol=0.1)
        assert (inputs.x.astype(jnp.dtype(dtype)).astype(np.float32) == inputs.x).all()


def test_the_bound_is_that_of_each_element():
    from experiments.benchmarks.accuracy import errors

    x = np.array([[9.0], [11.0]], np.float32)  # μ = 10, σ = 1
    _, inputs = drawn("float32", 0)
    found = errors.bound(inputs._replace(x=x), np.array([[-3.0], [0.5]]))
    np.testing.assert_allclose(found, 4 * 2.0**-23 * 11 * np.array([[3.0], [1.0]]))


def metrics_of(name, outputs, bits, monkeypatch):
    """Returns the record of an implementation with these outputs."""
    from experiments.benchmarks.accuracy import errors

    case, inputs = drawn("float32", 10)
    y, dx = errors.OP.reference(inputs, train=True), errors.OP.reference_dx(inputs)
    given = outputs(y.copy(), dx.copy())
    monkeypatch.setattr(errors, "run", lambda *_: (errors.Outputs(*given), bits))
    absent = frozenset(NAMES) - {name}
    measured = errors.measure(case, inputs, absent, pytest.fail)
    assert np.isnan(np.delete(measured, NAMES.index(name), axis=0)).all()
    return measured[NAMES.index(name)], dx


def test_a_known_error_is_the_one_recorded(monkeypatch):
    def outputs(y, dx):
        y[3, 1] += 0.25
        dx[5, 2] -= 0.5
        return y, dx

    (y, off_dx, share, bits), dx = metrics_of("flax", outputs, 16, monkeypatch)
    assert (y, bits) == (0.25, 16)
    assert off_dx == pytest.approx(0.5 / np.abs(dx).max())
    assert share > 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_recorded_as_nan(value, monkeypatch):
    def outputs(y, dx):
        y[3, 1] = value
        return y, dx

    (y, dx, share, bits), _ = metrics_of("haiku", outputs, 32, monkeypatch)
    assert np.isnan([y, share]).all()
    assert (dx, bits) == (0, 32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES[:3])
def test_ours_and_flax_in_two_passes_are_exact_where_flax_is_not(name, dtype):
    from experiments.benchmarks.accuracy import errors

    case, inputs = drawn(dtype, 100, (4096, 8))
    others = frozenset(NAMES) - {name}
    y, dx, share, bits = errors.measure(case, inputs, others, pytest.fail)[
        NAMES.index(name)
    ]
    assert bits == 32
    assert (share <= 1) == (name != "flax")
    assert y < 1e-4 or name == "flax"
    assert dx < (1e-4 if dtype == "float32" else 2**-7) or name == "flax"


def test_the_tables_show_nan_absence_and_a_narrow_y():
    measured = {
        "float32": {
            "mean": [0.0, 1e6],
            "deviation": [1.0, 1.0],
            "implementations": {
                "jaxnorm": {"y": [5.1e-7, 0.043], "dx": [0.0, 12.0], "y_bits": [32, 32]},
                "haiku": {"y": [2e3, None], "dx": [1.0, None], "y_bits": [32, 32]},
                "torch": {"y": [0.5, None], "dx": [0.5, None], "y_bits": [16, None]},
            },
        }
    }
    y, dx = tables(measured)
    assert list(y.headings) == ["μ", "jaxnorm", "haiku", "torch"]
    assert y.rows == [("0", "5.1e-7", "2.0e3", "0.50 †"), ("1e6", "4.3e-2", "NaN", "–")]
    assert dx.rows == [("0", "0", "1.0", "0.50"), ("1e6", "12", "NaN", "–")]


@pytest.mark.peer
def test_a_run_compares_all_and_is_reported(tmp_path, monkeypatch, capsys, need):
    need(*PEERS)
    from experiments.benchmarks.accuracy import command, errors

    fewer = {"float32": (0, 1e4), "bfloat16": (0,), "float16": (100,)}
    monkeypatch.setattr(errors, "QUICK_MEANS", fewer)
    arguments = ["--quick", "--out", str(tmp_path)]
    assert command.main(arguments) == 0
    shown = capsys.readouterr().out
    assert shown.count("PASS  jaxnorm, ") == 3
    assert "measuring ━" in shown
    assert 10_000 < (tmp_path / "figure.png").stat().st_size < 150_000

    result = json.loads((tmp_path / "result.json").read_text())
    assert list(result["settings"]["peers"]) == list(PEERS)
    assert result["notes"] == []
    for dtype in DTYPES:
        table = result["measurements"][dtype]
        assert list(table["implementations"]) == list(NAMES)
        for name, figures in table["implementations"].items():
            bits = 16 if name == "torch" and dtype != "float32" else 32
            assert figures["y_bits"] == [bits] * len(table["mean"]), (name, dtype)
    float32 = result["measurements"]["float32"]["implementations"]
    for name in NAMES:  # at mean 0, all are accurate
        assert float32[name]["y"][0] < 1e-5
        assert float32[name]["dx"][0] < 1e-5
    assert (tmp_path / "result.json").read_text().count("NaN") == 0

    assert command.main(arguments) == 0
    assert "finished already" in capsys.readouterr().out


def test_without_peers_it_says_who_is_left_out(tmp_path, monkeypatch, capsys):
    from experiments.benchmarks import peers
    from experiments.benchmarks.accuracy import command, errors

    def absence(name):
        return None if name == "flax" else f"{name} is not installed"

    monkeypatch.setattr(peers, "absence", absence)
    monkeypatch.setattr(errors, "QUICK_MEANS", dict.fromkeys(DTYPES, (100,)))
    assert command.main(["--quick", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    said = [f"{name} cannot take part: {name} is not installed" for name in PEERS]
    assert result["notes"] == said
    assert shown.endswith("\n".join(said) + shown[shown.index("\nfigure: ") :])
    for table in result["measurements"].values():
        assert list(table["implementations"]) == list(NAMES[:3])
