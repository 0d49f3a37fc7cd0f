"""How each loss is trained on images, and the named settings for that."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax

import jaxcl
from jaxcl import (
    _rules,
    augment,
    data,
    kernels,
    losses,
    models,
    recipes,
    study,
    training,
)

# A loss of embeddings [b, v, d] with a value per anchor; takes axis_name.
Loss = Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True)
class Training(recipes.Images):
    """One training by SC-InfoNCE, or by another loss."""

    loss: str = "SC-InfoNCE"
    """That, or the name of another loss."""
    temperature: _rules.Positive = 0.15
    """Divides cosines; smaller is sharper."""
    alpha: _rules.Finite = 1.0
    """Scale of the target."""
    beta: _rules.Finite = 0.0
    """Bias of the target."""
    variant: Literal["constant", "full", "official"] = "constant"
    """Form of SC-InfoNCE; the authors' image runs had "official"."""
    test_split: str = "test"
    """Images on which accuracy is measured; nothing is chosen there."""


MAY_CHANGE = (*recipes.MAY_CHANGE, "test_split")


class Other(NamedTuple):
    """A loss that the authors compare with.

    Attributes:
      make_loss: settings to a loss.
      num_views: of each image.
    """

    make_loss: Callable[[Training], Loss]
    num_views: int = 2


def of_two(loss: Loss) -> Loss:
    """A loss of one direction between the first two views."""
    return lambda z, axis_name=None: loss(z[:, 0], z[:, 1], axis_name=axis_name)


def of_three(loss: Loss) -> Loss:
    return lambda z, axis_name=None: loss(
        z[:, 0], z[:, 1], z[:, 2], axis_name=axis_name
    )


def at_temperature(loss: Loss, s: Training, **options: Any) -> Loss:
    return functools.partial(loss, temperature=s.temperature, **options)


def sc_info_nce(s: Training) -> Loss:
    options: Any = {"alpha": s.alpha, "beta": s.beta, "variant": s.variant}
    return of_two(at_temperature(losses.sc_info_nce, s, **options))


# The authors' comparison, each loss of one direction between views unless it says so.
OTHERS: Mapping[str, Other] = {
    "InfoNCE": Other(lambda s: of_two(at_temperature(losses.info_nce, s))),
    "NT-Xent": Other(lambda s: at_temperature(losses.nt_xent, s)),
    "DCL": Other(lambda s: at_temperature(losses.dcl, s)),
    "DHEL": Other(lambda s: at_temperature(losses.dhel, s)),
    "IS-InfoNCE": Other(lambda s: of_three(at_temperature(losses.is_info_nce, s)), 3),
    "KCL": Other(lambda s: functools.partial(losses.kcl, kernel=kernels.gaussian(1.0))),
    "f-MICL": Other(lambda s: losses.f_micl),
}


def make_loss(s: Training) -> Loss:
    return OTHERS[s.loss].make_loss(s) if s.loss in OTHERS else sc_info_nce(s)


def pretrain(s: Training) -> training.TrainState:
    """Trains by the loss of the settings, or goes on where it was stopped."""
    mesh, rows, whole = jaxcl.data_parallel()
    loss = jaxcl.sharded(make_loss(s), mesh)

    # Data: a function of the step, so a resumed run sees what an unbroken one would.
    images = recipes.open_images(s)
    feed = data.feed(images, s.batch_size, s.seed, rows, on_device=s.on_device)
    shape = recipes.image_size(images)
    transform = recipes.make_transform(s, shape)

    # Model and optimizer.
    described = recipes.describe(s, shape)
    params, stats = recipes.initialize(s, described)
    tx = recipes.make_optimizer(s, images)
    state = data.put(training.create_state(params, stats, tx), whole)
    apply = recipes.make_apply(s, described)

    def loss_fn(params: Any, state: Any, batch: Any, key: jax.Array) -> Any:
        views = augment.images.views(key, batch["image"], transform, s.num_views)
        variables = {"params": params["model"], **state.model_state}
        out, changed = training.apply_views(apply, variables, views)
        return training.Outcome(loss(out["z"]), changed)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, batch: Any, key: jax.Array) -> Any:
        return training.train_step(loss_fn, state, batch, key)

    # Loop. The key is an argument, so that seeds share one program.
    key = data.put(jax.random.fold_in(jax.random.key(s.seed), 1), whole)
    with training.open_run(
        s.directory, s, state, may_change=MAY_CHANGE, **recipes.run_options(s, images)
    ) as (run, state):
        models.write_description(s.directory, described)
        for i in run.steps():
            state, metrics = step(state, feed(i), key)
            run.log(i + 1, metrics)
            run.save(i + 1, state)
    return state


def features(s: Training, trained: bool) -> study.Features:
    return study.Features(*recipes.probe_features(s, trained, s.test_split))


STUDY = study.Study(pretrain, features)

_CIFAR = Training(
    source="tfds:cifar10",
    augmentation="photographs",
    encoder="resnet50",
    width=64,
    projector_norm=True,
    variant="official",
    beta=-0.2,
    batch_size=256,
    epochs=200,
    warmup_epochs=2,
    optimizer="lars",
    learning_rate=4.0,
    weight_decay=1e-6,
    monitors=(),
    log_every=100,
    save_every=2_000,
    progress=False,
)
_IMAGENET_STEM = dataclasses.replace(_CIFAR, stem="imagenet", alpha=0.5)

# What is learned from, where it is measured, and the authors' alpha and beta. All but
# the first two are their configurations; their alpha and beta belong to their
# "official" variant. Otherwise than there, the probe is a logistic regression on plain
# images, and linear layers are initialized as this library does. STL-10's beta is in
# doubt, since its key is misspelt in their file; what of ImageNet is in TFDS has to be
# prepared at one size, for instance 256 pixels (`jaxcl prepare`).
PROTOCOLS: Mapping[str, Training] = {
    "digits": Training(**recipes.DIGITS),
    "mnist": Training(**recipes.MNIST),
    "cifar10": _CIFAR,
    "cifar100": dataclasses.replace(_IMAGENET_STEM, source="tfds:cifar100", beta=0.2),
    "stl10": dataclasses.replace(
        _IMAGENET_STEM, source="tfds:stl10", split="unlabelled", epochs=100
    ),
    "imagenet100": dataclasses.replace(
        _IMAGENET_STEM,
        source="tfds:imagenet100",
        test_split="validation",
        alpha=0.1,
        beta=0.5,
        blur=True,
        learning_rate=1.0,
    ),
}
