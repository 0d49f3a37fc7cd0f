"""Norms, cosines, rank and retrieval, against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import diagnostics
from tests.diagnostics import oracles

RNG = np.random.default_rng(0)
N, D = 37, 5
Z = RNG.normal(size=(N, D)).astype(np.float32) + 0.5
KEYS = (Z + 0.8 * RNG.normal(size=(N, D))).astype(np.float32)
KEEP = np.arange(N) % 5 != 3


def _spoiled(z):
    """What is not valid holds NaN."""
    return jnp.asarray(np.where(KEEP[:, None], z, np.nan))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["norm_cv", "effective_rank", "uniformity_cosine"])
def test_equals_the_formula(name, masked):
    function = getattr(diagnostics, name)
    got = function(_spoiled(Z), valid=KEEP) if masked else function(Z)
    expected = getattr(oracles, name)(Z[KEEP] if masked else Z)
    np.testing.assert_allclose(got, expected, rtol=2e-6)


def test_alignment_is_the_cosine_of_each_pair():
    got = diagnostics.alignment_cosine(_spoiled(Z), KEYS, valid=KEEP)
    expected = (oracles.unit(Z) * oracles.unit(KEYS)).sum(1)
    np.testing.assert_allclose(got, np.where(KEEP, expected, 0), atol=1e-6)


def test_a_thin_shell_is_measured_in_float32():
    radius = 1 + 1e-4 * RNG.normal(size=(1000, 1))
    z = (radius * oracles.unit(RNG.normal(size=(1000, D)))).astype(np.float32)
    got = diagnostics.norm_cv(z)
    np.testing.assert_allclose(got, oracles.norm_cv(z), rtol=1e-3)


@pytest.mark.parametrize("scale", [1e-30, 1e30, 3e38 / abs(Z).max()])
def test_the_scale_of_embeddings_does_not_matter(scale):
    scaled = Z * np.float32(scale)
    own = diagnostics.alignment_cosine(scaled, Z)
    np.testing.assert_allclose(own, np.ones(len(Z)), rtol=1e-6)
    for name in ("norm_cv", "effective_rank"):
        function = getattr(diagnostics, name)
        np.testing.assert_allclose(function(scaled), function(Z), rtol=1e-5)


def test_the_spread_of_nearly_equal_directions_is_measured_in_float32():
    z = (np.ones(64) + 0.03 * RNG.normal(size=(50, 64))).astype(np.float32)
    mean, std = diagnostics.uniformity_cosine(z)
    expected_mean, expected_std = oracles.uniformity_cosine(z)
    assert expected_std < 2e-4
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-6)
    np.testing.assert_allclose(std, expected_std, rtol=2e-3)


@pytest.mark.parametrize("options", [{"impl": "reference"}, {"tile": 16}])
def test_tiles_do_not_change_uniformity(options):
    got = diagnostics.uniformity_cosine(Z, **options)
    np.testing.assert_allclose(got, diagnostics.uniformity_cosine(Z), rtol=2e-6)


def test_one_embedding_has_no_pairs():
    assert np.isnan(diagnostics.uniformity_cosine(Z[:1])).all()


def test_a_subspace_has_the_effective_rank_of_its_embeddings():
    basis = np.linalg.qr(RNG.normal(size=(48, 3)))[0]
    z = (RNG.normal(size=(200, 3)) @ basis.T).astype(np.float32)
    got = diagnostics.effective_rank(z)
    expected = oracles.effective_rank(z @ basis)
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_fewer_embeddings_than_coordinates_have_a_rank_too():
    z = Z[:3]
    got = diagnostics.effective_rank(z)
    np.testing.assert_allclose(got, oracles.effective_rank(z), rtol=2e-6)
    np.testing.assert_allclose(
        diagnostics.effective_rank(np.ones((9, 4))), 1, rtol=1e-5
    )


@pytest.mark.parametrize("k", [1, 3, N])
def test_retrieval_equals_sorting_all_keys(k):
    got = diagnostics.retrieval_accuracy(Z, KEYS, k)
    expected = oracles.retrieval_accuracy(Z, KEYS, k)
    assert k == N or 0.1 < expected < 0.95
    np.testing.assert_allclose(got, expected, rtol=1e-6)


# Captions of 9 images, one of which has none, and captions of an image without rows.
OF_QUERY, OF_KEY = RNG.integers(0, 10, N), np.arange(1, 10)
IMAGES = (RNG.normal(size=(9, D)) + 0.5).astype(np.float32)
CAPTIONS = np.where(OF_QUERY[:, None] > 0, IMAGES[OF_QUERY - 1], 0).astype(np.float32)
CAPTIONS += (0.7 * RNG.normal(size=(N, D))).astype(np.float32)
RANKS = (
    pytest.param(CAPTIONS, IMAGES, OF_QUERY, OF_KEY, id="fewer keys"),
    pytest.param(IMAGES, CAPTIONS, OF_KEY, OF_QUERY, id="several right keys"),
)


@pytest.mark.parametrize(("queries", "keys", "of_query", "of_key"), RANKS)
@pytest.mark.parametrize("options", [{"impl": "reference"}, {"tile": 8}])
def test_ranks_equal_counting_wrong_keys(queries, keys, of_query, of_key, options):
    groups = jnp.asarray(of_query), jnp.asarray(of_key)
    got = diagnostics.retrieval_ranks(queries, keys, groups=groups, **options)
    expected = oracles.retrieval_ranks(queries, keys, of_query, of_key)
    assert len(np.unique(expected)) > 2
    np.testing.assert_array_equal(got, expected)


def test_what_is_not_valid_neither_asks_nor_is_right_nor_wrong():
    keep, key_keep = np.arange(9) % 4 != 1, KEEP
    spoiled = np.where(keep[:, None], IMAGES, np.nan)
    options = {"groups": (OF_KEY, OF_QUERY), "valid": (keep, key_keep)}
    got = diagnostics.retrieval_ranks(spoiled, _spoiled(CAPTIONS), **options)
    expected = oracles.retrieval_ranks(
        IMAGES[keep], CAPTIONS[key_keep], OF_KEY[keep], OF_QUERY[key_keep]
    )
    np.testing.assert_array_equal(got[keep], expected)
    assert np.isinf(got[~keep]).all()
    accuracy = diagnostics.retrieval_accuracy(spoiled, _spoiled(CAPTIONS), 2, **options)
    np.testing.assert_allclose(accuracy, (expected < 2).mean(), rtol=1e-6)


def test_five_captions_of_an_image_are_all_right():
    image = np.eye(4, dtype=np.float32)
    text, of_text = np.repeat(image, 5, 0), np.arange(20) // 5
    for queries, keys, groups in (
        (text, image, (of_text, np.arange(4))),
        (text, text, of_text),  # images repeated for each caption
        (image, text, (np.arange(4), of_text)),
    ):
        assert diagnostics.retrieval_accuracy(queries, keys, groups=groups) == 1
        wrong = jax.tree.map(lambda x: x[::-1], groups)
        collapsed = np.ones_like(queries), np.ones_like(keys)
        assert diagnostics.retrieval_accuracy(*collapsed, 3, groups=wrong) == 0


def test_ranks_of_own_keys_are_those_of_groups_of_one():
    got = diagnostics.retrieval_ranks(Z, KEYS)
    grouped = diagnostics.retrieval_ranks(Z, KEYS, groups=np.arange(N))
    np.testing.assert_array_equal(got, grouped)
    recalls = [diagnostics.retrieval_accuracy(Z, KEYS, k) for k in (1, 3, N)]
    np.testing.assert_allclose([(got < k).mean() for k in (1, 3, N)], recalls, 1e-6)


def test_a_query_without_a_right_key_is_not_found():
    groups = np.array([0, 7]), np.array([0, 1])
    ranks = diagnostics.retrieval_ranks(Z[:2], Z[:2], groups=groups)
    np.testing.assert_array_equal(ranks, [0, np.inf])
    got = diagnostics.retrieval_accuracy(Z[:2], Z[:2], 10, groups=groups)
    assert got == 0.5


def test_further_keys_distract():
    more = np.concatenate([KEYS, Z + 0.01])
    got = diagnostics.retrieval_accuracy(Z, more, 2)
    np.testing.assert_allclose(got, oracles.retrieval_accuracy(Z, more, 2), rtol=1e-6)


def test_rows_that_are_not_valid_neither_ask_nor_answer():
    got = diagnostics.retrieval_accuracy(_spoiled(Z), _spoiled(KEYS), valid=KEEP)
    expected = oracles.retrieval_accuracy(Z[KEEP], KEYS[KEEP], 1)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_collapsed_embeddings_retrieve_nothing():
    for row in RNG.normal(size=(3, D)):
        z = np.tile(row, (N, 1)).astype(np.float32)
        assert diagnostics.retrieval_accuracy(z, z, N - 1) == 0


def test_a_query_that_is_not_a_number_retrieves_nothing():
    queries = KEYS.copy()
    queries[:3] = np.nan
    got = diagnostics.retrieval_accuracy(queries, KEYS, 2)
    np.testing.assert_allclose(got, (N - 3) / N, rtol=1e-6)


def test_the_gradient_of_the_rank_is_that_of_differences(x64):
    z, step = Z.astype(float), 1e-6
    of_rank = jax.jit(jax.grad(diagnostics.effective_rank))
    gradient = of_rank(jnp.asarray(z))
    for i, j in ((0, 0), (7, 4), (20, 2)):
        move = np.zeros_like(z)
        move[i, j] = step
        difference = oracles.effective_rank(z + move) - oracles.effective_rank(z - move)
        np.testing.assert_allclose(gradient[i, j], difference / (2 * step), rtol=1e-6)
    wide = of_rank(jnp.asarray(z[:3]))
    move = np.zeros_like(z[:3])
    move[1, 1] = step
    difference = oracles.effective_rank(z[:3] + move)
    difference -= oracles.effective_rank(z[:3] - move)
    np.testing.assert_allclose(wide[1, 1], difference / (2 * step), rtol=1e-6)


@pytest.mark.parametrize("d", [8, 4096])
def test_a_narrow_cone_is_told_apart_in_any_dimension(d):
    base = RNG.normal(size=(1, d))
    z = (base + 4e-3 * RNG.normal(size=(64, d))).astype(np.float32)
    expected = oracles.retrieval_accuracy(z, z, 1)
    assert expected == 1
    # In few dimensions pairs closer than float32 can tell occur by chance.
    assert diagnostics.retrieval_accuracy(z, z) >= (0.8 if d == 8 else 1)
    collapsed = np.tile(z[:1], (64, 1))
    assert diagnostics.retrieval_accuracy(collapsed, collapsed, 63) == 0


def test_any_integer_may_be_k():
    for k in (np.int64(3), np.int32(3)):
        assert diagnostics.retrieval_accuracy(Z, KEYS, k) == (
            diagnostics.retrieval_accuracy(Z, KEYS, 3)
        )
    assert diagnostics.retrieval_accuracy(Z, KEYS, 10**12) == 1


def test_a_query_that_is_not_a_number_is_not_found_among_all_keys():
    queries = Z.copy()
    queries[0] = np.nan
    got = diagnostics.retrieval_accuracy(queries, KEYS, N)
    np.testing.assert_allclose(got, (N - 1) / N, rtol=1e-6)


def test_norms_of_nothing_do_not_vary_by_zero():
    assert np.isnan(diagnostics.norm_cv(Z, valid=np.zeros(N, bool)))
    assert np.isnan(diagnostics.norm_cv(np.zeros_like(Z)))


def test_gradients_are_finite_where_nothing_varies():
    alike = jnp.eye(3)
    assert diagnostics.norm_cv(alike) == 0
    for z in (alike, alike[:1]):
        np.testing.assert_array_equal(jax.jit(jax.grad(diagnostics.norm_cv))(z), 0)
    same = jnp.tile(alike[:1], (4, 1))
    mean, std = diagnostics.uniformity_cosine(same)
    assert (mean, std) == (1, 0)
    spread = jax.jit(jax.grad(lambda z: diagnostics.uniformity_cosine(z)[1]))
    assert np.isfinite(spread(same)).all()


def test_a_million_embeddings_need_no_square_matrix():
    z = jax.ShapeDtypeStruct((1_000_000, 8), jnp.float32)

    def ranks(z):
        return diagnostics.retrieval_ranks(z, z, groups=jnp.arange(len(z)) // 5)

    for function in (
        diagnostics.uniformity_cosine,
        diagnostics.uniformity_potential,
        ranks,
    ):
        memory = jax.jit(function).lower(z).compile().memory_analysis()
        assert memory.temp_size_in_bytes < 2**30


def test_bfloat16_is_accepted():
    z = jnp.asarray(Z, jnp.bfloat16)
    assert diagnostics.norm_cv(z).dtype == jnp.float32
    assert diagnostics.retrieval_accuracy(z, z).dtype == jnp.float32


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"z must have shape \[n, d\], got \(5,\)"):
        diagnostics.norm_cv(jnp.ones(5))
    with pytest.raises(TypeError, match="z must be a floating array"):
        diagnostics.effective_rank(jnp.ones((5, 2), int))
    with pytest.raises(ValueError, match="z1 and z2 must have one shape"):
        diagnostics.alignment_cosine(Z, KEYS[:3])
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        diagnostics.retrieval_accuracy(Z, KEYS, 0)
    with pytest.raises(TypeError, match="k must be an integer, got float"):
        diagnostics.retrieval_accuracy(Z, KEYS, 1.0)
    with pytest.raises(ValueError, match=r"at least as many rows.* by groups which"):
        diagnostics.retrieval_accuracy(Z, KEYS[:3])
    with pytest.raises(ValueError, match=r"groups of keys must have shape \(3,\)"):
        diagnostics.retrieval_ranks(Z, KEYS[:3], groups=np.arange(N))
    with pytest.raises(TypeError, match="groups of queries must be an integer array"):
        diagnostics.retrieval_ranks(Z, KEYS, groups=Z[:, 0])
    groups = np.arange(N), np.arange(3)
    with pytest.raises(ValueError, match=r"valid of keys must have shape \(3,\)"):
        diagnostics.retrieval_ranks(Z, KEYS[:3], groups=groups, valid=KEEP)
    with pytest.raises(ValueError, match="valid must have shape"):
        diagnostics.norm_cv(Z, valid=np.ones(3, bool))
