"""python -m experiments.gaussianity {synthetic,sweep,images} --help"""

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import tyro

from experiments.gaussianity import images, sweep, synthetic

_PROGRAM = "python -m experiments.gaussianity"
_PAPER = "The same with the sizes of the paper by default."
_Any = (
    Annotated[synthetic.Settings, tyro.conf.subcommand("synthetic")]
    | Annotated[
        synthetic.Settings,
        tyro.conf.subcommand(
            "synthetic-paper", default=synthetic.PAPER, description=_PAPER
        ),
    ]
    | Annotated[sweep.Settings, tyro.conf.subcommand("sweep")]
    | Annotated[images.Settings, tyro.conf.subcommand("images")]
)


def cli(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    run, settings = _parse(arguments)
    try:
        run(settings)
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def _parse(arguments: list[str]) -> tuple[Callable[[Any], Any], Any]:
    """The script that the first word names, and its settings.

    Each has its own parser: one of all would suggest the flags of the others.
    """
    name, rest = "".join(arguments[:1]), arguments[1:]
    program = f"{_PROGRAM} {name}"
    match name:
        case "synthetic":
            return synthetic.main, tyro.cli(synthetic.Settings, args=rest, prog=program)
        case "synthetic-paper":
            return synthetic.main, tyro.cli(
                synthetic.Settings,
                args=rest,
                prog=program,
                default=synthetic.PAPER,
                description=_PAPER,
            )
        case "sweep":
            return sweep.main, tyro.cli(sweep.Settings, args=rest, prog=program)
        case "images":
            return images.main, tyro.cli(images.Settings, args=rest, prog=program)
        case "embeddings":
            sys.exit("for a file of embeddings there is `jaxcl report FILE`")
    # No script: help, or what is wrong. Flags alone would not parse either.
    tyro.cli(_Any, args=arguments, prog=_PROGRAM)
    raise AssertionError(f"arguments must name a script, got {arguments}")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    cli()
