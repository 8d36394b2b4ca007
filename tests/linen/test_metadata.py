"""Metadata of parameters that an initialiser boxes."""

import chex
import flax.linen as nn
import pytest

import jaxnorm.linen as jn
from tests.modules.apis import KEY, most_different_norms, normal

pytestmark = pytest.mark.usefixtures("lenient")
X = normal(4, 3, 6)


@most_different_norms
def test_partitioning_is_kept_as_flax_keeps_it(norm):
    arguments = {
        "scale_init": nn.with_partitioning(nn.initializers.ones, ("model",)),
        **({"num_groups": 3} if norm == "GroupNorm" else {}),
        **({"use_running_average": True} if norm == "BatchNorm" else {}),
    }
    modules = [getattr(each, norm)(**arguments) for each in (jn, nn)]
    ours, theirs = (module.init(KEY, X) for module in modules)
    assert ours["params"]["scale"].names == ("model",)
    chex.assert_trees_all_equal(ours, theirs)
    assert nn.get_partition_spec(ours) == nn.get_partition_spec(theirs)
    assert modules[0].apply(ours, X).shape == X.shape
