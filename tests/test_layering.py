"""The house: imports point down only, and importing jaxnorm is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "jaxnorm"

# A module may import from the lines below its own, and from its own line nothing but
# what the files of its folder share.
LAYERS = (
    ("linen", "nnx"),
    ("labels", "pairs"),
    ("callees", "serialization"),
    ("folding", "calibration", "diagnostics", "interop", "scaling"),
    ("norms", "weights", "batch_stats"),
    ("wrappers",),
    ("estimators",),
    ("naming",),
    ("grouped_rows",),
    ("own_moments",),
    ("kernels",),
    ("running", "normalization", "summaries", "renorm_limits"),
    ("measurement",),
    ("variance", "groups", "ghosts"),
    ("blocks", "merging"),
    ("formulas",),
    ("moments", "masking", "residuals"),
    ("layouts",),
    ("axes", "precision", "mode", "dataflow", "cascade"),
)
DEPTH = {name: depth for depth, layer in enumerate(LAYERS) for name in layer}


# Each may import from those before it.
SHARED = (
    "kernels.choosing",
    "kernels.row",
    "kernels.tpu",
    "kernels.gpu",
    "kernels.rows",
    "diagnostics.activations",
    "diagnostics.settings",
    "diagnostics.padding",
    "diagnostics.observing",
    "diagnostics.figures",
    "diagnostics.thresholds",
    "diagnostics.running_faults",
    "diagnostics.faults",
    "diagnostics.gap",
    "diagnostics.table",
    "diagnostics.drawing",
    "diagnostics.report",
    "diagnostics.batches",
    "linen.watching",
    "nnx.watching",
    "linen.parameters",
    "nnx.parameters",
    "linen.state",
    "linen.batch",
    "nnx.batch",
    *(
        f"{framework}.{norm}"
        for framework in ("linen", "nnx")
        for norm in ("batch_renorm", "group", "instance", "layer", "rms")
    ),
    "linen.kinds",
    "nnx.kinds",
    "linen.callees",
    "nnx.callees",
    "interop.arrays",
    "interop.layouts",
    "interop.patterns",
    "interop.trees",
    "interop.report",
    "interop.norm",
    "interop.plan",
    "interop.conversion",
    "interop.torch.names",
    "interop.torch.rules",
    "interop.keras.listings",
)


def imports(path: Path) -> set[str]:
    """The names of all imports below jaxnorm, "" for the package itself."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {
            name.removeprefix("jaxnorm").removeprefix(".")
            for name in names
            if name.split(".")[0] == "jaxnorm"
        }
    return found


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    own = module.split(".")[0]
    for name in imports(path):
        top = name.split(".")[0]
        public = top == own and path.name == "__init__.py"
        before = SHARED[: SHARED.index(module)] if module in SHARED else SHARED
        shared = top == own and name in before
        assert public or shared or DEPTH[top] > DEPTH[own], f"{module} imports {name}"


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
        assert imports(path) <= {"", "linen", "nnx"}, path
