import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import parameterized

from jaxcl import models
from tests.models import oracles

_ENCODERS = {
    "resnet18_imagenet": (models.resnet18, {"stem": "imagenet", "width": 8}, 64),
    "resnet18_small": (models.resnet18, {"stem": "small", "width": 16}, 128),
    "resnet34_small": (models.resnet34, {"stem": "small", "width": 8}, 64),
    "resnet50_small": (models.resnet50, {"stem": "small", "width": 8}, 256),
    "convolutional": (models.ConvEncoder, {"width": 8}, 64),
}


def described(model, *shape, train=False):
    """Output and variables of a model, described without computing them."""
    return jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=train),
        jax.ShapeDtypeStruct(shape, jnp.float32),
    )


def number_of(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def drawn(model, *shape):
    """Variables such that no zero or one hides a mistake; variances are positive."""
    _, variables = described(model, *shape)
    rng = np.random.default_rng(0)

    def draw(leaf):
        low, high = (-0.5, 0.5) if len(leaf.shape) > 1 else (0.1, 1.1)
        return jnp.asarray(rng.uniform(low, high, leaf.shape), jnp.float32)

    return jax.tree.map(draw, variables)


def normal(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def float64(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


class EncoderTest(parameterized.TestCase):
    @parameterized.parameters(
        (models.resnet18, 11_689_512),
        (models.resnet34, 21_797_672),
        (models.resnet50, 25_557_032),
    )
    def test_a_resnet_and_1000_classes_have_the_published_number_of_parameters(
        self, resnet, published
    ):
        h, variables = described(resnet(), 1, 224, 224, 3)
        classifier = 1000 * h.shape[-1] + 1000
        self.assertEqual(number_of(variables["params"]) + classifier, published)

    @parameterized.product(name=tuple(_ENCODERS), size=(8, 28, 32, 64))
    def test_an_image_of_any_size_becomes_a_vector(self, name, size):
        encoder, arguments, r = _ENCODERS[name]
        h, _ = described(encoder(**arguments), 3, size, size - 1, 3)
        self.assertEqual(h.shape, (3, r))

    @parameterized.parameters(*_ENCODERS)
    def test_bfloat16_is_for_the_computation_only(self, name):
        encoder, arguments, _ = _ENCODERS[name]
        encoder = encoder(**arguments, dtype=jnp.bfloat16)
        h, variables = described(encoder, 2, 8, 8, 1, train=True)
        for leaf in jax.tree.leaves((h, variables)):
            self.assertEqual(leaf.dtype, jnp.float32)
        program = jax.make_jaxpr(functools.partial(encoder.apply, train=False))(
            variables, jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
        )
        products = [
            equation
            for equation in program.eqns
            if equation.primitive.name in ("conv_general_dilated", "dot_general")
        ]
        self.assertGreaterEqual(len(products), 4)
        for equation in products:
            for operand in equation.invars:
                self.assertEqual(operand.aval.dtype, jnp.bfloat16)

    @parameterized.parameters(((9, 8), 5 * 4), ((3, 4), 3 * 4), ((31, 5), 4 * 1))
    def test_the_convolutional_encoder_equals_its_formula(self, size, places):
        encoder = models.ConvEncoder(width=2)
        images = normal(3, *size, 2)
        variables = drawn(encoder, *images.shape)
        h = jax.jit(functools.partial(encoder.apply, train=False))(variables, images)
        params = float64(variables["params"])
        statistics = float64(variables["batch_stats"])

        def normalized(x, i):
            name = f"BatchNorm_{i}"
            return oracles.relu(oracles.batch_norm(x, params[name], statistics[name]))

        x = float64(images)
        for i in range(3):
            x = oracles.convolution(x, params[f"Conv_{i}"]["kernel"], stride=1)
            x = normalized(x, i)
            if i == 0 and min(size) >= 4:
                x = oracles.halved(x)
        while max(x.shape[1:3]) >= 8:
            x = oracles.halved(x)
        self.assertEqual(x[0].size, 4 * places)
        expected = normalized(x.reshape(3, -1) @ params["Dense_0"]["kernel"], 3)
        np.testing.assert_allclose(h, expected, rtol=1e-4, atol=1e-5)

    def test_the_convolutional_encoder_sees_where_things_are(self):
        # A mean over all places would not: the bar stays off the borders.
        encoder = models.ConvEncoder(width=2)
        image = jnp.zeros((1, 16, 16, 1)).at[:, 6:10, 4:6].set(1.0)
        variables = drawn(encoder, *image.shape)
        encode = jax.jit(functools.partial(encoder.apply, train=False))
        h, moved = (encode(variables, jnp.roll(image, by, 2)) for by in (0, 4))
        self.assertGreater(jnp.abs(h - moved).max(), 0.01 * jnp.abs(h).max())

    @parameterized.parameters(
        (models.BasicBlock, "imagenet"), (models.BottleneckBlock, "small")
    )
    def test_a_resnet_equals_its_formula(self, block, stem):
        encoder = models.ResNet(stages=(1, 1), block=block, stem=stem, width=2)
        images = normal(2, 11, 10, 3)
        variables = drawn(encoder, *images.shape)
        h = jax.jit(functools.partial(encoder.apply, train=False))(variables, images)
        params = float64(variables["params"])
        statistics = float64(variables["batch_stats"])
        x = oracles.convolution(
            float64(images), params["Conv_0"]["kernel"], 2 if stem == "imagenet" else 1
        )
        x = oracles.relu(
            oracles.batch_norm(x, params["BatchNorm_0"], statistics["BatchNorm_0"])
        )
        if stem == "imagenet":
            x = oracles.max_pool(x)
        for i, stride in enumerate((1, 2)):
            name = f"{block.__name__}_{i}"
            x = oracles.residual_block(x, params[name], statistics[name], stride)
        np.testing.assert_allclose(h, x.mean((1, 2)), rtol=1e-4, atol=1e-5)

    def test_statistics_move_while_training_and_stay_otherwise(self):
        encoder = models.ConvEncoder(width=2)
        images = 3 + normal(5, 8, 8, 1)

        @functools.partial(jax.jit, static_argnames="train")
        def apply(variables, train):
            h, updated = encoder.apply(
                variables, images, train=train, mutable=["batch_stats"]
            )
            return h, updated["batch_stats"]

        variables = drawn(encoder, *images.shape)
        before = variables["batch_stats"]
        h_eval, after_eval = apply(variables, train=False)
        h_train, after_train = apply(variables, train=True)
        chex.assert_trees_all_equal(after_eval, before)
        self.assertGreater(float(abs(h_train - h_eval).max()), 0.1)
        # Running means keep nine tenths of themselves.
        kernel = float64(variables["params"]["Conv_0"]["kernel"])
        x = oracles.convolution(float64(images), kernel, 1)
        expected = 0.9 * float64(before["BatchNorm_0"]["mean"]) + 0.1 * x.mean(
            (0, 1, 2)
        )
        np.testing.assert_allclose(
            after_train["BatchNorm_0"]["mean"], expected, rtol=1e-5
        )

    def test_statistics_inside_shard_map_are_those_of_all_devices(self):
        auto = (jax.sharding.AxisType.Auto,)
        mesh = jax.make_mesh((8,), ("data",), axis_types=auto)
        images = normal(16, 4, 4, 1)
        whole = models.ConvEncoder(width=3)
        split = models.ConvEncoder(width=3, axis_name="data")
        variables = drawn(whole, *images.shape)

        def apply(encoder):
            return functools.partial(encoder.apply, train=True, mutable=["batch_stats"])

        sharded = jax.shard_map(
            apply(split),
            mesh=mesh,
            in_specs=(jax.P(), jax.P("data")),
            out_specs=(jax.P("data"), jax.P()),
        )
        chex.assert_trees_all_close(
            jax.jit(sharded)(variables, images),
            jax.jit(apply(whole))(variables, images),
            rtol=1e-4,
            atol=1e-5,
        )

    @parameterized.parameters(*_ENCODERS)
    def test_wrong_images_are_refused_by_name(self, name):
        encoder, arguments, _ = _ENCODERS[name]
        encoder = encoder(**arguments)
        with self.assertRaisesRegex(
            ValueError, r"images must have.*\[n, h, w, c\].*\(8, 8, 3\)"
        ):
            described(encoder, 8, 8, 3)
        with self.assertRaisesRegex(TypeError, "images must be float.*got dtype uint8"):
            encoder.init(
                jax.random.key(0), jnp.zeros((2, 8, 8, 3), jnp.uint8), train=False
            )

    @parameterized.parameters(
        ({"stem": "cifar"}, "stem must be one of 'imagenet', 'small', got 'cifar'"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"dtype": jnp.int8}, "dtype must be one of bfloat16, float32, got int8"),
        ({"dtype": "half-ish"}, "dtype must be one of.*, got 'half-ish'"),
    )
    def test_wrong_arguments_are_refused_by_name(self, arguments, message):
        with self.assertRaisesRegex(ValueError, message):
            models.resnet18(**arguments)
        if "stem" not in arguments:
            with self.assertRaisesRegex(ValueError, message):
                models.ConvEncoder(**arguments)


class ProjectorTest(parameterized.TestCase):
    @parameterized.product(
        depth=(1, 2, 3), hidden=(None, 7), batch_norm=(True, False), train=(True, False)
    )
    def test_shapes_of_the_layers(self, depth, hidden, batch_norm, train):
        projector = models.Projector(
            6, hidden=hidden, depth=depth, batch_norm=batch_norm, dtype=jnp.bfloat16
        )
        z, variables = described(projector, 5, 9, train=train)
        self.assertEqual((z.shape, z.dtype), ((5, 6), jnp.float32))
        units = [9] + (depth - 1) * [hidden or 9] + [6]
        weights = [
            variables["params"][f"Dense_{i}"]["kernel"].shape for i in range(depth)
        ]
        self.assertEqual(weights, list(itertools.pairwise(units)))
        self.assertEqual("batch_stats" in variables, batch_norm and depth > 1)

    @parameterized.parameters(True, False)
    def test_equals_its_formula(self, train):
        projector = models.Projector(3, hidden=6)
        h = normal(7, 4)
        variables = drawn(projector, *h.shape)
        z, _ = projector.apply(variables, h, train=train, mutable=["batch_stats"])
        params = float64(variables["params"])
        statistics = float64(variables["batch_stats"]["BatchNorm_0"])
        x = float64(h) @ params["Dense_0"]["kernel"]
        x = oracles.batch_norm(x, params["BatchNorm_0"], None if train else statistics)
        expected = oracles.relu(x) @ params["Dense_1"]["kernel"]
        np.testing.assert_allclose(z, expected, rtol=1e-4, atol=1e-5)

    @parameterized.parameters(
        (ValueError, {"depth": 0}, "depth must be at least 1, got 0"),
        (TypeError, {"depth": 1.5}, "depth must be an integer, got float"),
        (ValueError, {"output": 0}, "output must be at least 1, got 0"),
        (ValueError, {"hidden": -1}, "hidden must be at least 1, got -1"),
        (ValueError, {"dtype": jnp.float16}, "dtype must be one of.*, got float16"),
    )
    def test_wrong_arguments_are_refused_by_name(self, error, arguments, message):
        with self.assertRaisesRegex(error, message):
            models.Projector(**arguments)

    def test_wrong_representations_are_refused_by_name(self):
        with self.assertRaisesRegex(ValueError, r"h must .*\[n, r\].*\(5, 2, 9, 3\)"):
            described(models.Projector(), 5, 2, 9, 3)


class EmbedderTest(parameterized.TestCase):
    def test_embeddings_are_projected_representations(self):
        encoder, projector = models.ConvEncoder(width=2), models.Projector(5)
        model = models.Embedder(encoder, projector)
        images = normal(3, 4, 4, 1)
        variables = drawn(model, *images.shape)

        def part(name):
            return {kind: tree[name] for kind, tree in variables.items()}

        @jax.jit
        def outputs(variables):
            z = model.apply(variables, images, train=False)
            return model.apply(variables, images, method="represent"), z

        h, z = outputs(variables)
        expected = encoder.apply(part("encoder"), images, train=False)
        np.testing.assert_allclose(h, expected, rtol=1e-5, atol=1e-6)
        expected = projector.apply(part("projector"), h, train=False)
        np.testing.assert_allclose(z, expected, rtol=1e-5, atol=1e-6)
        self.assertEqual((h.shape, z.shape), ((3, 16), (3, 5)))

    def test_checkpoints_of_its_former_name_load(self):
        model = models.SimCLR(models.ConvEncoder(width=2), models.Projector(5))
        _, variables = described(model, 3, 4, 4, 1)
        for tree in variables.values():
            self.assertEqual(set(tree), {"encoder", "projector"})
