"""The experiments there are, what each shows, and how long it takes."""

import ast
import json
from pathlib import Path

PUBLISHED = Path(__file__).parent / "published"
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
# Each module has a `main`.
COMMANDS = (
    "all",
    "deploy",
    "diagnose",
    "distributed",
    "benchmarks",
    "benchmarks.accuracy",
    "benchmarks.compiled",
    "device_check",
    "report",
)


def docstring(name: str) -> str:
    """What an experiment says of itself, read without importing it."""
    module = Path(__file__).parent.joinpath(*name.split("."))
    package = module / "__init__.py"
    path = package if package.exists() else module.with_suffix(".py")
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
