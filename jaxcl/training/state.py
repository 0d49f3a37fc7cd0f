"""The state of a run and one step of it."""

import typing
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training import train_state


class TrainState(train_state.TrainState):
    """Everything that changes while training: step, params, opt_state, batch_stats.

    Attributes:
      batch_stats: running statistics of batch normalization; empty without it.
    """

    batch_stats: typing.Any


def create_state(
    key: jax.Array,
    model: nn.Module,
    tx: optax.GradientTransformation,
    example: jax.Array | jax.ShapeDtypeStruct,
) -> TrainState:
    """State of step 0, in one compiled program that never runs the model.

    Args:
      key: random key for the parameters.
      model: called as `model(images, train=...)`.
      tx: optimizer.
      example: images [n, h, w, c] or a description of them. Only the shape counts.

    Returns:
      State with `step` an int32 array, on the default device: put it on the mesh
      (`jax.device_put(state, replicated)`) before the first step.

    Raises:
      ValueError: if example is not of rank 4.
    """
    if len(example.shape) != 4:
        raise ValueError(
            f"example: got shape {tuple(example.shape)}; expected images [n, h, w, c]"
        )

    def build(key: jax.Array) -> TrainState:
        images = jnp.zeros(example.shape, jnp.float32)
        variables = model.init(key, images, train=False)
        state = TrainState.create(
            apply_fn=model.apply,
            params=variables["params"],
            tx=tx,
            batch_stats=variables.get("batch_stats", {}),
        )
        # A Python 0 would be a weak type here and a strong one after a restore, and the
        # step would be compiled twice.
        return state.replace(step=jnp.zeros((), jnp.int32))

    if isinstance(key, jax.core.Tracer):  # inside `jax.eval_shape`, for instance
        return build(key)
    # Runs once, so compile it fast rather than well: a ResNet-18 in 2 s and not in 9.
    on_cpu = jax.default_backend() == "cpu"
    options: dict[str, str | bool] = (
        {"xla_backend_optimization_level": "0"} if on_cpu else {}
    )
    return jax.jit(build).lower(key).compile(compiler_options=options)(key)


def train_step(
    loss_fn: Callable[[jax.Array], jax.Array], state: TrainState, views: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step of gradient descent on the mean loss of the views.

        z = model(views merged to [b v, h, w, c]) as [b, v, d];   loss = mean loss_fn(z)

    Pure: jit it and donate the state. With views sharded by rows over a mesh and the
    state replicated, gradients and batch statistics are those of the whole batch.

    Args:
      loss_fn: embeddings [b, v, d], float32, to losses of any shape, for instance one
        per anchor; a scalar is its own mean.
      state: replicated.
      views: images [b, v, h, w, c], floating point.

    Returns:
      The next state, and the scalars `loss`, `gradient_norm` and `embedding_norm` (the
      mean length of z) of this step, all before the update and still on the device.

    Raises:
      ValueError: if views are not of rank 5.
      TypeError: if views are not floating point.
    """
    if views.ndim != 5:
        raise ValueError(
            f"views: got shape {views.shape} of rank {views.ndim}; "
            "expected [b, v, h, w, c], rank 5"
        )
    if not jnp.issubdtype(views.dtype, jnp.floating):
        raise TypeError(f"views: got dtype {views.dtype}; expected floating point")
    b, v = views.shape[:2]
    images = views.reshape(b * v, *views.shape[2:])

    def mean_loss(params: typing.Any) -> tuple[jax.Array, typing.Any]:
        z, updated = state.apply_fn(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        z = z.astype(jnp.float32)
        losses = loss_fn(z.reshape(b, v, -1))
        norm = jnp.linalg.norm(z, axis=-1).mean()
        return jnp.mean(losses), (updated.get("batch_stats", state.batch_stats), norm)

    (loss, (batch_stats, norm)), gradients = jax.value_and_grad(
        mean_loss, has_aux=True
    )(state.params)
    metrics = {
        "loss": loss,
        "gradient_norm": optax.tree.norm(gradients),
        "embedding_norm": norm,
    }
    # optax raises a float to an integer step: refused where promotion is strict.
    with jax.numpy_dtype_promotion("standard"):
        state = state.apply_gradients(grads=gradients, batch_stats=batch_stats)
    return state, metrics
