"""A whole model of torch as variables of Flax, and back."""

from collections.abc import Iterable, Mapping
from typing import Any

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
    state: Mapping[str, Any],
    template: Mapping[Any, Any],
    names: Names = NOTHING,
    *,
    rules: Mapping[str, Rule] = NOTHING,
    keep: Iterable[str] = (),
    cast: bool = False,
) -> Conversion:
    """The variables of a Flax model, with weights and statistics from one of torch.

    Every array of either side has a place on the other, or is in the error. What a layer
    is, its place in the template says, and its shape:

        a kernel (out, in) → (in, out), (out, in/groups, H, W) → (H, W, in/groups, out);
        in a module whose name begins with ConvTranspose, (in, out, H, W) → (H, W, in, out),
        and flipped, unless it takes the kernel transposed;
        weight → scale, running_mean → mean, running_var → var; num_batches_tracked →
        updates, for every feature, or nowhere, where the estimator has no such count.

    Args:
      state: names to arrays, as "layer1.0.bn1.weight".
      template: the variables of Linen's init, or their shapes as by jax.eval_shape; or
        nnx.to_pure_dict(nnx.state(model)).
      names: patterns of torch's modules to paths here, as
        {"layer*.*.bn": "Stage_{}/Block_{}/BatchNorm_0"}, of which the first that matches
        counts; `*` is one name or a part of it, `**` any number of them, None leaves a
        module out. Or a function from name to path. By default, the names themselves.
      rules: patterns likewise, to what the shapes do not say: `flattened`, `transposed`,
        `channels_last`.
      keep: patterns of paths in the template that torch's model does not have.
      cast: whether an array may be rounded to the template's dtype; what fits is cast.

    Returns:
      Conversion(arrays, report): the template with jax arrays in its dtypes, and what was
      done with each.

    Raises:
      TypeError: a value is no array of numbers, or the template none of arrays.
      ValueError: arrays are left over, missing, mis-shaped or of another dtype, or a
        pattern fits nothing; all of them in one error.

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
    state: Mapping[str, Any],
    names: Names = NOTHING,
    *,
    rules: Mapping[str, Rule] = NOTHING,
    keep: Iterable[str] = (),
    cast: bool = False,
) -> Conversion:
    """The state of a torch model, with weights and statistics from one of Flax.

    The way back of `from_torch`, bit for bit, with the same names and rules.

    Args:
      variables: of Linen or NNX, as the template of `from_torch`, with arrays.
      state: of the torch model: its names, shapes and dtypes, and whatever has no place
        in the variables, as a num_batches_tracked that no estimator counts.
      names: as of `from_torch`.
      rules: likewise.
      keep: patterns of paths in the variables that torch's model does not have.
      cast: whether an array may be rounded to the state's dtype.

    Returns:
      Conversion(arrays, report): the state with NumPy arrays, each a copy, and for each
      the rule that was undone.

    Raises:
      TypeError: as of `from_torch`.
      ValueError: likewise, all in one error.

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
        flat = len(target) == 1 < len(source)  # as NNX has parameters of several axes
        return reshaped(source, target) if flat else AS_IT_IS
    if len(source) == 2:
        return LINEAR
    if len(source) > 5:
        raise ValueError("a kernel has at most three axes of positions")
    if not (path and str(path[-1]).startswith("ConvTranspose")):
        return conv(len(source))
    if source[0] == source[1]:
        raise ValueError(
            "the shapes do not say whether Flax takes it transposed; give transposed() or "
            "transposed(transpose_kernel=True) in rules"
        )
    swapped = target[-2:] == (source[1], source[0])
    return transposed(transpose_kernel=swapped).layout(source, target)


def _unkept(module: str, name: str, slots: Slots) -> str | None:
    if name == COUNT and "mean" in slots:
        return "not kept, the estimator does not count"
    return None


def _start(slot: str, slots: Slots) -> int | None:
    return 0 if slot == "updates" and "mean" in slots else None


TORCH = Convention(".", _parts, _slot, _layout, _unkept, _start)
