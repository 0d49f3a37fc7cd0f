"""MoCo's queue and its slow encoder, against lists in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcl
from jaxcl import losses, training

SIZE, BATCH, D = 48, 16, 3


def _batches(count):
    return np.random.default_rng(0).standard_normal((count, BATCH, D)).astype("f4")


def _mesh():
    auto = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((8,), ("data",), axis_types=auto)


def _as_set(rows):
    return {tuple(row) for row in np.asarray(rows).tolist()}


def _shardings(mesh):
    rows = jax.NamedSharding(mesh, jax.P("data"))
    return training.Queue(rows, jax.NamedSharding(mesh, jax.P())), rows


def test_a_new_queue_holds_unit_vectors_in_all_directions():
    queue = training.create_queue(jax.random.key(0), 4000, D)
    keys = np.asarray(queue.keys, np.float64)
    np.testing.assert_allclose(np.linalg.norm(keys, axis=1), 1, rtol=1e-6)
    # Uniform on the sphere: mean 0 and covariance 1 / d, within 4 standard errors. The
    # variance of x_i^2 on it is 2 (d - 1) / (d^2 (d + 2)), that of x_i x_j is less.
    assert np.abs(keys.mean(0)).max() < 4 / np.sqrt(4000 * D)
    error = np.sqrt(2 * (D - 1) / (D**2 * (D + 2)) / 4000)
    assert np.abs(keys.T @ keys / 4000 - np.eye(D) / D).max() < 4 * error


@pytest.mark.parametrize("sharded", [False, True])
def test_the_queue_holds_the_last_keys_after_any_number_of_pushes(sharded):
    queue = training.create_queue(jax.random.key(1), SIZE, D)
    # First in, first out: what is not yet replaced of the start are whole batches.
    starts = np.asarray(queue.keys).reshape(BATCH, SIZE // BATCH, D)
    fifo = [starts[:, slot] for slot in range(SIZE // BATCH)]
    push, where = jax.jit(training.push), None
    if sharded:
        shardings, where = _shardings(_mesh())
        queue = jax.device_put(queue, shardings)
        push = jax.jit(training.push, out_shardings=shardings)
    for batch in _batches(7):
        queue = push(queue, jax.device_put(batch, where))
        fifo = [*fifo[1:], batch]
        assert _as_set(queue.keys) == _as_set(np.concatenate(fifo))
    assert int(queue.position) == 7 % (SIZE // BATCH)


def test_a_push_over_a_mesh_moves_no_key_between_devices():
    shardings, rows = _shardings(_mesh())
    queue = training.create_queue(jax.random.key(1), SIZE, D)
    queue = jax.device_put(queue, shardings)
    keys = jax.device_put(_batches(1)[0], rows)
    # The layout of the result is left to the compiler.
    compiled = jax.jit(training.push).lower(queue, keys).compile()
    text = compiled.as_text()
    for exchange in ("all-gather", "all-to-all", "all-reduce", "collective-permute"):
        assert exchange not in text
    pushed = compiled(queue, keys)
    assert pushed.keys.sharding.is_equivalent_to(rows, 2)
    # Each device holds its own rows of the batch, and nothing of the others'.
    for shard in pushed.keys.addressable_shards:
        own = np.asarray(keys)[2 * (shard.index[0].start // 6) :][:2]
        assert _as_set(own) <= _as_set(shard.data)


def test_the_loss_on_a_sharded_queue_is_that_of_the_last_keys():
    temperature, pushes = 0.3, _batches(5)
    queries, positives = _batches(7)[5:]
    shardings, rows = _shardings(_mesh())
    queue = training.create_queue(jax.random.key(1), SIZE, D)
    queue = jax.device_put(queue, shardings)
    push = jax.jit(training.push, out_shardings=shardings)
    for batch in pushes:
        queue = push(queue, jax.device_put(batch, rows))
    loss = functools.partial(losses.info_nce, temperature=temperature)
    got = jax.jit(jaxcl.sharded(loss, _mesh()))(
        queries,
        positives,
        negatives=queue.keys,
        groups=np.zeros(BATCH, np.int32),
    )

    def unit(x):
        x = x.astype(np.float64)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    expected = []
    for q, p in zip(unit(queries), unit(positives), strict=True):
        others = unit(np.concatenate(pushes[-3:])) @ q / temperature
        own = p @ q / temperature
        expected.append(np.log(np.exp(own) + np.exp(others).sum()) - own)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_no_gradient_passes_into_keys_or_parameters_of_the_past():
    queue = training.create_queue(jax.random.key(1), 4, D)

    def by_keys(keys):
        return training.push(queue, keys).keys.sum()

    def by_params(params):
        return training.momentum_update(params, jnp.zeros(D), 0.5).sum()

    np.testing.assert_array_equal(jax.grad(by_keys)(jnp.ones((2, D))), 0)
    np.testing.assert_array_equal(jax.grad(by_params)(jnp.ones(D)), 0)


def test_key_parameters_are_the_moving_average_of_all_parameters():
    momentum, steps = 0.9, 6
    seen = np.random.default_rng(1).standard_normal((steps, D))
    start = np.random.default_rng(2).standard_normal(D)
    moving = {"a": jnp.asarray(start, jnp.float32)}
    for params in seen:
        moving = training.momentum_update(
            {"a": jnp.asarray(params, jnp.float32)}, moving, momentum
        )
    expected = momentum**steps * start + sum(
        (1 - momentum) * momentum ** (steps - 1 - t) * seen[t] for t in range(steps)
    )
    np.testing.assert_allclose(moving["a"], expected, rtol=1e-5, atol=1e-7)


def test_key_parameters_keep_their_dtype():
    low = {"a": jnp.ones(2, jnp.bfloat16)}
    moved = training.momentum_update({"a": jnp.zeros(2)}, low, 0.5)
    assert moved["a"].dtype == jnp.bfloat16


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_a_momentum_near_one_still_moves(dtype):
    old = {"a": jnp.zeros(2, dtype)}
    moved = training.momentum_update({"a": jnp.ones(2, dtype)}, old, 0.999)
    np.testing.assert_allclose(np.asarray(moved["a"], float), 0.001, rtol=4e-3)
    still = training.momentum_update(
        {"a": jnp.full(2, 0.1)}, {"a": jnp.full(2, 0.1)}, 0.7
    )
    np.testing.assert_array_equal(still["a"], jnp.full(2, 0.1))


@pytest.mark.parametrize(
    ("params", "key_params", "words"),
    [
        (
            {"w": jnp.ones((2, 3))},
            {"w": jnp.zeros((2, 1))},
            r"key_params\['w'\] must have the shape \(2, 3\).*got \(2, 1\)",
        ),
        (
            {"w": jnp.ones(2)},
            {"w": {"a": jnp.zeros(2)}},
            "key_params must be a pytree like params",
        ),
        (
            {"w": jnp.ones(2), "b": jnp.ones(1)},
            {"w": jnp.zeros(2)},
            "key_params must be a pytree like params",
        ),
        (
            {"w": jnp.array([5])},
            {"w": jnp.array([1])},
            r"params\['w'\] must be floating, got dtype int32",
        ),
    ],
)
def test_parameters_that_do_not_match_are_named(params, key_params, words):
    with pytest.raises(ValueError, match=words):
        training.momentum_update(params, key_params, 0.9)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda q: training.push(q, jnp.ones((5, D))),
            ValueError,
            "keys must divide the queue's 48 rows into equal batches, got 5 keys",
        ),
        (
            lambda q: training.push(q, jnp.ones((96, D))),
            ValueError,
            "keys must divide the queue's 48 rows into equal batches, got 96 keys",
        ),
        (
            lambda q: training.push(q, jnp.ones((16, D + 1))),
            ValueError,
            r"keys and queue.keys must have one embedding size",
        ),
        (
            lambda q: training.push(q, jnp.ones((16, D), int)),
            TypeError,
            "keys must be a floating array",
        ),
        (
            lambda q: training.create_queue(jax.random.key(0), 0, D),
            ValueError,
            "size must be at least 1, got 0",
        ),
        (
            lambda q: training.create_queue(jax.random.key(0), 6.0, D),
            TypeError,
            "size must be an integer, got float",
        ),
        (
            lambda q: training.create_queue(jax.random.key(0), 6, True),
            TypeError,
            "d must be an integer, got bool",
        ),
        (
            lambda q: training.momentum_update(q.keys, q.keys, 1.5),
            ValueError,
            r"momentum must lie in \[0, 1\), got 1.5",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, words):
    queue = training.Queue(jnp.zeros((SIZE, D)), jnp.zeros((), jnp.int32))
    with pytest.raises(error, match=words):
        call(queue)
