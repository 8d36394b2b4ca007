"""Measures a network before and after folding: predictions, parts and times."""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jaxnorm.linen as jn
from experiments.benchmarks.timing import interleaved
from experiments.examples.deploy.operations import Operations, operations

ROUNDS = 31
CALLS_OF_ONE = 10  # per round; each takes less than a millisecond and is mostly noise
DTYPES = ("float32", "bfloat16")
ORIGINAL, *_ = FORMS = tuple(f"{each}{how}" for each in DTYPES for how in ("", ", folded"))
ALL, ONE = "seconds, all", "seconds, one"  # all test images at once, or one image


class Form(NamedTuple):
    """A network as it is deployed.

    Attributes:
      model: a Linen or folded model, applied as `model.apply(variables, images,
        train=False)`.
      variables: its parameters, and its statistics if it still has any.
      norms: the number of norms that it still has.
    """

    model: Any
    variables: Any
    norms: int

    def compiled(self, images: jax.Array) -> Any:
        """Compiles the program for images of this shape; variables are arguments, too."""

        def evaluate(variables: Any, images: jax.Array) -> Any:
            return self.model.apply(variables, images, train=False)

        return jax.jit(evaluate).lower(self.variables, images).compile()


def make_forms(
    model: nn.Module, variables: Any, images: jax.Array
) -> tuple[dict[str, Form], Any]:
    """Returns the network in each dtype, original and folded, and the folding report.

    Args:
      model: a model with an attribute `dtype`.
      variables: the trained variables.
      images: any images; only the shape matters.
    """
    forms, report = {}, None
    for name in DTYPES:
        cast = model.clone(dtype=jnp.dtype(name))
        folded, rest, report = jn.fold(cast, variables, images, train=False)
        norms = len(report.folded) + len(report.kept)
        forms[name] = Form(cast, variables, norms)
        forms[f"{name}, folded"] = Form(folded, rest, len(report.kept))
    return forms, report


def measure(
    forms: dict[str, Form], images: jax.Array, labels: jax.Array
) -> dict[str, dict[str, np.ndarray]]:
    """Measures the `quantities` of each form on the test data."""
    programs = {name: form.compiled(images) for name, form in forms.items()}
    logits = {
        name: np.asarray(programs[name](form.variables, images), np.float64)
        for name, form in forms.items()
    }
    found: dict[str, dict[str, Any]] = {
        name: _answers(logits[name], logits[ORIGINAL], np.asarray(labels))
        | _parts(form)
        | operations(programs[name].as_text())._asdict()
        for name, form in forms.items()
    }
    one = {name: form.compiled(images[:1]) for name, form in forms.items()}
    timed = {
        ALL: _seconds(forms, programs, images, calls=1),
        ONE: _seconds(forms, one, images[:1], calls=CALLS_OF_ONE),
    }
    for time, of_each in timed.items():
        for name, seconds in of_each.items():
            found[name][time] = seconds
    return jax.tree.map(np.float32, found)


def quantities() -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes of what is measured of a form."""
    single = ("accuracy", "changed", "error", "norms", "statistics", "arrays", "bytes")
    return dict.fromkeys((*single, *Operations._fields), ()) | {
        ALL: (ROUNDS,),
        ONE: (ROUNDS,),
    }


def _answers(logits: np.ndarray, reference: np.ndarray, labels: np.ndarray) -> dict:
    """Rates the predictions; errors are relative to the reference's largest logit."""
    predicted = logits.argmax(-1)
    return {
        "accuracy": np.mean(predicted == labels),
        "changed": np.sum(predicted != reference.argmax(-1)),
        "error": np.abs(logits - reference).max() / np.abs(reference).max(),
    }


def _parts(form: Form) -> dict[str, int]:
    """Describes the parts of a network besides its program."""
    leaves = jax.tree.leaves(form.variables)
    return {
        "norms": form.norms,
        "statistics": len(jax.tree.leaves(form.variables.get("batch_stats", {}))),
        "arrays": len(leaves),
        "bytes": sum(each.nbytes for each in leaves),
    }


def _seconds(
    forms: dict[str, Form], programs: dict[str, Any], images: jax.Array, calls: int
) -> dict[str, np.ndarray]:
    """Returns seconds per call for each program and round; the programs take turns."""

    def call(name: str) -> None:
        for _ in range(calls):
            programs[name](forms[name].variables, images).block_until_ready()

    turns = {name: functools.partial(call, name) for name in forms}
    return {name: each / calls for name, each in interleaved(turns, ROUNDS).items()}
