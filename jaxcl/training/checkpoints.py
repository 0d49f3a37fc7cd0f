"""Checkpoints of a run's state.

Its position in the data is the step: a batch is a function of (seed, step).

They live in `checkpoints/STEP` of a run directory. Orbax writes in the background under
another name and renames when all is on disk, so a run killed at any moment leaves only
complete checkpoints, and perhaps a `STEP.orbax-checkpoint-tmp` that nobody reads.

Beside the arrays (`state`) lie their checksums (`checks`): what a disk has changed
since is a broken checkpoint, and the one before is taken.
"""

import contextlib
import errno
import functools
import logging
import os
import pathlib
import re
import sys
import typing
import warnings
from collections.abc import Callable, Iterator

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from jaxcl import _checks, _checksums

State = typing.TypeVar("State")


def open(
    directory: str | os.PathLike, *, max_to_keep: int = 3
) -> contextlib.AbstractContextManager[ocp.CheckpointManager]:
    """Opens the checkpoints of a run for saving and restoring.

    What an interrupted save has left half written is removed.

    Args:
      directory: of the run; created if needed.
      max_to_keep: newest checkpoints to keep; each save drops older ones.

    Returns:
      A context manager with Orbax's manager; leaving it waits until all is written.

    Raises:
      ValueError: if max_to_keep is below 1.
      OSError: if the directory cannot be made, or, on leaving, a checkpoint could not
        be written.
    """
    _checks.count("max_to_keep", max_to_keep)
    return _opened(_checkpoints(directory), max_to_keep)


class _Manager(ocp.CheckpointManager):
    """Orbax's, but for asking whether several processes are to stop.

    JAX keeps the last step that anybody asked for, and agrees on one behind it. Orbax
    asks again for the steps that it saves, from a thread that lags behind the run: then
    what is agreed on may be a step that the run has left behind, and nobody stops.
    """

    def reached_preemption(self, step: int) -> bool:
        return False


@contextlib.contextmanager
def _opened(path: pathlib.Path, max_to_keep: int) -> Iterator[ocp.CheckpointManager]:
    path.mkdir(parents=True, exist_ok=True)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=max_to_keep, cleanup_tmp_directories=True
    )
    _be_brief()
    manager = _Manager(
        path,
        options=options,
        item_handlers=_handlers(ocp.StandardCheckpointHandler),
    )
    try:
        yield manager
    except BaseException as ended:
        try:
            manager.close()
        except Exception as error:  # what ended the run is raised, and this is said too
            if not isinstance(ended, UnsavedError):
                warnings.warn(str(_unsaved(manager, error)), stacklevel=3)
        raise
    with _naming_unsaved(manager):
        manager.close()


def save(manager: ocp.CheckpointManager, step: int, state: typing.Any) -> bool:
    """Saves a checkpoint in the background.

    Returns once the state is copied, so the caller may donate it to the next step. An
    error while writing is raised by the next call, by `wait`, or on leaving.

    Args:
      manager: from `open`.
      step: steps done so far.
      state: pytree of arrays.

    Returns:
      True; False if the newest checkpoint is of this step already, and stays.

    Raises:
      ValueError: if there is a newer checkpoint, so this run did not start from it.
      OSError: if this checkpoint or the one before could not be written; the message
        says which are intact.
    """
    newest = manager.latest_step()
    if newest is not None and newest >= step:
        if newest == step:
            return False
        raise ValueError(
            f"step must be later than {newest}, of which {_run(manager)} already has a "
            f"checkpoint, got {step}; resume it with restore_latest, or use another "
            "directory"
        )
    described, crcs = _checksums.described(state), _checksums.of_arrays(state)
    arrays = {name: [described[name], crcs[name]] for name in described}
    checks = {"arrays": arrays, "devices": _devices(state), "step": step}
    with _naming_unsaved(manager):
        return manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                checks=ocp.args.JsonSave({**checks, "crc": _checksums.of_json(checks)}),
            ),
            force=True,  # the caller decided that it is time
        )


def wait(manager: ocp.CheckpointManager) -> None:
    """Waits until what was saved is on the disk.

    Args:
      manager: from `open`.

    Raises:
      OSError: if it could not be written.
    """
    with _naming_unsaved(manager):
        manager.wait_until_finished()


