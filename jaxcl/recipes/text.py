"""Pretraining on sentences: the settings that scripts share, and what they stand for.

dataset = text.open_sentences(s)
vocabulary = text.make_vocabulary(s, dataset)
rows = text.tokenize(s, dataset, vocabulary)  # examples, in rows of tokens
feed = text.feed(s, rows, sharding)
described = text.describe(s, vocabulary)
encode = training.in_chunks(text.make_encode_views(s, described, vocabulary), 1)
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl import _checks, _rules, augment, data, evaluation, models, training
from jaxcl.recipes import training as training_lib

Change = Literal["identity", "drop", "crop", "mask"]

# Lengths of rows that are encoded: few, so that all sets share their programs.
_LENGTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


@dataclasses.dataclass(frozen=True)
class Sentences(training_lib.Training):
    """Pretrains an encoder of sentences."""

    examples: ClassVar[str] = "sentences"

    directory: str = "runs/text"
    """Where settings, metrics, checkpoints and the vocabulary go."""
    source: str = "topics"
    """Sentences: "topics", those of Python's own documentation; or a .txt, .tsv, .csv
    or .jsonl, which may end in .gz."""
    sentence: tuple[str, ...] | None = None
    """Column of a table, by its name or, from 0, its number; several columns where the
    positives are in them. None: the first."""
    group: str | None = None
    """Column of what sentences describe, such as the number of a photo."""
    positives: Literal["views", "groups", "columns"] = "views"
    """What is near: views of a sentence; two sentences of a group; or the sentences of
    a line."""
    num_views: _rules.Several = 2
    """Views of each sentence; losses of pairs take the first two."""
    augmentation: tuple[Change, ...] = ("identity",)
    """Each view draws one of these; with "identity" alone views differ by dropout."""
    ratio: _rules.Share = 0.2
    """Share of the tokens that an augmentation drops or masks."""
    apart: _rules.Index | None = None
    """By how many tokens two sentences of a group may differ, to save padding."""
    vocabulary: Annotated[int, _rules.whole(261)] = 8000
    """Tokens that are learnt from the sentences."""
    lower: bool = True
    """Whether capital letters are made small."""
    longest: Annotated[int, _rules.whole(3)] = 32
    """Tokens of the longest row."""
    too_long: Literal["cut", "refuse"] = "cut"
    """What becomes of longer sentences."""
    lengths: _rules.Count = 6
    """Lengths of rows at most, for each of which the step is compiled."""
    weights: str | None = None
    """Directory with config.json, model.safetensors and tokenizer.json of a BERT or
    RoBERTa to begin with; None: a Transformer that knows nothing."""
    width: _rules.Count = 128
    """Units of each layer."""
    depth: _rules.Index = 4
    """Layers; 0: a bag of tokens, each of which has learnt a vector."""
    heads: _rules.Count = 4
    """Of the attention, which divide the width."""
    pooling: Literal["mean", "cls", "last"] = "mean"
    """What makes of tokens a sentence: mean, first or last."""
    last_norm: bool = True
    """Whether each token is normalized before pooling; if not, tokens with longer
    vectors count for more."""
    order: bool = True
    """Whether tokens know their places; if not, their order changes nothing."""
    dropout: Annotated[float, _rules.inside("[0, 1)")] = 0.1
    """Share of the units that training sets to 0; that of `weights` is their own."""
    projector: Literal["normalized", "plain", "none"] = "plain"
    """Whether the projector's hidden layer is batch-normalized; "none": the loss sees
    the encoder's output."""
    batch_size: _rules.Several = 128
    """Sentences, pairs or lines per step, over all devices."""
    epochs: _rules.Count = 10
    """Passes over the sentences."""
    warmup_epochs: _rules.Index = 1
    """Passes during which the learning rate rises from 0."""
    learning_rate: _rules.Positive = 1e-3
    """Highest rate, after the warm-up; 3e-5 is usual for `weights`."""
    weight_decay: _rules.NotNegative = 1e-2
    """Of weights; biases and normalizations have none, but with SGD."""


# Data. --------------------------------------------------------------------------------


