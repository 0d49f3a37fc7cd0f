"""Kernel-InfoNCE, https://arxiv.org/abs/2303.15103: its identities, one by one.

The names are labels of our own list of testable consequences, derived from the theory
(M: Markov random fields, L: Laplacian, G: gradients, E: losses, X: maximum entropy, K:
CLIP's pair graph). The paper prints few of them in this form; where a test says
"code", it means the authors' repository. P, Q, H and R are

    P_ij = pi_ij / sum_l pi_il,    Q_ij = k_ij / sum_{l != i} k_il,
    H = -sum_ij P_ij log Q_ij,     R = prod_i sum_{j != i} k_ij.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import graphs, kernels, losses
from tests import oracles

TAU = 0.4
N, D = 7, 3

pytestmark = pytest.mark.usefixtures("x64")


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def random_graph(n=N, seed=1):
    """Weights that are neither symmetric nor normalized, without loops."""
    pi = np.random.default_rng(seed).uniform(0.1, 1, (n, n))
    np.fill_diagonal(pi, 0)
    return pi


def free(power=2.0, temperature=2 * TAU):
    """A kernel of vectors that need not have length one."""
    return kernels.exponential(power, temperature, normalize=False)


def rows(z, pi, kernel=None):
    kernel = kernel or free()
    return losses.graph_cross_entropy(jnp.asarray(z), jnp.asarray(pi), kernel=kernel)


def distances(z):
    return np.linalg.norm(z[:, None] - z[None], axis=-1)


def gram(z, power=2.0, temperature=2 * TAU):
    """The kernel's matrix with a zero diagonal."""
    k = np.exp(-(distances(z) ** power) / temperature)
    np.fill_diagonal(k, 0)
    return k


def normalized(w):
    return w / w.sum(axis=1, keepdims=True)


def cross_entropy(p, q):
    """Of each row; 0 log 0 = 0."""
    return -(p * np.log(np.where(p > 0, q, 1))).sum(axis=1)


def subgraphs(n):
    """All subgraphs in which every node has one outgoing edge: its targets [n]."""
    return itertools.product(*([j for j in range(n) if j != i] for i in range(n)))


def weight(w, targets):
    return np.prod([w[i, j] for i, j in enumerate(targets)])


def adjacency(targets):
    w = np.zeros((len(targets), len(targets)))
    w[np.arange(len(targets)), targets] = 1
    return w


# The Markov random fields. ------------------------------------------------------


def test_m1_subgraphs_have_probability_one_and_the_normalized_graph_as_their_mean():
    pi = random_graph(4)
    weights = {w: weight(pi, w) for w in subgraphs(4)}
    assert len(weights) == 3**4
    total = sum(weights.values())
    mean = sum(p / total * adjacency(w) for w, p in weights.items())
    np.testing.assert_allclose(mean.sum(), 4, rtol=1e-14)
    np.testing.assert_allclose(mean, graphs.row_normalize(pi), rtol=1e-13, atol=1e-15)


def test_m2_the_partition_function_is_a_product_over_rows():
    k = gram(random(5, D))
    enumerated = sum(weight(k, w) for w in subgraphs(5))
    np.testing.assert_allclose(enumerated, k.sum(axis=1).prod(), rtol=1e-13)


def test_m3_the_loss_is_the_expected_surprise_of_a_subgraph():
    z, pi = random(4, D), random_graph(4)
    k = gram(z)
    pairs = [(weight(pi, w), weight(k, w)) for w in subgraphs(4)]
    of_pi, of_k = np.array(pairs).T
    surprise = -(of_pi / of_pi.sum()) @ np.log(of_k / of_k.sum())
    np.testing.assert_allclose(rows(z, pi).sum(), surprise, rtol=1e-12)
    # Attraction along the edges, and repulsion from everyone.
    p = normalized(pi)
    attraction = (p * distances(z) ** 2).sum() / (2 * TAU)
    np.testing.assert_allclose(
        surprise, attraction + np.log(k.sum(axis=1)).sum(), rtol=1e-12
    )
    np.testing.assert_allclose(rows(z, pi), cross_entropy(p, normalized(k)), rtol=1e-12)


