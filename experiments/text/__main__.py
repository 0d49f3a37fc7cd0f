"""Contrastive learning on sentences, by any loss of the library.

python -m experiments.text                           # sentences of Python's own
python -m experiments.text --source path/to/captions.tsv.gz --group 0 --sentence 1 \
    --positives groups --sets path/to/text
python -m experiments.text --source path/to/triples.tsv --sentence 0 1 2 \
    --positives columns --losses info_nce clip
python -m experiments.text speed --source path/to/captions.tsv.gz --sentence 1

Pretrains with each loss and seed. What was learned is measured by Spearman's
correlation with scores that people have given, and by logistic regression on classes,
beside TF-IDF, averaged word vectors learnt from the same sentences, and the untrained
encoder.
"""

from experiments.text import compare, speed
from jaxcl import _cli, study


def compared(s: compare.Settings) -> None:
    """The command, whose trainings share compiled programs."""
    with study.shared_programs():
        compare.main(s)


def cli() -> None:
    _cli.run(
        None,
        {
            "compare": _cli.Command(compare.Settings, compared),
            "speed": _cli.Command(speed.Settings, speed.main),
        },
        prog="python -m experiments.text",
        default="compare",
        stopped="stopped; the same command goes on with runs that are not finished",
    )


if __name__ == "__main__":
    cli()
