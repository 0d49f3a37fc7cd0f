"""From a dataclass of settings to a command: flags, one-line errors, exit codes.

    if __name__ == "__main__":
        _cli.run(main, Settings, prog="python -m experiments.simclr")

Several commands in one script are a dictionary; each has a parser of its own, so that a
wrong flag is answered with those of its command alone:

    _cli.run(
        main,
        {
            "digits": _cli.Command(Settings(), help="The digits of scikit-learn."),
            "cifar10": _cli.Command(CIFAR10, help="CIFAR-10, prepared by TFDS."),
            "search": _cli.Command(Search, search, help="Looks for hyperparameters."),
        },
        prog="python -m experiments.moco",
        default="digits",
    )

Exit codes: 0 when all went well; 1 and one line on stderr for an error that a user can
do something about; 2 for flags that cannot be parsed; 130 for Ctrl-C.
`JAXCL_TRACEBACK=1` shows where an error came from.
"""

import contextlib
import difflib
import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxcl import _optional, _text

# What a wrong flag, file, package or setting raises. Anything else is a bug of ours,
# and its traceback is what a report of it needs.
EXPECTED = (ValueError, TypeError, OSError, ImportError, FloatingPointError)


class Command(NamedTuple):
    """One of several commands.

    Attributes:
      settings: a dataclass, or an instance of one with other defaults.
      main: what is called with them; None is the `main` of `run`.
      help: one line; by default the first of the dataclass's docstring.
    """

    settings: Any
    main: Callable[[Any], Any] | None = None
    help: str = ""


class Named(NamedTuple):
    """Named settings: a flag gives the name, and they replace the defaults.

    Attributes:
      flag: without dashes; the settings have a field of this name.
      helps: a line for each name, for `--help`.
      replace: (settings, name) to settings; a ValueError for a name that is not known.
      finish: what is done to the settings once the other flags are read.
    """

    flag: str
    helps: Mapping[str, str]
    replace: Callable[[Any, str], Any]
    finish: Callable[[Any], Any]


