"""Where the arrays of a program come from and go to, read off its jaxpr.

An array is marked under a key where it is of interest, by an identity.
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
OUTPUT = "the output"

# What these do is done by the program within, whose arguments and results are theirs.
CALLS = ("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint")
CUSTOM = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
# What comes out of these is what went in.
IDENTITIES = ("name", "optimization_barrier", "copy")


class Source(NamedTuple):
    """Where an array comes from.

    Attributes:
      mark: the key that it was marked under last, or None.
      stored: which input of the program it is, or None.
      made_by: the operation that made it.
    """

    mark: str | None = None
    stored: int | None = None
    made_by: str = ""


class Dataflow(NamedTuple):
    """What is known of the marked arrays, by their keys.

    Attributes:
      marked: how many times an array was marked under the key.
      sources: where what was marked comes from.
      shapes: the shapes that they had there, with all axes that they were mapped over.
      uses: what every marked array goes into: marks, operations, or OUTPUT.
      input_uses: the same of the inputs of the program, by their numbers.
    """

    marked: Counter[str]
    sources: dict[str, Source]
    shapes: dict[str, tuple[int, ...]]
    uses: dict[str, list[str]]
    input_uses: dict[int, list[str]]


def mark(array: Any, key: str) -> Array:
    """The array, marked."""
    return checkpoint_name(array, PREFIX + key)


def is_array(leaf: Any) -> bool:
    """Whether it is traced, or how: an array, or the shape and dtype of one."""
    return isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)


def part(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The arrays of a tree, and a function that makes the tree of others in their place.

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
    """That of a function, traced and not run; arguments may be shapes and dtypes.

    A mark in a loop or a branch is found, but what comes into that is of no known source.
    """
    # What jax.jit has traced before, elsewhere, it would not trace again, and not mark.
    with set_xla_metadata(jaxnorm=uuid.uuid4().hex):
        jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    reader = _Reader()
    inputs = [Source(stored=i, made_by="an input") for i in range(len(jaxpr.invars))]
    results = reader.read(jaxpr, inputs, "")
    reader.use(results, OUTPUT)
    return Dataflow(
        reader.marked, reader.sources, reader.shapes, reader.uses, reader.input_uses
    )


class _Reader:
    """What was found so far, going through a jaxpr in order."""

    def __init__(self) -> None:
        self.marked: Counter[str] = Counter()
        self.sources: dict[str, Source] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.uses: dict[str, list[str]] = defaultdict(list)
        self.input_uses: dict[int, list[str]] = defaultdict(list)

    def use(self, sources: Iterable[Source], by: str) -> None:
        """Notes what uses the arrays."""
        for source in sources:
            if source.mark is not None:
                self.uses[source.mark].append(by)
            elif source.stored is not None:
                self.input_uses[source.stored].append(by)

    def read(self, jaxpr: Any, inputs: list[Source], within: str) -> list[Source]:
        """The sources of the results, from those of the arguments."""
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
        """The sources of what an equation makes."""
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
    """The jaxprs that an equation is given."""
    leaves = jax.tree.leaves(list(parameters.values()), is_leaf=_is_program)
    return [getattr(each, "jaxpr", each) for each in leaves if _is_program(each)]


def _is_program(each: Any) -> bool:
    return hasattr(each, "jaxpr") or hasattr(each, "eqns")
