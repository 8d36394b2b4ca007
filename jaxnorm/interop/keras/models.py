"""Converts whole models between keras and Flax."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from jaxnorm.interop.arrays import Arrays
from jaxnorm.interop.conversion import exported, imported
from jaxnorm.interop.keras.listings import SLOTS, layers_of
from jaxnorm.interop.layouts import AS_IT_IS, Layout, permuted, positions, reshaped
from jaxnorm.interop.patterns import NOTHING, Names
from jaxnorm.interop.plan import Convention, Rule, Shape, Slots
from jaxnorm.interop.report import Conversion
from jaxnorm.interop.trees import Path

# The order in which keras creates the weights of a layer, by our names.
ORDER = ("kernel", "embedding", "scale", "bias", "mean", "var")
OF = " of "  # separates a position from the number of weights


def from_keras(
    weights: Arrays,
    template: Mapping[Any, Any],
    names: Names = NOTHING,
    *,
    rules: Mapping[str, Rule] = NOTHING,
    keep: Iterable[str] = (),
    cast: bool = False,
) -> Conversion:
    """Returns the variables of a Flax model, with weights and statistics from keras.

    Every array on either side has a counterpart, or is listed in the error. Kernels of
    dense layers and convolutions are not changed; other kernels are converted:

        depthwise, (H, W, in, multiplier) → (H, W, 1, in·multiplier), for a convolution
        with feature_group_count=in;
        transposed, in a module whose name begins with ConvTranspose, (H, W, out, in),
        unchanged with transpose_kernel=True, otherwise → (H, W, in, out), and flipped.

    Weights listed by position in a layer, as in a .weights.h5 file of Keras 3, are assigned
    to the arrays of the layer here, which must have a scale and a bias where keras's layer
    has them. Weights of the optimizer and states of random seeds are left out.

    Args:
      weights: names to arrays, in one of keras's listings, or a path that
        `jaxnorm.interop.read_weights` reads, such as "model.keras".
      template: as for `jaxnorm.interop.torch.from_torch`.
      names: patterns of keras layers to paths here, such as {"conv2d_*": "Conv_{}"}; as for
        `from_torch`, with "/" as the separator instead of ".".
      rules: patterns of keras layers to rules for what shapes do not show: `transposed`.
      keep: as for `from_torch`.
      cast: as for `from_torch`.

    Returns:
      Conversion(arrays, report): the template with jax arrays in its dtypes, and what was
      done with each.

    Raises:
      TypeError: a value is not an array of numbers, or the template has other leaves than
        arrays.
      ValueError: arrays are left over, missing, mis-shaped or of another dtype, or a
        pattern matches nothing; a single error lists them all.

    >>> weights = {"dense/kernel:0": jnp.ones((3, 1)), "dense/bias:0": jnp.zeros(1)}
    >>> template = {"Dense_0": {"kernel": jnp.zeros((3, 1)), "bias": jnp.zeros(1)}}
    >>> print(from_keras(weights, template, {"dense": "Dense_0"}).report)
    dense/kernel:0 → Dense_0/kernel: as it is
    dense/bias:0 → Dense_0/bias: as it is
    """
    return imported(KERAS, weights, template, names, rules, keep, cast)


def to_keras(
    variables: Mapping[Any, Any],
    weights: Arrays,
    names: Names = NOTHING,
    *,
    rules: Mapping[str, Rule] = NOTHING,
    keep: Iterable[str] = (),
    cast: bool = False,
) -> Conversion:
    """Returns the weights of a keras model, with weights and statistics from Flax.

    The inverse of `from_keras`, bit for bit, with the same names and rules.

    Args:
      variables: from Linen or NNX, like the template of `from_keras`, with arrays.
      weights: the weights of the keras model, or the path of a file, for its names, shapes
        and dtypes, and for arrays without a counterpart in the variables.
      names: as for `from_keras`.
      rules: as for `from_keras`.
      keep: patterns of paths in the variables that the keras model does not have.
      cast: whether an array may be rounded to the dtype in weights.

    Returns:
      Conversion(arrays, report): the weights as NumPy arrays, in their order, each a copy,
      and for each the rule that was inverted.

    Raises:
      TypeError: as for `from_keras`.
      ValueError: as for `from_keras`, all in one error.

    >>> weights = {"norm/gamma": jnp.ones(2)}
    >>> variables = {"norm": {"scale": jnp.array([3.0, 4.0])}}  # as in NNX
    >>> to_keras(variables, weights).arrays
    {'norm/gamma': array([3., 4.], dtype=float32)}
    """
    return exported(KERAS, variables, weights, names, rules, keep, cast)


def transposed(*, transpose_kernel: bool = False) -> Rule:
    """A rule for transposed convolutions: keras's kernel (H, W, out, in) in Flax's layout.

    Args:
      transpose_kernel: as in Flax's ConvTranspose; True is keras's own layout.

    >>> weights = {"up/kernel": jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)}
    >>> template = {"up": {"kernel": jnp.zeros((3, 1, 1))}}
    >>> variables, _ = from_keras(weights, template, rules={"up": transposed()})
    >>> variables["up"]["kernel"].ravel()
    Array([3., 2., 1.], dtype=float32)
    """

    def layout(source: Shape, target: Shape) -> Layout:
        if len(source) < 3:
            raise ValueError("a transposed convolution's kernel has spatial axes")
        if transpose_kernel:
            return AS_IT_IS
        rank = len(source)
        axes = (*range(rank - 2), rank - 1, rank - 2)
        letters = positions(rank)
        flipped = tuple(range(rank - 2))
        return permuted(f"{letters}OI → {letters}IO, flipped", axes, flipped)

    return Rule(layout)


def _slot(name: str, slots: Slots) -> str | None:
    place, _, count = name.partition(OF)
    if count:
        held = [each for each in ORDER if each in slots]
        params = [each for each in held if each not in ("mean", "var")]
        # Either all, or all but the statistics; with another number none can be assigned.
        named = next((each for each in (held, params) if len(each) == int(count)), None)
        return named[int(place)] if named and int(place) < len(named) else None
    slot = SLOTS.get(name, name)
    return slot if slot in slots else None


def _layout(path: Path, slot: str, source: Shape, target: Shape) -> Layout:
    if len(target) == 1 < len(source) and slot != "kernel":
        return reshaped(source, target)  # NNX stores parameters over several axes flat
    if slot != "kernel" or not 3 <= len(source) <= 5:
        return AS_IT_IS
    if path and str(path[-1]).startswith("ConvTranspose"):
        return _transposed(source, target)
    depthwise = (*source[:-2], 1, source[-2] * source[-1])
    if target == depthwise != source:
        return reshaped(source, target)
    return AS_IT_IS


def _transposed(source: Shape, target: Shape) -> Layout:
    if source[-1] == source[-2]:
        raise ValueError(
            "the shapes do not show whether Flax's kernel is transposed; pass transposed() "
            "or transposed(transpose_kernel=True) in rules"
        )
    return transposed(transpose_kernel=source == target).layout(source, target)


def _unkept(module: str, name: str, slots: Slots) -> str | None:
    if module.startswith("optimizer"):
        return "left out, optimizer state"
    if "seed_generator" in module:
        return "left out, random seed"
    return None


def _parts(weights: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """As `layers_of`, with the layer's number of weights added to each position."""
    found = layers_of(weights)
    counts = Counter(layer for layer, leaf in found.values() if leaf.isdecimal())
    return {
        name: (layer, f"{leaf}{OF}{counts[layer]}" if leaf.isdecimal() else leaf)
        for name, (layer, leaf) in found.items()
    }


KERAS = Convention("/", _parts, _slot, _layout, _unkept)
