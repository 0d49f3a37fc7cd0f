"""Every loss and a step of training lower for GPUs and TPUs, which need not be here."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

import jaxcl
from jaxcl import augment, losses, recipes, training
from tests.losses import cases

# One tracing serves all three; nothing is compiled.
PLATFORMS = ("cuda", "rocm", "tpu")


def lowered(fn, *arguments):
    """The platforms for which a function lowers, with its gradients and all."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments)
    return export.export(jax.jit(fn), platforms=PLATFORMS)(*shapes).platforms


@cases.over(cases.CASES)
def test_value_and_gradient_of_a_loss_lower_for_every_accelerator(case):
    arrays, parameters, constants = cases.numbers(case, jnp.float32)

    def mean(arrays, parameters, constants):
        return case.loss({**arrays, **constants}, parameters, tile=5).mean()

    fn = jax.value_and_grad(mean, argnums=(0, 1))
    assert lowered(fn, arrays, parameters, constants) == PLATFORMS


def test_a_step_of_simclr_lowers_for_every_accelerator():
    mesh, rows, whole = jaxcl.data_parallel()
    s, shape = recipes.Images(width=4, batch_size=16, monitors=()), (8, 8, 1)
    described, transform = recipes.describe(s, shape), recipes.make_transform(s, shape)
    apply = recipes.make_apply(s, described)
    images = np.zeros((1_000, *shape), np.uint8)
    tx = recipes.make_optimizer(s, len(images))
    loss = jaxcl.sharded(losses.nt_xent, mesh)

    def start():
        params, stats = recipes.initialize(s, described)
        return training.create_state(params, stats, tx)

    def loss_fn(params, state, batch, key):
        views = augment.images.views(key, batch, transform)
        variables = {"params": params["model"], **state.model_state}
        out, changed = training.apply_views(apply, variables, views)
        return training.Outcome(loss(out["z"]), changed)

    def placed(tree, sharding):
        described = functools.partial(jax.ShapeDtypeStruct, sharding=sharding)
        return jax.tree.map(lambda x: described(x.shape, x.dtype), tree)

    step = jax.jit(functools.partial(training.train_step, loss_fn), donate_argnums=0)
    key = placed(jax.eval_shape(lambda: jax.random.key(0)), whole)
    state = placed(jax.eval_shape(start), whole)
    batch = placed(images[: s.batch_size], rows)
    exported = export.export(step, platforms=PLATFORMS)(state, batch, key)
    assert exported.platforms == PLATFORMS
    assert exported.nr_devices == mesh.size
