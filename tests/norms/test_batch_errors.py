"""Errors of batch norm, and the fixes that they suggest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnorm import Statistics, batch_norm, ema

START = ema(0.9).init((3,))
X = jnp.ones((6, 3))
COMPLEX_STATE = Statistics(jnp.zeros(3, complex), jnp.ones(3, complex))
COMPLEX = jnp.full(3, 1j)
LISTS = Statistics([0.0] * 3, [1.0] * 3)  # pyright: ignore


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: batch_norm(X, START), TypeError, "train"),
        (lambda: batch_norm(X, START, train=None), TypeError, "True or False is expected"),
        (lambda: batch_norm(X, START, train=1), TypeError, "train=1"),
        (
            lambda: batch_norm(X, START, train=True, estimator=ema(0.99), epsilon=-1e-5),
            ValueError,
            "epsilon=-1e-05",
        ),
        (
            lambda: batch_norm(X, START, train=True, estimator=ema(0.99), epsilon=np.nan),
            ValueError,
            "epsilon=nan",
        ),
        (
            lambda: batch_norm(X, START, train=True, estimator=ema(0.99), dtype=int),
            TypeError,
            "floating",
        ),
        (
            lambda: batch_norm(X[:0], START, train=True, estimator=ema(0.99)),
            ValueError,
            "no sample",
        ),
        (
            lambda: batch_norm(X, START, train=True),
            TypeError,
            r"estimator= is missing.*such as estimator=ema\(0.99\), or update=False",
        ),
        (
            lambda: batch_norm(X, START, train=False, update=True),
            TypeError,
            "estimator= is missing",
        ),
        (
            lambda: batch_norm(X, ema(0.9).init((2,)), train=True, estimator=ema(0.99)),
            ValueError,
            r"init\(\(3,\)\)",
        ),
        (
            lambda: batch_norm(X, tuple(START), train=True, estimator=ema(0.99)),
            TypeError,
            r"Statistics\(mean, var\)",
        ),
        (lambda: batch_norm(X, None, train=False), TypeError, r"estimator\.init"),
        (
            lambda: batch_norm(X, COMPLEX_STATE, train=True, estimator=ema(0.99)),
            TypeError,
            "dtypes.*complex64",
        ),
        (
            lambda: batch_norm(X, LISTS, train=True, estimator=ema(0.99)),
            TypeError,
            "an array in each field",
        ),
        (
            lambda: batch_norm(X, START, train=True, estimator=0.9),
            TypeError,
            r"ema\(0\.99\)",
        ),
        (
            lambda: batch_norm(X, START, train=True, estimator=ema(0.99), epsilon=None),
            TypeError,
            "epsilon=None",
        ),
        (
            lambda: batch_norm(X, START, train=True, estimator=ema(0.99), epsilon=X),
            TypeError,
            "Python float",
        ),
        (
            lambda: batch_norm(X, START, COMPLEX, train=True, estimator=ema(0.99)),
            TypeError,
            "scale is complex",
        ),
        (lambda: ema("0.9"), TypeError, "decay='0.9', but a real number"),
        (
            lambda: batch_norm(
                X, START, train=True, estimator=ema(0.99), axis_index_groups=[[0]]
            ),
            ValueError,
            "axis_name= is missing",
        ),
        (
            lambda: jax.jit(lambda t: batch_norm(X, START, train=t, estimator=ema(0.99)))(
                True
            ),
            TypeError,
            "mark it static",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_refused_with_the_mend(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_nothing_is_computed_before_an_error(monkeypatch):
    def never(*_, **__):
        raise AssertionError("computed before the inputs were checked")

    monkeypatch.setattr("jaxnorm.norms.batch.normalize_and_measure", never)
    with pytest.raises(ValueError, match="scale has shape"):
        batch_norm(X, START, jnp.ones(99), train=True, estimator=ema(0.99))
