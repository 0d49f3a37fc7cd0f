import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import parameterized

from jaxcl import training
from tests.training import tiny


class Linear(nn.Module):
    """A model without batch normalization."""

    @nn.compact
    def __call__(self, images, *, train):
        return nn.Dense(3, dtype=jnp.bfloat16)(images.mean((1, 2)))


def types_of(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


class CreateStateTest(parameterized.TestCase):
    def test_holds_what_the_model_and_the_optimizer_start_with(self):
        model, key = Linear(), jax.random.key(3)
        state = training.create_state(key, model, tiny.tx, tiny.example)
        params = model.init(key, jnp.zeros(tiny.example.shape), train=True)["params"]
        chex.assert_trees_all_close(state.params, params, rtol=1e-6)
        chex.assert_trees_all_equal(state.opt_state, tiny.tx.init(params))
        self.assertEqual((int(state.step), state.step.dtype), (0, jnp.int32))
        self.assertEqual(state.batch_stats, {})

    def test_only_the_shape_of_the_example_counts(self):
        pixels = np.full(tiny.example.shape, 255, np.uint8)
        state = training.create_state(jax.random.key(0), tiny.model, tiny.tx, pixels)
        chex.assert_trees_all_equal(state.params, tiny.new_state().params)

    def test_can_be_described_without_being_computed(self):
        described = jax.eval_shape(
            lambda: training.create_state(
                jax.random.key(0), tiny.model, tiny.tx, tiny.example
            )
        )
        chex.assert_trees_all_equal_shapes_and_dtypes(described, tiny.new_state())

    def test_a_wrong_example_is_refused_by_name(self):
        wrong = jax.ShapeDtypeStruct((8, 8, 1), jnp.float32)
        with self.assertRaisesRegex(ValueError, r"example: got shape \(8, 8, 1\).*\[n"):
            training.create_state(jax.random.key(0), tiny.model, tiny.tx, wrong)


class TrainStepTest(parameterized.TestCase):
    def test_eight_devices_do_what_one_does(self):
        auto = (jax.sharding.AxisType.Auto,)
        mesh = jax.make_mesh((8,), ("data",), axis_types=auto)
        rows = jax.NamedSharding(mesh, jax.P("data"))
        whole = jax.NamedSharding(mesh, jax.P())
        # On the host, so that no step is given the buffers of the other.
        start = jax.device_get(tiny.new_state(tx=tiny.sgd))
        one = jax.tree.map(jnp.asarray, start)
        eight = jax.device_put(start, whole)
        for i in range(2):
            views = tiny.views(i, images=16)
            one, expected = tiny.step(one, views)
            eight, metrics = tiny.step(eight, jax.device_put(views, rows))
            chex.assert_trees_all_close(metrics, expected, rtol=1e-5)
        chex.assert_trees_all_close(
            (eight.params, eight.batch_stats, eight.opt_state),
            (one.params, one.batch_stats, one.opt_state),
            rtol=1e-4,
            atol=1e-5,  # gradients of up to 0.5 are sums of terms that cancel
        )
        for leaf in jax.tree.leaves(eight):
            self.assertTrue(leaf.sharding.is_fully_replicated)

    def test_is_gradient_descent_on_the_mean_loss_of_the_merged_views(self):
        state = jax.device_get(tiny.new_state(tx=tiny.sgd))
        views = tiny.views(0, images=16)

        @jax.jit
        def expected(params):
            def mean_loss(params):
                z, _ = tiny.model.apply(
                    {"params": params, "batch_stats": state.batch_stats},
                    jnp.concatenate(list(views)),  # both views of the first image, ...
                    train=True,
                    mutable=["batch_stats"],
                )
                return tiny.loss(z.reshape(16, 2, 4)).mean(), z

            return jax.value_and_grad(mean_loss, has_aux=True)(params)

        (loss, z), gradient = expected(state.params)
        moved = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, gradient)
        squares = [
            np.sum(np.square(g, dtype=np.float64)) for g in jax.tree.leaves(gradient)
        ]
        new, metrics = tiny.step(jax.tree.map(jnp.asarray, state), views)
        chex.assert_trees_all_close(new.params, moved, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
        np.testing.assert_allclose(
            metrics["gradient_norm"], np.sqrt(sum(squares)), rtol=1e-5
        )
        lengths = np.linalg.norm(np.asarray(z, np.float64), axis=1)
        np.testing.assert_allclose(metrics["embedding_norm"], lengths.mean(), rtol=1e-5)
        self.assertEqual(int(new.step), 1)
        self.assertGreater(
            max(
                float(abs(a - b).max())
                for a, b in zip(
                    jax.tree.leaves(new.batch_stats),
                    jax.tree.leaves(state.batch_stats),
                    strict=True,
                )
            ),
            1e-3,
        )

    def test_a_scalar_loss_counts_as_it_is_and_embeddings_are_float32(self):
        seen = []

        def loss(z):
            seen.append((z.shape, z.dtype))
            return jnp.square(z)

        state = training.create_state(
            jax.random.key(0), Linear(), optax.sgd(0.1), tiny.example
        )
        views = tiny.views(0)
        each = training.train_step(loss, state, views)
        mean = training.train_step(lambda z: loss(z).mean(), state, views)
        chex.assert_trees_all_close(each, mean, rtol=1e-6)
        self.assertEqual(set(seen), {((8, 2, 3), jnp.dtype(jnp.float32))})
        self.assertEqual(each[0].batch_stats, {})

    def test_gives_back_the_types_it_was_given_so_it_is_compiled_once(self):
        state = tiny.new_state()
        new, metrics = jax.eval_shape(tiny.step, state, tiny.views(0))
        described = jax.eval_shape(lambda x: x, state)
        self.assertEqual(types_of(new), types_of(described))
        for value in metrics.values():
            self.assertEqual((value.shape, value.dtype), ((), jnp.float32))

    def test_wrong_views_are_refused_by_name(self):
        state = tiny.new_state()
        with self.assertRaisesRegex(
            ValueError, r"views: got shape \(8, 8, 8, 1\).*rank"
        ):
            training.train_step(tiny.loss, state, jnp.zeros((8, 8, 8, 1)))
        with self.assertRaisesRegex(
            TypeError, "views: got dtype uint8; expected float"
        ):
            training.train_step(tiny.loss, state, jnp.zeros((8, 2, 8, 8, 1), jnp.uint8))
