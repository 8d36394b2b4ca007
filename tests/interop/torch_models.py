"""Torch's modules as functions of NumPy arrays; importing this file needs torch."""

import numpy as np
import torch


def state_of(module):
    """What is saved of a module."""
    return {name: value.numpy().copy() for name, value in module.state_dict().items()}


def randomize(module, seed=0):
    """Every parameter and statistic at random, variances positive."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                drawn = rng.normal(1.0, 0.5, value.shape).astype(np.float32)
                value.copy_(torch.from_numpy(np.abs(drawn) if "var" in name else drawn))


def train(module, batches):
    """The outputs of the last batch in training, the parameters being fixed."""
    module.train()
    with torch.no_grad():
        for x in batches:
            y = module(torch.from_numpy(x))
    return y.numpy()


def descend(module, batches):
    """A step of gradient descent on each batch."""
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), 0.01)
    for x in batches:
        optimizer.zero_grad()
        module(torch.from_numpy(x)).square().mean().backward()
        optimizer.step()


def evaluate(module, x):
    """The outputs of evaluation."""
    with torch.no_grad():
        return module.eval()(torch.from_numpy(x)).numpy()


def first(x):
    """Channels first, as torch has them."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


def last(x):
    """Channels last, as Flax has them."""
    return np.moveaxis(x, 1, -1)
