"""Reference implementation of the norms, in float64 NumPy, directly from the equations.

Never imports jaxnorm.
"""

from typing import NamedTuple

import numpy as np


class Oracle(NamedTuple):
    """Outputs and gradients of a norm, for a cotangent g of its output.

    Also contains the largest term in the sum dx, which may be much larger than dx.
    """

    y: np.ndarray
    dx: np.ndarray
    dscale: np.ndarray
    dbias: np.ndarray
    largest_term: float


def along(vector, axes, ndim):
    """Returns a vector along the given axes, with size-1 axes between them."""
    other = tuple(each for each in range(ndim) if each not in axes)
    return np.expand_dims(np.asarray(vector, np.float64), other)


def affine(vector, features, ndim):
    """Returns scale or bias with the rank of x, which it may already have."""
    vector = np.asarray(vector, np.float64)
    varies = vector.ndim == ndim > len(features)
    return vector if varies else along(vector, features, ndim)


def summed_to(products, vector, features):
    """Sums an array of x's shape over the axes that a scale or bias lacks."""
    wide = affine(vector, features, products.ndim)
    axes = tuple(i for i, n in enumerate(wide.shape) if n == 1)
    return products.sum(axes, keepdims=True).reshape(np.shape(vector))


def moments(x, reduced, weights=None):
    """Σw, Σw·x/Σw and Σw·(x−μ)²/Σw, with the reduced axes kept at size 1."""
    x = np.asarray(x, np.float64)
    weights = 1.0 if weights is None else np.asarray(weights, np.float64)
    w = np.broadcast_to(weights, x.shape)
    x = np.where(w > 0, x, 0)
    n = w.sum(reduced, keepdims=True)
    seen = np.where(n > 0, n, 1)
    mean = (w * x).sum(reduced, keepdims=True) / seen
    var = (w * (x - mean) ** 2).sum(reduced, keepdims=True) / seen
    return n, mean, var


def normalize(x, mean, var, scale, bias, features, epsilon):
    """γ·(x−μ)/√(σ²+ε) + β, with μ and σ² in the rank of x."""
    x = np.asarray(x, np.float64)
    normalized = (x - mean) / np.sqrt(var + epsilon)
    gamma, beta = (affine(each, features, x.ndim) for each in (scale, bias))
    return gamma * normalized + beta


def norm_by_own_moments(
    x, scale, bias, g, *, reduced, features, epsilon, weights, about_zero=False
):
    """A norm by the moments of x; Ioffe & Szegedy 2015, section 3, with weights.

    About 0, no mean is subtracted or differentiated.
    """
    x, g = np.asarray(x, np.float64), np.asarray(g, np.float64)
    n, mean, var = moments(x, reduced, weights)
    if about_zero:
        mean, var = np.zeros_like(mean), var + mean**2
    y = normalize(x, mean, var, scale, bias, features, epsilon)
    w = np.broadcast_to(
        1.0 if weights is None else np.asarray(weights, np.float64), x.shape
    )
    inverse = 1 / np.sqrt(var + epsilon)
    normalized = (x - mean) * inverse
    h = g * affine(scale, features, x.ndim)
    sums = 0 if about_zero else h.sum(reduced, keepdims=True)
    products = (h * normalized).sum(reduced, keepdims=True)
    dx = inverse * (h - w / n * (sums + normalized * products))
    largest = np.abs(h * inverse).max()
    dscale = summed_to(g * normalized, scale, features)
    return Oracle(y, dx, dscale, summed_to(g, bias, features), largest)


def group_norm(x, scale, bias, g, *, reduced, features, groups, epsilon, weights):
    """Group norm, with one axis of groups and another of the features in a group.

    Wu & He 2018, section 3.1.
    """
    others = tuple(each for each in range(x.ndim) if each not in features)
    order = (*others, *features)
    sizes = tuple(x.shape[each] for each in order)

    def split(array):
        array = np.broadcast_to(np.asarray(array, np.float64), x.shape).transpose(order)
        return array.reshape(*sizes[: len(others)], groups, -1)

    def join(array):
        return array.reshape(sizes).transpose(np.argsort(order))

    last = (len(others), len(others) + 1)
    found = norm_by_own_moments(
        split(x),
        *(split(affine(each, features, x.ndim)) for each in (scale, bias)),
        split(g),
        reduced=(*(others.index(each) for each in reduced), last[1]),
        features=last,
        epsilon=epsilon,
        weights=None if weights is None else split(weights),
    )
    return Oracle(
        join(found.y),
        join(found.dx),
        summed_to(join(found.dscale), scale, features),
        summed_to(join(found.dbias), bias, features),
        found.largest_term,
    )


def norm_by_given_moments(x, scale, bias, g, *, mean, var, features, epsilon):
    """A norm by given moments, with the rank of x: an affine map."""
    x, g = np.asarray(x, np.float64), np.asarray(g, np.float64)
    y = normalize(x, mean, var, scale, bias, features, epsilon)
    inverse = 1 / np.sqrt(var + epsilon)
    dx = g * affine(scale, features, x.ndim) * inverse
    dscale = summed_to(g * (x - mean) * inverse, scale, features)
    return Oracle(y, dx, dscale, summed_to(g, bias, features), np.abs(dx).max())


def filter_response_norm(
    x, scale, bias, g, *, threshold, learned_epsilon, reduced, features, epsilon, weights
):
    """Singh & Krishnan 2019, equations 1 to 3, with ε + |εₗ| in place of ε."""
    options = {
        "reduced": reduced,
        "features": features,
        "epsilon": epsilon + abs(learned_epsilon),
        "weights": weights,
        "about_zero": True,
    }
    y = norm_by_own_moments(x, scale, bias, g, **options).y
    found = norm_by_own_moments(x, scale, bias, np.where(y > threshold, g, 0), **options)
    return found._replace(y=np.maximum(y, threshold))


def batch_renorm(
    x, scale, bias, g, *, mean, var, r_max, d_max, reduced, features, epsilon, weights
):
    """Ioffe 2017, algorithm 1; mean and var are the running ones of the features.

    r and d are constants, so that it is batch norm with scale γ·r and bias β + γ·d.
    """
    _, batch_mean, batch_var = moments(x, reduced, weights)
    shape = tuple(x.shape[each] for each in features)
    deviation = np.sqrt(var + epsilon)
    r = np.clip(np.sqrt(batch_var.reshape(shape) + epsilon) / deviation, 1 / r_max, r_max)
    d = np.clip((batch_mean.reshape(shape) - mean) / deviation, -d_max, d_max)
    r, d = (along(each, features, np.ndim(x)) for each in (r, d))
    gamma, beta = (affine(each, features, np.ndim(x)) for each in (scale, bias))
    found = norm_by_own_moments(
        x,
        gamma * r,
        beta + gamma * d,
        g,
        reduced=reduced,
        features=features,
        epsilon=epsilon,
        weights=weights,
    )
    return found._replace(
        dscale=(found.dscale * r + found.dbias * d).reshape(np.shape(scale)),
        dbias=found.dbias.reshape(np.shape(bias)),
    )
