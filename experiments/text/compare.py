"""Encoders of sentences, by the losses that they were learned with.

python -m experiments.text
python -m experiments.text --source path/to/captions.tsv.gz --group 0 --sentence 1 \
    --positives groups --sets path/to/text --losses info_nce dcl
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from experiments.text import baselines, pretraining, results, scores, sets
from experiments.text.settings import MAY_CHANGE, Compared, Training, trainings
from jaxcl import data, models, recipes, study


@dataclasses.dataclass(frozen=True)
class Settings(Compared):
    """Pretrains with each loss and seed, and tests frozen representations."""

    directory: str = "runs/text"
    sets: str | None = None
    """Folder of what encoders are tested on: stsb_dev, sts12 to sts14, sick_trial and
    sick_train (score, sentence, sentence); sst2, trec, mr, subj, agnews (label, text);
    as .tsv.gz or .tsv without a header. Those that are there are taken."""
    sts: tuple[str, ...] = ()
    """Further pairs with scores: NAME=path, in columns as those."""
    transfer: bool = True
    """Whether classes are tested as well."""
    baselines: bool = True
    """Whether TF-IDF and averaged word vectors are tested beside them."""


def main(s: Settings) -> list[results.Result]:
    recipes.start(s)
    base, variants = trainings(s)
    dataset = recipes.text.open_sentences(base)
    tested = sets.open_tested(s.sets, s.sts, s.transfer, dataset)
    made = pretraining.prepare(base, dataset)
    if jax.process_index() == 0:
        print(data.text.about(made.rows))

    def hold(run: Training, trained: bool) -> scores.Encode:
        described = recipes.text.describe(run, made.vocabulary)
        variables = pretraining.variables_of(run, made, trained)
        return functools.partial(represent, described, variables, made.vocabulary)

    protocol = {
        "sets": sorted([*tested.pairs, *tested.classes]),
        "sentences": sets.size(tested),
    }
    metric = scores.metric_of(tested)
    score = functools.partial(scores.measure, tested=tested)
    compared = study.Study(
        lambda run: pretraining.pretrain(run, made), hold, score, metric, protocol
    )
    rows = study.run(compared, base, variants, s.seeds, may_change=MAY_CHANGE)
    known: list[study.Row] = []
    if s.baselines:
        texts = np.array(list(dict.fromkeys(data.text.texts_of(dataset).flat)), object)
        for name, encode in baselines.encodings(texts).items():
            found = scores.measure(encode, tested).scores
            of_one = {key: [value] for key, value in found.items()}
            known.append(study.Row(name, of_one, None, metric))
    told = results.of_rows([*known, *rows], tested)
    results.tell(s, told)
    study.tell_differences(rows, next(iter(variants)))
    return told


def represent(
    described: models.TextDescription,
    variables: Any,
    vocabulary: data.text.Vocabulary,
    texts: np.ndarray,
) -> np.ndarray:
    """h of texts, without dropout; those longer than the encoder knows are cut."""
    return recipes.text.represent_texts(described, variables, vocabulary, texts)
