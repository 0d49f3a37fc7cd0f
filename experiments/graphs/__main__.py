"""Contrastive learning on graphs, by any loss of the library.

python -m experiments.graphs                                    # made here, no data
python -m experiments.graphs --source path/to/NCI1.npz          # or a TUDataset folder
python -m experiments.graphs finetune --source path/to/NCI1.npz
python -m experiments.graphs nodes --source path/to/cora.npz
python -m experiments.graphs speed --source path/to/NCI1.npz

The first two pretrain as GraphCL does, with each loss and seed; frozen representations
are then tested by a linear machine in ten folds, or all weights are fine-tuned with a
tenth of the labels. `nodes` contrasts the nodes of one network, as GRACE does.
"""

from typing import Any

from experiments.graphs import finetune, frozen, nodes, speed
from jaxcl import _cli, study


def sharing(main: Any) -> Any:
    """The same command, whose trainings share compiled programs."""

    def shared(s: Any) -> None:
        with study.shared_programs():
            main(s)

    return shared


def cli() -> None:
    _cli.run(
        None,
        {
            "frozen": _cli.Command(frozen.Settings, sharing(frozen.main)),
            "finetune": _cli.Command(finetune.Settings, sharing(finetune.main)),
            "nodes": _cli.Command(nodes.Settings, sharing(nodes.main)),
            "speed": _cli.Command(speed.Settings, speed.main),
        },
        prog="python -m experiments.graphs",
        default="frozen",
        stopped="stopped; the same command goes on with runs that are not finished",
    )


if __name__ == "__main__":
    cli()
