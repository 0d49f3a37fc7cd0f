"""The state of a run and one step of it, for any model, modality and loss.

The step knows neither views nor models: a script says the loss of a batch.

    def loss_fn(params, state, batch, key):
        views = augment.images.views(key, batch["image"], transform, 2)
        variables = {"params": params["model"], **state.model_state}
        z, changed = training.apply_views(encode, variables, views)
        return training.Outcome(loss(z), changed)

    step = jax.jit(functools.partial(training.train_step, loss_fn), donate_argnums=0)
"""

import typing
from collections.abc import Callable, Mapping

import flax.core
import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.training import train_state

from jaxcl import _checks
from jaxcl.training import momentum as momentum_lib


class TrainState(train_state.TrainState):
    """Everything that changes while training.

    Attributes:
      step: steps done, int32 [].
      params: all that gradients move, for instance `{"model": ..., "loss":
        {"temperature": ...}}`.
      opt_state: of the optimizer `tx`.
      model_state: what the model changes itself, for instance `{"batch_stats": ...}`;
        {} for none.
      average: moving average of params: for evaluation, or MoCo's key encoder; None for
        none.
      memory: what the loss carries from step to step, such as a queue; () for none.
    """

    model_state: typing.Any = struct.field(pytree_node=True, default_factory=dict)
    average: typing.Any = None
    memory: typing.Any = ()


class Outcome(typing.NamedTuple):
    """What a loss says of one batch.

    Attributes:
      loss: of any shape; its mean is minimized.
      model_state: the next one; None: it stays.
      memory: the next one; (): it stays.
      metrics: scalars by name, for the log.
    """

    loss: jax.Array
    model_state: typing.Any = None
    memory: typing.Any = ()
    metrics: Mapping[str, jax.Array] = {}


LossFn = Callable[[typing.Any, TrainState, typing.Any, jax.Array], Outcome]


def create_state(
    params: typing.Any,
    model_state: typing.Any,
    tx: optax.GradientTransformation,
    *,
    average: bool = False,
    memory: typing.Any = (),
) -> TrainState:
    """The state of step 0.

    Args:
      params: pytree of floating arrays, all that gradients move.
      model_state: pytree of what the model changes itself; {} for none.
      tx: optimizer.
      average: whether a moving average of params is kept; it begins as a copy.
      memory: pytree of what the loss carries on; () for none.

    Returns:
      State with `step` an int32 array, where params are: put it on the mesh
      (`data.put(state, whole)`) before the first step.

    Raises:
      TypeError: if a leaf of params is not a floating array, or average is no bool.

    >>> state = create_state({"w": jnp.ones(2)}, {}, optax.sgd(0.1), average=True)
    >>> print(state.step, state.average)
    0 {'w': Array([1., 1.], dtype=float32)}
    """
    _checks.flag("average", average)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            where = jax.tree_util.keystr(path)
            raise TypeError(
                f"params{where} must be a floating array, got {dtype or type(leaf)}"
            )
    return TrainState(
        # A Python 0 would be a weak type here and a strong one after a restore, and the
        # step would be compiled twice.
        step=jnp.zeros((), jnp.int32),
        apply_fn=None,  # type: ignore[arg-type]
        params=params,
        tx=tx,
        opt_state=tx.init(params),
        model_state=model_state,
        # A copy, since a step is given the buffers of its state.
        average=jax.tree.map(jnp.copy, params) if average else None,
        memory=memory,
    )


