"""A network before and after folding: its answers, its parts and its times."""

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
CALLS_OF_ONE = 10  # in a round; each takes less than a millisecond, and is mostly noise
DTYPES = ("float32", "bfloat16")
ORIGINAL, *_ = FORMS = tuple(f"{each}{how}" for each in DTYPES for how in ("", ", folded"))
ALL, ONE = "seconds, all", "seconds, one"  # by the images that are evaluated at once


class Form(NamedTuple):
    """A network as it is deployed.

    Attributes:
      model: of Linen, or one that was folded; applied as `model.apply(variables, images,
        train=False)`.
      variables: its parameters, and its statistics if it still has any.
      norms: how many it still has.
    """

    model: Any
    variables: Any
    norms: int

    def compiled(self, images: jax.Array) -> Any:
        """The program for images of this shape; the variables are arguments, too."""

        def evaluate(variables: Any, images: jax.Array) -> Any:
            return self.model.apply(variables, images, train=False)

        return jax.jit(evaluate).lower(self.variables, images).compile()


def make_forms(
    model: nn.Module, variables: Any, images: jax.Array
) -> tuple[dict[str, Form], Any]:
    """The network in each dtype, as it is and folded; and what was folded into what.

    Args:
      model: with an attribute `dtype`.
      variables: trained.
      images: of which only the shape counts.
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
    """What `quantities` lists, of each form on the test data."""
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
    """The names of what is measured of a form, and their shapes."""
    single = ("accuracy", "changed", "error", "norms", "statistics", "arrays", "bytes")
    return dict.fromkeys((*single, *Operations._fields), ()) | {
        ALL: (ROUNDS,),
        ONE: (ROUNDS,),
    }


def _answers(logits: np.ndarray, reference: np.ndarray, labels: np.ndarray) -> dict:
    """How good they are; errors are relative to the largest logit of the reference."""
    predicted = logits.argmax(-1)
    return {
        "accuracy": np.mean(predicted == labels),
        "changed": np.sum(predicted != reference.argmax(-1)),
        "error": np.abs(logits - reference).max() / np.abs(reference).max(),
    }


def _parts(form: Form) -> dict[str, int]:
    """What it consists of besides its program."""
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
    """The seconds of each program, which take turns, in each round of so many calls."""

    def call(name: str) -> None:
        for _ in range(calls):
            programs[name](forms[name].variables, images).block_until_ready()

    turns = {name: functools.partial(call, name) for name in forms}
    return {name: each / calls for name, each in interleaved(turns, ROUNDS).items()}
