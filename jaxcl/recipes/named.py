"""Recipes: settings by name, with what others have published for them.

    python -m SCRIPT --recipe cifar10-resnet18-100ep --epochs 5

A recipe replaces the defaults of the script's settings, and flags replace the recipe.
To add one, add a line to `RECIPES`: its settings are fields of the script's settings.
"""

import dataclasses
import shlex
import textwrap
import types
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from jaxcl import _tables
from jaxcl.evaluation import Protocol, protocol_text
from jaxcl.recipes import images, losses, protocols, training

S = TypeVar("S")


class Published(NamedTuple):
    """A figure of others.

    Attributes:
      value: in percent.
      protocol: how it was measured.
      training: what they trained otherwise than the recipe does, in words.
      source: where it is published.
    """

    value: float
    protocol: Protocol
    training: str
    source: str


class Recipe(NamedTuple):
    """Settings of a name.

    Attributes:
      about: one line.
      settings: fields that replace defaults.
      prepare: command that makes the data.
      test_split: held-out part of the source.
      train_split: part with labels that probes learn from.
      published: figures of others.
      ours: what was measured with it here, in words.
    """

    about: str
    settings: Mapping[str, Any]
    prepare: str
    test_split: str = "test"
    train_split: str = "train"
    published: tuple[Published, ...] = ()
    ours: str = "not yet run"


# SimCLR's chain as the code of dkobak has it, with its optimizer: SGD, weight decay on
# all parameters, a cosine without warm-up; 0.06 for a batch of 256.
_CIFAR: Mapping[str, Any] = types.MappingProxyType(
    {
        "source": "tfds:cifar10",
        "augmentation": "cifar",
        "encoder": "resnet18",
        "width": 64,
        "projector": "plain",
        "temperature": 0.5,
        "batch_size": 512,
        "warmup_epochs": 0,
        "optimizer": "sgd",
        "learning_rate": 0.12,
        "weight_decay": 5e-4,
        "log_every": 100,
        "evaluate_every": 1_000,
        "save_every": 1_000,
    }
)
_LONG = {"epochs": 1000, "learning_rate": 0.06}

_TEST = "10,000 test images"
_DKOBAK = "github.com/dkobak/simclr-cifar10, README at commit 44b2500"
_DKOBAK_TRAINING = "hidden layer of the projector 1,024 wide, here 512"
_SOLO = "github.com/vturrisi/solo-learn, table of results in the README"
_SOLO_TRAINING = "its script has LARS, temperature 0.2, a projector of 2,048 and 256"
_ONLINE = Protocol(
    "online linear",
    "linear layer",
    "beside the pretraining",
    "1,000",
    labels="all",
    augmentation="that of the pretraining",
    tested=_TEST,
)


def _of_dkobak(knn: float, precomputed: float, augmented: float) -> tuple[Any, ...]:
    """Three figures of one table."""
    shared: dict[str, Any] = {"labels": "all", "tested": _TEST}
    linear = "Adam, cosine, weight decay 5e-6, learning rate {}"
    measured = (
        (
            knn,
            Protocol(
                "k-NN", "nothing", "k = 10, equal votes", augmentation="none", **shared
            ),
        ),
        (
            precomputed,
            Protocol(
                "linear",
                "linear layer",
                linear.format(0.01),
                "500",
                augmentation="none",
                **shared,
            ),
        ),
        (
            augmented,
            Protocol(
                "linear",
                "linear layer",
                linear.format(0.1),
                "100",
                augmentation="crops and flips",
                **shared,
            ),
        ),
    )
    return tuple(Published(*m, _DKOBAK_TRAINING, _DKOBAK) for m in measured)


_STL10 = {
    **_CIFAR,
    "source": "tfds:stl10",
    "split": "unlabelled",
    "augmentation": "photographs",
    "blur": True,
    "stem": "imagenet",
    "monitors": (),
}
_TINY = {
    **_CIFAR,
    "source": "tfds:tinyimagenet64",
    "augmentation": "photographs",
    "pixels": "imagenet",
    "epochs": 200,
}
# The default of SimCLR's code: 0.3 for a batch of 256, so 4.8 for 4,096.
_IMAGENET = {
    "source": "tfds:imagenet224",
    "augmentation": "photographs",
    "jitter": 1.0,
    "blur": True,
    "encoder": "resnet50",
    "width": 64,
    "stem": "imagenet",
    "temperature": 0.1,
    "batch_size": 4096,
    "epochs": 100,
    "warmup_epochs": 10,
    "optimizer": "lars",
    "learning_rate": 4.8,
    "weight_decay": 1e-6,
    "dtype": "bfloat16",
    "monitors": (),
    "log_every": 50,
    "save_every": 500,
}

