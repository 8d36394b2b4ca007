"""The experiments there are, what each shows, and how long it takes."""

import ast
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "published"
SUMMARY = "summary.json"  # in it: the results of each study but for what was measured

# In the order in which they are run, and stand in the report; each module has a `STUDY`.
STUDIES = (
    "seed_network",
    "percentiles",
    "saturation",
    "learning_rate",
    "initialisation",
    "batch_size",
    "population",
    "non_iid",
    "ghost",
    "why_it_works",
    "mean_field",
    "contours",
    "regularisation",
    "placement",
)
# Each module has a `main`, here and below.
EXAMPLES = ("deploy", "diagnose", "distributed")
TOOLS = (
    "all",
    "benchmarks",
    "benchmarks.accuracy",
    "benchmarks.compiled",
    "device_check",
    "report",
)
NAMES = (*STUDIES, *EXAMPLES, *TOOLS)


def module(name: str) -> str:
    """The module of an experiment.

    >>> module("ghost"), module("benchmarks.accuracy")
    ('experiments.studies.ghost', 'experiments.benchmarks.accuracy')
    """
    folder = "studies." if name in STUDIES else "examples." if name in EXAMPLES else ""
    return f"experiments.{folder}{name}"


def docstring(name: str) -> str:
    """What an experiment says of itself, read without importing it."""
    path = ROOT.parent.joinpath(*module(name).split("."))
    package = path / "__init__.py"
    path = package if package.exists() else path.with_suffix(".py")
    source = path.read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


def summary(name: str) -> str:
    """The first line of it."""
    return docstring(name).partition("\n")[0]


def published_seconds() -> dict[str, float]:
    """How long each study took in the full run whose results are published."""
    summary = PUBLISHED / SUMMARY
    results = json.loads(summary.read_text(encoding="utf-8")) if summary.exists() else {}
    return {name: result["seconds"] for name, result in results.items()}
