"""Training on any kind of data: the settings that all share, and what they stand for.

A kind of data extends `Training` by its own settings, as `Images` does.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import jax
import optax

from jaxcl import _checks, _rules, data, models, training
from jaxcl.training import processes


@dataclasses.dataclass(frozen=True)
class Training:
    """Trains a model."""

    examples: ClassVar[str] = "examples"  # what messages call them

    directory: str
    """Where settings, metrics, checkpoints and pictures go."""
    source: str
    """What is learned from."""
    split: str = "train"
    """Part of the source to learn from, such as "train", "train[:90%]" or, drawn evenly
    over the classes, "train[:90%,stratified]"."""
    on_device: bool | None = None
    """Whether the data live on the devices; None: where they take less than a tenth of
    the memory."""
    batch_size: _rules.Several = 128
    """Examples per step, over all devices."""
    chunks: _rules.Count = 1
    """Parts in which a batch goes through the model, to save memory; the loss sees the
    whole batch. Batch statistics are those of a part. Meant for accelerators: on a CPU
    gradients of convolutions become slow."""
    epochs: _rules.Count = 300
    """Passes over the examples."""
    warmup_epochs: _rules.Index = 20
    """Passes during which the learning rate rises from 0."""
    max_steps: _rules.Count | None = None
    """Stops early after this many steps; the schedule stays that of all epochs."""
    optimizer: Literal["adamw", "lars", "sgd"] = "adamw"
    """LARS is meant for batches of thousands; SGD has a momentum of 0.9."""
    learning_rate: _rules.Positive = 2e-3
    """Highest rate, after the warm-up."""
    weight_decay: _rules.NotNegative = 1e-4
    """Of weights; biases and normalizations have none, but with SGD."""
    average: Annotated[float, _rules.inside("[0, 1)")] = 0.0
    """Momentum of a moving average of the weights, such as 0.999, which is probed and
    exported in place of them; 0: none."""
    seed: _rules.Seed = 0
    """Of parameters, batches and all else that is drawn."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """In which the model computes; parameters and losses are float32."""
    gradients: Literal["compute", "float32"] = "compute"
    """In which gradients of weights are summed over devices: that of the computation,
    or float32, which takes twice the bytes of bfloat16."""
    embedding: _rules.Count = 128
    """Size d of the embedding z that the loss sees."""
    log_every: _rules.Count = 50
    """Steps between two lines of metrics."""
    evaluate_every: _rules.Count = 300
    """Steps between two measurements of the monitors."""
    save_every: _rules.Count = 500
    """Steps between two checkpoints."""
    progress: bool = True
    """Whether a bar shows loss and speed."""
    distributed: bool = False
    """Joins the other processes of a pod or cluster first; run one on each host."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where no cluster is detected; implies `distributed`."""
    num_processes: _rules.Count | None = None
    """Number of processes, where no cluster is detected."""
    process_id: _rules.Index | None = None
    """Which of them this one is, from 0."""


@dataclasses.dataclass(frozen=True)
class Processes:
    """Several processes, of settings that do not extend `Training`, which has them."""

    distributed: bool = False
    """Joins the other processes of a pod or cluster first; run one on each host."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where no cluster is detected; implies `distributed`."""
    num_processes: _rules.Count | None = None
    """Number of processes, where no cluster is detected."""
    process_id: _rules.Index | None = None
    """Which of them this one is, from 0."""


# What may differ when a run resumes, since it does not change what is computed.
MAY_CHANGE = (
    "directory",
    "on_device",
    "log_every",
    "evaluate_every",
    "save_every",
    "max_steps",
    "progress",
    *processes.NAMES,
)


def join(s: Training | Processes) -> None:
    """Joins the other processes that the settings name; call it before anything runs.

    Args:
      s: settings.

    Raises:
      ValueError: if processes are named of which none is found.
    """
    training.join_processes(**{name: getattr(s, name) for name in processes.NAMES})


def start_alone(s: Training, command: str) -> None:
    """As `start`, for what runs in one process only.

    Args:
      s: settings.
      command: what says so.

    Raises:
      ValueError: as `start`, or if other processes are named.
    """
    which = f"a training, and not {command!r} (one process),"
    _rules.unread(s, " ".join(processes.NAMES), unless=False, which=which)
    start(s)