def restore_latest(manager: ocp.CheckpointManager, state: State) -> tuple[State, bool]:
    """Restores the newest checkpoint that can be read and is as it was written.

    A broken checkpoint is never silently ignored and never deleted. If an older one can
    be read, broken ones are renamed to `STEP.broken` with a warning and the older one
    is restored; if none can, that is an error. Another number of devices than those
    that it was saved from is told as a warning: sums are added in another order there.

    Args:
      manager: from `open`.
      state: as it was saved: same structure, shapes and dtypes. Arrays, or
        `jax.ShapeDtypeStruct`; their shardings are where the checkpoint goes, so put a
        new state on the mesh first.

    Returns:
      State of the checkpoint and True; the given state and False if the run has no
      checkpoint.

    Raises:
      ValueError: if the checkpoint is of a state with another structure, other shapes
        or dtypes: the message names the run directory and what differs.
      NoCheckpointError: if there are checkpoints and none can be read.
    """
    wait(manager)  # a checkpoint on its way is the newest
    template = jax.tree.map(_target, state)

    def read(step: int) -> tuple[State, _Checks]:
        known = _read_checks(manager, step)
        wanted = _checksums.described(state)
        _check_same(_run(manager), step, known.described, wanted)
        restored = manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(template))
        ).state
        known.verify(restored)
        return restored, known

    found = _newest_readable(manager, read)
    if found is None:
        return state, False
    restored, known = found.content
    for step, wrong in found.broken.items():
        path = pathlib.Path(manager.directory) / str(step)
        aside = _free_name(path)
        if jax.process_index() == 0:
            path.rename(aside)
        _warn_broken(path, wrong, f"Renamed to {aside.name}, restoring an older one.")
    if found.broken:
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("broken checkpoints set aside")
        manager.reload()
    now = _devices(restored)
    if known.devices not in (0, now):
        warnings.warn(
            f"{_run(manager)}: step {found.step} was saved from {known.devices} "
            f"device{'s' * (known.devices > 1)} and goes on with {now}; results agree "
            "with those of an unbroken run to rounding only",
            stacklevel=2,
        )
    return restored, True


def restore_variables(
    directory: str | os.PathLike, variables: State, *, step: int | None = None
) -> tuple[State, int]:
    """Restores a part of a run's state, for reading: a probe needs no optimizer.

    Changes nothing in the run directory. A broken checkpoint is passed over with a
    warning.

    Args:
      directory: of the run.
      variables: the wanted part, for instance `{"params": {"model": ...},
        "model_state": ...}`, with arrays or `jax.ShapeDtypeStruct` leaves, as
        `jax.eval_shape` of `model.init` gives them.
      step: of the checkpoint; None is the newest that can be read.

    Returns:
      The variables, and the step of the checkpoint.

    Raises:
      FileNotFoundError: if the run has no checkpoint, or none of that step.
      ValueError: if the checkpoint does not hold such variables.
      NoCheckpointError: if no checkpoint can be read.
    """
    path = _checkpoints(directory)
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path.parent}: no checkpoints; expected a trained run"
        )
    template = jax.tree.map(_target, variables)
    _be_brief()
    with ocp.CheckpointManager(
        path,
        # What read_only implies is said as well: Orbax warns of what it sets itself.
        options=ocp.CheckpointManagerOptions(
            read_only=True, save_interval_steps=0, create=False
        ),
        item_handlers=_handlers(ocp.PyTreeCheckpointHandler),
    ) as manager:
        steps = manager.all_steps()
        if not steps or (step is not None and step not in steps):
            raise FileNotFoundError(
                f"{path.parent}: got step {step}; it has checkpoints of {sorted(steps)}"
            )

        def read(step: int) -> State:
            known = _read_checks(manager, step)
            wanted = _checksums.described(variables)
            # What else the state holds beside "params/model", say, is not asked for.
            asked = {tuple(name.split("/")[:2]) for name in wanted}
            saved = {
                name: array
                for name, array in known.described.items()
                if tuple(name.split("/")[:2]) in asked
            }
            _check_same(path.parent, step, saved, wanted)
            restored = manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeRestore(
                        template,
                        restore_args=ocp.checkpoint_utils.construct_restore_args(
                            template
                        ),
                        partial_restore=True,
                    )
                ),
            ).state
            known.verify(restored)
            return restored

        found = _newest_readable(manager, read, steps if step is None else [step])
        assert found is not None  # there are steps
    for number, wrong in found.broken.items():
        consequence = f"Reading step {found.step} instead."
        _warn_broken(path / str(number), wrong, consequence)
    return found.content, found.step


