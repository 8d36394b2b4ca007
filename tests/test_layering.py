"""The house: imports point down only, and importing jaxnorm is light."""

import ast
import graphlib
import importlib
import pydoc
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import jaxnorm

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
    heavy += ("h5py", "onnx", "safetensors")  # which read files of weights
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


PUBLIC = ("", "linen", "nnx", "diagnostics", "interop", "interop.torch", "interop.keras")


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_module_says_what_is_public_in_it(name):
    module = importlib.import_module(f"jaxnorm.{name}".rstrip("."))
    assert module.__all__ == sorted(set(module.__all__), key=isort_order)
    for each in module.__all__:
        value = getattr(module, each)
        assert value.__doc__, each
        name = getattr(value, "__name__", each)
        assert name.split(".")[-1] == each  # and not an alias of something else


def isort_order(name):
    """Constants, then classes, then functions, as ruff sorts them."""
    return (not name.isupper(), not name[0].isupper(), name.lower())


def test_the_root_shows_names_for_users_only():
    shown = set(dir(jaxnorm))
    assert shown == {*jaxnorm.__all__, "interop", "linen", "nnx", "__version__"}
    assert "layer_norm" in pydoc.render_doc(jaxnorm)
    for name in shown:
        assert getattr(jaxnorm, name)
    with pytest.raises(AttributeError, match="no attribute 'batchnorm'"):
        jaxnorm.batchnorm  # noqa: B018


def test_modules_of_the_root_are_found_when_asked_for():
    program = (
        "import sys, jaxnorm; assert 'flax' not in sys.modules; "
        "print(jaxnorm.linen.LayerNorm.__name__, jaxnorm.nnx.BatchNorm.__name__, "
        "jaxnorm.interop.torch.from_torch.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["LayerNorm", "BatchNorm", "from_torch"]
