"""Detects padding: samples, or ends of sequences, that are the same to the last bit."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, UInt32

LEAST_FEATURES = 4  # Fewer may be the same by chance, for example after a relu.
LEAST_SAMPLES = 3  # Fewer may be the same by chance.
RARE = 100  # At most one in this many other positions may look like padding.


def padded_share(
    x: Float[Array, "..."],
    used: Bool[Array, "..."] | None,
    features: tuple[int, ...],
    reduced: tuple[int, ...],
) -> Float[Array, ""]:
    """The share of all positions with weight that look like padding.

    Identical positions look like padding at the ends or the beginnings of sequences, if x
    has a single sequence axis, and as the last samples, if there are three or more;
    but only if hardly anything elsewhere is the same, and only along axes that moments are
    taken over. An area within an image does not count, since it may be background.

    Args:
      x: floating array of any rank.
      used: where x has weight, in the shape of x; defaults to everywhere.
      features: the feature axes, which are compared at each position.
      reduced: the axes that moments are taken over.

    >>> x = jnp.arange(24.0).reshape(1, 6, 4).at[:, 4:].set(0)
    >>> float(padded_share(x, None, (2,), (0, 1)) * 6)
    2.0
    """
    others = tuple(each for each in range(x.ndim) if each not in features)
    codes = _codes(x, features)
    weighed = jnp.ones(x.shape, bool) if used is None else used
    # NaN spreads to everything that is normalised with it, and is not padding.
    counted = weighed.any(features) & jnp.isfinite(jnp.where(weighed, x, 0)).all(features)
    nothing = jnp.zeros((), jnp.float32)
    if x.size // max(codes.size, 1) < LEAST_FEATURES or not others:
        return nothing
    shares = [nothing]
    if len(others) == 2 and others[1] in reduced and codes.shape[1] > 1:
        shares.append(_at_ends(codes, counted))
        shares.append(_at_ends(codes[:, ::-1], counted[:, ::-1]))
    if others[0] in reduced:
        shares.append(_last_samples(codes, counted))
    return jnp.max(jnp.stack(shares))


def _codes(x: Float[Array, "..."], features: tuple[int, ...]) -> UInt32[Array, "..."]:
    """A hash for each position: the same if all features are, to the last bit."""
    # Adding 0.0 makes −0 and 0 the same.
    bits = lax.bitcast_convert_type(x.astype(jnp.float32) + 0.0, jnp.uint32)
    moved = jnp.moveaxis(bits, features, range(-len(features), 0))
    kept = moved.shape[: x.ndim - len(features)]
    return _mixed(moved.reshape(*kept, -1))


def _mixed(bits: UInt32[Array, "... n"]) -> UInt32[Array, "..."]:
    """A hash over the last axis, which depends on the order."""
    place = jnp.arange(bits.shape[-1], dtype=jnp.uint32)
    odd = (place * jnp.uint32(2654435761) + jnp.uint32(0x9E3779B9)) | jnp.uint32(1)
    spread = (bits ^ (bits >> jnp.uint32(15))) * jnp.uint32(0x85EBCA6B)
    factors = jnp.broadcast_to(odd, bits.shape)
    return jnp.sum((spread ^ (spread >> jnp.uint32(13))) * factors, axis=-1)


def _run(same: Bool[Array, "... n"]) -> Array:
    """The length of the run of True at the end of the last axis."""
    return jnp.sum(jnp.cumprod(same[..., ::-1].astype(jnp.int32), axis=-1), axis=-1)


def _at_ends(codes: UInt32[Array, "b t"], counted: Bool[Array, "b t"]) -> Array:
    last = codes[:, -1]
    runs = _run((codes == last[:, None]) & counted)
    longest = jnp.argmax(runs)
    code, total = last[longest], jnp.sum(counted)
    padded = jnp.sum(jnp.where(last == code, runs, 0))
    # Codes that are common elsewhere, or at the other ends, are silence, or a border.
    elsewhere = jnp.sum((codes == code) & counted) - padded
    rare = elsewhere * RARE <= total - padded
    share = padded / jnp.maximum(total, 1)
    return jnp.where((runs[longest] > 1) & rare, share, 0).astype(jnp.float32)


def _last_samples(codes: UInt32[Array, "..."], counted: Bool[Array, "..."]) -> Array:
    codes, counted = (each.reshape(len(each), -1) for each in (codes, counted))
    samples = _mixed(codes)
    alike = (samples == samples[-1]) & counted.any(-1)
    run = _run(alike)
    at_end = jnp.arange(len(samples)) >= len(samples) - run
    padded = jnp.sum(counted & at_end[:, None])
    share = padded / jnp.maximum(jnp.sum(counted), 1)
    found = (run >= LEAST_SAMPLES) & (jnp.sum(alike) == run)
    return jnp.where(found, share, 0).astype(jnp.float32)
