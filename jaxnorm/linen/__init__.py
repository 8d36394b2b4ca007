"""Flax Linen modules: parameters and state for the norms of `jaxnorm`.

`import jaxnorm.linen as jn` stands in for `flax.linen` where a norm is made: the
constructor arguments, the names and the shapes of the variables are the same.
"""

from jaxnorm.linen.batch import BatchNorm as BatchNorm
