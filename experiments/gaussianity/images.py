"""Are embeddings of images Gaussian? InfoNCE beside supervised cross-entropy.

python -m experiments.gaussianity images
python -m experiments.gaussianity images --source tfds:cifar10 --encoder resnet18 \
    --width 64 --augmentation photographs --batch_size 256 --epochs 100

The same network from the same parameters is trained twice, on the same views of the
same batches: with InfoNCE of its unnormalized output of d numbers, and with the
cross-entropy of a linear classifier on that output. What is tested is that output, of
held-out images without augmentation.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from experiments import simclr
from experiments.gaussianity import measures, pictures
from jaxcl import _files, augment, data, evaluation, losses, models, training


@dataclasses.dataclass(frozen=True)
class Settings:
    """Trains one encoder with and without labels and tests both for Gaussianity."""

    directory: str = "runs/gaussianity_images"
    """Where the table and the pictures go; one that holds results is refused."""
    source: str = "digits"
    """Images: "digits", a .npz or .npy file, "tfds:NAME", or a prepared directory."""
    split: str = "train"
    """Images to learn from."""
    test_split: str = "test"
    """Held-out images that are measured."""
    augmentation: Literal["characters", "photographs"] = "characters"
    """Affine maps and noise, or crops, flips and colors without blur."""
    jitter: float = 1.0
    """Strength of the colors of "photographs"; 1 as in the paper."""
    encoder: Literal["small", "resnet18"] = "small"
    """Three convolutions and a dense layer, or a residual network."""
    width: int = 16
    """Channels of its first stage; 64 is the usual residual network."""
    dimension: int = 128
    """Size d of the output that the loss and the tests read."""
    loss: Literal["info_nce", "nt_xent"] = "info_nce"
    """Contrastive loss: of one direction as in the paper, or among all views."""
    temperature: float = 0.1
    """Divides cosines."""
    batch_size: int = 128
    """Images per step; the paper has 256."""
    epochs: int = 100
    """Passes over the images, as in the paper."""
    learning_rate: float = 1e-3
    """Of AdamW, constant."""
    weight_decay: float = 1e-4
    """Of weights, apart from the gradient; the paper's may be added to it."""
    measurements: int = 10
    """Moments at which encoders are measured, besides the start."""
    max_samples: int = 5000
    """Embeddings that the tests see at most; the paper does not say."""
    seed: int = 0
    """Of parameters, batches and views."""


class Classifier(nn.Module):
    """A linear classifier on the output of a network.

    Args:
      network: module from images to embeddings [n, d].
      num_classes: of the logits.
    """

    network: nn.Module
    num_classes: int

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        z = self.network(images, train=train)
        return jnp.asarray(nn.Dense(self.num_classes, name="head")(z))


def make_network(s: Settings) -> models.SimCLR:
    """The encoder and a linear layer to d numbers."""
    encoder: nn.Module = (
        models.ConvEncoder(width=s.width)
        if s.encoder == "small"
        else models.resnet18(stem="small", width=s.width)
    )
    return models.SimCLR(encoder, models.Projector(s.dimension, depth=1))


def contrastive(s: Settings, z: jax.Array, labels: jax.Array) -> jax.Array:
    """Loss of embeddings [b, 2, d]; labels are not used."""
    if s.loss == "nt_xent":
        return losses.nt_xent(z, temperature=s.temperature)
    return losses.info_nce(z[:, 0], z[:, 1], temperature=s.temperature)


