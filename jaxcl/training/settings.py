"""The settings of a run, kept in its directory and compared when it resumes."""

import json
import os
import pathlib
import typing
import warnings
from collections.abc import Collection, Mapping

import jax

from jaxcl import _files

_ABSENT = object()


def save_settings(
    directory: str | os.PathLike,
    settings: Mapping[str, typing.Any],
    *,
    may_change: Collection[str] = (),
) -> None:
    """Writes `settings.json` of a new run; of an old one, checks that they agree.

    Of several processes all check and the first one writes. If the file of a run that
    has checkpoints is gone, that is a warning: nothing is left to compare with.

    Args:
      directory: of the run; created if needed.
      settings: fields by name, with values that JSON can hold.
      may_change: fields that may differ when a run resumes, for instance the number of
        steps. If nothing else differs, the file takes their new values.

    Raises:
      ValueError: if another field differs, with each such field, its old and its new
        value, or if the file there is not JSON. The file stays as it is.
      TypeError: if JSON cannot hold a value.
      NotADirectoryError: if the directory, or a folder above it, is a file.

    >>> import tempfile
    >>> run = tempfile.mkdtemp()
    >>> save_settings(run, {"seed": 0, "num_steps": 10})
    >>> save_settings(run, {"seed": 0, "num_steps": 20}, may_change=["num_steps"])
    >>> load_settings(run)
    {'seed': 0, 'num_steps': 20}
    """
    path = _path(_files.check_directory("directory", directory))
    for name, value in settings.items():
        try:
            json.dumps(value)
        except TypeError as error:
            raise TypeError(
                f"settings must be what JSON can hold, got {name} {value!r} ({error})"
            ) from error
    new = json.loads(json.dumps(dict(settings)))  # tuples become lists, as in the file
    if not path.exists():
        checkpoints = (path.parent / "checkpoints").glob("*")
        if jax.process_index() == 0 and any(c.name.isdigit() for c in checkpoints):
            warnings.warn(
                f"{path} was gone beside checkpoints: whether they were trained with "
                "these settings is not known",
                stacklevel=2,
            )
        _write(path, new)
        return
    old = load_settings(directory)
    differ = {
        name: (old.get(name, _ABSENT), new.get(name, _ABSENT))
        for name in [*old, *(n for n in new if n not in old)]
        if old.get(name, _ABSENT) != new.get(name, _ABSENT)
    }
    refused = {name: pair for name, pair in differ.items() if name not in may_change}
    if refused:
        lines = [f"  {k}: {_shown(a)} -> {_shown(b)}" for k, (a, b) in refused.items()]
        raise ValueError(
            f"{path} holds a run with other settings (old -> new):\n"
            + "\n".join(lines)
            + "\nResume it with the old values, or give the new run another directory."
        )
    if differ:
        _write(path, new)


def load_settings(directory: str | os.PathLike) -> dict[str, typing.Any]:
    """Settings of a run.

    Args:
      directory: of the run.

    Returns:
      Fields by name.

    Raises:
      FileNotFoundError: if the directory holds no settings.
      ValueError: if the file is not a JSON object.
    """
    path = _path(directory)
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such file; is {directory} a run directory?"
        )
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(settings, dict):
        raise ValueError(
            f"{path}: got a {type(settings).__name__}; expected a JSON object"
        )
    return settings


def _shown(value: typing.Any) -> str:
    return "(absent)" if value is _ABSENT else json.dumps(value)


def _path(directory: str | os.PathLike) -> pathlib.Path:
    return pathlib.Path(directory).absolute() / "settings.json"


def _write(path: pathlib.Path, settings: dict[str, typing.Any]) -> None:
    if jax.process_index() != 0:
        return
    _files.write_json(path, settings)
