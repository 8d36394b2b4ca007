"""The list of experiments, what each shows, and how long it takes."""

import ast
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "published"
SUMMARY = "summary.json"  # the results of each study, without the raw measurements

# In the order in which they run and appear in the report; each module has a `STUDY`.
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
# Each module in the two lists below has a `main`.
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
    """Returns the module of an experiment.

    >>> module("ghost"), module("benchmarks.accuracy")
    ('experiments.studies.ghost', 'experiments.benchmarks.accuracy')
    """
    folder = "studies." if name in STUDIES else "examples." if name in EXAMPLES else ""
    return f"experiments.{folder}{name}"


def docstring(name: str) -> str:
    """Returns the docstring of an experiment without importing it."""
    path = ROOT.parent.joinpath(*module(name).split("."))
    package = path / "__init__.py"
    path = package if package.exists() else path.with_suffix(".py")
    source = path.read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


def summary(name: str) -> str:
    """Returns the first line of the docstring."""
    return docstring(name).partition("\n")[0]


def published_seconds() -> dict[str, float]:
    """Returns how long each study took in the full run whose results are published."""
    summary = PUBLISHED / SUMMARY
    results = json.loads(summary.read_text(encoding="utf-8")) if summary.exists() else {}
    return {name: result["seconds"] for name, result in results.items()}