def test_m4_the_loss_exceeds_the_entropy_by_the_divergence():
    z, pi = random(N, D), random_graph()
    p, q = normalized(pi), normalized(gram(z))
    divergence = (p * np.log(np.where(p > 0, p / np.where(q > 0, q, 1), 1))).sum(axis=1)
    np.testing.assert_allclose(
        rows(z, pi) - cross_entropy(p, p), divergence, rtol=1e-10, atol=1e-12
    )
    assert (divergence > 0.01).all()
    np.testing.assert_allclose(rows(z, gram(z)), cross_entropy(q, q), rtol=1e-12)


def test_m5_graphs_are_distributions_and_the_scale_of_a_row_means_nothing():
    z, pi = random(N, D), random_graph()
    for w in (pi, gram(z)):
        p = graphs.similarity_graph(w)
        np.testing.assert_allclose(p.sum(1), 1, rtol=1e-14)
        np.testing.assert_array_equal(np.diag(p), 0)
    scaled = pi * np.arange(1, N + 1)[:, None]
    np.testing.assert_allclose(
        graphs.similarity_graph(scaled), graphs.similarity_graph(pi), rtol=1e-14
    )
    np.testing.assert_allclose(rows(z, scaled), rows(z, pi), rtol=1e-13)


def test_m6_one_drawn_positive_per_row_costs_the_loss_on_average():
    z, pi = random(N, D), random_graph()
    pi[2, 1:4] = 0  # some pairs are never drawn
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = jax.vmap(lambda key: graphs.sample_neighbors(key, jnp.asarray(pi)))(keys)
    log_q = np.log(normalized(gram(z)) + np.eye(N))
    sampled = -log_q[np.arange(N), np.asarray(drawn)].sum(axis=1)
    error = sampled.std(ddof=1) / np.sqrt(len(keys))
    assert error < 0.2  # of a sum of about 20
    assert abs(sampled.mean() - float(rows(z, pi).sum())) < 4 * error
    # Row by row the frequencies are P, and what has no weight is never drawn.
    drawn = np.asarray(drawn)
    frequency = (drawn[..., None] == np.arange(N)).mean(axis=0)
    np.testing.assert_allclose(frequency, normalized(pi), atol=4 * 0.5 / np.sqrt(4000))
    np.testing.assert_array_equal(frequency[pi == 0], 0)


def test_m6_rows_without_edges_draw_nobody():
    pi = random_graph()
    pi[3] = 0
    drawn = graphs.sample_neighbors(jax.random.key(1), jnp.asarray(pi))
    assert int(drawn[3]) == -1
    assert (np.delete(drawn, 3) >= 0).all()


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_m7_motions_renumbering_and_units_change_nothing(power):
    z, pi = random(N, D), random_graph()
    kernel = free(power)
    rotation = np.linalg.qr(random(D, D, seed=2))[0]
    moved = z @ rotation + random(1, D, seed=3)
    np.testing.assert_allclose(rows(moved, pi, kernel), rows(z, pi, kernel), rtol=1e-12)
    order = np.random.default_rng(4).permutation(N)
    np.testing.assert_allclose(
        rows(z[order], pi[np.ix_(order, order)], kernel),
        rows(z, pi, kernel)[order],
        rtol=1e-12,
    )
    c = 1.7
    np.testing.assert_allclose(
        rows(c * z, pi, kernel),
        rows(z, pi, free(power, 2 * TAU / c**power)),
        rtol=1e-12,
    )


# The Laplacian. -----------------------------------------------------------------


def trace(z, w):
    return np.trace(z.T @ np.asarray(graphs.laplacian(w)) @ z)


def test_l1_the_quadratic_form_needs_symmetry_or_equal_lengths():
    z, p = random(N, D), normalized(random_graph())
    symmetric = np.asarray(graphs.symmetrize(p))
    squares = (p * distances(z) ** 2).sum()
    np.testing.assert_allclose(squares, 2 * trace(z, symmetric), rtol=1e-12)
    of_symmetric = (symmetric * distances(z) ** 2).sum()
    np.testing.assert_allclose(of_symmetric, 2 * trace(z, symmetric), rtol=1e-12)
    unit = oracles.unit(z)
    on_sphere = (p * distances(unit) ** 2).sum()
    np.testing.assert_allclose(on_sphere, 2 * trace(unit, p), rtol=1e-12)
    # Off the sphere an asymmetric P has another form, by exactly this much.
    surplus = (p.sum(axis=0) - p.sum(axis=1)) @ (z**2).sum(axis=1)
    assert abs(surplus) > 0.1
    np.testing.assert_allclose(squares, 2 * trace(z, p) + surplus, rtol=1e-12)


