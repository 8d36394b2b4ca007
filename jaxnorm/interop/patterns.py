"""The paths that names of another library's modules are mapped to."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from jaxnorm.model.patterns import Table

NOTHING: Mapping[str, Any] = MappingProxyType({})
Names = Mapping[str, str | None] | Callable[[str], str | None]


class Paths:
    """Maps the names of modules to paths in the template.

    Attributes:
      unused: the patterns that have matched nothing so far.
    """

    def __init__(self, names: Names, separator: str):
        self._separator = separator
        self._names = None if isinstance(names, Mapping) else names
        self._table = Table(names if isinstance(names, Mapping) else {}, separator)

    @property
    def unused(self) -> list[str]:
        return self._table.unused

    def __getitem__(self, module: str) -> tuple[str, ...] | None:
        """The path of a module, by default its own name; None if it is left out."""
        if self._names is not None:
            target = self._names(module)
        else:
            stars, target = self._table.find(module) or ((), module)
            if stars and target is not None:
                target = _filled(target, stars)
        if target is None:
            return None
        if any(each in (".", "..") for each in target.split("/")):
            raise ValueError(
                f"{module} is mapped to {target!r}, but a path starts at the top of the "
                'variables; write it out, as in "Block_0/BatchNorm_0".'
            )
        # The text that `**` matches, as in "block.**", may contain separators.
        parts = target.replace(self._separator, "/").split("/")
        return tuple(each for each in parts if each)


def _filled(target: str, stars: tuple[str, ...]) -> str:
    try:
        return target.format(*stars)
    except (IndexError, KeyError):
        raise ValueError(
            f"the path {target!r} does not match its pattern's {len(stars)} stars; "
            "write {} for each, or {0} and {1} in another order."
        ) from None
