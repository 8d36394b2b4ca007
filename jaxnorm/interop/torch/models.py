"""Converts whole models between torch and Flax."""

from collections.abc import Iterable, Mapping
from typing import Any

from jaxnorm.interop.arrays import Arrays
from jaxnorm.interop.conversion import exported, imported
from jaxnorm.interop.layouts import AS_IT_IS, LINEAR, Layout, conv, counted, reshaped
from jaxnorm.interop.patterns import NOTHING, Names
from jaxnorm.interop.plan import Convention, Rule, Shape, Slots
from jaxnorm.interop.report import Conversion
from jaxnorm.interop.torch.names import COUNT
from jaxnorm.interop.torch.rules import transposed
from jaxnorm.interop.trees import Path

SLOTS = {
    "weight": ("kernel", "scale", "embedding"),
    "bias": ("bias",),
    "running_mean": ("mean",),
    "running_var": ("var",),
    COUNT: ("updates",),
}


def from_torch(
    state: Arrays,
    template: Mapping[Any, Any],
    names: Names = NOTHING,
    *,
    rules: Mapping[str, Rule] = NOTHING,
    keep: Iterable[str] = (),
    cast: bool = False,
) -> Conversion:
    """Returns the variables of a Flax model, with weights and statistics from torch.

    Every array on either side has a counterpart, or is listed in the error. The kind of a
    layer follows from its place in the template and its shape:

        a kernel (out, in) → (in, out), (out, in/groups, H, W) → (H, W, in/groups, out);
        in a module whose name begins with ConvTranspose, (in, out, H, W) → (H, W, in, out),
        and flipped, unless it takes the kernel transposed;
        weight → scale, running_mean → mean, running_var → var; num_batches_tracked →
        updates, for every feature, or left out if the estimator has no such count.

    Args:
      state: names to arrays, such as "layer1.0.bn1.weight", or a path that
        `jaxnorm.interop.read_weights` reads, such as "model.safetensors".
      template: the variables from Linen's init, or their shapes from jax.eval_shape; or
        nnx.to_pure_dict(nnx.state(model)).
      names: patterns of torch modules to paths here, such as
        {"layer*.*.bn": "Stage_{}/Block_{}/BatchNorm_0"}; the first that matches applies.
        `*` matches a name or part of one, `**` any number of names; None leaves a module
        out. Or a function from name to path. Defaults to the same names.
      rules: patterns of torch modules to rules for what shapes do not show: `flattened`,
        `transposed`, `channels_last`.
      keep: patterns of paths in the template that the torch model does not have.
      cast: whether an array may be rounded to the template's dtype; exact casts are
        always made.

    Returns:
      Conversion(arrays, report): the template with jax arrays in its dtypes, and what was
      done with each.

    Raises:
      TypeError: a value is not an array of numbers, or the template has other leaves than
        arrays.
      ValueError: arrays are left over, missing, mis-shaped or of another dtype, or a
        pattern matches nothing; a single error lists them all.

    >>> state = {"fc.weight": jnp.array([[1.0, 2.0, 3.0]]), "fc.bias": jnp.ones(1)}
    >>> shapes = {"kernel": jnp.zeros((3, 1)), "bias": jnp.zeros(1)}
    >>> template = {"params": {"Dense_0": shapes}}
    >>> variables, report = from_torch(state, template, {"fc": "Dense_0"})
    >>> variables["params"]["Dense_0"]["kernel"].ravel()
    Array([1., 2., 3.], dtype=float32)
    >>> print(report)
    fc.weight → params/Dense_0/kernel: (out, in) → (in, out)
    fc.bias → params/Dense_0/bias: as it is
    """
    return imported(TORCH, state, template, names, rules, keep, cast)


def to_torch(
    variables: Mapping[Any, Any],
    state: Arrays,
    names: Names = NOTHING,
    *,
    rules: Mapping[str, Rule] = NOTHING,
    keep: Iterable[str] = (),
    cast: bool = False,
) -> Conversion:
    """Returns the state of a torch model, with weights and statistics from Flax.

    The inverse of `from_torch`, bit for bit, with the same names and rules.

    Args:
      variables: from Linen or NNX, like the template of `from_torch`, with arrays.
      state: the state of the torch model, or the path of a file, for its names, shapes and
        dtypes, and for arrays without a counterpart, such as a num_batches_tracked that no
        estimator counts.
      names: as for `from_torch`.
      rules: as for `from_torch`.
      keep: patterns of paths in the variables that the torch model does not have.
      cast: whether an array may be rounded to the state's dtype.

    Returns:
      Conversion(arrays, report): the state as NumPy arrays, each a copy, and for each the
      rule that was inverted.

    Raises:
      TypeError: as for `from_torch`.
      ValueError: as for `from_torch`, all in one error.

    >>> state = {"fc.weight": jnp.zeros((1, 3))}
    >>> variables = {"fc": {"kernel": jnp.array([[1.0], [2.0], [3.0]])}}  # as in NNX
    >>> to_torch(variables, state).arrays
    {'fc.weight': array([[1., 2., 3.]], dtype=float32)}
    """
    return exported(TORCH, variables, state, names, rules, keep, cast)


def _parts(state: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    return {name: (name.rpartition(".")[0], name.rpartition(".")[2]) for name in state}


def _slot(name: str, slots: Slots) -> str | None:
    return next((each for each in SLOTS.get(name, (name,)) if each in slots), None)


def _layout(path: Path, slot: str, source: Shape, target: Shape) -> Layout:
    if slot == "updates":
        return counted(target)
    if slot != "kernel" or len(source) < 2:
        flat = len(target) == 1 < len(source)  # NNX stores parameters of several axes flat
        return reshaped(source, target) if flat else AS_IT_IS
    if len(source) == 2:
        return LINEAR
    if len(source) > 5:
        raise ValueError("a kernel has at most three spatial axes")
    if not (path and str(path[-1]).startswith("ConvTranspose")):
        return conv(len(source))
    if source[0] == source[1]:
        raise ValueError(
            "the shapes do not show whether Flax's kernel is transposed; pass transposed() "
            "or transposed(transpose_kernel=True) in rules"
        )
    swapped = target[-2:] == (source[1], source[0])
    return transposed(transpose_kernel=swapped).layout(source, target)


def _unkept(module: str, name: str, slots: Slots) -> str | None:
    if name == COUNT and "mean" in slots:
        return "not kept, as the estimator has no count"
    return None


WRAPPERS = ("module", "model", "_orig_mod")  # DataParallel, Lightning, torch.compile
TORCH = Convention(".", _parts, _slot, _layout, _unkept, WRAPPERS)
