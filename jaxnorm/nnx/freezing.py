"""Freezes batch norms of an NNX model, by their paths."""

from flax import nnx

from jaxnorm.model.patterns import Selection
from jaxnorm.nnx.batch import BatchNorm


def freeze(model: nnx.Module, *patterns: str, frozen: bool = True) -> None:
    """Sets batch norms of a model to frozen, which outlives `model.train()`.

    These norms normalise with their running statistics and do not update them, also in
    training, as when a pretrained network is fine-tuned on small batches. (Their scale and
    bias are parameters like all others: an optimiser trains them, unless it is told not to,
    as by its `wrt`.)

    Args:
      model: a model with batch norms of jaxnorm, which are changed in place, as by
        `model.train()`.
      patterns: of their paths, such as "encoder/**" or "blocks/0/norm": `*` matches a name,
        or part of one, and `**` any number of names. Without patterns, all batch norms are
        frozen.
      frozen: False thaws them again.

    Raises:
      TypeError: a pattern is not a string.
      ValueError: a pattern matches no batch norm, or one of flax, which cannot be frozen;
        nothing is changed.

    >>> import jaxnorm.nnx as jx
    >>> rngs = nnx.Rngs(0)
    >>> model = nnx.Sequential(jx.BatchNorm(2, rngs=rngs), jx.BatchNorm(2, rngs=rngs))
    >>> freeze(model, "layers/0")
    >>> model.train()
    >>> y = model(jnp.ones((4, 2)))
    >>> model.layers[0].mean[...], model.layers[1].var[...]
    (Array([0., 0.], dtype=float32), Array([0.99, 0.99], dtype=float32))
    """
    selected = Selection(patterns or ("**",))
    norms = {
        "/".join(map(str, path)): module
        for path, module in nnx.iter_modules(model)
        if isinstance(module, (BatchNorm, nnx.BatchNorm))
    }
    found = {path: norm for path, norm in norms.items() if path in selected}
    selected.check()
    ours = [norm for norm in found.values() if isinstance(norm, BatchNorm)]
    others = [path for path, norm in found.items() if not isinstance(norm, BatchNorm)]
    if others:
        raise ValueError(
            f"{', '.join(others)} are flax's BatchNorm, which model.train() changes back; "
            "use jaxnorm.nnx.BatchNorm, which has the same arguments and variables."
        )
    for norm in ours:
        norm.set_view(frozen=frozen)
