"""How each loss is trained on images, and the named settings for that."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax

import jaxcl
from jaxcl import _rules, augment, data, models, recipes, study, training


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
      loss: its name in `recipes.ViewLoss`.
      num_views: of each image.
      temperature: None is that of the settings.
    """

    loss: recipes.LossName
    num_views: int = 2
    temperature: float | None = None


# The authors' comparison, each loss of one direction between views unless it says so.
OTHERS: Mapping[str, Other] = {
    "InfoNCE": Other("info_nce"),
    "NT-Xent": Other("nt_xent"),
    "DCL": Other("dcl"),
    "DHEL": Other("dhel"),
    "IS-InfoNCE": Other("is_info_nce", 3),
    "KCL": Other("kcl", temperature=1.0),
    "f-MICL": Other("f_micl"),
}


def make_loss(s: Training) -> Callable[..., jax.Array]:
    """Returns loss(z [b, v, d], axis_name=...), one per anchor."""
    name, _, t = OTHERS.get(s.loss, Other("sc_info_nce"))
    sc: dict[str, Any] = {"alpha": s.alpha, "beta": s.beta, "variant": s.variant}
    t = s.temperature if t is None else t
    return recipes.make_loss(recipes.ViewLoss(loss=name, temperature=t, **sc))


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
    "cifar10_cpu": Training(
        **recipes.CIFAR10_CPU,
        test_split="train[25000:30000]",
        variant="official",
        beta=-0.2,
    ),
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