_CIFAR10 = "jaxcl prepare --stock cifar10"
_CIFAR100 = "jaxcl prepare --stock cifar100"

# Two cores for less than an hour.
_CPU = {
    **protocols.CIFAR10_CPU,
    "width": 32,
    "epochs": 25,
    "temperature": 0.2,
    "monitors": ("knn",),
    "evaluate_every": 975,
    "progress": True,
}

# By name; a line more is a recipe more.
RECIPES: Mapping[str, Recipe] = {
    "cifar10-cpu": Recipe(
        "25,000 images of CIFAR-10, three convolutions, 25 epochs, for two CPU cores",
        _CPU,
        _CIFAR10,
        test_split="train[25000:30000]",
        train_split="train[:25000]",
        ours="62.9 20-NN, 66.9 linear",
    ),
    "cifar10-resnet18-100ep": Recipe(
        "CIFAR-10, ResNet-18, SGD, batches of 512, 100 epochs",
        {**_CIFAR, "epochs": 100},
        _CIFAR10,
        published=_of_dkobak(83.2, 85.6, 85.0),
    ),
    "cifar10-resnet18-200ep": Recipe(
        "CIFAR-10, ResNet-18, SGD, batches of 512, 200 epochs",
        {**_CIFAR, "epochs": 200},
        _CIFAR10,
        published=(
            Published(
                84.8,
                Protocol(
                    "k-NN",
                    "nothing",
                    "k = 200",
                    chosen="the best of all epochs, on test images",
                    labels="all",
                    augmentation="none",
                    tested=_TEST,
                ),
                "its script has another learning rate, augmentation and projector",
                "lightly, table of benchmarks in its documentation",
            ),
        ),
    ),
    "cifar10-resnet18-1000ep": Recipe(
        "CIFAR-10, ResNet-18, SGD, batches of 512, 1,000 epochs",
        {**_CIFAR, **_LONG},
        _CIFAR10,
        published=(
            *_of_dkobak(91.4, 91.7, 91.9),
            Published(90.74, _ONLINE, _SOLO_TRAINING, _SOLO),
        ),
    ),
    "cifar100-resnet18-100ep": Recipe(
        "CIFAR-100, ResNet-18, 100 epochs; settings of CIFAR-10, untried",
        {**_CIFAR, "source": "tfds:cifar100", "epochs": 100},
        _CIFAR100,
    ),
    "cifar100-resnet18-200ep": Recipe(
        "CIFAR-100, ResNet-18, 200 epochs; settings of CIFAR-10, untried",
        {**_CIFAR, "source": "tfds:cifar100", "epochs": 200},
        _CIFAR100,
    ),
    "cifar100-resnet18-1000ep": Recipe(
        "CIFAR-100, ResNet-18, 1,000 epochs; settings of CIFAR-10, untried",
        {**_CIFAR, "source": "tfds:cifar100", **_LONG},
        _CIFAR100,
        published=(Published(65.78, _ONLINE, _SOLO_TRAINING, _SOLO),),
    ),
    "stl10-resnet18": Recipe(
        "STL-10, 96 pixels, ResNet-18, unlabelled images, 100 epochs; settings untried",
        {**_STL10, "epochs": 100},
        "jaxcl prepare --stock stl10",
    ),
    "tinyimagenet-resnet18": Recipe(
        "TinyImageNet, 64 pixels, ResNet-18, 200 epochs; settings untried",
        _TINY,
        "jaxcl prepare --name tinyimagenet64 --folder FOLDER",
        test_split="val",
    ),
    "imagenet-resnet50": Recipe(
        "ImageNet-1k, 224 pixels, ResNet-50, LARS, batches of 4,096, 100 epochs",
        _IMAGENET,
        "jaxcl prepare --name imagenet224 --folder FOLDER --resize 224",
        test_split="val",
        published=(
            Published(
                64.5,
                Protocol(
                    "linear",
                    "linear layer",
                    "SGD, momentum 0.9, weight decay 1e-6, batches of 4,096",
                    "90",
                    labels="all",
                    augmentation="crops and flips",
                    tested="50,000 validation images",
                ),
                "crops are cut from whole images, here from ones of 224 pixels",
                "github.com/google-research/simclr, README",
            ),
        ),
    ),
}


def recipe(name: str) -> Recipe:
    """The recipe of a name.

    Args:
      name: of `RECIPES`.

    Raises:
      ValueError: if there is none, with the names that there are.

    >>> recipe("cifar10-resnet18-100ep").settings["epochs"]
    100
    """
    if name not in RECIPES:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, got {name!r}")
    return RECIPES[name]


