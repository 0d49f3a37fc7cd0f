"""Encoders of images that go on: run on augmented images, or trained by labels."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from jaxcl import _text, augment, data, evaluation, models, recipes
from jaxcl.models import kinds


class Tuned(NamedTuple):
    """A network that learned from labels.

    predict: from images to labels int64 [n].
    learning_rate: the chosen one.
    learning_rates: those it was chosen from.
    validation: accuracy of each on images that it had not learned from.
    """

    predict: Callable[[Any], np.ndarray]
    learning_rate: float
    learning_rates: tuple[float, ...]
    validation: tuple[float, ...]


class Rows:
    """Some images of a column, which are read when they are asked for."""

    def __init__(self, images: Any, rows: np.ndarray) -> None:
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: Any) -> Any:
        return self.images[self.rows[places]]


class Head(nn.Module):
    """A linear layer that begins at zero: all classes are equally likely."""

    classes: int

    @nn.compact
    def __call__(self, h: jax.Array, *, train: bool) -> jax.Array:
        del train
        zeros = nn.initializers.zeros
        return nn.Dense(self.classes, kernel_init=zeros, dtype=jnp.float32)(h)


def crops_and_flips(described: models.Description) -> augment.Transform:
    """What images go through while a classifier learns, in papers on photographs:
    a random crop of 8 to 100 % of the area, resized, and a flip in half of the cases.
    """
    height, width = described.shape[:2]
    steps: list[augment.Transform] = [
        functools.partial(augment.images.random_resized_crop, size=(height, width)),
        augment.images.random_horizontal_flip,
    ]
    if described.mean is not None and described.std is not None:
        standardize = functools.partial(
            augment.images.normalize, mean=described.mean, std=described.std
        )
        steps.append(augment.without_key(standardize))
    return augment.chain(*steps)


def make_draw(
    encoder: recipes.Encoder, images: Any
) -> Callable[[np.ndarray, jax.Array], jax.Array]:
    """Returns draw(rows [b], key) -> h [b, r] of these images, cropped and flipped.

    The encoder is frozen, with the running statistics that it has.
    """
    described: Any = encoder.described
    model, transform = models.build(described), crops_and_flips(described)

    @jax.jit
    def represent(variables: Any, images: jax.Array, key: jax.Array) -> jax.Array:
        views = augment.images.views(key, images, transform, 1)[:, 0]
        h = model.apply(variables, views, train=False, method="represent")
        return jnp.asarray(h).astype(jnp.float32)

    variables = jax.device_put(encoder.variables)
    return lambda rows, key: represent(variables, np.asarray(images[rows]), key)


def fine_tune(
    encoder: recipes.Encoder,
    images: Any,
    labels: np.ndarray,
    *,
    num_classes: int,
    learning_rates: Sequence[float],
    epochs: int = 30,
    batch_size: int = 256,
    validation: float = 0.1,
    seed: int = 0,
    name: str = "fine-tuning",
) -> Tuned:
    """All weights of an encoder and a linear layer on its h go on learning from labels.

    By SGD with Nesterov's momentum of 0.9 along a cosine, without weight decay, on
    cropped and flipped images, with batch statistics. Each learning rate is tried
    without a part of the images, which chooses by its accuracy after the last epoch;
    then the encoder starts again, and learns from all of them.

    Args:
      encoder: of images; its variables stay what they are.
      images: column of those that have labels.
      labels: integers [n].
      num_classes: number of classes.
      learning_rates: of which one is chosen, the smallest of equally good ones.
      epochs: passes over the images.
      batch_size: images of a step, or all if they are fewer.
      validation: share of each class that chooses.
      seed: of batches, augmentation and the part that chooses.
      name: of the bar that shows the steps, and of the line of each learning rate.

    Returns:
      Tuned(predict, learning_rate, learning_rates, validation); predict raises a
      FloatingPointError if even the chosen rate was too large.

    Raises:
      ValueError: if a class has too few images to learn from and to choose.

    Source:
      SimCLR, https://arxiv.org/abs/2002.05709, appendix B.5, with its optimizer; there
      the rate was fixed.
    """
    described: Any = encoder.described
    model = models.Embedder(models.build(described).encoder, Head(num_classes))
    train_step = _make_step(model, crops_and_flips(described))

    @jax.jit
    def classify(variables: Any, images: jax.Array) -> jax.Array:
        given = kinds.KINDS["images"].prepare(described, images)
        return jnp.asarray(model.apply(variables, given, train=False))

    def predict(variables: Any, images: Any, size: int = 500) -> np.ndarray:
        frozen = jax.tree_util.Partial(classify, variables)
        logits = evaluation.represent(frozen, images, size)
        if not np.isfinite(logits).all():
            raise FloatingPointError(
                "tuning_rates must hold one with which fine-tuning stays finite, got "
                f"{', '.join(f'{rate:g}' for rate in rates)}"
            )
        return np.argmax(logits, axis=1)

    example = jnp.zeros((1, *described.shape), jnp.float32)
    head = model.init(jax.random.key(seed), example, train=False)["params"]["projector"]

    def train(rows: np.ndarray, rate: float) -> Any:
        params = {"encoder": encoder.variables["params"]["encoder"], "projector": head}
        stats = {
            name: {"encoder": tree["encoder"]}
            for name, tree in encoder.variables.items()
            if name != "params" and "encoder" in tree
        }
        # Copies, since a step takes the buffers that it is given.
        state = jax.tree.map(jnp.array, (params, stats, _TRACE.init(params)))
        b, key = min(batch_size, len(rows)), jax.random.key(seed)
        each = len(rows) // b
        for step in range(epochs * each):
            if step % each == 0:
                order = rows[data.permutation(len(rows), seed, step // each)]
            at = order[step % each * b : (step % each + 1) * b]
            falling = rate * (1 + np.cos(np.pi * step / (epochs * each))) / 2
            state = train_step(
                state,
                np.asarray(images[at]),
                labels[at].astype(np.int32),
                np.float32(falling),
                jax.random.fold_in(key, step),
            )
            bar.update()
        return {"params": state[0], **state[1]}

    held_out = evaluation.hold_out(labels, validation, seed)
    known, choosing = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    found = []
    rates = sorted(learning_rates)
    tried = rates if len(rates) > 1 else []
    batches = [n // min(batch_size, n) for n in (len(known), len(labels))]
    total = epochs * (len(tried) * batches[0] + batches[1])
    with tqdm.tqdm(total=total, unit="step", desc=name, file=_text.TERMINAL) as bar:
        for rate in tried:
            try:
                seen = predict(train(known, rate), Rows(images, choosing))
                found.append(evaluation.accuracy(seen, labels[choosing]))
            except FloatingPointError:  # it was too large
                found.append(0.0)
            bar.write(
                f"{name}, learning rate {rate:g}: {100 * found[-1]:.1f} % of held-back "
                "images"
            )
        best = rates[int(np.argmax(found))] if found else rates[0]
        variables = train(np.arange(len(labels)), best)
    return Tuned(
        functools.partial(predict, variables), best, tuple(rates), tuple(found)
    )


_TRACE = optax.trace(0.9, nesterov=True)


def _make_step(
    model: nn.Module, transform: augment.Transform
) -> Callable[..., tuple[Any, Any, Any]]:
    """One step of ((params, stats, velocity), images, labels, rate, key)."""

    @functools.partial(jax.jit, donate_argnums=0)
    def step(
        state: Any,
        images: jax.Array,
        labels: jax.Array,
        rate: jax.Array,
        key: jax.Array,
    ) -> tuple[Any, Any, Any]:
        params, stats, velocity = state
        views = augment.images.views(key, images, transform, 1)[:, 0]

        def nats(params: Any) -> tuple[jax.Array, Any]:
            logits, changed = model.apply(
                {"params": params, **stats}, views, train=True, mutable=list(stats)
            )
            each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return each.mean(), changed

        gradient, changed = jax.grad(nats, has_aux=True)(params)
        moved, velocity = _TRACE.update(gradient, velocity)
        params = jax.tree.map(lambda p, m: p - rate * m, params, moved)
        return params, {**stats, **changed}, velocity

    return step
