"""SC-InfoNCE: where its target is known, and on images.

python -m experiments.sc_infonce                       # measured against theory
python -m experiments.sc_infonce images                # (alpha, beta) on the digits
python -m experiments.sc_infonce images --protocol cifar10 --seeds 0 1
"""

import sys
from typing import Annotated

import absl.logging
import tyro

from experiments import compare
from experiments.sc_infonce import images, synthetic
from jaxcl import study


def cli() -> None:
    absl.logging.set_verbosity(absl.logging.ERROR)  # Orbax logs too much
    try:
        settings = tyro.cli(
            Annotated[synthetic.Settings, tyro.conf.subcommand("synthetic")]
            | Annotated[images.Settings, tyro.conf.subcommand("images")],
            default=synthetic.Settings(),
            args=compare.arguments("synthetic"),
            prog="python -m experiments.sc_infonce",
        )
        if isinstance(settings, images.Settings):
            with study.shared_programs():
                images.main(settings)
        else:
            synthetic.main(settings)
    except (
        ValueError,
        FileExistsError,
        FileNotFoundError,
        NotADirectoryError,
        ImportError,
        FloatingPointError,
    ) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on with runs that are not finished")


if __name__ == "__main__":
    cli()
