"""Freezes batch norms of a Linen model, by the paths of their variables."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import flax.linen as nn

from jaxnorm.linen.batch import BatchNorm
from jaxnorm.linen.watching import WatchedModel, watching
from jaxnorm.model.patterns import Selection
from jaxnorm.model.spec import arguments_of


@dataclass(frozen=True)
class Frozen(WatchedModel):
    """A model in which some batch norms neither train nor update.

    Attributes:
      model: the original model.
      patterns: of the paths of these norms.
    """

    patterns: tuple[str, ...]

    @contextmanager
    def running(self, whole: bool) -> Iterator[None]:
        """Returns the context in which these norms are called in evaluation.

        Raises:
          ValueError: a pattern matches none of the batch norms of a whole call.
        """
        frozen = Selection(self.patterns)

        def around(path: str, module: Any, call: Any, args: Any, kwargs: Any) -> Any:
            if isinstance(module, (BatchNorm, nn.BatchNorm)) and path in frozen:
                return _evaluated(path, module, call, args, kwargs)
            return call(*args, **kwargs)

        with watching(around):
            yield
        if whole:
            frozen.check()


def freeze(model: nn.Module, *patterns: str) -> Frozen:
    """Freezes batch norms of a model, whatever its flags say.

    These norms normalise with their running statistics and do not update them, also in
    training, as when a pretrained network is fine-tuned on small batches. (Their scale and
    bias are parameters like all others: an optimiser trains them, unless it is told not to,
    as by `optax.masked`.)

    Args:
      model: a model with batch norms of jaxnorm or flax.
      patterns: of the paths of their variables, such as "encoder/**" or "**/BatchNorm_0":
        `*` matches a name, or part of one, and `**` any number of names. Without patterns,
        all batch norms are frozen.

    Returns:
      A model with the methods `apply`, `init` and `init_with_output`, and the variables of
      the original one.

    Raises:
      TypeError: a pattern is not a string.

    >>> import jaxnorm.linen as jn
    >>> class Model(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x, train):
    ...         x = jn.BatchNorm(name="first")(x, train=train)
    ...         return jn.BatchNorm(name="second")(x, train=train)
    >>> model, x = freeze(Model(), "first"), jnp.ones((4, 2))
    >>> variables = model.init(jax.random.key(0), x, train=False)
    >>> _, updates = model.apply(variables, x, train=True, mutable=["batch_stats"])
    >>> updates["batch_stats"]["first"]["mean"], updates["batch_stats"]["second"]["var"]
    (Array([0., 0.], dtype=float32), Array([0.99, 0.99], dtype=float32))
    """
    return Frozen(model, Selection(patterns or ("**",)).patterns)


def _evaluated(path: str, module: Any, call: Any, args: Any, kwargs: Any) -> Any:
    x, given = arguments_of(module, args, kwargs)
    if isinstance(module, BatchNorm):
        return call(x, **given | {"frozen": True})
    if module.use_running_average is False:
        raise ValueError(
            f"{path} is flax's BatchNorm with use_running_average=False in its "
            "constructor, which a call cannot change; leave the flag to the call, or use "
            "jaxnorm.linen.BatchNorm."
        )
    given.pop("use_running_average", None)
    flag = {} if module.use_running_average else {"use_running_average": True}
    return call(x, **given, **flag)
