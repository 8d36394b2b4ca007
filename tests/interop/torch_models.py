"""Torch modules as functions of NumPy arrays; importing this file requires torch."""

import numpy as np
import torch


def state_of(module):
    """The saved state of a module."""
    return {name: value.numpy().copy() for name, value in module.state_dict().items()}


def randomize(module, seed=0):
    """Makes every parameter and statistic random, and variances positive."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                drawn = rng.normal(1.0, 0.5, value.shape).astype(np.float32)
                value.copy_(torch.from_numpy(np.abs(drawn) if "var" in name else drawn))


def train(module, batches):
    """The outputs for the last batch in training, with fixed parameters."""
    module.train()
    with torch.no_grad():
        for x in batches:
            y = module(torch.from_numpy(x))
    return y.numpy()


def descend(module, batches):
    """Takes a step of gradient descent on each batch."""
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), 0.01)
    for x in batches:
        optimizer.zero_grad()
        module(torch.from_numpy(x)).square().mean().backward()
        optimizer.step()


def evaluate(module, x):
    """The outputs in evaluation."""
    with torch.no_grad():
        return module.eval()(torch.from_numpy(x)).numpy()


def first(x):
    """Moves channels first, as in torch."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


def last(x):
    """Moves channels last, as in Flax."""
    return np.moveaxis(x, 1, -1)
