"""SC-InfoNCE: the identities of its specification, by number.

`S` is the matrix of logits, given directly: embeddings whose cosines over the
temperature are S exist for every small enough S (see `_embeddings`).
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcl
from jaxcl import graphs, losses

N, ALPHA, BETA = 5, 0.7, 0.3
TEMPERATURE = 0.5
VARIANTS = ("full", "official", "constant")
RNG = np.random.default_rng(0)
COSINES = RNG.uniform(-0.4, 0.4, (N, N))
S = COSINES / TEMPERATURE
OFF = ~np.eye(N, dtype=bool)

PI = np.full(3, 1 / 3)
TRANSITION = np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.2, 0.3, 0.5]])

pytestmark = pytest.mark.usefixtures("x64")


def _embeddings(s):
    """z1, z2 with cos(z1_i, z2_j) = temperature s_ij: z2 is the standard basis."""
    cosines = s * TEMPERATURE
    rest = jnp.sqrt(1 - (cosines**2).sum(1, keepdims=True))
    return jnp.concatenate([cosines, rest], axis=1), jnp.eye(len(s), len(s) + 1)


def _loss(s, variant="constant", alpha=ALPHA, beta=BETA):
    z1, z2 = _embeddings(s)
    options = {"temperature": TEMPERATURE, "alpha": alpha, "beta": beta}
    return losses.sc_info_nce(z1, z2, variant=variant, **options)


def _info_nce(s):
    return losses.info_nce(*_embeddings(s), temperature=TEMPERATURE)


def _by_logits(loss, s=S):
    """The derivative of the sum of the rows' losses by the logits."""
    return np.asarray(jax.grad(lambda s: loss(s).sum())(jnp.asarray(s)))


