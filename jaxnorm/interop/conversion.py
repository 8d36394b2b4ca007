"""Converts whole models in both directions, with a report, or raises a single error."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from jaxnorm.interop.arrays import Arrays, as_arrays, cast, to_jax
from jaxnorm.interop.patterns import Names
from jaxnorm.interop.plan import Convention, Matching, Plan, Rule
from jaxnorm.interop.report import Conversion, ConversionReport, Entry
from jaxnorm.interop.trees import Path, flat, nested, shown


def imported(
    convention: Convention,
    state: Arrays,
    template: Mapping[Any, Any],
    names: Names,
    rules: Mapping[str, Rule],
    keep: Iterable[str],
    lossy: bool,
) -> Conversion:
    """Returns the template, filled with arrays from the state."""
    arrays, leaves = as_arrays(state), flat(template)
    plan = Matching(convention, arrays, leaves, names, rules, keep).plan
    laid = {each.target: each.layout.into(arrays[each.source]) for each in plan.links}
    # Statistics of an unknown number of batches are those of a long training.
    laid |= {
        path: np.full(leaves[path].shape, np.inf, np.float32) for path in plan.uncounted
    }
    filled = {path: leaves[path] for path in plan.kept}
    for path, array in laid.items():
        try:
            filled[path] = to_jax(cast(array, leaves[path].dtype, lossy))
        except ValueError as error:
            plan.problems.add("dtype", f"{shown(path)}: {error}")
    for path in plan.kept:
        if isinstance(leaves[path], jax.ShapeDtypeStruct):
            line = f"{shown(path)} is in keep, but is only a shape in the template"
            plan.problems.add("missing", line)
    plan.problems.check()
    return Conversion(nested(filled, template), _report(plan, arrays, leaves, "{} → {}"))


def exported(
    convention: Convention,
    variables: Mapping[Any, Any],
    state: Arrays,
    names: Names,
    rules: Mapping[str, Rule],
    keep: Iterable[str],
    lossy: bool,
) -> Conversion:
    """Returns the state, filled with arrays from the variables, in its own order."""
    arrays, leaves = as_arrays(state), flat(variables)
    for path, leaf in leaves.items():
        if isinstance(leaf, jax.ShapeDtypeStruct):
            raise TypeError(
                f"{shown(path)} is only a shape, but an array is expected; pass the "
                "variables themselves, not the shapes from jax.eval_shape."
            )
    plan = Matching(convention, arrays, leaves, names, rules, keep).plan
    for path in plan.uncounted:
        number = np.asarray(leaves[path]).max()
        if number != np.inf:
            line = f"{shown(path)}: {number:.0f} has no place in the state"
            plan.problems.add("counts", line)
    filled = {name: np.array(array) for name, array in arrays.items()}
    for link in plan.links:
        try:
            array = link.layout.back(np.asarray(leaves[link.target]))
            # A copy, because arrays shared with JAX must not be written to.
            filled[link.source] = np.array(cast(array, arrays[link.source].dtype, lossy))
        except ValueError as error:
            kind = "counts" if link.target[-1] == "updates" else "dtype"
            plan.problems.add(kind, f"{shown(link.target)}: {error}")
    plan.problems.check()
    return Conversion(filled, _report(plan, arrays, leaves, "{1} → {0}"))


def _report(
    plan: Plan, arrays: Mapping[str, Any], leaves: Mapping[Path, Any], order: str
) -> ConversionReport:
    """An entry per array on either side, with dtypes in the order of the conversion."""
    linked = []
    for link in plan.links:
        dtypes = arrays[link.source].dtype, leaves[link.target].dtype
        cast = f", {order.format(*dtypes)}" if dtypes[0] != dtypes[1] else ""
        linked.append(Entry(link.source, shown(link.target), link.layout.name + cast))
    return ConversionReport(
        (
            *linked,
            *(Entry(source, None, reason) for source, reason in plan.unkept.items()),
            *(Entry(None, shown(path), "kept as it is") for path in plan.kept),
            *(
                Entry(None, shown(path), "missing, so infinite, as after a long training")
                for path in plan.uncounted
            ),
        )
    )
