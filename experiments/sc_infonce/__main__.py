"""SC-InfoNCE: where its target is known, and on images.

python -m experiments.sc_infonce                       # measured against theory
python -m experiments.sc_infonce images                # (alpha, beta) on the digits
python -m experiments.sc_infonce images --protocol cifar10 --seeds 0 1
"""

from experiments.sc_infonce import images, synthetic
from jaxcl import _cli, study


def of_images(s: images.Settings) -> None:
    with study.shared_programs():
        images.main(s)


def cli() -> None:
    _cli.run(
        None,
        {
            "synthetic": _cli.Command(synthetic.Settings, synthetic.main),
            "images": _cli.Command(images.Settings, of_images),
        },
        prog="python -m experiments.sc_infonce",
        default="synthetic",
        stopped="stopped; the same command goes on with runs that are not finished",
    )


if __name__ == "__main__":
    cli()