def test_l2_the_gaussian_loss_is_a_trace_plus_a_repulsion():
    z, pi = random(N, D), random_graph()
    symmetric = graphs.symmetrize(graphs.similarity_graph(pi))
    repulsion = np.log(gram(z).sum(axis=1)).sum()
    np.testing.assert_allclose(
        rows(z, pi).sum(), trace(z, symmetric) / TAU + repulsion, rtol=1e-12
    )
    # Without 1 / tau, as the theorem is usually told, the numbers differ.
    assert abs(float(rows(z, pi).sum()) - trace(z, symmetric) - repulsion) > 0.1


def test_l3_the_laplacian_has_a_zero_eigenvalue_for_each_component():
    w = np.zeros((9, 9))
    for part in ([0, 1, 2, 3], [4, 5, 6], [7, 8]):
        w[np.ix_(part, part)] = random_graph(len(part))
    operator = graphs.laplacian(graphs.symmetrize(graphs.similarity_graph(w)))
    np.testing.assert_allclose(np.asarray(operator) @ np.ones(9), 0, atol=1e-14)
    values = np.linalg.eigvalsh(operator)
    assert values.min() > -1e-14
    assert (values < 1e-10).sum() == 3


def test_l4_the_mean_laplacian_of_subgraphs_is_the_laplacian_of_their_mean():
    pi = random_graph(4)
    total = sum(weight(pi, w) for w in subgraphs(4))
    mean = sum(
        weight(pi, w) / total * (np.diag(adjacency(w).sum(axis=1)) - adjacency(w))
        for w in subgraphs(4)
    )
    expected = graphs.laplacian(graphs.row_normalize(pi))
    np.testing.assert_allclose(mean, expected, rtol=1e-12, atol=1e-14)


def test_l5_the_lowest_eigenvectors_minimize_the_trace():
    w = np.asarray(graphs.symmetrize(graphs.similarity_graph(random_graph())))
    values, vectors = np.linalg.eigh(graphs.laplacian(w))
    least = values[:D].sum()
    np.testing.assert_allclose(trace(vectors[:, :D], w), least, rtol=1e-12)
    for seed in range(20):
        z = np.linalg.qr(random(N, D, seed=seed))[0]
        assert trace(z, w) >= least


# Gradients. ---------------------------------------------------------------------


def gradient(z, pi, kernel):
    return jax.grad(lambda z: rows(z, pi, kernel).sum())(jnp.asarray(z))


def test_g1_the_gaussian_gradient_is_a_laplacian_of_signed_weights():
    z, pi = random(N, D), random_graph()
    difference = normalized(pi) - normalized(gram(z))
    a = difference + difference.T
    expected = (np.diag(a.sum(axis=1)) - a) @ z / TAU
    np.testing.assert_allclose(gradient(z, pi, free()), expected, rtol=1e-10)


@pytest.mark.parametrize("power", [0.5, 1.0, 1.5, 2.0, 3.0])
def test_g2_other_powers_reweigh_it_by_distance(power):
    z, pi = random(N, D), random_graph()
    temperature = 0.7
    difference = normalized(pi) - normalized(gram(z, power, temperature))
    apart = distances(z) + np.eye(N)
    weighted = difference * (power / temperature) * apart ** (power - 2)
    a = weighted + weighted.T
    got = gradient(z, pi, free(power, temperature))
    expected = (np.diag(a.sum(axis=1)) - a) @ z
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_g3_the_gradient_moves_no_center_of_mass(power):
    got = gradient(random(N, D), random_graph(), free(power))
    np.testing.assert_allclose(got.sum(axis=0), 0, atol=1e-12)
    assert np.abs(got).max() > 0.1


# Losses that are the same. --------------------------------------------------------


def code_loss(z1, z2, power, temperature):
    """The code's core loss: exponentials first. Without its epsilons, and with a zero
    diagonal where it subtracts the diagonal from the sum and loses digits."""
    negative = gram(np.concatenate([z1, z2]), power, temperature).sum(axis=1)
    apart = np.linalg.norm(z1 - z2, axis=1)
    positive = np.tile(np.exp(-(apart**power) / temperature), 2)
    return -np.log(positive / negative).mean()


def views(z1, z2):
    return jnp.asarray(np.stack([z1, z2], axis=1))


