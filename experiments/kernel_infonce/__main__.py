"""Kernel-InfoNCE: which kernel should a contrastive loss have?

python -m experiments.kernel_infonce                        # digits, one seed
python -m experiments.kernel_infonce --seeds 0 1 2
python -m experiments.kernel_infonce --protocol cifar10 --seeds 0 1
python -m experiments.kernel_infonce search --trials 20     # its hyperparameters

Trains the same encoder with each kernel of the paper, on the same data, seeds and
budget, and probes it on held-out images. The hyperparameters of each kernel come from a
random search with successive halving that never sees those: `search` measures on a part
of the training images. Both go on where they stopped when run again.

Sums come in two forms. The paper adds kernels, inside the logarithm; its code adds the
losses of the two kernels, outside of it. They are different functions: both are here.
"""

from experiments.kernel_infonce import compare, search
from jaxcl import _cli, study


def cli() -> None:
    with study.shared_programs():
        _cli.run(
            None,
            {
                "compare": _cli.Command(compare.Settings, compare.main),
                "search": _cli.Command(search.Settings, search.main),
            },
            prog="python -m experiments.kernel_infonce",
            default="compare",
            stopped="stopped; the same command goes on from here",
        )


if __name__ == "__main__":
    cli()
