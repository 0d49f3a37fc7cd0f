"""`represent` equals one big call, compiles once, and leaves the encoder alone."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxcl import evaluation
from jaxcl.evaluation import representations


def encode(parameters, images):
    hidden = jnp.tanh(images.reshape(len(images), -1) @ parameters["first"])
    return hidden @ parameters["second"]


def make_parameters(seed):
    random = np.random.default_rng(seed)
    return {
        "first": jnp.asarray(random.normal(size=(12, 7)), jnp.float32),
        "second": jnp.asarray(random.normal(size=(7, 5)), jnp.float32),
    }


class RepresentTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.images = np.random.default_rng(0).random((11, 2, 2, 3), np.float32)
        self.parameters = make_parameters(1)

    @parameterized.parameters(1, 4, 11, 64)
    def test_batches_change_nothing(self, batch_size):
        frozen = jax.tree_util.Partial(encode, self.parameters)
        h = evaluation.represent(frozen, self.images, batch_size)
        self.assertIsInstance(h, np.ndarray)
        self.assertEqual((h.shape, h.dtype), ((11, 5), np.float32))
        first, second = jax.device_get(
            (self.parameters["first"], self.parameters["second"])
        )
        expected = np.tanh(self.images.reshape(11, 12).astype("f8") @ first) @ second
        np.testing.assert_allclose(h, expected, rtol=1e-5, atol=1e-5)

    def test_ragged_batches_and_new_parameters_are_one_compilation(self):
        traces = []

        def counted(parameters, images):
            traces.append(images.shape)
            return encode(parameters, images)

        for seed in (1, 2):
            frozen = jax.tree_util.Partial(counted, make_parameters(seed))
            evaluation.represent(frozen, self.images, batch_size=4)
        self.assertEqual(traces, [(4, 2, 2, 3)])

    def test_the_images_reach_encode_as_they_are(self):
        images = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)

        def check(batch):
            self.assertEqual(batch.dtype, np.uint8)
            return batch.reshape(len(batch), -1).astype(jnp.bfloat16)

        h = evaluation.represent(check, images, batch_size=2)
        np.testing.assert_array_equal(h, images.reshape(3, 4).astype(np.float32))

    def test_replicated_parameters_on_eight_devices_change_nothing(self):
        auto = (jax.sharding.AxisType.Auto,)
        mesh = jax.make_mesh((8,), ("data",), axis_types=auto)
        whole = jax.NamedSharding(mesh, jax.P())
        spread = jax.device_put(self.parameters, whole)
        np.testing.assert_allclose(
            evaluation.represent(
                jax.tree_util.Partial(encode, spread), self.images, batch_size=8
            ),
            evaluation.represent(
                jax.tree_util.Partial(encode, self.parameters), self.images, 8
            ),
            rtol=1e-6,
        )

    def test_bad_input_is_named(self):
        def flat(images):
            return images.reshape(len(images), -1)

        cases = [
            (ValueError, "examples must be", flat, self.images[:0], 4),
            (ValueError, "examples must be", flat, np.float32(1), 4),
            (ValueError, "batch_size must be at least 1", flat, self.images, 0),
            (TypeError, "batch_size must be an int", flat, self.images, 2.5),
            (ValueError, r"encode must return \[batch, r\]", jnp.sin, self.images, 4),
            (ValueError, "from 4 examples", lambda x: flat(x)[:2], self.images, 4),
        ]
        for error, message, function, images, batch_size in cases:
            with self.subTest(message), self.assertRaisesRegex(error, message):
                evaluation.represent(function, images, batch_size)


class FrozenTest(parameterized.TestCase):
    def test_probing_leaves_the_encoder_bit_equal(self):
        random = np.random.default_rng(0)
        images = random.random((40, 2, 2, 3), np.float32)
        labels = np.arange(40) % 3
        parameters = make_parameters(1)
        before = jax.tree.map(np.array, parameters)

        frozen = jax.tree_util.Partial(encode, parameters)
        h = evaluation.represent(frozen, images, batch_size=16)
        evaluation.logistic_probe(h, labels, num_classes=3)
        evaluation.ridge_probe(h, labels, num_classes=3)
        evaluation.knn(h, labels, h, k=5, num_classes=3)

        after = jax.tree.map(np.array, parameters)
        jax.tree.map(np.testing.assert_array_equal, before, after)

    def test_no_gradient_passes_from_a_probe_to_the_encoder(self):
        # h leaves the traced world: whoever differentiates through the probes is told.
        images = np.random.default_rng(0).random((8, 2, 2, 3), np.float32)
        parameters = make_parameters(1)
        labels = np.arange(8) % 2

        def represented(parameters):
            frozen = jax.tree_util.Partial(encode, parameters)
            return evaluation.represent(frozen, images, 8).sum()

        def probed(parameters):
            h = encode(parameters, images)
            probe = evaluation.logistic_probe(h, labels, num_classes=2, folds=2)
            return probe.weight.sum()

        for loss in (represented, probed):
            with self.assertRaises(jax.errors.TracerArrayConversionError):
                jax.grad(loss)(parameters)

    def test_represent_holds_no_images_or_parameters_when_it_is_done(self):
        representations._apply.clear_cache()
        frozen = jax.tree_util.Partial(encode, make_parameters(1))
        images = np.ones((4, 2, 2, 3), np.float32)
        evaluation.represent(frozen, images, 4)
        alive = len(jax.live_arrays())
        for _ in range(3):
            evaluation.represent(frozen, images, 4)
        self.assertLessEqual(len(jax.live_arrays()), alive)

    @parameterized.parameters(1e-200, 1e200)
    def test_numbers_that_float32_does_not_hold_are_refused(self, scale):
        with (
            jax.enable_x64(True),
            self.assertRaisesRegex(
                ValueError, "encode must return.*that float32 holds"
            ),
        ):
            evaluation.represent(lambda x: scale * x, np.ones((3, 2)), 2)


if __name__ == "__main__":
    absltest.main()
