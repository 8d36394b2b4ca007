"""Traces where the arrays of a program come from and where they are used, by its jaxpr.

Arrays of interest are marked with a key, by an identity operation.
"""

import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import Literal
from jaxtyping import Array

PREFIX = "jaxnorm: "
OUTPUT = "the model's output"

# These only call an inner program, with the same arguments and results.
CALLS = ("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint")
CUSTOM = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
# These return their inputs unchanged.
IDENTITIES = ("name", "optimization_barrier", "copy")


class Source(NamedTuple):
    """Where an array comes from.

    Attributes:
      mark: the last key it was marked with, or None.
      stored: index of the program's input that it is, or None.
      made_by: the operation that computed it.
    """

    mark: str | None = None
    stored: int | None = None
    made_by: str = ""


class Dataflow(NamedTuple):
    """The dataflow of the marked arrays, by their keys.

    Attributes:
      marked: how many times an array was marked with the key.
      sources: where each marked array comes from.
      shapes: shapes of the marked arrays, including all axes they are mapped over.
      uses: where each marked array is used: marks, operations, or OUTPUT.
      input_uses: the same for the inputs of the program, by their indices.
    """

    marked: Counter[str]
    sources: dict[str, Source]
    shapes: dict[str, tuple[int, ...]]
    uses: dict[str, list[str]]
    input_uses: dict[int, list[str]]


def mark(array: Any, key: str) -> Array:
    """Returns the array, marked with a key."""
    return checkpoint_name(array, PREFIX + key)


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array, or the shape and dtype of one."""
    return isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)


def part(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """Returns the arrays of a tree, and a function that rebuilds the tree with others.

    >>> arrays, whole = part({"x": jnp.ones(2), "train": False})
    >>> whole(["y" for _ in arrays])
    {'train': False, 'x': 'y'}
    """
    leaves, structure = jax.tree.flatten(tree)

    def whole(arrays: list[Any]) -> Any:
        others = iter(arrays)
        return jax.tree.unflatten(
            structure, [next(others) if is_array(leaf) else leaf for leaf in leaves]
        )

    return [leaf for leaf in leaves if is_array(leaf)], whole


def dataflow(function: Callable[..., Any], *arguments: Any) -> Dataflow:
    """Traces a function, without running it; the arguments may be shapes and dtypes.

    Marks in a loop or a branch are found, but the sources of its inputs are unknown.
    """
    # Otherwise jax.jit could reuse a cached trace, which has no marks.
    with set_xla_metadata(jaxnorm=uuid.uuid4().hex):
        jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    reader = _Reader()
    inputs = [
        Source(stored=i, made_by="an input of the model") for i in range(len(jaxpr.invars))
    ]
    results = reader.read(jaxpr, inputs, "")
    reader.use(results, OUTPUT)
    return Dataflow(
        reader.marked, reader.sources, reader.shapes, reader.uses, reader.input_uses
    )


class _Reader:
    """Collects the dataflow while reading a jaxpr in order."""

    def __init__(self) -> None:
        self.marked: Counter[str] = Counter()
        self.sources: dict[str, Source] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.uses: dict[str, list[str]] = defaultdict(list)
        self.input_uses: dict[int, list[str]] = defaultdict(list)

    def use(self, sources: Iterable[Source], by: str) -> None:
        """Records that arrays with these sources are used."""
        for source in sources:
            if source.mark is not None:
                self.uses[source.mark].append(by)
            elif source.stored is not None:
                self.input_uses[source.stored].append(by)

    def read(self, jaxpr: Any, inputs: list[Source], within: str) -> list[Source]:
        """Returns the sources of the results, given the sources of the arguments."""
        known = dict(zip(jaxpr.invars, inputs, strict=True))

        def source_of(atom: Any) -> Source:
            constant = Source(made_by="a constant")
            return constant if isinstance(atom, Literal) else known.get(atom, constant)

        for equation in jaxpr.eqns:
            given = [source_of(each) for each in equation.invars]
            made = self._of(equation, given, within)
            known |= dict(zip(equation.outvars, made, strict=True))
        return [source_of(each) for each in jaxpr.outvars]

    def _of(self, equation: Any, given: list[Source], within: str) -> list[Source]:
        """Returns the sources of the results of an equation."""
        name, parameters = equation.primitive.name, equation.params
        programs = _programs(parameters)
        if name in CALLS or (name in CUSTOM and len(programs) == 1):
            called = str(parameters.get("name") or within)
            return self.read(programs[0], given, called)
        key = str(parameters.get("name", ""))
        if name == "name" and key.startswith(PREFIX):
            key = key.removeprefix(PREFIX)
            self.use(given, key)
            self.marked[key] += 1
            self.sources[key] = given[0]
            self.shapes[key] = equation.invars[0].aval.shape
            return [given[0]._replace(mark=key)]
        if name in IDENTITIES and len(given) == len(equation.outvars):
            return given
        self.use(given, name)
        for program in programs:
            unknown = [Source(made_by=name)] * len(program.invars)
            self.use(self.read(program, unknown, within), name)
        made_by = f"{name} in {within}" if within else name
        return [Source(made_by=made_by)] * len(equation.outvars)


def _programs(parameters: dict[str, Any]) -> list[Any]:
    """Returns the jaxprs among the parameters of an equation."""
    leaves = jax.tree.leaves(list(parameters.values()), is_leaf=_is_program)
    return [getattr(each, "jaxpr", each) for each in leaves if _is_program(each)]


def _is_program(each: Any) -> bool:
    return hasattr(each, "jaxpr") or hasattr(each, "eqns")
