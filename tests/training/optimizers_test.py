import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import parameterized

from jaxcl import models, training
from tests.training import tiny


def by_name(tree):
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


class WeightsTest(parameterized.TestCase):
    @parameterized.parameters(
        (models.resnet18(width=8),),
        (models.resnet50(width=8),),
        (models.ConvEncoder(),),
    )
    def test_kernels_are_weights_and_biases_and_scales_are_not(self, encoder):
        model = models.SimCLR(encoder, models.Projector(batch_norm=False))
        params = jax.eval_shape(
            lambda x: model.init(jax.random.key(0), x, train=False), tiny.example
        )["params"]
        names = by_name(training.is_weight(params))
        self.assertEqual({k.split("'")[-2] for k in names}, {"kernel", "bias", "scale"})
        for name, is_weight in names.items():
            self.assertEqual(is_weight, name.endswith("['kernel']"), name)


class WarmupCosineTest(parameterized.TestCase):
    @parameterized.parameters((0, 7), (3, 10))
    def test_equals_its_formula_at_every_step(self, warmup, total):
        schedule = training.warmup_cosine(0.3, warmup, total)
        for t in range(total + 3):
            done = min((t - warmup) / (total - warmup), 1)
            cosine = 0.3 * (1 + np.cos(np.pi * done)) / 2
            expected = 0.3 * t / warmup if t < warmup else cosine
            np.testing.assert_allclose(schedule(t), expected, rtol=1e-5, atol=1e-7)

    @parameterized.parameters(
        ((0.1, -1, 5), "warmup_steps must be >= 0, got -1"),
        (
            (0.1, 5, 5),
            "total_steps must be more than warmup_steps 5, got 5",
        ),
        ((-0.1, 5, 6), "peak must be a learning rate >= 0, got -0.1"),
    )
    def test_wrong_arguments_are_refused_by_name(self, arguments, message):
        with self.assertRaisesRegex(ValueError, message):
            training.warmup_cosine(*arguments)


class UpdateTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        keys = jax.random.split(jax.random.key(0), 4)
        self.params = {
            "kernel": jax.random.normal(keys[0], (3, 4)),
            "bias": jax.random.normal(keys[1], (4,)),
        }
        self.gradients = [
            {
                "kernel": jax.random.normal(k, (3, 4)),
                "bias": jax.random.normal(k, (4,)),
            }
            for k in keys[2:]
        ]

    def updated(self, tx):
        params, state = self.params, tx.init(self.params)
        # optax raises a float to an integer step.
        with jax.numpy_dtype_promotion("standard"):
            for gradient in self.gradients:
                updates, state = tx.update(gradient, state, params)
                params = optax.apply_updates(params, updates)
        return params

    @parameterized.parameters("kernel", "bias")
    def test_lars_equals_its_formula(self, name):
        tx = training.lars(
            lambda t: 0.5 / (1 + t), weight_decay=0.1, trust_coefficient=0.02
        )
        w = np.asarray(self.params[name], np.float64)
        m = np.zeros_like(w)
        for t, gradients in enumerate(self.gradients):
            g, rate = np.asarray(gradients[name], np.float64), 0.5 / (1 + t)
            if name == "kernel":
                g = g + 0.1 * w
                rate *= 0.02 * np.linalg.norm(w) / np.linalg.norm(g)
            m = 0.9 * m + rate * g
            w = w - m
        np.testing.assert_allclose(self.updated(tx)[name], w, rtol=1e-5)

    @parameterized.parameters("kernel", "bias")
    def test_adamw_equals_its_formula(self, name):
        tx = training.adamw(0.05, weight_decay=0.2)
        w = np.asarray(self.params[name], np.float64)
        m, v = np.zeros_like(w), np.zeros_like(w)
        for t, gradients in enumerate(self.gradients, start=1):
            g = np.asarray(gradients[name], np.float64)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            direction = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            decay = 0.2 * w if name == "kernel" else 0.0
            w = w - 0.05 * (direction + decay)
        np.testing.assert_allclose(self.updated(tx)[name], w, rtol=1e-4)

    def test_a_layer_without_gradient_stays_finite_under_lars(self):
        tx = training.lars(0.5, weight_decay=0.0)
        zeros = jax.tree.map(jnp.zeros_like, self.params)
        updates, _ = tx.update(zeros, tx.init(self.params), self.params)
        for leaf in jax.tree.leaves(updates):
            np.testing.assert_array_equal(leaf, 0.0)
