"""Matches the arrays of both sides by name and shape, once for both directions."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxnorm.interop.layouts import Layout
from jaxnorm.interop.patterns import Names, Paths
from jaxnorm.interop.report import Problems
from jaxnorm.interop.trees import Path, by_module, shown
from jaxnorm.model.patterns import Table

Slots = Mapping[str, Path]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Rule:
    """Gives the layout of a layer's arrays where their shapes do not determine it.

    Attributes:
      layout: `layout(source, target) -> Layout`, for arrays of these shapes; a ValueError
        if there is none. Arrays with one axis are not changed.
    """

    layout: Callable[[Shape, Shape], Layout]


@dataclass(frozen=True)
class Convention:
    """How a library names its arrays and lays them out.

    Attributes:
      separator: the separator between the parts of a name.
      parts: maps the arrays to their modules and their names within these.
      slot: `slot(name, slots)`, the corresponding name in our module, or None.
      layout: `layout(path, slot, source, target) -> Layout`, where no rule applies; a
        ValueError if there is none, or more than one.
      unkept: `unkept(module, name, slots)`, why an array without a slot may be left out,
        or None.
      wrappers: modules that hold a whole model, and whose name may precede all others.
    """

    separator: str
    parts: Callable[[Mapping[str, np.ndarray]], Mapping[str, tuple[str, str]]]
    slot: Callable[[str, Slots], str | None]
    layout: Callable[[Path, str, Shape, Shape], Layout]
    unkept: Callable[[str, str, Slots], str | None]
    wrappers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Link:
    """An array of the other library, its counterpart here, and the layout change."""

    source: str
    target: Path
    layout: Layout


@dataclass
class Plan:
    """All links, and the arrays without one.

    Attributes:
      links: the arrays that are converted.
      unkept: names without a counterpart here, and why they may be left out.
      kept: paths without an array in the other library whose values are kept.
      uncounted: paths of numbers of batches that the other library does not have.
      problems: everything else.
    """

    links: list[Link] = field(default_factory=list)
    unkept: dict[str, str] = field(default_factory=dict)
    kept: list[Path] = field(default_factory=list)
    uncounted: list[Path] = field(default_factory=list)
    problems: Problems = field(default_factory=Problems)


class Matching:
    """Finds the place of every array among our leaves, as a plan.

    Attributes:
      plan: the result.
    """

    def __init__(
        self,
        convention: Convention,
        state: Mapping[str, np.ndarray],
        leaves: Mapping[Path, Any],
        names: Names,
        rules: Mapping[str, Rule],
        keep: Iterable[str],
    ):
        self.plan = Plan()
        self._convention, self._state, self._leaves = convention, state, leaves
        self._modules = by_module(leaves)
        self._paths = Paths(names, convention.separator)
        self._rules = Table(rules, convention.separator)
        self._keep = Table(keep, "/")
        self._sources: dict[Path, str] = {}
        for source, (module, name) in convention.parts(state).items():
            self._place(source, module, name)
        self._account_for_wrappers()
        self._account_for_leaves()
        self._account_for_patterns()

    def _place(self, source: str, module: str, name: str) -> None:
        """Adds a link for one array, or the reason why there is none."""
        path, rule = self._paths[module], self._rules.find(module)
        if path is None:
            self.plan.unkept[source] = "left out by names"
            return
        slots = self._modules.get(path, {})
        slot = self._convention.slot(name, slots)
        if slot is not None:
            self._link(source, path, slot, rule and rule[1])
        elif reason := self._convention.unkept(module, name, slots):
            self.plan.unkept[source] = reason
        else:
            place = shown(path) or "the top level"
            there = f"{place} has {', '.join(slots)}" if slots else f"there is no {place}"
            shape = self._state[source].shape
            self.plan.problems.add("left over", f"{source} {shape}: {there}")

    def _link(self, source: str, path: Path, slot: str, rule: Rule | None) -> None:
        array, target = self._state[source], self._modules[path][slot]
        expected = tuple(self._leaves[target].shape)
        first = self._sources.setdefault(target, source)
        if first != source:
            self.plan.problems.add("twice", f"{source} and {first} for {shown(target)}")
            return
        try:
            if rule is not None and array.ndim > 1:
                layout = rule.layout(array.shape, expected)
            else:
                layout = self._convention.layout(path, slot, array.shape, expected)
            given = layout.into(array).shape
            if given != expected:
                raise ValueError(f"{layout.name} gives {given}")
        except ValueError as error:
            line = f"{source} {array.shape} for {shown(target)} {expected}: {error}"
            self.plan.problems.add("mis-shaped", line)
            return
        self.plan.links.append(Link(source, target, layout))

    def _account_for_wrappers(self) -> None:
        """Adds an explanation if nothing matches because of what precedes every name."""
        for wrapper in self._convention.wrappers:
            start = wrapper + self._convention.separator
            every = all(name.startswith(start) for name in self._state)
            if every and self._state and not self.plan.links and not self.plan.unkept:
                line = f'every name begins with {start!r}; pass {{"{start}**": "{{}}"}}'
                self.plan.problems.add("wrapped", line)

    def _account_for_leaves(self) -> None:
        """Records each leaf without a link as initialised, kept or missing."""
        for slots in self._modules.values():
            for slot, path in slots.items():
                if path in self._sources:
                    continue
                counts = slot == "updates" and slots.get("mean") in self._sources
                if self._keep.find(shown(path)):
                    self.plan.kept.append(path)
                elif counts:
                    self.plan.uncounted.append(path)
                else:
                    shape = tuple(self._leaves[path].shape)
                    self.plan.problems.add("missing", f"{shown(path)} {shape}")

    def _account_for_patterns(self) -> None:
        tables = {"names": self._paths, "rules": self._rules, "keep": self._keep}
        for name, table in tables.items():
            for pattern in table.unused:
                self.plan.problems.add("unused", f"{pattern!r} in {name}")
