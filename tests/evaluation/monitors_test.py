import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import evaluation


def test_a_measure_that_fails_is_left_out_and_the_others_are_not():
    def broken(state):
        raise RuntimeError("no such thing")

    monitors = evaluation.watch({"a": lambda s: s + 1, "b": broken, "c": np.sqrt})
    with pytest.warns(UserWarning, match="monitor 'b' left out: RuntimeError: no such"):
        assert monitors(4) == {"a": 5.0, "c": 2.0}


def test_a_measure_may_answer_anything():
    def exits(state):
        raise SystemExit(3)

    def full(state):
        raise MemoryError

    measures = {
        "exits": exits,
        "full": full,
        "text": lambda s: "no number",
        "two": lambda s: np.ones(2),
        "nothing": lambda s: None,
        "nan": lambda s: np.nan,
    }
    with pytest.warns(UserWarning, match="left out") as warned:
        found = evaluation.watch(measures)(0)
    assert found.keys() == {"nan"}
    assert np.isnan(found["nan"])
    left = [str(each.message).split("'")[1] for each in warned]
    assert left == ["exits", "full", "text", "two", "nothing"]


def test_an_interrupt_is_no_failure_of_a_measure():
    def stopped(state):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluation.watch({"stopped": stopped})(0)


@pytest.mark.parametrize("order", ["sorted", "mixed"])
def test_knn_within_asks_a_fifth_of_every_class_in_any_order(order):
    labels = np.repeat(np.arange(5), 10)
    h = np.eye(15)[labels]
    h[40:] = (
        np.eye(15)[0] + 0.1 * np.eye(15)[5:]
    )  # nearer to class 0 than to each other
    if order == "mixed":
        mixed = np.random.default_rng(1).permutation(50)
        h, labels = h[mixed], labels[mixed]
    assert evaluation.knn_within(h, labels, num_classes=5) == 0.8


@pytest.mark.parametrize("n", [1, 4, 6])
def test_knn_within_a_few_rows_says_that_too_few_answer(n):
    with pytest.raises(ValueError, match=r"k must be at most|must be \[n, r\]"):
        evaluation.knn_within(np.ones((n, 2)), np.arange(n) % 2, num_classes=2)


def test_an_online_probe_is_softmax_regression_whose_gradient_ends_at_h():
    rng = np.random.default_rng(0)
    h = rng.normal(size=(6, 4)).astype(np.float32)
    params = {
        "kernel": rng.normal(size=(4, 3)).astype(np.float32),
        "bias": rng.normal(size=3).astype(np.float32),
    }
    labels = np.array([0, 1, 2, 0, 1, 2])
    wide = h.astype(float) / np.sqrt(np.mean(np.square(h, dtype=float), 1))[:, None]
    logits = wide @ params["kernel"] + params["bias"]
    log_sum = np.log(np.exp(logits).sum(1))
    expected = (log_sum - logits[np.arange(6), labels]).mean()
    loss, accuracy = evaluation.online_probe(params, h, labels)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(accuracy, (logits.argmax(1) == labels).mean(), rtol=1e-6)

    of_params, of_h = jax.grad(
        lambda p, h: evaluation.online_probe(p, h, labels)[0], (0, 1)
    )(params, h)
    probabilities = np.exp(logits - log_sum[:, None])
    probabilities[np.arange(6), labels] -= 1
    np.testing.assert_allclose(
        of_params["kernel"], wide.T @ probabilities / 6, rtol=1e-4, atol=1e-6
    )
    np.testing.assert_array_equal(of_h, 0)


def test_a_representation_of_zeros_is_finite():
    params = evaluation.online_probe_params(4, 3)
    loss, _ = evaluation.online_probe(params, jnp.zeros((2, 4)), jnp.zeros(2, int))
    np.testing.assert_allclose(loss, np.log(3), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_scale_of_h_does_not_matter_to_an_online_probe(scale):
    random = np.random.default_rng(0)
    h, labels = random.normal(size=(6, 4)).astype(np.float32), np.arange(6) % 3
    params = {"kernel": random.normal(size=(4, 3)), "bias": np.zeros(3)}
    params = {name: jnp.asarray(x, jnp.float32) for name, x in params.items()}
    expected = evaluation.online_probe(params, jnp.asarray(h), jnp.asarray(labels))
    scaled = jnp.asarray(h * np.float32(scale))
    found = evaluation.online_probe(params, scaled, jnp.asarray(labels))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