def check(s: Sentences) -> None:
    """Refuses settings that cannot run, and those that nothing reads.

    Raises:
      ValueError: as `recipes.check`; if positives ask for columns that are not named;
        if augmentation names nothing; or if a setting was changed that the others make
        meaningless.
    """
    training_lib.check(s)
    if not s.augmentation:
        raise ValueError("augmentation must name one or more, got none")
    several = s.sentence is not None and len(s.sentence) > 1
    if several != (s.positives == "columns"):
        raise ValueError(
            "sentence must name several columns for positives 'columns', and one else, "
            f"got {s.sentence} for {s.positives!r}"
        )
    if s.positives == "groups" and s.group is None and s.source != "topics":
        raise ValueError("group must name a column for positives 'groups', got None")
    changes = set(s.augmentation) - {"identity"}
    for names, read, which in (
        ("num_views augmentation", s.positives == "views", "positives 'views'"),
        ("ratio", bool(changes), "an augmentation that changes tokens"),
        ("apart", s.positives == "groups", "positives 'groups'"),
        (
            "vocabulary lower width depth heads last_norm order dropout",
            s.weights is None,
            "an encoder without weights",
        ),
        ("embedding", s.projector != "none", "a projector"),
    ):
        _rules.unread(s, names, unless=read, which=which)


def open_sentences(s: Sentences) -> data.Dataset:
    """The texts of the settings.

    Raises:
      ValueError: if they cannot be read, or are fewer than a batch.
    """
    dataset = _open(s.source, s.split, s.sentence, s.group)
    training_lib.check_size(s, data.size(dataset))
    return dataset


def make_vocabulary(s: Sentences, dataset: data.Dataset) -> data.text.Vocabulary:
    """The vocabulary of the weights, or one that is learnt from the texts of a set.

    Raises:
      ValueError: if the directory of weights has none that can be read.
    """
    if s.weights is not None:
        return data.text.read_vocabulary(s.weights)
    texts = data.text.texts_of(dataset)
    return data.text.learn(list(dict.fromkeys(texts.flat)), s.vocabulary, lower=s.lower)


def tokenize(
    s: Sentences, dataset: data.Dataset, vocabulary: data.text.Vocabulary
) -> data.Dataset:
    """The examples of the settings, in rows of tokens of a few lengths.

    Raises:
      ValueError: if sentences are too long and are not to be cut; or if what the
        positives need is missing or fills no batch.
    """
    rows = data.text.tokenize(
        dataset, vocabulary, longest=s.longest, too_long=s.too_long
    )
    if s.positives == "groups":
        rows = data.text.pairs(rows, apart=s.apart)
    n, of_epoch = data.size(rows), once(s, rows)
    times = 1 if of_epoch is None else n / len(np.unique(of_epoch))
    rows = data.text.bucket(rows, at_least=round(s.batch_size * times), most=s.lengths)
    training_lib.check_size(s, examples_of_epoch(s, rows))
    return rows


def once(s: Sentences, rows: data.Dataset) -> np.ndarray | None:
    """What an epoch has one pair of: groups, where pairs are of these."""
    if s.positives != "groups":
        return None
    groups: Any = rows.columns["group"]
    return groups


def examples_of_epoch(s: Sentences, rows: data.Dataset) -> int:
    """Examples that the batches of an epoch hold, as `run_options` and
    `make_optimizer` take their number.
    """
    each = data.batches_per_epoch(rows, s.batch_size, once=once(s, rows))
    return each * s.batch_size


def feed(
    s: Sentences, rows: data.Dataset, sharding: jax.NamedSharding
) -> Callable[[int], Any]:
    """Batches of the settings on a mesh, of one length each."""
    return data.feed(
        rows,
        s.batch_size,
        s.seed,
        sharding,
        once=once(s, rows),
        on_device=s.on_device,
    )


# Model. -------------------------------------------------------------------------------


