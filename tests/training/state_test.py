import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcl
from jaxcl import training
from tests.training import tiny


def types_of(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def linear_loss(params, state, batch, key):
    return training.Outcome(jnp.square(batch @ params["w"]))


def linear_state(**options):
    params = {"w": jnp.array([[1.0], [-2.0]])}
    return training.create_state(params, {}, optax.sgd(0.5), **options)


def test_a_new_state_holds_what_it_was_given_and_step_0():
    state = tiny.new_state()
    chex.assert_trees_all_equal(state.opt_state, tiny.tx.init(state.params))
    assert (int(state.step), state.step.dtype, state.step.weak_type) == (
        0,
        jnp.int32,
        False,
    )
    assert (state.average, state.memory, state.apply_fn) == (None, (), None)


def test_the_average_begins_as_a_copy_whose_buffers_are_its_own():
    state = linear_state(average=True)
    chex.assert_trees_all_equal(state.average, state.params)

    def pointer(x):
        return x.unsafe_buffer_pointer()

    assert pointer(state.average["w"]) != pointer(state.params["w"])


@pytest.mark.parametrize(
    ("params", "options", "message"),
    [
        ({"w": jnp.arange(3)}, {}, r"params\['w'\] must be a floating array, got int"),
        ({"w": 1.0}, {}, r"params\['w'\] must be a floating array, got .*float"),
        (
            {"w": jnp.ones(3)},
            {"average": 0.9},
            "average must be True or False, got float",
        ),
    ],
)
def test_a_wrong_state_is_refused_by_name(params, options, message):
    with pytest.raises(TypeError, match=message):
        training.create_state(params, {}, optax.sgd(0.1), **options)


def test_eight_devices_do_what_one_does():
    _, rows, whole = jaxcl.data_parallel()
    # On the host, so that no step is given the buffers of the other.
    start = jax.device_get(tiny.new_state(tx=tiny.sgd, average=True))
    one = jax.tree.map(jnp.asarray, start)
    eight = jax.device_put(start, whole)
    for i in range(2):
        views = tiny.views(i, images=16)
        one, expected = tiny.step(one, views)
        eight, metrics = tiny.step(eight, jax.device_put(views, rows))
        chex.assert_trees_all_close(metrics, expected, rtol=1e-5)

    def parts(s):
        return (s.params, s.model_state, s.opt_state, s.average)

    # Gradients of up to 0.5 are sums of terms that cancel.
    chex.assert_trees_all_close(parts(eight), parts(one), rtol=1e-4, atol=1e-5)
    for leaf in jax.tree.leaves(eight):
        assert leaf.sharding.is_fully_replicated


def test_a_step_is_gradient_descent_on_the_mean_loss_of_the_merged_views():
    state = jax.device_get(tiny.new_state(tx=tiny.sgd, average=True))
    views = tiny.views(0, images=16)

    @jax.jit
    def expected(params):
        def mean_loss(params):
            z, _ = tiny.apply(
                {"params": params["model"], **state.model_state},
                jnp.concatenate(list(views)),  # both views of the first image, ...
            )
            return tiny.loss(z.reshape(16, 2, 4)).mean(), z.max()

        return jax.value_and_grad(mean_loss, has_aux=True)(params)

    (loss, largest), gradient = expected(state.params)
    moved = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, gradient)
    followed = jax.tree.map(lambda p, m: 0.75 * p + 0.25 * m, state.params, moved)
    squares = [np.sum(np.square(g, dtype=float)) for g in jax.tree.leaves(gradient)]
    new, metrics = tiny.step(jax.tree.map(jnp.asarray, state), views)
    chex.assert_trees_all_close(new.params, moved, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(new.average, followed, rtol=1e-5, atol=1e-6)
    assert set(metrics) == {"loss", "gradient_norm", "largest"}
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
    np.testing.assert_allclose(metrics["largest"], largest, rtol=1e-5)
    np.testing.assert_allclose(metrics["gradient_norm"], sum(squares) ** 0.5, rtol=1e-5)
    assert int(new.step) == 1
    old, changed = (jax.tree.leaves(s.model_state) for s in (state, new))
    assert max(abs(a - b).max() for a, b in zip(old, changed, strict=True)) > 1e-3


def test_a_scalar_loss_is_its_own_mean():
    batch = jnp.array([[1.0, 0.0], [1.0, 2.0]])

    def mean(*args):
        return training.Outcome(linear_loss(*args).loss.mean())

    each = training.train_step(linear_loss, linear_state(), batch, jax.random.key(0))
    scalar = training.train_step(mean, linear_state(), batch, jax.random.key(0))
    chex.assert_trees_all_close(each[1], scalar[1], rtol=1e-6)
    chex.assert_trees_all_close(each[0].params, scalar[0].params, rtol=1e-6)


def test_every_step_has_a_key_of_its_own_that_a_resumed_run_has_as_well():
    def noisy(params, state, batch, key):
        return training.Outcome(batch @ params["w"], metrics={"drawn": draw(key)})

    draw, key, batch = jax.random.uniform, jax.random.key(3), jnp.ones((1, 2))
    state, first = training.train_step(noisy, linear_state(), batch, key)
    _, second = training.train_step(noisy, state, batch, key)
    assert first["drawn"] == draw(jax.random.fold_in(key, 0))
    assert second["drawn"] == draw(jax.random.fold_in(key, 1))


def test_a_loss_carries_its_memory_and_what_the_model_changes():
    def counting(params, state, batch, key):
        changed = {"count": state.model_state["count"] + 1}
        memory = (state.memory[0] + batch.sum(),)
        return training.Outcome((batch @ params["w"]), changed, memory)

    params = {"w": jnp.ones((2, 1))}
    state = training.create_state(
        params, {"count": jnp.zeros(())}, optax.sgd(0.1), memory=(jnp.zeros(()),)
    )
    for _ in range(2):
        state, _ = training.train_step(
            counting, state, jnp.ones((3, 2)), jax.random.key(0)
        )
    assert (state.model_state["count"], state.memory[0]) == (2, 12)
    # What the loss does not name stays.
    state, _ = training.train_step(
        linear_loss, state, jnp.ones((3, 2)), jax.random.key(0)
    )
    assert (state.model_state["count"], state.memory[0]) == (2, 12)


def test_a_temperature_learns_beside_the_model():
    def loss_fn(params, state, batch, key):
        logits = batch @ params["model"]["w"] / jnp.exp(params["loss"]["temperature"])
        return training.Outcome(jnp.square(logits - 3))

    params = {
        "model": {"w": jnp.ones((2, 1))},
        "loss": {"temperature": jnp.zeros(())},
    }
    state = training.create_state(params, {}, optax.sgd(0.1))
    new, _ = training.train_step(loss_fn, state, jnp.ones((1, 2)), jax.random.key(0))
    # d/dt (2 exp(-t) - 3)^2 at t = 0 is 2 (2 - 3) (-2) = 4.
    np.testing.assert_allclose(new.params["loss"]["temperature"], -0.4, rtol=1e-6)


def test_a_step_gives_back_the_types_it_was_given_so_it_is_compiled_once():
    state = tiny.new_state(average=True)
    new, metrics = jax.eval_shape(tiny.step, state, tiny.views(0))
    described = jax.eval_shape(lambda x: x, state)
    assert types_of(new) == types_of(described)
    for value in metrics.values():
        assert (value.shape, value.dtype) == ((), jnp.float32)


@pytest.mark.parametrize(
    ("outcome", "error", "message"),
    [
        (lambda loss: loss, TypeError, "loss_fn must return a jaxcl.training.Outcome"),
        (
            lambda loss: training.Outcome(loss, metrics={"loss": loss}),
            ValueError,
            "metrics must not name 'loss': the step has its own",
        ),
        (
            lambda loss: training.Outcome(loss, metrics={"norms": jnp.ones(3)}),
            ValueError,
            r"metrics must be scalars, got 'norms' of shape \(3,\)",
        ),
        (
            lambda loss: training.Outcome(loss, {"stats": loss}),
            ValueError,
            "model_state of the outcome must be a pytree like the state's",
        ),
        (
            lambda loss: training.Outcome(loss, memory=(loss,)),
            ValueError,
            "memory of the outcome must be a pytree like the state's",
        ),
    ],
)
def test_a_wrong_outcome_is_refused_by_name(outcome, error, message):
    def loss_fn(params, state, batch, key):
        return outcome(jnp.sum(batch @ params["w"]))

    with pytest.raises(error, match=message):
        training.train_step(
            loss_fn, linear_state(), jnp.ones((1, 2)), jax.random.key(0)
        )


def test_views_may_be_pytrees_and_become_one_batch():
    seen = []

    def apply(variables, tokens):
        seen.append(jax.tree.map(lambda x: x.shape, tokens))
        z = (tokens["ids"] * variables).astype(jnp.bfloat16)
        return {"z": z, "h": tokens["length"][:, None]}, {"n": 1}

    ids = jnp.arange(24.0).reshape(3, 2, 4)
    views = {"ids": ids, "length": jnp.arange(6.0).reshape(3, 2)}
    out, changed = training.apply_views(apply, 2.0, views)
    assert seen == [{"ids": (6, 4), "length": (6,)}]
    assert out["z"].dtype == jnp.float32
    np.testing.assert_array_equal(out["z"], 2 * ids)
    np.testing.assert_array_equal(out["h"][..., 0], views["length"])
    assert changed == {"n": 1}


def test_an_encoder_that_returns_embeddings_alone_is_refused():
    def alone(variables, x, key=None):
        return x

    with pytest.raises(TypeError, match=r"apply must return \(z, changed\), .* got"):
        training.apply_views(alone, {}, jnp.ones((4, 2, 3)))
    encode = training.in_chunks(alone, 2)
    with pytest.raises(TypeError, match=r"encode must return \(z, changed\)"):
        encode({}, jnp.ones((4, 3)), jax.random.key(0))


@pytest.mark.parametrize("shapes", [[(8,)], [(8, 2, 3), (8, 3, 3)], []])
def test_views_without_two_common_axes_are_refused(shapes):
    with pytest.raises(ValueError, match=r"views must be arrays \[b, v, \.\.\.\]"):
        training.apply_views(lambda v, x: (x, {}), {}, [jnp.ones(s) for s in shapes])
