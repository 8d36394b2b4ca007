"""The running statistics of a Linen norm, as variables of the collection `batch_stats`."""

from typing import Any

from jax.typing import DTypeLike

from jaxnorm.statistics.estimator import Estimator
from jaxnorm.statistics.state_names import named, state_like, unnamed


def path_of(module: Any) -> str:
    """Returns the name of a module in errors: its path in the model, or its type."""
    return "/".join(module.path) or type(module).__name__


def check_state(module: Any, train: bool, update: bool) -> None:
    """Raises a ValueError if statistics are missing, or cannot be updated."""
    if module.is_initializing():
        return
    if update and not module.is_mutable_collection("batch_stats"):
        raise ValueError(
            f"{path_of(module)} is called in training, but the collection 'batch_stats' is "
            "immutable, so its statistics cannot be updated; write apply(variables, x, "
            "train=True, mutable=['batch_stats']) and keep the updates it returns, or "
            "write train=False or update=False."
        )
    if not train and not module.has_variable("batch_stats", "mean"):
        raise ValueError(
            f"{path_of(module)} needs running statistics in evaluation, but they are "
            "missing; pass them to apply as {'params': ..., 'batch_stats': ...}."
        )


def keep_state(
    module: Any,
    estimator: Estimator[Any],
    features: tuple[int, ...],
    dtype: DTypeLike,
    update: bool,
) -> tuple[dict[str, Any], Any]:
    """Returns the stored variables, by name, and the estimator's state with their values.

    Missing values are the estimator's initial ones; they become variables if the state is
    updated. Statistics without a count, such as those of a flax module, are those of a long
    training, if the estimator can go on from these.
    """
    like = state_like(estimator, features, dtype)
    missing = [name for name in named(like) if not module.has_variable("batch_stats", name)]
    stays = update or module.is_initializing()
    state = estimator.init(features, dtype) if missing else {}
    if stays and "mean" not in missing and {"updates", "count"} & set(missing):
        try:
            state = estimator.matured(state)
        except ValueError as error:
            raise ValueError(f"{path_of(module)} has statistics alone: {error}") from None
    first = named(state)
    kept = {
        name: module.variable("batch_stats", name, lambda name=name: first[name])
        for name in named(like)
        if stays or name not in missing
    }
    values = {name: variable.value for name, variable in kept.items()}
    return kept, unnamed(first | values, like)