def supervised(s: Settings, logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy of the logits of both views [b, 2, c]."""
    both = jnp.broadcast_to(labels[:, None], logits.shape[:2])
    return optax.softmax_cross_entropy_with_integer_labels(logits, both)


class Trained(NamedTuple):
    """A run of one encoder.

    Attributes:
      epochs: at which it was measured, 0 first.
      history: what was measured then.
      first: the untrained encoder.
      last: the trained encoder.
      accuracy: of 5-NN on held-out images, among training images, by cosine of z.
    """

    epochs: list[int]
    history: list[measures.Measures]
    first: measures.Snapshot
    last: measures.Snapshot
    accuracy: float


def train(
    s: Settings,
    state: training.TrainState,
    loss: Callable[[Settings, jax.Array, jax.Array], jax.Array],
    images: data.Dataset,
    test: data.Dataset,
    bar: Any,
) -> Trained:
    """Trains one encoder and measures it on the way."""
    height, width = images.images.shape[1:3]
    transform = simclr.make_transform(
        simclr.Settings(augmentation=s.augmentation, jitter=s.jitter), (height, width)
    )
    view_key, test_key = (jax.random.fold_in(jax.random.key(s.seed), i) for i in (1, 2))
    batches = data.batches(images, s.batch_size, s.seed)
    steps = len(images.images) // s.batch_size
    network = make_network(s)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, images: jax.Array, labels: jax.Array) -> Any:
        views = augment.images.views(
            jax.random.fold_in(view_key, state.step), images, transform
        )
        return training.train_step(lambda out: loss(s, out, labels), state, views)

    def encode(variables: Any, images: jax.Array) -> jax.Array:
        pixels = images.astype(jnp.float32) / 255
        return jnp.asarray(network.apply(variables, pixels, train=False))

    def encode_views(variables: Any, images: jax.Array) -> jax.Array:
        # The same noise in every batch and at every moment: moments are compared.
        views = augment.images.views(test_key, images, transform)
        pixels = views.reshape(-1, *views.shape[2:])
        z = jnp.asarray(network.apply(variables, pixels, train=False))
        return z.reshape(len(images), -1)

    def embed(how: Callable[..., jax.Array], state: Any, x: data.Dataset) -> np.ndarray:
        params, stats = state.params, state.batch_stats
        if "head" in params:
            params, stats = params["network"], stats["network"]
        variables = {"params": params, "batch_stats": stats}
        return evaluation.represent(
            jax.tree_util.Partial(how, variables), np.asarray(x.images[:]), 500
        )

    def measured(state: Any) -> measures.Snapshot:
        return measures.snapshot(
            embed(encode, state, test),
            embed(encode_views, state, test).reshape(len(test.images), 2, -1),
            max_samples=s.max_samples,
            seed=s.seed,
        )

    snapshots, epochs = [measured(state)], [0]
    every = max(1, s.epochs // s.measurements)
    for i in range(1, s.epochs + 1):
        for number in range((i - 1) * steps, i * steps):
            batch = batches(number)
            state, metrics = step(state, batch["image"], batch["label"])
        training.check_finite(i * steps, jax.device_get(metrics))
        text = f"{loss.__name__}, loss {float(metrics['loss']):.3f}"
        bar.set_postfix_str(text, refresh=False)
        bar.update()
        if i % every == 0 or i == s.epochs:
            snapshots.append(measured(state))
            epochs.append(i)
    predicted = evaluation.knn(
        embed(encode, state, images),
        np.asarray(images.labels),
        snapshots[-1].z.astype(np.float32),
        k=5,
        num_classes=int(images.num_classes or 0),
    )
    accuracy = evaluation.accuracy(predicted, np.asarray(test.labels))
    history = [each.measures for each in snapshots]
    return Trained(epochs, history, snapshots[0], snapshots[-1], accuracy)


def main(s: Settings) -> dict[str, Trained]:
    """Trains both encoders, writes a table and pictures, and returns the runs."""
    directory = pathlib.Path(s.directory)
    _files.check_new("directory", directory)
    for name in ("epochs", "measurements"):
        if getattr(s, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(s, name)}")
    images, test = (
        data.to_memory(data.open(s.source, split)) for split in (s.split, s.test_split)
    )
    if images.labels is None or images.num_classes is None or test.labels is None:
        raise ValueError(f"source must have labels, and {s.source!r} has none")

    # Two models with the same parameters, but for the classifier that one of them has.
    network, num_classes = make_network(s), images.num_classes
    tx = training.adamw(s.learning_rate, weight_decay=s.weight_decay)
    example = jax.ShapeDtypeStruct((1, *images.images.shape[1:]), jnp.float32)
    key = jax.random.fold_in(jax.random.key(s.seed), 0)
    classifier = Classifier(network, num_classes)
    with_head = training.create_state(key, classifier, tx, example)
    # A copy: each run gives its state away at its first step.
    own = jax.tree.map(jnp.copy, (with_head.params, with_head.batch_stats))
    alone = training.TrainState.create(
        apply_fn=network.apply,
        params=own[0]["network"],
        tx=tx,
        batch_stats=own[1]["network"],
    ).replace(step=jnp.zeros((), jnp.int32))
    with tqdm.tqdm(total=2 * s.epochs, unit="epoch") as bar:
        runs = {
            "contrastive": train(s, alone, contrastive, images, test, bar),
            "supervised": train(s, with_head, supervised, images, test, bar),
        }

    rows = [("untrained", runs["contrastive"].first.measures)]
    rows += [(name, run.last.measures) for name, run in runs.items()]
    moments = {
        "held-out images": {
            "untrained": runs["contrastive"].first,
            **{name: run.last for name, run in runs.items()},
        }
    }
    pictures.norms(directory / "norms.png", moments)
    pictures.quantiles(directory / "quantiles.png", moments)
    pictures.cosines(directory / "cosines.png", moments)
    pictures.histories(
        directory / "metrics.png",
        [
            pictures.History(name, i, 0, run.epochs, run.history)
            for i, (name, run) in enumerate(runs.items())
        ],
        s.dimension,
    )
    findings = list(conclude(s, runs))
    record = {
        "settings": dataclasses.asdict(s),
        "rows": {name: m._asdict() for name, m in rows},
        "runs": {
            name: {
                "epochs": run.epochs,
                "history": [m._asdict() for m in run.history],
                "knn_accuracy": run.accuracy,
            }
            for name, run in runs.items()
        },
        "findings": findings,
    }
    (directory / "results.json").write_text(json.dumps(record, indent=2) + "\n")

    samples = rows[0][1].num_samples
    print(f"\nd = {s.dimension}, the tests saw {samples} held-out images\n")
    print(measures.table(rows, s.dimension))
    print(f"\nIn {s.directory}: results.json and pictures\n")
    print("\n".join(findings))
    return runs


def conclude(s: Settings, runs: dict[str, Trained]) -> Iterator[str]:
    """Sentences about what agrees with the paper, computed from the runs."""
    with_labels, without = runs["supervised"], runs["contrastive"]
    untrained = without.first.measures
    a, b = without.last.measures, with_labels.last.measures
    yield (
        f"5-NN accuracy {without.accuracy:.1%} contrastive, "
        f"{with_labels.accuracy:.1%} supervised: both encoders have learned."
        if min(without.accuracy, with_labels.accuracy) > 0.5
        else f"5-NN accuracy {without.accuracy:.1%} contrastive, "
        f"{with_labels.accuracy:.1%} supervised."
    )
    for name, m, claim in (("contrastive", a, True), ("supervised", b, False)):
        found = measures.is_gaussian(m)
        yield (
            f"{name}: {'Gaussian' if found else 'not Gaussian'}, the paper reports "
            f"{'Gaussian' if claim else 'not Gaussian'}: "
            f"{'agrees' if found == claim else 'does NOT agree'}."
        )
    for title, field in (
        ("cv", "cv"),
        ("Anderson-Darling mean", "ad_mean"),
        ("deviation of negatives", "negative_std"),
    ):
        before, x, y = (float(getattr(m, field)) for m in (untrained, a, b))
        yield (
            f"{title}: {before:.3f} untrained, {x:.3f} contrastive, {y:.3f} "
            f"supervised: {'lower' if x < y else 'NOT lower'} without labels, "
            f"{'as' if x < y else 'unlike'} in the paper."
        )
    yield (
        f"Negatives of deviation {a.negative_std:.3f} fill about "
        f"{a.negative_std**-2:.0f} of {s.dimension} dimensions."
    )