UNIT_FIRST = oracles.unit(random(5, D, seed=5))
UNIT_SECOND = oracles.unit(random(5, D, seed=6))


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_e1_the_gaussian_is_nt_xent_at_half_the_temperature(temperature):
    pair = views(UNIT_FIRST, UNIT_SECOND)
    expected = code_loss(UNIT_FIRST, UNIT_SECOND, 2, temperature)
    nt_xent = losses.nt_xent(pair, temperature=temperature / 2)
    np.testing.assert_allclose(nt_xent.mean(), expected, rtol=1e-12)
    gaussian = losses.kernel_info_nce(pair, kernel=kernels.gaussian(temperature))
    np.testing.assert_allclose(gaussian, nt_xent, rtol=1e-12)
    # Of other lengths than one, squared distances are not cosines.
    longer = views(1.5 * UNIT_FIRST, 0.5 * UNIT_SECOND)
    raw = losses.kernel_info_nce(longer, kernel=free(2, temperature))
    lengths = code_loss(1.5 * UNIT_FIRST, 0.5 * UNIT_SECOND, 2, temperature)
    np.testing.assert_allclose(raw.mean(), lengths, rtol=1e-12)
    assert abs(lengths - expected) > 0.1


def test_e2_simclr_is_the_graph_that_swaps_two_views():
    b = len(UNIT_FIRST)
    z = np.concatenate([UNIT_FIRST, UNIT_SECOND])
    swap = np.roll(np.eye(2 * b), b, axis=1)
    np.testing.assert_array_equal(swap, graphs.views_graph(jnp.arange(2 * b) % b))
    got = rows(z, swap, kernels.gaussian(2 * TAU))
    expected = losses.nt_xent(views(UNIT_FIRST, UNIT_SECOND), temperature=TAU)
    np.testing.assert_allclose(got, expected.T.ravel(), rtol=1e-12)


def test_e2_more_views_share_the_positive():
    z = random(4, 3, D, seed=7)
    groups = jnp.repeat(jnp.arange(4), 3)
    got = rows(z.reshape(12, D), graphs.views_graph(groups), kernels.cosine(TAU))
    expected = losses.nt_xent(jnp.asarray(z), temperature=TAU)
    np.testing.assert_allclose(got.reshape(4, 3), expected, rtol=1e-12)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_e3_a_longer_vector_is_a_lower_temperature(power):
    mu, temperature = 1.7, 0.5
    longer = np.sqrt(mu) * views(UNIT_FIRST, UNIT_SECOND)
    got = losses.kernel_info_nce(longer, kernel=free(power, temperature))
    lower = kernels.exponential(power, temperature / mu ** (power / 2))
    expected = losses.kernel_info_nce(views(UNIT_FIRST, UNIT_SECOND), kernel=lower)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_e4_common_factors_of_a_sum_of_kernels_cancel():
    pair = views(UNIT_FIRST, UNIT_SECOND)
    one, two = kernels.laplacian(0.5), kernels.gaussian(0.3)

    def loss(*members, weights=None):
        kernel = kernels.kernel_sum(*members, weights=weights)
        return losses.kernel_info_nce(pair, kernel=kernel)

    alone = losses.kernel_info_nce(pair, kernel=one)
    np.testing.assert_allclose(loss(one, one), alone, rtol=1e-12)
    np.testing.assert_allclose(loss(one, two, weights=(1.0, 0.0)), alone, rtol=1e-12)
    mixed = loss(one, two, weights=(0.3, 0.7))
    np.testing.assert_allclose(loss(one, two, weights=(3.0, 7.0)), mixed, rtol=1e-12)
    assert np.abs(mixed - alone).max() > 0.01


def test_e5_a_sum_of_kernels_is_a_mixture_of_softmaxes():
    z, weights = random(N, D), np.array([0.3, 0.7])
    parts = [
        w * gram(z, *member)
        for w, member in zip(weights, [(1, 0.5), (2, 0.3)], strict=True)
    ]
    partition = np.stack([k.sum(axis=1) for k in parts])
    rho = partition / partition.sum(axis=0)
    softmaxes = np.stack([normalized(k) for k in parts])
    mixture = (rho[:, :, None] * softmaxes).sum(axis=0)
    np.testing.assert_allclose(mixture, normalized(sum(parts)), rtol=1e-12)
    # The library's loss is that of the mixture, and Jensen bounds it, row by row.
    members = free(1.0, 0.5), free(2.0, 0.3)
    of_sum = kernels.kernel_sum(*members, weights=tuple(weights))
    swap = np.roll(np.eye(N), 1, axis=1)
    got = np.asarray(rows(z, swap, of_sum))
    np.testing.assert_allclose(got, cross_entropy(swap, mixture), rtol=1e-12)
    bound = sum(
        r * np.asarray(rows(z, swap, m)) for r, m in zip(rho, members, strict=True)
    )
    assert (got <= bound + 1e-12).all()
    assert (got < bound - 1e-4).any()


