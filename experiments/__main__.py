"""`python -m experiments` lists the experiments, `python -m experiments NAME` runs one."""

import ast
import importlib
import sys
from pathlib import Path

NAMES = (
    "seed_network",
    "estimators",
    "deploy",
    "diagnose",
    "distributed",
    "benchmarks",
    "benchmarks.accuracy",
)


def summary(name: str) -> str:
    """The first line of an experiment's docstring, read without importing it."""
    module = Path(__file__).parent.joinpath(*name.split("."))
    package = module / "__init__.py"
    path = package if package.exists() else module.with_suffix(".py")
    source = path.read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def main(arguments: list[str]) -> int:
    """Lists the experiments, or runs the one named first."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m experiments NAME [--help] [options]\n")
        for name in NAMES:
            print(f"  {name:<20} {summary(name)}")
        return 0
    name, *options = arguments
    if name not in NAMES:
        known = ", ".join(NAMES)
        print(
            f"error: no experiment is called {name!r}; there is {known}.", file=sys.stderr
        )
        return 2
    return importlib.import_module(f"experiments.{name}").main(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
