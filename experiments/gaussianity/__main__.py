"""python -m experiments.gaussianity {synthetic,sweep,images,embeddings} --help"""

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import tyro

from experiments.gaussianity import embeddings, images, sweep, synthetic


def cli(arguments: list[str] | None = None) -> None:
    settings = tyro.cli(
        Annotated[synthetic.Settings, tyro.conf.subcommand("synthetic")]
        | Annotated[
            synthetic.Settings,
            tyro.conf.subcommand(
                "synthetic-paper",
                default=synthetic.PAPER,
                description="The same with the sizes of the paper by default.",
            ),
        ]
        | Annotated[sweep.Settings, tyro.conf.subcommand("sweep")]
        | Annotated[images.Settings, tyro.conf.subcommand("images")]
        | Annotated[embeddings.Settings, tyro.conf.subcommand("embeddings")],
        args=arguments,
        prog="python -m experiments.gaussianity",
    )
    commands: dict[type, Callable[[Any], Any]] = {
        synthetic.Settings: synthetic.main,
        sweep.Settings: sweep.main,
        images.Settings: images.main,
        embeddings.Settings: embeddings.main,
    }
    try:
        commands[type(settings)](settings)
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    cli()