def code_sum(pair, weight, power, temperature):
    """The code's "sum": a mean of two losses, the logarithm outside."""

    def loss(power):
        kernel = kernels.exponential(power, temperature)
        return losses.kernel_info_nce(pair, kernel=kernel).mean()

    return weight * loss(power) + (1 - weight) * loss(2)


def code_product(first, second, weight, power, temperature):
    """The code's "product": `power` on the first half, the Gaussian on the second."""

    def loss(pair, power):
        return losses.kernel_info_nce(pair, kernel=free(power, temperature)).mean()

    return weight * loss(first, power) + (1 - weight) * loss(second, 2)


def test_e6_the_code_s_sum_ends_in_its_two_losses():
    pair = views(UNIT_FIRST, UNIT_SECOND)
    for weight, power, alone in [(1, 1, 1), (0, 1, 2), (0.3, 2, 2), (0.8, 2, 2)]:
        expected = code_loss(UNIT_FIRST, UNIT_SECOND, alone, 0.5)
        got = code_sum(pair, weight, power, 0.5)
        np.testing.assert_allclose(got, expected, rtol=1e-12)


# Identity E9's vectors; the kernels' own values are in tests/losses/golden_test.py.
def circle(*degrees):
    angle = np.deg2rad(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


ON_CIRCLE = circle(0, 90, 200), circle(30, 150, 230)
OTHER_HALF = circle(10, 100, 250), circle(40, 120, 300)


def test_e7_the_code_s_sum_is_not_the_sum_of_kernels():
    of_kernels = kernels.kernel_sum(
        kernels.laplacian(0.5), kernels.gaussian(0.5), weights=(0.3, 0.7)
    )
    inside = losses.kernel_info_nce(views(*ON_CIRCLE), kernel=of_kernels).mean()
    outside = code_sum(views(*ON_CIRCLE), 0.3, 1, 0.5)
    np.testing.assert_allclose(inside, 0.4838748778068001, rtol=1e-14)
    np.testing.assert_allclose(outside, 0.4941977511054736, rtol=1e-14)


def test_e8_only_the_product_over_halves_is_the_kernel_of_the_whole():
    z = np.asarray(kernels.unit(jnp.asarray(random(6, 4))))
    halves = np.split(z, 2, axis=1)
    assert np.abs(np.linalg.norm(halves[0], axis=1) - 1).min() > 1e-3
    whole = np.asarray(kernels.gaussian(0.5)(z, z))
    members = kernels.gaussian(0.5), kernels.gaussian(0.5)
    parts = [np.asarray(free(2.0, 0.5)(half, half)) for half in halves]
    np.testing.assert_allclose(sum(parts), whole, atol=1e-12)
    of_sum = np.asarray(kernels.concatenation_sum(*members)(z, z))
    np.testing.assert_allclose(of_sum, np.logaddexp(*parts), atol=1e-12)
    assert np.abs(of_sum - whole).max() > 0.1


def test_e9_the_code_s_losses_have_their_golden_values():
    first, second = (views(*z) / jnp.sqrt(2.0) for z in (ON_CIRCLE, OTHER_HALF))
    product = code_product(first, second, 0.3, 1, 0.5)
    np.testing.assert_allclose(product, 0.5721562830640984, rtol=1e-14)
    np.testing.assert_allclose(
        code_sum(views(*ON_CIRCLE), 0.3, 1, 0.5), 0.4941977511054736, rtol=1e-14
    )
    # Of one kernel the code's loss is ours.
    for power in (0.5, 1, 2):
        expected = code_loss(*ON_CIRCLE, power, 0.5)
        np.testing.assert_allclose(
            code_sum(views(*ON_CIRCLE), 1, power, 0.5), expected, rtol=1e-13
        )


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_e10_kernels_up_to_the_gaussian_are_positive_definite(power):
    z = jnp.asarray(random(30, 2))
    values = np.linalg.eigvalsh(np.exp(free(power, 1.0)(z, z)))
    assert values.min() >= -1e-10


def test_e10_a_kernel_of_higher_power_is_not():
    z = jnp.asarray(random(30, 2))
    values = np.linalg.eigvalsh(np.exp(free(3.0, 1.0)(z, z)))
    assert values.min() < -1e-3


# Maximum entropy. ---------------------------------------------------------------


def test_x1_the_softmax_is_the_best_of_the_relaxed_weights():
    psi = random(6, seed=8)

    def objective(alpha, tau, psi=psi):
        logarithm = np.log(np.where(alpha > 0, alpha, 1))
        return psi[0] - alpha @ psi + tau * (alpha @ logarithm)

    def softmax(x):
        return np.exp(x - oracles.log_sum_exp(x))

    tau = 0.3
    best = objective(softmax(psi / tau), tau)
    others = np.random.default_rng(9).dirichlet(np.ones(6), 500)
    assert min(objective(alpha, tau) for alpha in [*others, *np.eye(6)]) > best
    np.testing.assert_allclose(best, tau * np.log(softmax(psi / tau)[0]), rtol=1e-12)
    shifted = psi + 5
    np.testing.assert_allclose(
        objective(softmax(shifted / tau), tau, shifted), best, rtol=1e-12
    )
    cold = 1e-3
    np.testing.assert_allclose(
        objective(softmax(psi / cold), cold), psi[0] - psi.max(), atol=1e-6
    )
    # It is -tau InfoNCE: a query whose dot products with six keys are psi.
    query, keys = jnp.eye(1, 6), np.concatenate([psi[:, None], random(6, 5)], axis=1)
    s = kernels.dot(tau)(query, jnp.asarray(keys))[0]
    info_nce = oracles.log_sum_exp(s) - s[0]
    np.testing.assert_allclose(best, -tau * info_nce, rtol=1e-12)


# CLIP's pair graph. -------------------------------------------------------------


def bipartite(images, texts, w, kernel):
    """Cross-entropies of both directions on CLIP's pair graph: [a] and [b].

    Denominators run over the other modality, which is what makes it CLIP.
    """
    graph = np.asarray(graphs.pair_graph(w))
    a = len(images)
    s = np.asarray(kernel(jnp.asarray(images), jnp.asarray(texts)))
    k = np.exp(s)
    to_text = cross_entropy(graph[:a, a:], normalized(k))
    to_image = cross_entropy(graph[a:, :a], normalized(k.T))
    return to_text, to_image


@pytest.mark.parametrize(
    "kernel", [kernels.cosine(TAU), kernels.gaussian(2 * TAU)], ids=["dot", "gaussian"]
)
def test_k1_the_loss_on_one_to_one_pairs_is_clip(kernel):
    m = len(UNIT_FIRST)
    to_text, to_image = bipartite(UNIT_FIRST, UNIT_SECOND, np.eye(m), kernel)
    clip = losses.clip(
        jnp.asarray(UNIT_FIRST), jnp.asarray(UNIT_SECOND), temperature=TAU
    )
    total = to_text.sum() + to_image.sum()
    np.testing.assert_allclose(total / (2 * m), clip.mean(), rtol=1e-12)
    np.testing.assert_allclose((to_text + to_image) / 2, clip, rtol=1e-12)
    # On all nodes at once, images would also repel images: another loss.
    z = np.concatenate([UNIT_FIRST, UNIT_SECOND])
    assert float(rows(z, graphs.pair_graph(np.eye(m)), kernel).sum()) > total + 1


def test_k2_rows_of_a_pair_graph_are_distributions():
    dogs = np.asarray(graphs.pair_graph(np.ones((10, 1))))
    np.testing.assert_allclose(dogs.sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_allclose(dogs[10], [0.1] * 10 + [0])
    np.testing.assert_array_equal(dogs[:10, 10], 1)
    assert not np.array_equal(dogs, dogs.T)
    w = np.random.default_rng(10).uniform(0, 1, (4, 3)).round()
    w[0] = w[:, 0] = 1
    graph = np.asarray(graphs.pair_graph(w))
    np.testing.assert_allclose(graph.sum(axis=1)[w.sum(axis=1).argmax()], 1)
    assert not graph[:4, :4].any()
    assert not graph[4:, 4:].any()


def of_edges(w, k):
    """-log Q summed over edges, both directions, each edge as likely as any other."""
    return -(w * np.log(normalized(k))).sum() - (w.T * np.log(normalized(k.T))).sum()


def test_k3_edges_drawn_evenly_weigh_nodes_by_their_degree():
    images, texts = oracles.unit(random(4, D)), oracles.unit(random(3, D, seed=1))
    kernel = kernels.cosine(TAU)
    k = np.exp(kernel(jnp.asarray(images), jnp.asarray(texts)))
    w = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 1, 0]], float)
    to_text, to_image = bipartite(images, texts, w, kernel)
    weighted = w.sum(axis=1) @ to_text + w.sum(axis=0) @ to_image
    np.testing.assert_allclose(of_edges(w, k), weighted, rtol=1e-12)
    # Up to a factor the two agree for every Z if all degrees of a side are equal, and
    # for these they do not.
    ratio = of_edges(w, k) / (to_text.sum() + to_image.sum())
    again = np.exp(kernel(jnp.asarray(images), jnp.asarray(-texts)))
    other = bipartite(images, -texts, w, kernel)
    assert abs(of_edges(w, again) / (other[0].sum() + other[1].sum()) - ratio) > 0.01
    square = np.eye(4) + np.roll(np.eye(4), 1, axis=1)
    texts = oracles.unit(random(4, D, seed=1))
    k = np.exp(kernel(jnp.asarray(images), jnp.asarray(texts)))
    both = bipartite(images, texts, square, kernel)
    np.testing.assert_allclose(
        of_edges(square, k), 2 * (both[0].sum() + both[1].sum()), rtol=1e-12
    )


