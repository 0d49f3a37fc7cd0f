"""Checkpoints of a run's state.

Its position in the data is the step: a batch is a function of (seed, step).

They live in `checkpoints/STEP` of a run directory. Orbax writes in the background under
another name and renames when all is on disk, so a run killed at any moment leaves only
complete checkpoints, and perhaps a `STEP.orbax-checkpoint-tmp` that nobody reads.
"""

import os
import pathlib
import typing
import warnings
from collections.abc import Callable

import jax
import orbax.checkpoint as ocp

from jaxcl import _checks

State = typing.TypeVar("State")


def open(
    directory: str | os.PathLike, *, max_to_keep: int = 3
) -> ocp.CheckpointManager:
    """Opens the checkpoints of a run for saving and restoring.

    Args:
      directory: of the run; created if needed.
      max_to_keep: newest checkpoints to keep; each save drops older ones.

    Returns:
      A context manager; leaving it waits until everything is written.

    Raises:
      ValueError: if max_to_keep is below 1.
    """
    _checks.count("max_to_keep", max_to_keep)
    path = _checkpoints(directory)
    path.mkdir(parents=True, exist_ok=True)
    options = ocp.CheckpointManagerOptions(max_to_keep=max_to_keep)
    return ocp.CheckpointManager(
        path,
        options=options,
        # Named here, metadata can be read before anything was saved or restored.
        item_handlers={"state": ocp.StandardCheckpointHandler()},
    )


def save(manager: ocp.CheckpointManager, step: int, state: typing.Any) -> bool:
    """Saves a checkpoint in the background.

    Returns once the state is copied, so the caller may donate it to the next step. An
    error while writing is raised by the next call, or on leaving the manager.

    Args:
      manager: from `open`.
      step: steps done so far.
      state: pytree of arrays.

    Returns:
      True; False if the newest checkpoint is of this step already, and stays.

    Raises:
      ValueError: if there is a newer checkpoint, so this run did not start from it.
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
    return manager.save(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardSave(state)),
        force=True,  # the caller decided that it is time
    )


def restore_latest(manager: ocp.CheckpointManager, state: State) -> tuple[State, bool]:
    """Restores the newest checkpoint that can be read.

    A broken checkpoint is never silently ignored and never deleted. If an older one can
    be read, broken ones are renamed to `STEP.broken` with a warning and the older one
    is restored; if none can, that is an error.

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
      RuntimeError: if there are checkpoints and none can be read.
    """
    manager.wait_until_finished()  # a checkpoint on its way is the newest
    template = jax.tree.map(_target, state)

    def read(step: int) -> State:
        _check_same(_run(manager), step, _saved_arrays(manager, step), _arrays(state))
        restored = manager.restore(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardRestore(template)),
        )
        return restored.state

    found, restored, broken = _newest_readable(manager, read)
    if found is None:
        return state, False
    for step, error in broken.items():
        path = pathlib.Path(manager.directory) / str(step)
        aside = _free_name(path)
        path.rename(aside)
        _warn_broken(path, error, f"Renamed to {aside.name}, restoring an older one.")
    if broken:
        manager.reload()
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
      RuntimeError: if no checkpoint can be read.
    """
    path = _checkpoints(directory)
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path.parent}: no checkpoints; expected a trained run"
        )
    template = jax.tree.map(_target, variables)
    with ocp.CheckpointManager(
        path,
        # What read_only implies is said as well: Orbax warns of what it sets itself.
        options=ocp.CheckpointManagerOptions(
            read_only=True, save_interval_steps=0, create=False
        ),
        item_handlers={"state": ocp.PyTreeCheckpointHandler()},
    ) as manager:
        steps = manager.all_steps()
        if not steps or (step is not None and step not in steps):
            raise FileNotFoundError(
                f"{path.parent}: got step {step}; it has checkpoints of {sorted(steps)}"
            )

        def read(step: int) -> State:
            wanted = _arrays(variables)
            # What else the state holds beside "params/model", say, is not asked for.
            asked = {tuple(name.split("/")[:2]) for name in wanted}
            saved = {
                name: array
                for name, array in _saved_arrays(manager, step).items()
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
            )
            return restored.state

        found, restored, broken = _newest_readable(
            manager, read, steps if step is None else [step]
        )
    for number, error in broken.items():
        _warn_broken(path / str(number), error, f"Reading step {found} instead.")
    return restored, found


class Mismatch(ValueError):
    """A checkpoint that can be read and does not fit."""


def _newest_readable(
    manager: ocp.CheckpointManager,
    read: Callable[[int], typing.Any],
    steps: typing.Sequence[int] | None = None,
) -> tuple[typing.Any, typing.Any, dict[int, Exception]]:
    """Step and content of the newest checkpoint that `read` can read, and the broken.

    None, None and nothing if there are no checkpoints at all.
    """
    steps = manager.all_steps() if steps is None else steps
    broken: dict[int, Exception] = {}
    for step in sorted(steps, reverse=True):
        try:
            return step, read(step), broken
        except Mismatch:
            raise
        except Exception as error:  # a broken file surfaces as any of a dozen types
            if jax.process_count() > 1:
                raise  # the others may have read theirs: no process decides alone
            broken[step] = error
    if broken:
        lines = [f"  {step}: {_first_line(error)}" for step, error in broken.items()]
        raise RuntimeError(
            f"{_run(manager)}: no checkpoint can be read.\n"
            + "\n".join(lines)
            + "\nNothing was changed. To start over, use another directory, or move "
            f"{manager.directory} away."
        ) from next(iter(broken.values()))
    return None, None, broken


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
        raise Mismatch(
            f"{run}: the checkpoint of step {step} is of another model or optimizer:\n"
            + "\n".join(shown)
            + "\nUse the settings it was trained with, or another directory."
        )


def _saved_arrays(manager: ocp.CheckpointManager, step: int) -> dict[str, str]:
    metadata = manager.item_metadata(step)["state"]
    if metadata is None:
        raise FileNotFoundError(f"no metadata of the state of step {step}")
    return _arrays(metadata.tree)


def _arrays(tree: typing.Any) -> dict[str, str]:
    """Name and description of each array of a pytree."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        "/".join(_name(entry) for entry in path): _described(leaf)
        for path, leaf in leaves
        if hasattr(leaf, "shape")
    }


def _described(leaf: typing.Any) -> str:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.eval_shape(jax.random.key_data, leaf)  # what is written of a key
    return f"{leaf.dtype}{list(leaf.shape)}"


def _name(entry: typing.Any) -> str:
    """Of one step of a path: checkpoints turn fields into keys, so only names count."""
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def _target(leaf: typing.Any) -> jax.ShapeDtypeStruct:
    """What to restore a leaf as, and where: the default device if it does not say."""
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        # Left out, Orbax would look for the devices that the checkpoint was saved from.
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _checkpoints(directory: str | os.PathLike) -> pathlib.Path:
    return pathlib.Path(directory).absolute() / "checkpoints"


def _run(manager: ocp.CheckpointManager) -> pathlib.Path:
    return pathlib.Path(manager.directory).parent


def _free_name(path: pathlib.Path) -> pathlib.Path:
    aside, number = path.with_name(f"{path.name}.broken"), 2
    while aside.exists():
        aside, number = path.with_name(f"{path.name}.broken{number}"), number + 1
    return aside


def _warn_broken(path: pathlib.Path, error: Exception, consequence: str) -> None:
    warnings.warn(
        f"{path}: this checkpoint is broken ({_first_line(error)}). {consequence}",
        stacklevel=3,
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0][:200]
    return f"{type(error).__name__}: {text}"
