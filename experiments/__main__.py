"""`python -m experiments` lists the experiments, `python -m experiments NAME` runs one."""

import importlib
import sys

from experiments.harness.listing import NAMES, STUDIES, module, published_seconds, summary
from experiments.harness.status import exit_status


def main(arguments: list[str]) -> int:
    """Lists the experiments, or runs the one named first."""
    if not arguments or arguments[0] in ("-h", "--help"):
        return exit_status(_list)
    name, *options = arguments
    if name not in NAMES:
        known = ", ".join(NAMES)
        print(
            f"error: no experiment is called {name!r}; choose one of {known}.",
            file=sys.stderr,
        )
        return 2
    found = importlib.import_module(module(name))
    return found.STUDY(options) if name in STUDIES else found.main(options)


def _list() -> None:
    print("usage: python -m experiments NAME [--help] [options]\n")
    seconds = published_seconds()
    for name in NAMES:
        took = f"{seconds[name] / 60:.1f} min" if name in seconds else ""
        print(f"  {name:<20} {took:>8}  {summary(name)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
