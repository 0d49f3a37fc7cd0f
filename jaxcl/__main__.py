"""The command `jaxcl`: what users of the installed package run."""

import sys
from collections.abc import Callable, Sequence

from jaxcl import _cli


def _report(arguments: Sequence[str]) -> None:
    from jaxcl import report

    _cli.run(report.main, report.Settings, prog="jaxcl report", arguments=arguments)


def _prepare(arguments: Sequence[str]) -> None:
    from jaxcl.data import prepare

    _cli.run(prepare.main, prepare.Settings, prog="jaxcl prepare", arguments=arguments)


def _probe(arguments: Sequence[str]) -> None:
    from jaxcl.tools import probe

    _cli.run(probe.main, probe.Settings, prog="jaxcl probe", arguments=arguments)


def _embed(arguments: Sequence[str]) -> None:
    from jaxcl.tools import embed

    _cli.run(embed.main, embed.Settings, prog="jaxcl embed", arguments=arguments)


def _export(arguments: Sequence[str]) -> None:
    from jaxcl.tools import export

    _cli.run(export.main, export.Settings, prog="jaxcl export", arguments=arguments)


def _recipes(arguments: Sequence[str]) -> None:
    from jaxcl.tools import listing

    _cli.run(listing.main, listing.Settings, prog="jaxcl recipes", arguments=arguments)


# Name, what it does in one line, and what runs it. Each imports what it needs when it
# is called, so that help is there at once and without any extra.
COMMANDS: dict[str, tuple[str, Callable[[Sequence[str]], None]]] = {
    "report": ("Are the embeddings in a file Gaussian? A page that tells.", _report),
    "prepare": ("Makes a set to train on of files or a folder of images.", _prepare),
    "probe": ("Measures what the encoder of a run has learned, and draws it.", _probe),
    "embed": ("Writes an encoder's embeddings of a data set into a file.", _embed),
    "recipes": ("Lists named settings, with figures that others published.", _recipes),
    "export": ("Writes the encoder of a run as safetensors and JSON.", _export),
}


def cli(arguments: Sequence[str] | None = None) -> None:
    """Runs one of the commands.

    Args:
      arguments: name of the command, and its flags; by default those of the process.

    Raises:
      SystemExit: 1 with one line for an error, 2 for flags that cannot be parsed.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    helps = {name: text for name, (text, _) in COMMANDS.items()}
    name, rest = _cli.choose(helps, arguments, prog="jaxcl")
    with _cli.one_line_errors():
        COMMANDS[name][1](rest)


if __name__ == "__main__":
    cli()
