"""A batch in chunks: the same numbers, less memory, no row on another device."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcl
from jaxcl import losses, training


class Net(nn.Module):
    """Batch normalization and dropout, wide enough for its activations to matter."""

    width: int = 24
    norm: bool = True

    @nn.compact
    def __call__(self, x):
        for _ in range(3):
            x = nn.Dense(self.width)(x)
            if self.norm:
                x = nn.BatchNorm(use_running_average=False, momentum=0.5)(x)
            x = nn.Dropout(0.3, deterministic=False)(nn.relu(x))
        return nn.Dense(4)(x)


def encoder(net):
    def encode(variables, x, key):
        noise, dropout = jax.random.split(key)
        x = x["pixels"] + 0.1 * jax.random.normal(noise, x["pixels"].shape)
        rngs = {"dropout": dropout}
        return net.apply(variables, x, rngs=rngs, mutable=["batch_stats"])

    return encode


def variables_of(net, width=6):
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = net.init(rngs, jnp.ones((2, width)))
    # No parameter at a special value.
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    moved = [
        x + 0.1 * jnp.abs(jax.random.normal(k, x.shape))
        for x, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(tree, moved)


def by_hand(encode, chunks):
    """What in_chunks promises, in a loop that keeps everything."""

    def encoded(variables, x, key):
        pieces, changed = [], {}
        for c in range(chunks):
            piece = jax.tree.map(lambda leaf, c=c: leaf[c::chunks], x)
            z, changed = encode(
                {**variables, **changed}, piece, jax.random.fold_in(key, c)
            )
            pieces.append(z)
        return jnp.stack(pieces, axis=1).reshape(-1, *pieces[0].shape[1:]), changed

    return encoded


def differentiated(encode):
    def loss(variables, x, key):
        z, changed = encode(variables, x, key)
        return losses.nt_xent(z.reshape(-1, 2, z.shape[-1])).mean(), (z, changed)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def assert_close(got, expected, tolerance=2e-6):
    # Of the largest entry: a bias before a normalization has gradient 0.
    scale = max(float(np.abs(b).max()) for b in jax.tree.leaves(expected))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("norm", [pytest.param(True, marks=pytest.mark.slow), False])
def test_chunks_change_neither_value_nor_gradient_nor_statistics(norm):
    net = Net(norm=norm)
    encode, variables = encoder(net), variables_of(net)
    x = {"pixels": jax.random.normal(jax.random.key(3), (12, 6))}
    key = jax.random.key(4)
    (loss, aux), gradient = differentiated(training.in_chunks(encode, 3))(
        variables, x, key
    )
    (expected, expected_aux), expected_gradient = differentiated(by_hand(encode, 3))(
        variables, x, key
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert_close(aux, expected_aux)
    assert_close(gradient["params"], expected_gradient["params"])
    assert set(aux[1]) == ({"batch_stats"} if norm else set())


def test_each_chunk_is_normalized_by_itself_and_the_running_mean_passes_on():
    net = nn.BatchNorm(use_running_average=False, momentum=0.5, use_bias=False)
    x = jnp.array([[0.0], [10.0], [2.0], [14.0]])  # chunks are rows 0, 2 and 1, 3
    variables = net.init(jax.random.key(0), x)

    def encode(v, x, key):
        return net.apply(v, x, mutable=["batch_stats"])

    z, changed = training.in_chunks(encode, 2)(variables, x, jax.random.key(0))
    np.testing.assert_allclose(z[:, 0], [-1, -1, 1, 1], atol=1e-4)
    # Means 1 and 12, each moving half of the way: 0 -> 0.5 -> 6.25.
    np.testing.assert_allclose(changed["batch_stats"]["mean"], [6.25], rtol=1e-6)


def test_one_chunk_is_the_encoder_itself():
    encode = encoder(Net())
    assert training.in_chunks(encode, 1) is encode


def test_embeddings_may_be_pytrees_in_the_order_of_the_rows():
    def encode(v, x, key):
        return ({"z": x * v["w"], "index": x[:, 0]}, {})

    x = jnp.arange(12.0).reshape(6, 2)
    out, changed = training.in_chunks(encode, 3)({"w": 2.0}, x, jax.random.key(0))
    np.testing.assert_array_equal(out["z"], 2 * x)
    np.testing.assert_array_equal(out["index"], x[:, 0])
    assert changed == {}


def temporary_bytes(chunks, devices=1):
    net = Net(width=256, norm=False)
    encode = training.in_chunks(encoder(net), chunks)
    variables = variables_of(net)
    mesh = jax.make_mesh(
        (devices,),
        ("data",),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:devices],
    )
    rows = jax.NamedSharding(mesh, jax.P("data"))
    whole = jax.NamedSharding(mesh, jax.P())
    x = {"pixels": jax.ShapeDtypeStruct((2048, 6), jnp.float32, sharding=rows)}
    described = jax.tree.map(
        lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=whole), variables
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=whole)

    def loss(params, x, key):
        z, _ = encode({"params": params}, x, key)
        return jnp.square(z).mean()

    compiled = jax.jit(jax.grad(loss)).lower(described["params"], x, key).compile()
    return compiled.memory_analysis().temp_size_in_bytes, compiled.as_text()


@pytest.mark.slow
def test_the_memory_of_a_step_falls_with_the_number_of_chunks():
    whole, quarter, sixteenth = (temporary_bytes(c)[0] for c in (1, 4, 16))
    assert quarter < 0.45 * whole
    assert sixteenth < 0.35 * quarter


def test_rows_that_are_sharded_stay_on_their_devices():
    used, program = temporary_bytes(4, devices=4)
    assert used < 0.5 * temporary_bytes(4)[0]
    for moving in ("all-gather", "all-to-all", "collective-permute"):
        assert moving not in program


@pytest.mark.slow
def test_sharded_chunks_equal_those_of_one_device():
    net = Net()
    variables, key = variables_of(net), jax.random.key(4)
    x = {"pixels": jax.random.normal(jax.random.key(3), (16, 6))}
    run = differentiated(training.in_chunks(encoder(net), 2))
    (expected, _), expected_gradient = run(variables, x, key)
    _, rows, whole = jaxcl.data_parallel()
    (loss, _), gradient = run(
        *jax.device_put((variables, x, key), (whole, rows, whole))
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert_close(gradient["params"], expected_gradient["params"], 1e-5)


@pytest.mark.parametrize(
    ("chunks", "error", "message"),
    [
        (0, ValueError, "chunks must be at least 1, got 0"),
        (2.0, TypeError, "chunks must be an integer, got float"),
    ],
)
def test_wrong_chunks_are_refused(chunks, error, message):
    with pytest.raises(error, match=message):
        training.in_chunks(encoder(Net()), chunks)


def test_what_cannot_be_cut_is_refused():
    encode = training.in_chunks(lambda v, x, key: (x["a"], {}), 2)
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="rows that chunks 2 divides, got 5"):
        encode({}, {"a": jnp.ones((5, 1))}, key)
    with pytest.raises(ValueError, match="one leading axis b, got lengths"):
        encode({}, {"a": jnp.ones((4, 1)), "b": jnp.ones((2, 1))}, key)
    new = training.in_chunks(lambda v, x, key: (x, {"cache": x}), 2)
    with pytest.raises(ValueError, match=r"got \['cache'\], which they lack"):
        new({"params": 1.0}, jnp.ones((4, 1)), key)