class MismatchError(ValueError):
    """A checkpoint that can be read and does not fit."""


# An OSError too: a command answers it in one line.
class NoCheckpointError(RuntimeError, OSError):
    """There are checkpoints, and none can be read."""


class _Checks(typing.NamedTuple):
    """What a checkpoint says of itself.

    Attributes:
      described: dtype and shape of each array.
      crcs: checksum of each; {} in a checkpoint from before there were any.
      devices: from which it was saved; 0 if it does not say.
    """

    described: dict[str, str]
    crcs: dict[str, str]
    devices: int

    def verify(self, restored: typing.Any) -> None:
        """Raises unless arrays are as they were saved."""
        if self.crcs:
            found = _checksums.of_arrays(restored)
            wrong = [name for name in found if found[name] != self.crcs[name]]
            if wrong:
                raise OSError(
                    f"{len(wrong)} of {len(found)} arrays are not as they were saved, "
                    f"the first is {wrong[0]}"
                )


def _read_checks(manager: ocp.CheckpointManager, step: int) -> _Checks:
    path = pathlib.Path(manager.directory) / str(step)
    if not (path / "checks").is_dir():
        metadata = manager.item_metadata(step)["state"]
        if metadata is None:
            raise FileNotFoundError(f"no metadata of the state of step {step}")
        warnings.warn(
            f"{path}: has no checksums, so damage to it would not be noticed",
            stacklevel=2,
        )
        return _Checks(_checksums.described(metadata.tree), {}, 0)
    args = ocp.args.Composite(checks=ocp.args.JsonRestore())
    checks = dict(manager.restore(step, args=args).checks)
    if checks.pop("crc") != _checksums.of_json(checks):
        raise OSError("its checksums are not as they were written")
    if checks.get("step", step) != step:  # a copy by hand; older ones do not say
        raise OSError(f"it is a copy of step {checks['step']}")
    arrays = checks["arrays"].items()
    return _Checks(
        {name: described for name, (described, _) in arrays},
        {name: crc for name, (_, crc) in arrays},
        checks["devices"],
    )


class _Found(typing.NamedTuple):
    """The newest readable checkpoint, and what is wrong with newer ones by step."""

    step: int
    content: typing.Any
    broken: dict[int, str]


def _newest_readable(
    manager: ocp.CheckpointManager,
    read: Callable[[int], typing.Any],
    steps: typing.Sequence[int] | None = None,
) -> _Found | None:
    """The newest checkpoint that `read` can read; None if there are none at all."""
    steps = manager.all_steps() if steps is None else steps
    broken: dict[int, str] = {}
    for step in sorted(steps, reverse=True):
        content, wrong = None, ""
        try:
            content = read(step)
        except MismatchError:
            raise
        except Exception as error:  # a broken file surfaces as any of a dozen types
            wrong = _first_line(error)
        if jax.process_count() > 1:
            # Whether it is broken is decided by all together.
            failed = multihost_utils.process_allgather(np.array(wrong != ""))
            if failed.any():
                wrong = wrong or f"process {failed.argmax()} could not read it"
        if not wrong:
            return _Found(step, content, broken)
        broken[step] = wrong
    if broken:
        lines = [f"{step} ({wrong})" for step, wrong in broken.items()]
        raise NoCheckpointError(
            f"{_run(manager)}: no checkpoint can be read: {'; '.join(lines)}. Nothing "
            "was changed. To start over, use another directory, or move "
            f"{manager.directory} away"
        )
    return None