def with_recipe(defaults: S, name: str) -> S:
    """Settings in which a recipe has replaced the defaults.

    Args:
      defaults: a dataclass of settings that has a field `recipe`.
      name: of the recipe.

    Returns:
      Settings of the same kind; their directory is runs/NAME.

    Raises:
      ValueError: if there is no such recipe.
    """
    changed = {"recipe": name, "directory": f"runs/{name}", **recipe(name).settings}
    return dataclasses.replace(defaults, **changed)  # type: ignore[type-var]


def shortened(s: S) -> S:
    """The settings of a recipe with flags: a short run does not end inside a warm-up.

    Args:
      s: settings; where their epochs are too few for the warm-up of the recipe, it
        becomes half of them, which is said.

    Returns:
      Settings of the same kind.
    """
    given: Any = s
    if given.recipe is None:
        return s
    warmup = recipe(given.recipe).settings.get("warmup_epochs")
    if given.warmup_epochs != warmup or given.epochs > given.warmup_epochs:
        return s
    fits = given.epochs // 2
    print(f"warmup_epochs is {fits}, not {warmup}, since there are {given.epochs:,}")
    return dataclasses.replace(given, warmup_epochs=fits)


def changed_settings(settings: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What a run has otherwise than its recipe.

    Args:
      settings: of the run, by name, as its settings.json has them.

    Returns:
      (value of the recipe, value of the run) by name; {} without a recipe, or where
      this version does not know it.
    """
    found = RECIPES.get(str(settings.get("recipe")))
    if found is None:
        return {}
    wanted = {
        **dataclasses.asdict(images.Images()),
        **dataclasses.asdict(losses.ViewLoss()),
        **found.settings,
    }
    return {
        name: (value, settings[name])
        for name, value in wanted.items()
        if name in settings and name not in _ALIKE and settings[name] != value
    }


# What may be otherwise in a run that is still one of the recipe.
_ALIKE = {*training.MAY_CHANGE, "seed", "monitors", "tile"} - {"max_steps"}


def table() -> str:
    """The recipes as a Markdown table.

    Returns:
      A row for each: what it learns from, encoder, epochs, batch, and accuracies in
      percent that others published and that were measured here.
    """
    rows = []
    for name, each in RECIPES.items():
        s = {**dataclasses.asdict(images.Images()), **each.settings}
        figures = []
        for p in each.published:
            crops = " augmented" * (p.protocol.augmentation == "crops and flips")
            figures.append(f"{p.value} {p.protocol.method}{crops}")
        rows.append(
            [
                f"`{name}`",
                s["source"],
                f"{s['encoder']}, width {s['width']}",
                s["epochs"],
                s["batch_size"],
                ", ".join(figures) or "-",
                each.ours,
            ]
        )
    head = ["recipe", "source", "encoder", "epochs", "batch", "published", "ours"]
    return _tables.markdown(head, rows)


def section(name: str) -> str:
    """What there is to say of a recipe, in Markdown.

    Args:
      name: of the recipe.

    Returns:
      Its data, the flags that it stands for, and each published figure with protocol.

    Raises:
      ValueError: if there is no such recipe.
    """
    each = recipe(name)
    flags = [_as_flag(k, v) for k, v in each.settings.items()]
    about = textwrap.wrap(f"{each.about}. Ours: {each.ours}.", 88)
    lines = [f"## {name}", "", *about, "", "```"]
    lines += [each.prepare, f"# --recipe {name} stands for:"]
    # No line ends between a flag and its value.
    kept = (flag.replace(" ", "\0") for flag in flags)
    wrapped = textwrap.wrap(" ".join(kept), 84, break_on_hyphens=False)
    lines += [line.replace("\0", " ") for line in wrapped]
    probe = f"jaxcl probe runs/{name}"
    for flag, given, usual in (
        ("train_split", each.train_split, "train"),
        ("test_split", each.test_split, "test"),
    ):
        probe += f" --{flag} {shlex.quote(given)}" * (given != usual)
    lines += [probe, "```"]
    for figure in each.published:
        said = (
            f"Published: {figure.value} %, {protocol_text(figure.protocol)}. Trained "
            f"otherwise: {figure.training}. From {figure.source}."
        )
        lines += ["", *textwrap.wrap(said, 88, break_on_hyphens=False)]
    if not each.published:
        lines += ["", "No published figure was found that can stand here."]
    return "\n".join(lines)


def _as_flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    several = value if isinstance(value, tuple) else (value,)
    return " ".join([f"--{name}", *(shlex.quote(str(v)) for v in several)])