def run(
    main: Callable[[Any], Any] | None,
    settings: Any,
    *,
    prog: str,
    default: str | None = None,
    arguments: Sequence[str] | None = None,
    stopped: str = "stopped",
    named: Named | None = None,
) -> None:
    """Reads flags, calls main, and ends the process in one line where that fails.

    Args:
      main: is called with the settings.
      settings: a dataclass, or an instance of one with other defaults; or a mapping
        from names of commands to `Command`, or to (settings, main).
      prog: how the user calls the script, for help and errors.
      default: of several commands, the one meant where none is named.
      arguments: flags; by default those of the process.
      stopped: what Ctrl-C prints: "stopped; the same command resumes".
      named: settings that have names; other flags win over them.

    Raises:
      SystemExit: as the module says; not if all went well.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the terminal has no letters for shall not end the work.
        sys.stdout.reconfigure(errors="backslashreplace")
    with one_line_errors(stopped):
        command = Command(settings)
        if isinstance(settings, Mapping):
            commands = {name: _command(value) for name, value in settings.items()}
            helps = {name: c.help or _first_line(c) for name, c in commands.items()}
            name, arguments = choose(helps, arguments, prog=prog, default=default)
            command, prog = commands[name], f"{prog} {name}"
        call = command.main or main
        if call is None:
            raise TypeError(f"main must be a function, or given for {prog!r}: got None")
        call(_parse(command, arguments, prog, named))


@contextlib.contextmanager
def one_line_errors(stopped: str = "stopped") -> Iterator[None]:
    """Ends the process with one line and an exit code for what is expected to fail.

    Args:
      stopped: what Ctrl-C prints.

    Raises:
      SystemExit: as the module says.
    """
    before = warnings.formatwarning
    warnings.formatwarning = _one_warning
    try:
        yield
    except EXPECTED as error:
        if os.environ.get("JAXCL_TRACEBACK"):
            _leave_others("".join(traceback.format_exception(error)))
            raise
        said = f"{type(error).__name__}: {_one_line(error)}"
        _leave_others(f"{said}\n")
        sys.exit(said)
    except KeyboardInterrupt:
        print(f"\n{stopped}", file=sys.stderr)
        _leave_others("", code=130)
        sys.exit(130)
    except Exception as error:
        _leave_others("".join(traceback.format_exception(error)))
        raise
    finally:
        warnings.formatwarning = before


def _leave_others(said: str, code: int = 1) -> None:
    """Ends one of several processes at once, with what would be said else.

    At an ordinary exit JAX would wait for the others, which wait for this one: it takes
    them five minutes to give up.
    """
    jax = sys.modules.get("jax")  # a command that never loads it has no others
    if jax is None or not jax.distributed.is_initialized():
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(said)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _one_line(error: BaseException | str) -> str:
    return _text.printable(" ".join(str(error).splitlines()))


def _one_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """A warning as a user of a command reads it: without the line that gave it."""
    return f"{category.__name__}: {_one_line(str(message))}\n"


def choose(
    helps: Mapping[str, str],
    arguments: Sequence[str],
    *,
    prog: str,
    default: str | None = None,
) -> tuple[str, list[str]]:
    """Which of several commands the first argument names.

    Args:
      helps: a line for each name.
      arguments: of the command line.
      prog: how the user calls the script.
      default: the one meant where none is named, or None.

    Returns:
      The name, and the arguments that are its own.

    Raises:
      SystemExit: 0 after help, 2 where no command has that name.

    >>> choose({"a": "Does a.", "b": "Does b."}, ["--seed", "3"], prog="x", default="b")
    ('b', ['--seed', '3'])
    """
    first = arguments[0] if arguments else ""
    if first in helps:
        return first, list(arguments[1:])
    asked = first in ("-h", "--help")
    if default is not None and not asked and (not first or first.startswith("-")):
        return default, list(arguments)
    width = max(map(len, helps))
    lines = [f"usage: {prog} COMMAND [flags]", ""]
    for name, text in helps.items():
        also = " (if none is named)" if name == default else ""
        lines.append(f"  {name:{width}}  {text}{also}")
    lines += ["", f"{prog} COMMAND --help explains the flags of a command"]
    if asked:
        print("\n".join(lines))
        sys.exit(0)
    wrong = f"there is no command {first!r}" if first else "no command is named"
    if near := difflib.get_close_matches(first, helps, 1):
        wrong += f"; did you mean {near[0]!r}?"
    print(f"{prog}: {wrong}\n\n" + "\n".join(lines), file=sys.stderr)
    sys.exit(2)


def _command(value: Any) -> Command:
    """A command, of settings alone or of settings and a function."""
    return Command(*value) if isinstance(value, tuple) else Command(value)


def _first_line(command: Command) -> str:
    return (command.settings.__doc__ or "").strip().split("\n")[0]


def _value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """What a flag is given, before the others are parsed; the last one counts.

    >>> _value_of("recipe", ["--seed", "3", "--recipe=a", "--recipe", "b"])
    'b'
    """
    found = None
    for at, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name != f"--{flag}":
            continue
        if equals:
            found = value
        elif at + 1 < len(arguments) and not arguments[at + 1].startswith("-"):
            found = arguments[at + 1]
    return found


def _parse(
    command: Command,
    arguments: Sequence[str],
    prog: str,
    named: Named | None = None,
) -> Any:
    tyro: Any = _optional.require("tyro", "the command line", "tools")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with contextlib.suppress(ImportError):
        import absl.logging

        absl.logging.set_verbosity(absl.logging.ERROR)  # Orbax logs too much
    given: dict[str, Any] = {}
    kind = command.settings
    if not isinstance(kind, type):
        given["default"], kind = kind, type(kind)
    if command.help:
        given["description"] = command.help
    if named is not None:
        about = command.help or (kind.__doc__ or "").strip()
        lines = [f"- {name}: {text}" for name, text in named.helps.items()]
        heading = f"--{named.flag} NAME, which other flags change:"
        given["description"] = "\n\n".join([about, heading, "\n".join(lines)])
        name = _value_of(named.flag, arguments)
        if name not in (None, "None"):
            given["default"] = named.replace(given.get("default", kind()), name)
    # The flags are written as the fields are, and as messages name them.
    found = tyro.cli(kind, args=arguments, prog=prog, use_underscores=True, **given)
    return found if named is None else named.finish(found)
