"""The house: imports point down only, and importing jaxnorm is light."""

import ast
import graphlib
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "jaxnorm"

# Frameworks: nothing else may import them, so that whoever uses one needs no other.
FRAMEWORKS = ("linen", "nnx")


def named(path: Path) -> str:
    """The dotted name of a file below the package, "" for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {named(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """The names of all imports below jaxnorm, "" for the package itself."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
            names = [each if below(each) in MODULES else module for each in names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {below(name) for name in names if name.split(".")[0] == "jaxnorm"}
    return found


def below(name: str) -> str:
    return name.removeprefix("jaxnorm").removeprefix(".")


def first(module: str) -> str:
    """The package at the top of the tree that a module is in."""
    return module.split(".")[0]


GRAPH = {module: imports(path) for module, path in MODULES.items() if module}


def order(graph):
    """The nodes, each after all that it imports; a ValueError names a cycle."""
    try:
        return list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        raise ValueError(" imports ".join(error.args[1])) from None


def test_a_cycle_is_found():
    with pytest.raises(ValueError, match="imports"):
        order({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_no_module_imports_itself_by_others():
    assert len(order(GRAPH)) >= 80


def test_packages_import_downwards():
    """No two packages at the top of the tree import from each other, by others either."""
    between = defaultdict(set)
    for module, found in GRAPH.items():
        between[first(module)] |= {first(each) for each in found} - {first(module)}
    assert order(between)[0] == "_core"
    for package, found in between.items():
        assert not found & set(FRAMEWORKS), f"{package} imports a framework"


def test_modules_import_from_files_and_not_from_the_root():
    for module, found in GRAPH.items():
        assert "" not in found, module


def test_what_is_private_to_a_package_stays_in_it():
    """A name with an underscore is imported by what lies beside it, or below it, only."""
    for module, found in GRAPH.items():
        for each in found:
            *parents, name = each.split(".")
            if name.startswith("_") and parents:
                assert module.split(".")[: len(parents)] == parents, f"{module}: {each}"


@pytest.mark.parametrize("package", ["jaxnorm", "jaxnorm.interop"])
def test_importing_imports_no_framework(package):
    heavy = ("flax", "optax", "chex", "matplotlib", "torch", "keras", "orbax")
    program = f"import sys, {package}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_importing_jaxnorm_starts_no_backend():
    program = (
        "import jaxnorm, jaxnorm.linen, jaxnorm.nnx; from jax._src import xla_bridge; "
        "print(xla_bridge.backends_are_initialized())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_experiments_use_the_public_api_only():
    for path in (PACKAGE.parent / "experiments").rglob("*.py"):
        # The device check tries the formulas of all platforms, whichever it is on.
        formulas = "_core.variance." if "device_check" in path.parts else "none"
        used = {each for each in imports(path) if not each.startswith(formulas)}
        assert used <= {"", "linen", "nnx"}, path
