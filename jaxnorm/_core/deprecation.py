"""Old argument names, which still work for one release, with a warning."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def renamed_arguments(**new_names: str) -> Callable[[Function], Function]:
    """Decorates a function to accept old keyword argument names with a DeprecationWarning.

    Raises a TypeError if an argument is given under both of its names.

    >>> @renamed_arguments(axis="feature_axes")
    ... def norm(x, *, feature_axes=-1):
    ...     return feature_axes
    >>> norm(0, feature_axes=1)
    1
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for old in new_names.keys() & kwargs.keys():
                new = new_names[old]
                name = function.__name__
                if new in kwargs:
                    raise TypeError(
                        f"{name}() got {old}= and {new}=, its new name; give only {new}=."
                    )
                warnings.warn(
                    f"{name}({old}=) is deprecated and will be removed in jaxnorm 0.3; "
                    f"the argument is now {new}=.",
                    DeprecationWarning,
                    stacklevel=2,
                )
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call  # pyright: ignore[reportReturnType]

    return decorate