def start(s: Training) -> None:
    """Joins the other processes of the settings; call it before anything runs.

    Args:
      s: settings.

    Raises:
      ValueError: as `check`, if processes are named of which none is found, or if a
        setting was changed that the others make meaningless.
    """
    _rules.check(s)
    join(s)
    check(s)
    _rules.unread(
        s, "gradients", unless=s.dtype == "bfloat16", which="dtype 'bfloat16'"
    )


def check(s: Training) -> None:
    """Refuses settings that cannot run, before anything is opened or written.

    Args:
      s: settings.

    Raises:
      TypeError: if a number is of another type than its field.
      ValueError: if one is out of bounds, the warm-up is no shorter than the run, or
        the batch does not fit the devices and chunks.
    """
    _rules.check(s)
    if s.epochs <= s.warmup_epochs:
        raise ValueError(
            f"epochs must be more than warmup_epochs {s.warmup_epochs}, got "
            f"{s.epochs}; a short run needs fewer of both"
        )
    devices = jax.device_count()
    in_chunks = f" times {s.chunks} chunks" if s.chunks > 1 else ""
    _checks.divisible(
        "batch_size", s.batch_size, devices * s.chunks, f"{devices} devices{in_chunks}"
    )


def check_size(s: Training, n: int) -> None:
    """Refuses a data set that the settings do not fit.

    Args:
      s: settings.
      n: number of its examples.

    Raises:
      ValueError: if they are fewer than a batch, or the run would have too many steps.
    """
    if s.batch_size > n:
        raise ValueError(
            f"batch_size must be at most the {n:,} {s.examples} of {s.source!r} "
            f"{s.split!r}, got {s.batch_size}"
        )
    each = steps_per_epoch(s, n)
    most = (2**31 - 1) // each  # JAX counts steps in 32 bits
    if s.epochs > most:
        raise ValueError(
            f"epochs must be at most {most:,}, of {each:,} steps each, got {s.epochs}"
        )


def steps_per_epoch(s: Training, examples: data.Dataset | int) -> int:
    """Whole batches in a pass over a data set, or over so many examples."""
    n = data.size(examples) if isinstance(examples, data.Dataset) else examples
    return n // s.batch_size


def last_step(s: Training, examples: data.Dataset | int) -> int:
    """Steps after which a run ends; of a data set, or of so many examples."""
    total = s.epochs * steps_per_epoch(s, examples)
    return total if s.max_steps is None else min(total, s.max_steps)


def run_options(s: Training, examples: data.Dataset | int) -> dict[str, Any]:
    """What `training.open_run` is told by the settings."""
    return {
        "last": last_step(s, examples),
        "log_every": s.log_every,
        "save_every": s.save_every,
        "progress": s.progress,
    }


def make_optimizer(
    s: Training, examples: data.Dataset | int
) -> optax.GradientTransformation:
    """The optimizer of the settings, with a warm-up and a cosine over all epochs.

    Args:
      s: settings.
      examples: the data set, or their number.

    Returns:
      A transformation of gradients.
    """
    each = steps_per_epoch(s, examples)
    schedule = training.warmup_cosine(
        s.learning_rate, s.warmup_epochs * each, s.epochs * each
    )
    if s.optimizer == "sgd":
        decay = optax.add_decayed_weights(s.weight_decay)
        return optax.chain(decay, optax.sgd(schedule, momentum=0.9))
    make = training.adamw if s.optimizer == "adamw" else training.lars
    return make(schedule, weight_decay=s.weight_decay)


def first_variables(described: models.Described, seed: int) -> dict[str, Any]:
    """Variables of a model with which a run of this seed begins."""
    key = jax.random.fold_in(jax.random.key(seed), 0)
    return _initialize(described)(key)


@functools.cache
def _initialize(described: models.Described) -> Callable[..., dict[str, Any]]:
    """One program for all seeds, of which a comparison has many."""
    return jax.jit(functools.partial(models.initialize, described))


@functools.cache
def make_encode(described: models.Described, layer: str) -> Callable[..., jax.Array]:
    """One function for each description: what it has compiled is compiled once."""
    return models.encode(described, layer)


def variables_of(s: Training, state: training.TrainState) -> dict[str, Any]:
    """What the model is evaluated with: the average, where the settings ask for one.

    Running statistics are those of the weights themselves.
    """
    params = state.average if s.average else state.params
    return {"params": params["model"], **state.model_state}
