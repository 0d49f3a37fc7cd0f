"""Wrong arguments of losses: errors that name the argument, what came, what should."""

import jax.numpy as jnp
import pytest

from jaxcl import losses

VIEWS = jnp.ones((4, 2, 3))
X = jnp.ones((4, 3))
LABELS = jnp.arange(4)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: losses.nt_xent(X), ValueError, r"views must have shape \[b, v, d\]"),
        (lambda: losses.nt_xent(VIEWS[:, :1]), ValueError, "at least 2 views"),
        (lambda: losses.nt_xent(VIEWS.astype(int)), TypeError, "views.*dtype int32"),
        (lambda: losses.nt_xent([[1.0]]), TypeError, "views must be an array.*list"),
        (
            lambda: losses.nt_xent(VIEWS, temperature=0),
            ValueError,
            "temperature must be positive and finite, got 0",
        ),
        (
            lambda: losses.nt_xent(VIEWS, valid=jnp.ones(3, bool)),
            ValueError,
            r"valid must have shape \(4,\), got \(3,\)",
        ),
        (
            lambda: losses.nt_xent(VIEWS, valid=jnp.ones(4)),
            TypeError,
            "valid must be a boolean",
        ),
        (
            lambda: losses.nt_xent(VIEWS, impl="fast"),
            ValueError,
            "impl must be one of 'auto', 'reference', 'tiled', got 'fast'",
        ),
        (
            lambda: losses.nt_xent(VIEWS, exchange="carry"),
            ValueError,
            "exchange must be one of 'gather'.*got 'carry'",
        ),
        (lambda: losses.nt_xent(VIEWS, tile=0), ValueError, "tile.*at least 1, got 0"),
        (
            lambda: losses.nt_xent(VIEWS, tile=2.0),
            TypeError,
            "tile.*integer, got float",
        ),
        (
            lambda: losses.kernel_info_nce(VIEWS, kernel=0.5),
            TypeError,
            "kernel must be a kernel.*got float",
        ),
        (lambda: losses.dcl(VIEWS, temperature=-1), ValueError, "temperature.*got -1"),
        (
            lambda: losses.sup_con(X, LABELS.astype(float)),
            TypeError,
            "labels must be an integer array",
        ),
        (
            lambda: losses.sup_con(VIEWS, LABELS),
            ValueError,
            r"z must have shape \[n, d\]",
        ),
        (
            lambda: losses.clip(X, X[:3]),
            ValueError,
            r"images and texts must have one shape, got \(4, 3\) and \(3, 3\)",
        ),
        (
            lambda: losses.info_nce(X, X[:2]),
            ValueError,
            "2 keys for 4 queries",
        ),
        (
            lambda: losses.sc_info_nce(X, X, variant="C"),
            ValueError,
            "variant must be one of 'constant', 'full', 'official', got 'C'",
        ),
        (
            lambda: losses.sc_info_nce(X, X, alpha="1"),
            TypeError,
            "alpha must be a real number, got str",
        ),
        (
            lambda: losses.nt_xent(VIEWS, axis_name="data"),
            ValueError,
            "axis_name 'data' is not bound here",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
