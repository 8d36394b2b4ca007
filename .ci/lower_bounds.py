"""Prints the least versions that pyproject.toml declares, as constraints for pip."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())[
    "project"
]
extras = project["optional-dependencies"]
for requirement in [*project["dependencies"], *extras["experiments"], *extras["test"]]:
    if declared := re.fullmatch(r"([\w.-]+)>=([\d.]+)(,.*)?", requirement):
        print(f"{declared[1]}=={declared[2]}")