def describe(s: Sentences, vocabulary: data.text.Vocabulary) -> models.TextDescription:
    """The model of the settings.

    Raises:
      ValueError: if weights cannot be read, have another vocabulary, or know fewer
        places than the longest row has.
    """
    if s.weights is None:
        return models.TextDescription(
            vocabulary.size,
            s.longest,
            vocabulary.checksum,
            width=s.width,
            depth=s.depth,
            heads=s.heads,
            hidden=4 * s.width,
            pooling=s.pooling,
            dropout=s.dropout,
            dtype=s.dtype,
            embedding=s.width if s.projector == "none" else s.embedding,
            projector=s.projector,
            last_norm=s.last_norm,
            order=s.order,
        )
    described = _read(s, vocabulary)[0]
    if vocabulary.size > described.vocabulary:
        raise ValueError(
            f"{s.weights}: tokenizer.json must have at most the {described.vocabulary} "
            f"tokens of config.json, got {vocabulary.size}"
        )
    if s.longest > described.positions:
        raise ValueError(
            f"longest must be at most the {described.positions} places of "
            f"{s.weights}, got {s.longest}"
        )
    return described


def initialize(
    s: Sentences,
    described: models.TextDescription,
    vocabulary: data.text.Vocabulary,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is there before the first step: ({"model": ...}, {"batch_stats": ...}).

    The second is {} without batch normalization. The encoder is that of the weights,
    where the settings name some; the projector is drawn.
    """
    variables = training_lib.first_variables(described, s.seed)
    params = variables.pop("params")
    if s.weights is not None:
        encoder = _read(s, vocabulary)[1]
        params = {**params, "encoder": jax.tree.map(jnp.asarray, encoder)}
    return {"model": params}, variables


def _read(s: Sentences, vocabulary: data.text.Vocabulary) -> Any:
    assert s.weights is not None
    return models.read_bert(
        s.weights,
        pooling=s.pooling,
        tokenizer=vocabulary.checksum,
        dtype=s.dtype,
        embedding=s.embedding,
        projector=s.projector,
    )


def make_transform(
    s: Sentences, vocabulary: data.text.Vocabulary
) -> augment.tokens.Transform:
    """Returns transform(key, row) -> a view of the row."""
    named: dict[str, augment.tokens.Transform] = {
        "identity": augment.tokens.identity,
        "drop": functools.partial(augment.tokens.drop, ratio=s.ratio),
        "crop": functools.partial(augment.tokens.crop, ratio=s.ratio),
        "mask": functools.partial(
            augment.tokens.mask, ratio=s.ratio, token=vocabulary.mask
        ),
    }
    chosen = [named[name] for name in s.augmentation]
    return chosen[0] if len(chosen) == 1 else augment.one_of(*chosen)


def make_apply(s: Sentences, described: models.TextDescription) -> Callable[..., Any]:
    """Returns apply(variables, tokens [n, L], key) -> (z [n, d], changed)."""
    model = models.build(described)

    def apply(variables: Any, tokens: data.text.TokenBatch, key: jax.Array) -> Any:
        changing = [name for name in variables if name != "params"]
        rngs = {"dropout": key}
        return model.apply(variables, tokens, train=True, mutable=changing, rngs=rngs)

    return training.float32_gradients(apply) if s.gradients == "float32" else apply


def make_encode_views(
    s: Sentences,
    described: models.TextDescription,
    vocabulary: data.text.Vocabulary,
) -> Callable[..., Any]:
    """Returns encode(variables, tokens, key) -> (z [b, views, d], changed).

    Tokens are [b, L], of which views are made, or [b, v, L], which are the views. Every
    row has dropout of its own.
    """
    apply, transform = make_apply(s, described), make_transform(s, vocabulary)

    def encode(variables: Any, tokens: data.text.TokenBatch, key: jax.Array) -> Any:
        of_views, of_dropout = jax.random.split(key)
        if s.positives == "views":
            tokens = augment.views(of_views, tokens, transform, s.num_views)
        apply_once = functools.partial(apply, key=of_dropout)
        return training.apply_views(apply_once, variables, tokens)

    return encode


# What was trained. --------------------------------------------------------------------


def keep(
    directory: str | os.PathLike[str],
    described: models.TextDescription,
    vocabulary: data.text.Vocabulary,
) -> None:
    """Writes `encoder.json` and `tokenizer.json`, as a run does when it begins.

    Of several processes only the first writes.
    """
    models.write_description(directory, described)
    if jax.process_index() == 0:
        data.text.write(directory, vocabulary)


def read_vocabulary(
    described: models.TextDescription, directory: str | os.PathLike[str]
) -> data.text.Vocabulary:
    """The vocabulary that lies beside an encoder.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is not the one that the encoder has learned with.
    """
    vocabulary = data.text.read_vocabulary(directory)
    if described.tokenizer not in ("", vocabulary.checksum):
        raise ValueError(
            f"{directory}: tokenizer.json must be the one that the encoder has learned "
            f"with, of checksum {described.tokenizer}, got {vocabulary.checksum}"
        )
    return vocabulary


def open_like(
    described: models.TextDescription,
    source: str,
    split: str,
    *,
    directory: str | os.PathLike[str],
    settings: Mapping[str, Any],
) -> data.Dataset:
    """Sentences in the rows that an encoder can be given; longer ones are cut.

    Args:
      described: of the encoder.
      source: as `data.text.open` takes it.
      split: "train" or a slice of it.
      directory: with the vocabulary.
      settings: of the run, whose columns are read where the source is its own.
    """
    own = source == settings.get("source")
    sentence, group = (
        settings.get(name) if own else None for name in ("sentence", "group")
    )
    texts = _open(source, split, sentence, group)
    return encodable(described, read_vocabulary(described, directory), texts)


def encodable(
    described: models.TextDescription,
    vocabulary: data.text.Vocabulary,
    dataset: data.Dataset,
) -> data.Dataset:
    """Texts in the rows that an encoder can be given; longer ones are cut."""
    return data.text.tokenize(
        dataset, vocabulary, longest=described.positions, too_long="cut"
    )


def represent(
    described: models.TextDescription,
    variables: Any,
    column: Any,
    *,
    layer: str = "h",
    batch_size: int = 256,
) -> np.ndarray:
    """h [n, r] or z [n, d] of sentences, without dropout.

    Args:
      described: the model.
      variables: of the model.
      column: rows of tokens, of one sentence each.
      layer: "h" or "z".
      batch_size: sentences that are encoded together; those of similar length are.
    """
    rows = data.text.rows_of(data.Dataset("sentences", {"sentence": column}))
    if rows.members.ndim != 1:
        raise ValueError("column must have one sentence in each example")
    _checks.count("batch_size", batch_size)
    ladder = [length for length in _LENGTHS if length < described.positions]
    dataset = data.Dataset("sentences", {"sentence": rows})
    few = data.text.bucket(dataset, lengths=(*ladder, described.positions))
    order = np.argsort(rows.sizes, kind="stable")
    encode = training_lib.make_encode(described, layer)
    frozen = jax.tree_util.Partial(encode, variables)
    in_order = _Ordered(few.columns["sentence"], order)
    found = evaluation.represent(frozen, in_order, batch_size)
    h = np.empty_like(found)
    h[order] = found
    return h


def represent_texts(
    described: models.TextDescription,
    variables: Any,
    vocabulary: data.text.Vocabulary,
    texts: np.ndarray,
    *,
    layer: str = "h",
    batch_size: int = 256,
) -> np.ndarray:
    """h of texts [n] or of several columns [n, v]: float32 [n, r] or [n, v, r].

    Sentences that are longer than the model are cut.

    Args:
      described: the model.
      variables: of the model.
      vocabulary: that it has learned with.
      texts: array of objects, as `data.text.texts_of` gives it.
      layer: "h" or "z".
      batch_size: sentences that are encoded together.
    """
    flat = data.Dataset("texts", {"sentence": texts.reshape(-1)})
    column = encodable(described, vocabulary, flat).columns["sentence"]
    h = represent(described, variables, column, layer=layer, batch_size=batch_size)
    return h.reshape(*texts.shape, -1)


class _Ordered:
    """A column in another order."""

    def __init__(self, column: data.Column, order: np.ndarray) -> None:
        self.column, self.order = column, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, indices: Any) -> Any:
        return self.column[self.order[indices]]


def _open(source: str, split: str, sentence: Any, group: str | None) -> data.Dataset:
    """With columns as flags name them: digits are numbers."""

    def column(name: str) -> data.text.Name:
        return int(name) if name.isdecimal() else name

    chosen: Any = None
    if sentence:
        names = [column(name) for name in sentence]
        chosen = names if len(names) > 1 else names[0]
    of_group = None if group is None else column(group)
    return data.text.open(source, split, sentence=chosen, group=of_group)
