"""Are embeddings Gaussian where the law of the inputs is known, and on images?

python -m experiments.gaussianity synthetic
python -m experiments.gaussianity synthetic-paper      # the paper's sizes, an hour
python -m experiments.gaussianity sweep
python -m experiments.gaussianity images

For a file of anyone's embeddings there is `jaxcl report FILE`.
"""

from experiments.gaussianity import images, sweep, synthetic, synthetic_settings
from jaxcl import _cli

_PAPER = "The same with the sizes of the paper by default."


def cli() -> None:
    _cli.run(
        None,
        {
            "synthetic": _cli.Command(synthetic_settings.Settings, synthetic.main),
            "synthetic-paper": _cli.Command(
                synthetic_settings.PAPER, synthetic.main, _PAPER
            ),
            "sweep": _cli.Command(sweep.Settings, sweep.main),
            "images": _cli.Command(images.Settings, images.main),
        },
        prog="python -m experiments.gaussianity",
    )


if __name__ == "__main__":
    cli()
