"""The training of one network on images, with or without labels, and its measures."""

import dataclasses
import functools
import pathlib
import warnings
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import jaxcl
from experiments.gaussianity import measures
from jaxcl import _rules, augment, data, evaluation, models, recipes, training


@dataclasses.dataclass(frozen=True)
class Settings:
    """Trains one encoder with and without labels and tests both for Gaussianity."""

    directory: str = "runs/gaussianity_images"
    """Where the table and the pictures go; one that holds results is refused,
    and one that was stopped goes on."""
    source: str = "digits"
    """Images: "digits", a .npz or .npy file, "tfds:NAME", or a prepared directory."""
    split: str = "train"
    """Images to learn from."""
    test_split: str = "test"
    """Held-out images that are measured."""
    augmentation: Literal["characters", "photographs"] = "characters"
    """Affine maps and noise, or crops, flips and colors without blur."""
    jitter: Annotated[float, _rules.inside("[0, 2.5]")] = 1.0
    """Strength of the colors of "photographs"; 1 as in the paper."""
    encoder: Literal["small", "resnet18"] = "small"
    """Three convolutions and a dense layer, or a residual network."""
    width: _rules.Count = 16
    """Channels of its first stage; 64 is the usual residual network."""
    dimension: _rules.Several = 128
    """Size d of the output that the loss and the tests read."""
    loss: Literal["info_nce", "nt_xent"] = "info_nce"
    """Contrastive loss: of one direction as in the paper, or among all views."""
    temperature: _rules.Positive = 0.1
    """Divides cosines."""
    batch_size: _rules.Several = 128
    """Images per step; the paper has 256."""
    epochs: _rules.Count = 100
    """Passes over the images, as in the paper."""
    learning_rate: _rules.Positive = 1e-3
    """Of AdamW, constant."""
    weight_decay: _rules.NotNegative = 1e-4
    """Of weights, apart from the gradient; the paper's may be added to it."""
    measurements: _rules.Count = 10
    """Moments at which encoders are measured, besides the start."""
    max_samples: Annotated[int, _rules.whole(20)] = 5000
    """Embeddings that the tests see at most; the paper does not say."""
    seed: _rules.Seed = 0
    """Of parameters, batches and views."""
    processes: tyro.conf.OmitArgPrefixes[recipes.Processes] = recipes.Processes()  # noqa: RUF009


class Classifier(nn.Module):
    """A linear classifier on the output of a network: what both kinds begin with."""

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


# A loss of (parameters, embeddings [b, 2, d], labels [b]).
Loss = Callable[[Any, jax.Array, jax.Array], jax.Array]


def contrastive(s: Settings, mesh: jax.sharding.Mesh) -> Loss:
    """The contrastive loss of the settings; labels are not used."""
    chosen = recipes.ViewLoss(loss=s.loss, temperature=s.temperature)
    loss = jaxcl.sharded(recipes.make_loss(chosen), mesh)
    return lambda params, z, labels: loss(z)


def supervised(head: nn.Dense) -> Loss:
    """Cross-entropy of a linear classifier on both views."""

    def loss(params: Any, z: jax.Array, labels: jax.Array) -> jax.Array:
        logits = jnp.asarray(head.apply({"params": params["head"]}, z))
        both = jnp.broadcast_to(labels[:, None], z.shape[:2])
        return optax.softmax_cross_entropy_with_integer_labels(logits, both)

    return loss


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