def _check_same(
    run: pathlib.Path, step: int, saved: dict[str, str], wanted: dict[str, str]
) -> None:
    """Raises unless both name the same arrays, described in the same words."""
    lines = [
        f"  only in the checkpoint: {name} {saved[name]}"
        for name in saved
        if name not in wanted
    ]
    lines += [
        f"  not in the checkpoint: {name} {wanted[name]}"
        for name in wanted
        if name not in saved
    ]
    lines += [
        f"  {name}: {saved[name]} in the checkpoint, {wanted[name]} expected"
        for name in wanted
        if name in saved and saved[name] != wanted[name]
    ]
    if lines:
        shown = lines[:8]
        if len(lines) > len(shown):
            shown.append(f"  and {len(lines) - len(shown)} more")
        raise MismatchError(
            f"{run}: the checkpoint of step {step} is of another model or optimizer:\n"
            + "\n".join(shown)
            + "\nUse the settings it was trained with, or another directory."
        )


def _handlers(state: Callable[[], typing.Any]) -> dict[str, typing.Any]:
    """Of the items; named, metadata can be read before anything was saved."""
    return {"state": state(), "checks": ocp.JsonCheckpointHandler()}


def _target(leaf: typing.Any) -> jax.ShapeDtypeStruct:
    """What to restore a leaf as, and where: the default device if it does not say."""
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        # Left out, Orbax would look for the devices that the checkpoint was saved from.
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _devices(state: typing.Any) -> int:
    """On how many devices a state lives."""
    leaves = [leaf for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array)]
    return max((len(leaf.sharding.device_set) for leaf in leaves), default=0)


def _checkpoints(directory: str | os.PathLike) -> pathlib.Path:
    return pathlib.Path(directory).absolute() / "checkpoints"


def _run(manager: ocp.CheckpointManager) -> pathlib.Path:
    return pathlib.Path(manager.directory).parent


def _free_name(path: pathlib.Path) -> pathlib.Path:
    aside, number = path.with_name(f"{path.name}.broken"), 2
    while aside.exists():
        aside, number = path.with_name(f"{path.name}.broken{number}"), number + 1
    return aside


def _warn_broken(path: pathlib.Path, wrong: str, consequence: str) -> None:
    if jax.process_index() == 0:
        warnings.warn(
            f"{path}: this checkpoint is broken ({wrong}). {consequence}",
            stacklevel=3,
        )


@contextlib.contextmanager
def _naming_unsaved(manager: ocp.CheckpointManager) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _unsaved(manager, error) from error


class UnsavedError(OSError):
    """A checkpoint could not be written."""


def _unsaved(manager: ocp.CheckpointManager, error: Exception) -> OSError:
    """What a user can do about a checkpoint that could not be written."""
    steps = sorted(
        int(path.name)
        for path in pathlib.Path(manager.directory).iterdir()
        if path.name.isdigit()
    )
    intact = (
        f"those of steps {', '.join(map(str, steps))} are intact, and once it can be "
        f"written the same command goes on after step {steps[-1]}"
        if steps
        else "there is none before it"
    )
    return UnsavedError(
        f"{manager.directory}: a checkpoint could not be written "
        f"({_reason(error)}); {intact}"
    )


# What a disk answers, within the messages of Orbax and TensorStore.
_REASONS = {
    os.strerror(number).lower(): os.strerror(number)
    for number in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EFBIG,
        errno.EIO,
    )
}


def _reason(error: Exception) -> str:
    text = str(error).lower()
    return next((_REASONS[r] for r in _REASONS if r in text), _first_line(error))


def _first_line(error: Exception) -> str:
    text = re.sub(r"\s*\[[a-z_]+='.*", "", str(error).strip().split("\n")[0])[:200]
    return f"{type(error).__name__}: {text}"


@functools.cache
def _be_brief() -> None:
    """Leaves to this module to say what went wrong, in one line.

    Orbax logs what it raises as well, from threads that may end later. And reads that
    nobody waits for, since another has failed, tell so when they find the event loop
    closed, or when they are collected.
    """

    def unraisable(lost: typing.Any) -> None:
        text = f"{lost.object!r} {lost.exc_value}"
        if "TensorStore" not in text and "Event loop is closed" not in text:
            hook(lost)

    def of_others(record: logging.LogRecord) -> bool:
        about = f"{record.pathname} {record.msg}"
        words = "orbax", "tensorstore", "OCDBT"  # the last: its files
        return record.levelno < logging.WARNING or not any(w in about for w in words)

    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    lost = "coroutine '(_read_array|async_serialize)"  # nobody waits for them either
    warnings.filterwarnings("ignore", lost, RuntimeWarning)
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(of_others)
