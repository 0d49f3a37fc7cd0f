"""Whole steps of training, as the scripts make them, or a part of one."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.pods import problems, towers
from experiments.pods.problems import Problem, place
from experiments.pods.settings import Settings
from jaxcl import augment, losses, recipes, training

EMBEDDING = 128  # size of SimCLR's z


def of_step(s: Settings, mesh: jax.sharding.Mesh) -> Problem:
    """A step, or a part of one.

    Args:
      s: settings; their problem is a step.
      mesh: images, or pairs, are split over all of its axes.

    Returns:
      The problem.

    Raises:
      ValueError: if the batch does not fit the mesh and chunks, or the step has no such
        part.
    """
    if s.n % (mesh.size * s.chunks):
        raise ValueError(
            f"n must be a multiple of {mesh.size} chips times {s.chunks} chunks, got "
            f"{s.n}"
        )
    if s.part == "loss":
        views = s.problem == "simclr"
        alone = dataclasses.replace(
            s,
            problem="nt_xent" if views else "clip",
            n=2 * s.n if views else s.n,
            d=EMBEDDING if views else s.d,
            dtype="float32",  # a model's embeddings always are
        )
        return problems.of_loss(alone, mesh)
    return _simclr(s, mesh) if s.problem == "simclr" else _towers(s, mesh)


def _scoped(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """An optimizer whose operations are named so."""

    def update(*arguments: Any) -> Any:
        with jax.named_scope("optimizer"):
            return tx.update(*arguments)

    return optax.GradientTransformation(tx.init, update)


def recipe(s: Settings) -> recipes.Images:
    """What SimCLR's script would be told: CIFAR's protocol, or ImageNet's."""
    large = s.size > 64
    return recipes.Images(
        encoder=s.encoder,
        width=64,
        stem="imagenet" if large else "small",
        dtype=s.dtype,
        gradients=s.gradients,
        embedding=EMBEDDING,
        batch_size=s.n,
        chunks=s.chunks,
        augmentation="photographs",
        jitter=1.0 if large else 0.5,
        blur=large,
        pixels="imagenet" if large else "cifar",
        optimizer="lars" if s.n > 1000 else "adamw",
        monitors=(),
    )


def _simclr(s: Settings, mesh: jax.sharding.Mesh) -> Problem:
    r, shape = recipe(s), (s.size, s.size, 3)
    described = recipes.describe(r, shape)
    transform = recipes.make_transform(r, shape)
    apply = recipes.make_apply(r, described)
    tx = _scoped(recipes.make_optimizer(r, 100 * s.n))

    def start() -> training.TrainState:
        params, stats = recipes.initialize(r, described)
        return training.create_state(params, stats, tx)

    loss = problems.sharded(s, mesh, "nt_xent")

    def make_views(images: jax.Array, key: jax.Array) -> jax.Array:
        with jax.named_scope("augmentation"):
            return augment.images.views(key, images, transform)

    def encode(variables: Any, views: jax.Array) -> Any:
        with jax.named_scope("encoder"):
            out, changed = training.apply_views(apply, variables, views)
            return out["z"], changed

    def encode_views(variables: Any, images: jax.Array, key: jax.Array) -> Any:
        return encode(variables, make_views(images, key))

    in_chunks = training.in_chunks(encode_views, s.chunks)

    def loss_fn(params: Any, state: Any, batch: Any, key: jax.Array) -> Any:
        variables = {"params": params["model"], **state.model_state}
        z, changed = in_chunks(variables, batch["image"], key)
        with jax.named_scope("loss"):
            return training.Outcome(loss(z, temperature=0.5), changed)

    images = jax.ShapeDtypeStruct((s.n, *shape), jnp.uint8)
    images = place(mesh, images, split=True)
    key = place(mesh, jax.eval_shape(lambda: jax.random.key(0)), split=False)
    if s.part == "augmentation":
        return Problem(make_views, (images, key))
    state = place(mesh, jax.eval_shape(start), split=False)
    if s.part == "encoder":
        views = jax.ShapeDtypeStruct((s.n, 2, *shape), jnp.float32)

        def squared(params: Any, stats: Any, views: jax.Array) -> Any:
            z, changed = encode({"params": params["model"], **stats}, views)
            return jnp.square(z).mean(), changed

        fn = jax.value_and_grad(squared, has_aux=True)
        views = place(mesh, views, split=True)
        return Problem(fn, (state.params, state.model_state, views))
    step = functools.partial(training.train_step, loss_fn)
    return Problem(step, (state, {"image": images}, key), donated=(0,))


def _towers(s: Settings, mesh: jax.sharding.Mesh) -> Problem:
    if s.part == "augmentation":
        raise ValueError("part must be another one: 'towers' augment nothing")
    models = towers.Towers(s.d, s.depth, s.width, s.length, jnp.dtype(s.dtype))
    tx = _scoped(training.adamw(training.warmup_cosine(1e-3, 100, 10_000)))
    batch = {
        "image": jax.ShapeDtypeStruct((s.n, s.size, s.size, 3), jnp.uint8),
        "text": jax.ShapeDtypeStruct((s.n, s.length), jnp.int32),
    }

    def start() -> training.TrainState:
        few = jax.tree.map(lambda x: jnp.zeros((1, *x.shape[1:]), x.dtype), batch)
        params = {
            "model": models.init(jax.random.key(0), few)["params"],
            "loss": {"temperature": losses.log_temperature(0.07)},
        }
        return training.create_state(params, {}, tx)

    def encode(variables: Any, batch: Any, key: jax.Array) -> Any:
        with jax.named_scope("encoder"):
            return models.apply(variables, batch), {}

    loss = problems.sharded(s, mesh, "clip")
    in_chunks = training.in_chunks(encode, s.chunks)

    def loss_fn(params: Any, state: Any, batch: Any, key: jax.Array) -> Any:
        z, _ = in_chunks({"params": params["model"]}, batch, key)
        t = losses.learned_temperature(params["loss"]["temperature"])
        with jax.named_scope("loss"):
            return training.Outcome(loss(*z, temperature=t))

    state = place(mesh, jax.eval_shape(start), split=False)
    key = place(mesh, jax.eval_shape(lambda: jax.random.key(0)), split=False)
    batch = place(mesh, batch, split=True)
    if s.part == "encoder":

        def squared(params: Any, batch: Any, key: jax.Array) -> jax.Array:
            z, _ = in_chunks({"params": params["model"]}, batch, key)
            return jnp.square(jnp.stack(z)).mean()

        return Problem(jax.value_and_grad(squared), (state.params, batch, key))
    step = functools.partial(training.train_step, loss_fn)
    return Problem(step, (state, batch, key), donated=(0,))