def train(s: Settings, kind: str) -> Trained:
    """Trains one network, or goes on where it was stopped, and measures it.

    Args:
      s: settings.
      kind: "contrastive" or "supervised"; the directory of its run is called so.
    """
    mesh, rows, whole = jaxcl.data_parallel()
    images = data.to_memory(data.open(s.source, s.split))
    feed = data.feed(images, s.batch_size, s.seed, rows)
    steps = data.size(images) // s.batch_size
    known = recipes.labelled(s.source, "split", s.split)
    test = recipes.labelled(s.source, "test_split", s.test_split)
    evaluation.warn_of_unseen(known.labels, test.labels, known.class_names)
    num_classes = len(known.class_names)
    shape = recipes.image_size(images)
    look = recipes.Images(augmentation=s.augmentation, jitter=s.jitter)
    transform = recipes.make_transform(look, shape)

    # Both kinds begin with the same parameters; one of them has a classifier as well.
    network, head = make_network(s), nn.Dense(num_classes)
    init_key, view_key, test_key = (
        jax.random.fold_in(jax.random.key(s.seed), i) for i in range(3)
    )
    whole_model = Classifier(network, num_classes)
    drawn = dict(whole_model.init(init_key, jnp.ones((1, *shape)), train=False))
    of_both = drawn.pop("params")
    stats = {name: of_module["network"] for name, of_module in drawn.items()}
    params = {"model": of_both["network"]}
    if kind == "supervised":
        params["head"] = of_both["head"]
    loss = {
        "contrastive": lambda: contrastive(s, mesh),
        "supervised": lambda: supervised(head),
    }[kind]()
    tx = training.adamw(s.learning_rate, weight_decay=s.weight_decay)
    state = data.put(training.create_state(params, stats, tx), whole)
    apply = functools.partial(network.apply, train=True, mutable=list(stats))

    def loss_fn(params: Any, state: Any, batch: Any, key: jax.Array) -> Any:
        views = augment.images.views(key, batch["image"], transform)
        variables = {"params": params["model"], **state.model_state}
        z, changed = training.apply_views(apply, variables, views)
        return training.Outcome(loss(params, z, batch["label"]), changed)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, batch: Any, key: jax.Array) -> Any:
        return training.train_step(loss_fn, state, batch, key)

    # What is measured: embeddings of images as they are, and of two views.
    def encode(variables: Any, images: jax.Array) -> jax.Array:
        pixels = images.astype(jnp.float32) / 255
        return jnp.asarray(network.apply(variables, pixels, train=False))

    def encode_views(variables: Any, images: jax.Array) -> jax.Array:
        # The same noise in every batch and at every moment: moments are compared.
        views = augment.images.views(test_key, images, transform)
        pixels = views.reshape(-1, *views.shape[2:])
        z = jnp.asarray(network.apply(variables, pixels, train=False))
        return z.reshape(len(images), -1)

    def embed(how: Callable[..., jax.Array], state: Any, column: Any) -> np.ndarray:
        # A copy of this process: each measures for itself.
        variables = jax.device_get(
            {"params": state.params["model"], **state.model_state}
        )
        return evaluation.represent(jax.tree_util.Partial(how, variables), column, 500)

    def measured(state: Any) -> measures.Snapshot:
        views = embed(encode_views, state, test.images)
        return measures.snapshot(
            embed(encode, state, test.images),
            views.reshape(len(views), 2, -1),
            max_samples=s.max_samples,
            seed=s.seed,
        )

    first = measured(state)
    directory = pathlib.Path(s.directory) / kind
    every = steps * max(1, s.epochs // s.measurements)
    key = data.put(view_key, whole)
    with training.open_run(
        directory,
        s,
        state,
        last=s.epochs * steps,
        may_change=("directory", "processes"),
        log_every=steps,
        save_every=every,
    ) as (run, state):
        moments = {0: first.measures, **measures.of_run(directory)}

        def measure(done: int) -> None:
            try:
                moments[done] = measured(state).measures
                run.write(done, moments[done]._asdict())
            except Exception as error:  # whatever it is, the run is worth more
                wrong = f"{type(error).__name__}: {error}"
                warnings.warn(f"step {done} was not measured, {wrong}", stacklevel=2)

        # A run that ended between saving and measuring has a moment to make up for.
        if run.first not in moments:
            measure(run.first)
        for i in run.steps():
            state, metrics = step(state, feed(i), key)
            run.log(i + 1, metrics)
            run.save(i + 1, state)
            if run.due(i + 1, every):
                measure(i + 1)
    last = measured(state)
    predicted = evaluation.knn(
        embed(encode, state, known.images),
        known.labels,
        last.z.astype(np.float32),
        k=5,
        num_classes=num_classes,
    )
    moments[s.epochs * steps] = last.measures
    epochs, history = zip(*sorted(moments.items()), strict=True)
    accuracy = evaluation.accuracy(predicted, test.labels)
    return Trained([n // steps for n in epochs], list(history), first, last, accuracy)
