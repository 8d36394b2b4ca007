"""Markdown from a result, without importing a library; the numbers are the result's."""

import json
import subprocess
import sys

import pytest

from experiments.benchmarks import page
from experiments.benchmarks.tables import Table, markdown, three_digits, two_digits


def case(milliseconds, ratios, **beside):
    figures = {"jaxnorm": {"milliseconds": milliseconds, **beside}}
    for name, ratio in ratios.items():
        figures[name] = {"milliseconds": milliseconds / ratio, "jaxnorm_ratio": ratio}
    return figures


MEASURED = {
    "batch_norm": {
        "float32": {
            "4x2": {
                "eval-forward": case(1.0, {"flax": 0.5, "haiku": 2.0}, copy_share=0.9),
                "backward": case(3.0, {"flax": 1.0}, residual_ratio=1.25),
            },
            "8x2": {"eval-forward": case(10.0, {"flax": 2.0}, copy_share=0.4)},
        }
    }
}


def test_times_ratios_and_their_means_are_those_of_the_result():
    times, beside = page.benchmark_tables(MEASURED)
    assert markdown(times) == "\n".join(
        [
            "| x | mode | jaxnorm | flax | haiku | equinox | keras | torch "
            "| ÷ flax | ÷ JAX | ÷ torch |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            "| 4x2 | eval | 1.00 | 2.00 | 0.500 | – | – | – | 0.500 | 2.00 | – |",
            "| 4x2 | backward | 3.00 | 3.00 | – | – | – | – | 1.00 | 1.00 | – |",
            "| 8x2 | eval | 10.0 | 5.00 | – | – | – | – | 2.00 | 2.00 | – |",
            "| geometric mean | eval |  |  |  |  |  |  | 1.00 | 2.00 | – |",
            "| geometric mean | backward |  |  |  |  |  |  | 1.00 | 1.00 | – |",
        ]
    )
    absent = ["–"] * 5
    assert [list(row) for row in beside.rows] == [
        ["float32", "kept for backward, in sizes of x", "1.25", *absent],
        ["float32", "share of the copy's bandwidth, eval", "0.600", *absent],
    ]


def test_several_ops_are_in_one_table_first():
    def shapes(*ratios):
        return {
            str(number): {
                "forward-backward": case(1.0, {"flax": flax, "keras": keras}),
                "train-forward": case(1.0, {"flax": flax / 2}),
                "backward": {
                    "jaxnorm": {"residual_ratio": 1.0 + number},
                    "flax": {"residual_ratio": 3.0 + number},
                },
            }
            for number, (flax, keras) in enumerate(ratios)
        }

    measured = {
        "layer_norm": {"float32": shapes((0.5, 0.25), (2.0, 4.0))},
        "rms_norm": {"float32": shapes((1.0, 0.5)), "bfloat16": shapes((3.0, 0.5))},
    }
    table = next(page.benchmark_tables(measured))
    assert [" ".join(row) for row in table.rows] == [
        "layer_norm float32 1.00 1.41 4.00 – 0.500 1.00 – 2 4",
        "rms_norm float32 1.00 1.00 1.00 – 0.500 0.500 – 1 3",
        "rms_norm bfloat16 3.00 3.00 3.00 – 1.50 1.50 – 1 3",
    ]
    assert len(table.headings) == len(table.rows[0])
    assert len(list(page.benchmark_tables(measured))) == 1 + 2 + 3
    del measured["rms_norm"]  # figures of one op are shown below its times
    assert len(list(page.benchmark_tables(measured))) == 2


def test_the_only_way_forward_is_not_called_training():
    figures = case(1.0, {"flax": 0.5})
    both = {"4x2": {"eval-forward": figures, "train-forward": figures}}
    alone = {"4x2": {"train-forward": figures, "backward": figures}}
    for shapes, expected in ((both, ["eval", "train"]), (alone, ["forward", "backward"])):
        table = page.times(shapes, "")
        assert [row[1] for row in table.rows] == expected * 2


def test_numbers_have_two_or_three_digits():
    small = [5.14e-7, 0.0123, 0.101, 4.0, 51.4, 1234.0, 0.0, float("nan")]
    written = ["5.1e-7", "1.2e-2", "0.10", "4.0", "51", "1.2e3", "0", "NaN"]
    assert [two_digits(each) for each in small] == written
    times = [0.01234, 0.5, 12.34, 1234.0, float("nan")]
    assert [three_digits(each) for each in times] == ["0.012", "0.500", "12.3", "1234", "–"]


def test_labels_are_to_the_left():
    table = Table("title", ("a", "b", "c"), [("1", "2", "3")], labels=2)
    assert markdown(table) == "| a | b | c |\n| --- | --- | ---: |\n| 1 | 2 | 3 |"


def test_the_command_prints_tables_and_notes_and_imports_no_library(tmp_path):
    path = tmp_path / "result.json"
    content = {
        "settings": {"experiment": "benchmarks"},
        "notes": ["torch is away"],
        "measurements": MEASURED,
    }
    path.write_text(json.dumps(content))
    program = (
        "import sys; from experiments.benchmarks import page;"
        "status = page.main(sys.argv[1:]);"
        "heavy = {'jax', 'flax', 'haiku', 'equinox', 'keras', 'torch'};"
        "sys.exit(status or sorted(heavy & set(sys.modules)) or 0)"
    )
    command = [sys.executable, "-c", program, "benchmarks", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for table in page.benchmark_tables(MEASURED):
        assert f"**{table.title}**\n\n{markdown(table)}\n" in done.stdout
    assert done.stdout.endswith("torch is away\n\n")


@pytest.mark.parametrize("content", [None, "{", '{"settings": {"experiment": "other"}}'])
def test_what_is_no_such_result_is_refused(content, tmp_path, capsys):
    path = tmp_path / "result.json"
    if content is not None:
        path.write_text(content)
    assert page.main(["accuracy", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: is ")
    assert error.count("\n") == 1
