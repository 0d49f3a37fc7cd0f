"""Linear probes by SGD follow their formula, and choose on training rows alone."""

import jax
import numpy as np
import pytest

from jaxcl import evaluation
from jaxcl.evaluation import sgd

RATES = (0.01, 0.3, 3.0)
N, CLASSES, BATCH, EPOCHS = 43, 3, 8, 3


def rows(n=N, seed=0):
    """Classes that overlap a little, in rows of three numbers."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    centers = 2 * random.standard_normal((CLASSES, 3))
    h = centers[labels] + random.standard_normal((n, 3))
    return h.astype(np.float32), labels


def by_hand(h, labels, used, rate, orders):
    """SGD with momentum along a cosine, one step at a time, float64."""
    h = np.asarray(h, np.float64)
    weight, bias = np.zeros((h.shape[1], CLASSES)), np.zeros(CLASSES)
    moved_w, moved_b = np.zeros_like(weight), np.zeros_like(bias)
    steps = len(h) // BATCH
    t, total = 0, steps * len(orders)
    for order in orders:
        for j in range(steps):
            batch = [i for i in order[j * BATCH : (j + 1) * BATCH] if used[i]]
            gradient_w, gradient_b = np.zeros_like(weight), np.zeros_like(bias)
            for i in batch:
                p = np.exp(h[i] @ weight + bias)
                p /= p.sum()
                p[labels[i]] -= 1
                gradient_w += np.outer(h[i], p) / len(batch)
                gradient_b += p / len(batch)
            moved_w = 0.9 * moved_w + gradient_w
            moved_b = 0.9 * moved_b + gradient_b
            falling = rate * (1 + np.cos(np.pi * t / total)) / 2
            weight, bias = weight - falling * moved_w, bias - falling * moved_b
            t += 1
    return weight, bias


@pytest.fixture(scope="module")
def swept():
    h, labels = rows()
    options = {"num_classes": CLASSES, "learning_rates": RATES, "epochs": EPOCHS}
    options |= {"batch_size": BATCH, "validation": 0.2, "seed": 5}
    return h, labels, options, evaluation.sgd_probe(h, labels, **options)


def test_the_layer_is_that_of_the_formula_for_the_same_batches(swept):
    h, labels, _, found = swept
    key = jax.random.key(5)
    orders = [np.asarray(sgd._order(key, e, N)) for e in range(EPOCHS)]
    assert all(sorted(order) == list(range(N)) for order in orders)
    everything, held_out = np.ones(N, bool), evaluation.hold_out(labels, 0.2, 5)
    expected = by_hand(h, labels, everything, found.learning_rate, orders)
    np.testing.assert_allclose(found.probe.weight, expected[0], rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(found.probe.bias, expected[1], rtol=2e-4, atol=2e-5)
    # Rates are compared on rows that their layers have not seen.
    accuracies, nats = [], []
    for rate in RATES:
        weight, bias = by_hand(h, labels, ~held_out, rate, orders)
        logits = h[held_out] @ weight + bias
        accuracies.append((logits.argmax(1) == labels[held_out]).mean())
        logits -= logits.max(1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        nats.append(-log_p[np.arange(len(log_p)), labels[held_out]].mean())
    np.testing.assert_allclose(found.validation, accuracies)
    best = max(range(len(RATES)), key=lambda i: (accuracies[i], -nats[i]))
    assert found.learning_rate == RATES[best]
    assert found.learning_rates == RATES


def test_augmented_representations_that_are_the_same_give_the_same_probe(swept):
    h, labels, options, found = swept
    asked = []

    def draw(places, key):
        asked.append((tuple(places), tuple(np.asarray(jax.random.key_data(key)))))
        return jax.numpy.asarray(h[places])

    again = evaluation.augmented_probe(draw, h, labels, **options)
    np.testing.assert_allclose(again.probe.weight, found.probe.weight, atol=1e-5)
    assert again.learning_rate == found.learning_rate
    assert again.validation == found.validation
    # Each row once in an epoch at most, and another key at every step.
    steps = N // BATCH
    assert len(asked) == len({key for _, key in asked}) == EPOCHS * steps
    first = [place for places, _ in asked[:steps] for place in places]
    assert len(set(first)) == steps * BATCH
    with pytest.raises(ValueError, match=r"draw must return \[8, 3\].*got \[8, 2\]"):
        evaluation.augmented_probe(
            lambda places, key: jax.numpy.asarray(h[places, :2]), h, labels, **options
        )


def test_a_rate_that_is_far_too_large_is_not_chosen():
    h, labels = rows(60, seed=1)

    def sweep(*rates):
        return evaluation.sgd_probe(
            1e4 * h, labels, num_classes=CLASSES, learning_rates=rates, epochs=20
        )

    found = sweep(1e-8, 1e30)
    assert found.learning_rate == 1e-8
    assert np.isfinite(found.probe.weight).all()
    # Where all are, there is no layer, and not one that says class 0.
    with pytest.raises(FloatingPointError, match=r"got none of 1e\+36, 1e\+37"):
        sweep(1e36, 1e37)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"validation": 1.0}, r"validation must lie in \(0, 1\), got 1"),
        ({"validation": 0.99}, "validation must leave a row of every class to learn"),
        ({"learning_rates": ()}, "learning_rates must be one rate or several"),
        ({"learning_rates": (0.1, -1.0)}, "learning_rates must"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1"),
        ({"epochs": 0}, "epochs must"),
        ({"num_classes": 2}, "train_labels must"),
    ],
)
def test_wrong_arguments_are_refused_by_name(changes, words):
    h, labels = rows()
    with pytest.raises(ValueError, match=words):
        evaluation.sgd_probe(h, labels, **{"num_classes": CLASSES, **changes})


def test_a_class_of_one_row_cannot_both_be_learned_and_choose():
    labels = np.array([0, 0, 0, 1])
    with pytest.raises(ValueError, match=r"every class .* with 1 of class 1"):
        evaluation.hold_out(labels, 0.1, 0)


def test_a_share_of_labels_is_one_of_every_class_and_depends_on_the_seed():
    labels = np.repeat([0, 1, 2], [10, 100, 1])
    drawn = evaluation.share_of_labels(labels, 0.1, 3)
    assert np.bincount(labels[drawn]).tolist() == [1, 10, 1]
    again = evaluation.share_of_labels(labels, 0.1, 3)
    np.testing.assert_array_equal(drawn, again)
    assert drawn.tolist() != evaluation.share_of_labels(labels, 0.1, 4).tolist()
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\], got 0"):
        evaluation.share_of_labels(labels, 0.0, 3)