def test_k4_a_text_that_stands_twice_floors_the_loss_and_merging_removes_it():
    basis = np.eye(3)
    images, texts = basis[[0, 0, 1]], basis[[0, 0, 1]]  # texts 0 and 1 are one text
    sharp = kernels.cosine(0.01)
    twice, _ = bipartite(images, texts, np.eye(3), sharp)
    np.testing.assert_allclose(twice, [np.log(2), np.log(2), 0], atol=1e-12)
    clip = losses.clip(jnp.asarray(images), jnp.asarray(texts), temperature=0.01)
    np.testing.assert_allclose(clip, twice, atol=1e-12)
    for seed in range(20):  # whatever the images: probability 1/2 at most
        free_images = random(3, 3, seed=seed)
        to_text, _ = bipartite(free_images, texts, np.eye(3), sharp)
        assert (to_text[:2] >= np.log(2) - 1e-12).all()
    once = np.array([[1, 0], [1, 0], [0, 1]], float)
    to_text, to_image = bipartite(images, basis[:2], once, sharp)
    np.testing.assert_allclose(to_text, 0, atol=1e-12)
    # The merged text spreads over its two images: that is its entropy, not an error.
    np.testing.assert_allclose(to_image, [np.log(2), 0], atol=1e-12)
    # Without merging, `groups` says that the two are not negatives of each other.
    grouped = losses.clip(
        jnp.asarray(images),
        jnp.asarray(texts),
        temperature=0.01,
        groups=jnp.array([0, 0, 1]),
    )
    np.testing.assert_allclose(grouped, 0, atol=1e-12)


# Arguments of the graphs that only these identities use. ------------------------------


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: graphs.symmetrize(np.ones((2, 3))), ValueError, "p must be a square"),
        (lambda: graphs.pair_graph(-np.ones((2, 3))), ValueError, "w must.*negative"),
        (
            lambda: graphs.pair_graph(np.ones(3)),
            ValueError,
            r"w must have shape \[n, m",
        ),
        (
            lambda: graphs.sample_neighbors(jax.random.key(0), -np.ones((2, 2))),
            ValueError,
            "graph must.*negative",
        ),
        (
            lambda: graphs.views_graph(np.ones(3)),
            TypeError,
            "groups must be an integer array",
        ),
        (
            lambda: graphs.views_graph(np.ones((3, 1), int)),
            ValueError,
            r"groups must have shape \[n\]",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_the_graphs_pass_through_jit():
    pi = jnp.asarray(random_graph())
    key = jax.random.key(3)
    for function in (graphs.symmetrize, graphs.pair_graph):
        np.testing.assert_allclose(jax.jit(function)(pi), function(pi), rtol=1e-14)
    draw = jax.jit(graphs.sample_neighbors)
    np.testing.assert_array_equal(draw(key, pi), graphs.sample_neighbors(key, pi))