def _softmax(s):
    e = np.exp(s - s.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


P = _softmax(S)
P_NEGATIVE = _softmax(np.where(OFF, S, -np.inf))
POSITIVE = np.diag(P)
ODDS = POSITIVE / (1 - POSITIVE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_1_gradients_are_those_of_the_table(variant):
    share = P if variant == "full" else P_NEGATIVE
    expected = np.where(OFF, share + BETA / (N - 1), -ALPHA)
    if variant == "official":
        expected -= np.diag(ODDS)
    got = _by_logits(functools.partial(_loss, variant=variant))
    np.testing.assert_allclose(got, expected, atol=1e-13)


@pytest.mark.parametrize("variant", VARIANTS)
def test_2_row_sums_of_gradients_are_those_of_the_table(variant):
    expected = {
        "full": 1 - POSITIVE - ALPHA + BETA,
        "official": 1 - ODDS - ALPHA + BETA,
        "constant": np.full(N, 1 - ALPHA + BETA),
    }[variant]
    got = _by_logits(functools.partial(_loss, variant=variant)).sum(1)
    np.testing.assert_allclose(got, expected, atol=1e-13)


def test_3_odds_come_from_the_two_potentials():
    negative = np.log(np.exp(np.where(OFF, S, -np.inf)).sum(1))
    np.testing.assert_allclose(ODDS, np.exp(np.diag(S) - negative), rtol=1e-13)
    both = np.logaddexp(negative, np.diag(S))
    np.testing.assert_allclose(both, np.log(np.exp(S).sum(1)), rtol=1e-13)


def test_4_constant_is_decoupled_contrast_plus_two_means():
    negative = np.log(np.exp(np.where(OFF, S, -np.inf)).sum(1))
    decoupled = negative - np.diag(S)
    np.testing.assert_allclose(_loss(S, alpha=1.0, beta=0.0), decoupled, rtol=1e-13)
    mean_negative = np.where(OFF, S, 0).sum(1) / (N - 1)
    expected = decoupled + (1 - ALPHA) * np.diag(S) + BETA * mean_negative
    np.testing.assert_allclose(_loss(S), expected, rtol=1e-12)
    # A true objective: differences of its value are its gradient; not so the others.
    step = 1e-6 * np.eye(N)
    for variant in VARIANTS:
        up, down = (_loss(S + sign * step, variant) for sign in (1, -1))
        differences = np.asarray(up - down) / 2e-6
        gradient = np.diag(_by_logits(functools.partial(_loss, variant=variant)))
        gap = np.abs(differences - gradient).max()
        assert gap < 1e-8 if variant == "constant" else gap > 1e-3


def test_5_adding_a_constant_to_a_row_shifts_its_loss():
    shift = 0.1
    for alpha, beta in ((ALPHA, BETA), (1.2, 0.2)):
        loss = functools.partial(_loss, alpha=alpha, beta=beta)
        moved = loss(S + shift) - loss(S)
        np.testing.assert_allclose(moved, (1 + beta - alpha) * shift, atol=1e-13)


def test_6_constant_is_convex_in_the_logits():
    for seed in range(20):
        a, b = np.random.default_rng(seed).uniform(-0.8, 0.8, (2, N, N))
        middle = (_loss(a) + _loss(b)) / 2 - _loss((a + b) / 2)
        assert (np.asarray(middle) >= -1e-13).all()


def test_7_constant_is_affine_in_alpha_and_beta():
    by_alpha, by_beta = jax.grad(lambda a, b: _loss(S, alpha=a, beta=b).mean(), (0, 1))(
        ALPHA, BETA
    )
    np.testing.assert_allclose(by_alpha, -np.diag(S).mean(), rtol=1e-12)
    np.testing.assert_allclose(by_beta, S[OFF].mean(), rtol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_8_order_and_lengths_do_not_matter_but_sides_do(variant):
    z1, z2 = (jnp.asarray(x) for x in RNG.standard_normal((2, N, 4)))
    loss = functools.partial(
        losses.sc_info_nce, variant=variant, alpha=ALPHA, beta=BETA, temperature=0.5
    )
    plain = loss(z1, z2)
    order = np.array([3, 1, 4, 0, 2])
    np.testing.assert_allclose(loss(z1[order], z2[order]), plain[order], rtol=1e-12)
    lengths = jnp.arange(1.0, N + 1)[:, None]
    np.testing.assert_allclose(loss(z1 * lengths, z2 / lengths), plain, rtol=1e-12)
    assert abs(loss(z2, z1).mean() - plain.mean()) > 1e-3


def test_9_full_with_a_suitable_alpha_has_the_gradient_of_info_nce():
    # alpha belongs to a row there: each row is asked with its own.
    of_rows = [
        _by_logits(functools.partial(_loss, variant="full", alpha=a, beta=0.0))[i]
        for i, a in enumerate(1 - POSITIVE)
    ]
    np.testing.assert_allclose(np.stack(of_rows), _by_logits(_info_nce), atol=1e-13)
    any_alpha = _by_logits(functools.partial(_loss, variant="full", beta=0.0))
    np.testing.assert_allclose(any_alpha[OFF], _by_logits(_info_nce)[OFF], atol=1e-13)


def test_10_official_pulls_positives_by_their_odds_as_well():
    difference = _by_logits(functools.partial(_loss, variant="official")) - _by_logits(
        _loss
    )
    np.testing.assert_allclose(difference, -np.diag(ODDS), atol=1e-13)


def test_12_algebra_of_the_targets():
    same, apart = (np.asarray(x) for x in graphs.pair_distributions(PI, TRANSITION))
    q = PI @ TRANSITION
    ratio = same / apart
    np.testing.assert_allclose(same.sum(1), q, rtol=1e-13)
    np.testing.assert_allclose(ratio @ q, 1, rtol=1e-13)
    eigenvalues = np.linalg.eigvalsh(same / np.sqrt(np.outer(q, q)))
    np.testing.assert_allclose(eigenvalues, [0.0356909, 0.1018848, 1], atol=5e-8)
    targets = [graphs.infonce_target(PI, TRANSITION, n) for n in (4, 1000, 10**6)]
    assert all(((t > 0) & (t < 1)).all() for t in targets)
    assert (targets[0] > targets[1]).all()
    order = np.argsort(ratio, axis=None)
    assert (np.diff(np.asarray(targets[0]).ravel()[order]) >= -1e-15).all()
    np.testing.assert_allclose(targets[2] * (10**6 - 1), ratio, rtol=1e-5)


def _batches(n):
    """All batches of n pairs of states: weights, anchors' and candidates' states."""
    same, _ = graphs.pair_distributions(PI, TRANSITION)
    q = PI @ TRANSITION
    weights, anchors, candidates = [], [], []
    # One anchor with its positive; the other candidates come from other sources.
    for i, j in itertools.product(range(3), repeat=2):
        for others in itertools.product(range(3), repeat=n - 1):
            weights.append(same[i, j] * np.prod(q[list(others)]))
            anchors.append(i)
            candidates.append((j, *others))
    return np.array(weights), np.array(anchors), np.array(candidates)


def _descend(loss, s, steps=4000, rate=2.0):
    step = jax.jit(lambda s: s - rate * jax.grad(loss)(s))
    for _ in range(steps):
        s = step(s)
    return np.asarray(s)


def test_13_the_population_optimum_of_info_nce_is_its_target():
    weights, anchors, candidates = _batches(4)

    def rows(s):
        return s[anchors[:, None], candidates]

    def loss(s):
        logits = rows(s)
        return weights @ (jax.nn.logsumexp(logits, axis=1) - logits[:, 0])

    s = _descend(loss, jnp.zeros((3, 3)))
    same, apart = (np.asarray(x) for x in graphs.pair_distributions(PI, TRANSITION))
    relative = s - np.log(same / apart)
    np.testing.assert_allclose(relative - relative[:, :1], 0, atol=1e-9)
    p = _softmax(np.asarray(rows(jnp.asarray(s))))
    total, occurrences = np.zeros((3, 3)), np.zeros((3, 3))
    for slot in range(4):
        np.add.at(total, (anchors, candidates[:, slot]), weights * p[:, slot])
        np.add.at(occurrences, (anchors, candidates[:, slot]), weights)
    target = graphs.infonce_target(PI, TRANSITION, 4)
    np.testing.assert_allclose(total / occurrences, target, rtol=1e-9)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (1.2, 0.2), (0.9, -0.1)])
def test_13_the_population_optimum_of_constant_is_the_scaled_target(alpha, beta):
    weights, anchors, candidates = _batches(4)

    def rows(s):
        return s[anchors[:, None], candidates]

    def loss(s):
        logits = rows(s)
        negative = jax.nn.logsumexp(logits[:, 1:], axis=1)
        row = negative - alpha * logits[:, 0] + beta * logits[:, 1:].mean(axis=1)
        return weights @ row

    s = _descend(loss, jnp.zeros((3, 3)))
    p = _softmax(np.asarray(rows(jnp.asarray(s)))[:, 1:])
    total, occurrences = np.zeros((3, 3)), np.zeros((3, 3))
    for slot in range(3):
        np.add.at(total, (anchors, candidates[:, 1 + slot]), weights * p[:, slot])
        np.add.at(occurrences, (anchors, candidates[:, 1 + slot]), weights)
    target = graphs.sc_infonce_target(PI, TRANSITION, 4, alpha=alpha, beta=beta)
    np.testing.assert_allclose(total / occurrences, target, rtol=1e-9)


def test_14_without_information_all_targets_are_equal():
    blind = np.tile([0.2, 0.5, 0.3], (3, 1))
    np.testing.assert_allclose(graphs.infonce_target(PI, blind, 4), 1 / 4, rtol=1e-13)
    scaled = graphs.sc_infonce_target(PI, blind, 4, alpha=1.3, beta=0.2)
    np.testing.assert_allclose(scaled, 1.1 / 3, rtol=1e-13)


@pytest.mark.slow
def test_15_sharding_changes_nothing():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    z1, z2 = (jnp.asarray(x) for x in RNG.standard_normal((2, 16, 4)))
    # The variants share what crosses devices: the potential and the mean of negatives.
    loss = functools.partial(losses.sc_info_nce, variant="full", alpha=0.7, beta=0.3)
    np.testing.assert_allclose(
        jaxcl.sharded(loss, mesh)(z1, z2), loss(z1, z2), rtol=1e-12
    )


def test_16_competing_losses_share_their_parts():
    z1, z2 = (jnp.asarray(x) for x in RNG.standard_normal((2, N, 4)))
    t = {"temperature": 0.4}
    of_first = losses.is_info_nce(z1, z2, z1, **t)
    of_second = losses.is_info_nce(z1, z2, z2, **t)
    u = np.asarray(z1 / jnp.linalg.norm(z1, axis=1, keepdims=True))
    v = np.asarray(z2 / jnp.linalg.norm(z2, axis=1, keepdims=True))
    positive = (u * v).sum(1) / 0.4

    def repulsion(w):
        return np.log(np.exp(np.where(OFF, w @ w.T / 0.4, -np.inf)).sum(1))

    np.testing.assert_allclose(of_first, repulsion(u) - positive, rtol=1e-12)
    views = jnp.stack([z1, z2], axis=1)
    np.testing.assert_allclose(
        losses.dhel(views, **t), of_first + of_second + positive, rtol=1e-12
    )
    # f-MICL with the KL divergence on unit vectors, in closed form.
    sigma, a = 0.8, 1.3
    similar = np.exp(-((u[:, None] - u[None]) ** 2).sum(-1) / (2 * sigma**2))
    negative = np.where(OFF, similar, 0).sum(1) / (N - 1)
    expected = (1 - (u * v).sum(1)) / sigma**2 - 1 + a * negative
    got = losses.f_micl(views, bandwidth=sigma, weight=a)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