def train_step(
    loss_fn: LossFn,
    state: TrainState,
    batch: typing.Any,
    key: jax.Array,
    *,
    momentum: float = 0.999,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step of gradient descent on the mean loss of a batch.

        params  <- params + tx.update(grad mean loss_fn(params, state, batch, key'))
        average <- momentum average + (1 - momentum) params
        key' = fold_in(key, step)

    Pure: jit it and donate the state. With a batch sharded by rows over a mesh and the
    state replicated, gradients and batch statistics are those of the whole batch.

    Args:
      loss_fn: (params, state, batch, key) to `Outcome`; differentiated with respect to
        params. `state.params` are the same numbers, without a gradient.
      state: before the step.
      batch: pytree, as the loss takes it.
      key: random key of the run, the same in every step: `state.step` is folded in
        here, so a resumed run draws what an unbroken one would.
      momentum: of the moving average, in [0, 1]; not used without one.

    Returns:
      The next state, and scalars: `loss`, `gradient_norm` and the metrics of the loss,
      all before the update and still on the device.

    Raises:
      TypeError: if loss_fn does not return an `Outcome`.
      ValueError: if a metric is no scalar or called as one of the step's own, or the
        next model_state or memory is no pytree like the one before.

    >>> def loss_fn(params, state, batch, key):
    ...     return Outcome((params["w"] - batch) ** 2)
    >>> state = create_state({"w": jnp.ones(())}, {}, optax.sgd(0.25))
    >>> state, metrics = train_step(loss_fn, state, jnp.zeros(3), jax.random.key(0))
    >>> print(state.params["w"], metrics["loss"])
    0.5 1.0
    """
    key = jax.random.fold_in(key, state.step)

    def objective(params: typing.Any) -> tuple[jax.Array, Outcome]:
        outcome = loss_fn(params, state, batch, key)
        if not isinstance(outcome, Outcome):
            raise TypeError(
                "loss_fn must return a jaxcl.training.Outcome, got "
                f"{type(outcome).__name__}"
            )
        return jnp.mean(outcome.loss), outcome

    (loss, outcome), gradients = jax.value_and_grad(objective, has_aux=True)(
        state.params
    )
    # optax raises a float to an integer step: refused where promotion is strict.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = state.tx.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
    average = state.average
    if average is not None:
        average = momentum_lib.momentum_update(params, average, momentum)
    metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradients)}
    for name, value in outcome.metrics.items():
        if name in metrics:
            raise ValueError(f"metrics must not name {name!r}: the step has its own")
        if jnp.ndim(value):
            raise ValueError(
                f"metrics must be scalars, got {name!r} of shape {jnp.shape(value)}"
            )
    is_empty = isinstance(outcome.memory, tuple) and not outcome.memory
    new = state.replace(
        step=state.step + 1,
        params=params,
        opt_state=opt_state,
        model_state=_next("model_state", state.model_state, outcome.model_state),
        average=average,
        memory=_next("memory", state.memory, None if is_empty else outcome.memory),
    )
    return new, metrics | dict(outcome.metrics)


def apply_views(
    apply: Callable[..., tuple[typing.Any, typing.Any]],
    variables: typing.Any,
    views: typing.Any,
) -> tuple[typing.Any, typing.Any]:
    """Applies a model to all views as one batch.

    Args:
      apply: (variables, examples [n, ...]) to (z [n, d], changed), as a Flax model with
        `mutable` does; z may be a pytree of such arrays.
      variables: what `apply` takes first.
      views: pytree of arrays [b, v, ...].

    Returns:
      (z, changed): z float32 [b, v, d], and what `apply` returned second. Statistics of
      a batch normalization are those of all b v views.

    Raises:
      TypeError: if `apply` does not return a pair.
      ValueError: if views have no two axes in common.

    >>> double = lambda variables, x: (2 * x, {})
    >>> z, changed = apply_views(double, {}, jnp.ones((3, 2, 5), jnp.bfloat16))
    >>> print(z.shape, z.dtype)
    (3, 2, 5) float32
    """
    leaves = jax.tree.leaves(views)
    shapes = {leaf.shape[:2] for leaf in leaves}
    if len(shapes) != 1 or any(leaf.ndim < 2 for leaf in leaves):
        raise ValueError(
            "views must be arrays [b, v, ...] with the same b and v, got "
            f"{[leaf.shape for leaf in leaves]}"
        )
    b, v = next(iter(shapes))
    merged = jax.tree.map(lambda x: x.reshape(b * v, *x.shape[2:]), views)
    z, changed = pair("apply", apply(variables, merged))
    z = jax.tree.map(lambda x: x.astype(jnp.float32).reshape(b, v, *x.shape[1:]), z)
    return z, changed


def pair(name: str, result: typing.Any) -> tuple[typing.Any, typing.Any]:
    """What a function that was given must return: embeddings and what has changed."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(
            f"{name} must return (z, changed), with {{}} where nothing changes, got "
            f"{type(result).__name__}"
        )
    return result


def _next(name: str, old: typing.Any, new: typing.Any) -> typing.Any:
    """What a part of the state becomes; a change of structure would not be noticed
    before the second step, in words of the compiler.
    """
    if new is None:
        return old
    if isinstance(old, flax.core.FrozenDict) != isinstance(new, flax.core.FrozenDict):
        new, old = flax.core.unfreeze(new), flax.core.unfreeze(old)
    before: typing.Any = jax.tree.structure(old)
    after: typing.Any = jax.tree.structure(new)
    if before != after:
        raise ValueError(
            f"{name} of the outcome must be a pytree like the state's, {before}, got "
            f"{after}"
        )
    return new
