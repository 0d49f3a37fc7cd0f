"""What the settings of a training on sentences stand for."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcl
from jaxcl import data, losses, models, recipes, training
from jaxcl.recipes import text as lib
from jaxcl.tools import embed, export, probe
from tests.models import bert_files

TINY = lib.Sentences(
    width=8,
    depth=1,
    heads=2,
    embedding=4,
    batch_size=16,
    epochs=3,
    vocabulary=600,
    longest=48,
    lengths=3,
    split="train[:200]",
)


@pytest.fixture(scope="module")
def made():
    dataset = lib.open_sentences(TINY)
    vocabulary = lib.make_vocabulary(TINY, dataset)
    return dataset, vocabulary, lib.tokenize(TINY, dataset, vocabulary)


@functools.cache
def variables_of(s, described):
    params, rest = lib.initialize(s, described, None)
    return {"params": params["model"], **rest}


def changed(**changes):
    return dataclasses.replace(TINY, **changes)


# Data. --------------------------------------------------------------------------------


def test_examples_are_sentences_in_rows_of_a_few_lengths(made):
    dataset, vocabulary, rows = made
    column = rows.columns["sentence"]
    assert data.size(rows) == data.size(dataset) == 200
    assert vocabulary.size == 600
    assert 1 < len(column.lengths) <= 3
    assert max(column.lengths) == 48
    each = np.bincount(column.groups)
    assert each.min() >= 16
    assert lib.examples_of_epoch(TINY, rows) == (each // 16 * 16).sum()
    batch = lib.feed(TINY, rows, jaxcl.data_parallel()[1])(0)
    assert batch["sentence"].tokens.shape[0] == 16


def test_pairs_are_drawn_from_groups_once_in_an_epoch(made):
    dataset, vocabulary, _ = made
    s = changed(positives="groups", apart=8, batch_size=4, split="train[:400]")
    dataset = lib.open_sentences(s)
    rows = lib.tokenize(s, dataset, vocabulary)
    assert (np.bincount(rows.columns["group"]) > 1).any()
    steps = lib.examples_of_epoch(s, rows) // 4
    assert recipes.last_step(s, lib.examples_of_epoch(s, rows)) == 3 * steps
    batches = data.batches(rows, 4, s.seed, once=lib.once(s, rows))
    seen = np.concatenate([batches(step)["group"] for step in range(steps)])
    assert len(set(seen.tolist())) == 4 * steps
    assert batches(0)["sentence"].tokens.shape[:2] == (4, 2)


def test_sentences_of_a_line_are_positives(tmp_path, made):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{i}\ta first {i}\ta second {i}\n" for i in range(20)))
    s = changed(
        source=str(path), positives="columns", sentence=("1", "2"), split="train"
    )
    lib.check(s)
    rows = lib.tokenize(s, lib.open_sentences(s), made[1])
    batch = rows.columns["sentence"][np.array([3])]
    first, second = (
        data.text.decode(made[1], row[valid])
        for row, valid in zip(batch.tokens[0], batch.valid[0], strict=True)
    )
    assert (first, second) == ("a first 3", "a second 3")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"augmentation": ()}, "augmentation must name one or more, got none"),
        ({"positives": "columns"}, "must name several columns for positives 'columns'"),
        ({"sentence": ("a", "b")}, r"and one else, got \('a', 'b'\) for 'views'"),
        ({"positives": "groups", "source": "a.tsv"}, "group must name a column for"),
        ({"ratio": 0.3}, "ratio .*an augmentation that changes tokens"),
        ({"apart": 3}, "apart .*positives 'groups'"),
        ({"num_views": 3, "positives": "groups"}, "num_views .*positives 'views'"),
        ({"weights": "there"}, "vocabulary .*an encoder without weights"),
        ({"projector": "none"}, "embedding must be left at 128, since only a project"),
        ({"epochs": 1}, "epochs must be more than warmup_epochs"),
    ],
)
def test_settings_that_cannot_run_or_that_nothing_reads_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        lib.check(changed(**changes))


def test_batches_that_the_sentences_do_not_fill_are_refused(made):
    with pytest.raises(ValueError, match="at most the 200 sentences of 'topics'"):
        lib.open_sentences(changed(batch_size=208))
    s = changed(too_long="refuse", longest=9)
    with pytest.raises(ValueError, match=r"of 200 sentences have more than 9 tokens"):
        lib.tokenize(s, made[0], made[1])


# Model. -------------------------------------------------------------------------------


def test_representations_are_those_of_each_sentence_alone(made):
    dataset, vocabulary, rows = made
    described = lib.describe(TINY, vocabulary)
    variables = variables_of(TINY, described)
    column = rows.columns["sentence"]
    h = lib.represent(described, variables, column, batch_size=64)
    assert h.shape == (200, 8)
    model = models.build(described)
    encode = jax.jit(functools.partial(model.apply, train=False, method="represent"))
    whole = lib.encodable(described, vocabulary, dataset).columns["sentence"]
    expected = encode(variables, whole[np.arange(200)])
    np.testing.assert_allclose(h, expected, rtol=1e-4, atol=1e-5)
    two = data.text.texts_of(dataset).reshape(100, 2)
    again = lib.represent_texts(described, variables, vocabulary, two, batch_size=64)
    assert again.shape == (100, 2, 8)
    np.testing.assert_allclose(again.reshape(200, 8), h, rtol=1e-5, atol=1e-6)
    pairs = data.text.pairs(lib.encodable(described, vocabulary, dataset))
    with pytest.raises(ValueError, match="column must have one sentence in each"):
        lib.represent(described, variables, pairs.columns["sentence"])


def test_views_differ_by_dropout_and_by_what_the_settings_name(made):
    _, vocabulary, rows = made
    tokens = rows.columns["sentence"][np.arange(16)]
    tokens = jax.tree.map(jnp.asarray, tokens)
    described = lib.describe(TINY, vocabulary)
    variables = variables_of(TINY, described)
    encode = jax.jit(lib.make_encode_views(TINY, described, vocabulary))
    z, changes = encode(variables, tokens, jax.random.key(0))
    assert (z.shape, z.dtype, changes) == ((16, 2, 4), jnp.float32, {})
    assert (np.abs(z[:, 0] - z[:, 1]).max(axis=1) > 0).all()
    still = changed(dropout=0.0)
    quiet = lib.make_encode_views(still, lib.describe(still, vocabulary), vocabulary)
    z, _ = jax.jit(quiet)(variables, tokens, jax.random.key(0))
    np.testing.assert_allclose(z[:, 0], z[:, 1], rtol=1e-6, atol=1e-7)
    halves, _ = jax.jit(training.in_chunks(quiet, 2))(
        variables, tokens, jax.random.key(0)
    )
    np.testing.assert_allclose(halves, z, rtol=1e-5, atol=1e-6)
    transform = lib.make_transform(changed(augmentation=("mask", "drop")), vocabulary)
    row = jax.tree.map(lambda x: x[0], tokens)
    seen = jax.jit(jax.vmap(transform, (0, None)))(
        jax.random.split(jax.random.key(0), 8), row
    )
    masked = np.asarray(seen.tokens == vocabulary.mask).any(axis=1)
    dropped = (np.asarray(seen.valid) != np.asarray(row.valid)).any(axis=1)
    assert (masked ^ dropped).all()
    assert masked.any()
    assert dropped.any()


def test_batch_statistics_move_with_a_normalized_projector(made):
    _, vocabulary, rows = made
    s = changed(projector="normalized", dtype="bfloat16", gradients="float32")
    described = lib.describe(s, vocabulary)
    variables = variables_of(s, described)
    tokens = rows.columns["sentence"][np.arange(16)]
    encode = jax.jit(lib.make_encode_views(s, described, vocabulary))
    z, changes = encode(variables, tokens, jax.random.key(0))
    assert z.dtype == jnp.float32
    moved = jax.tree.map(
        lambda a, b: bool(np.abs(a - b).max() > 0),
        dict(changes)["batch_stats"],
        variables["batch_stats"],
    )
    assert all(jax.tree.leaves(moved))


def test_weights_of_a_directory_begin_a_training(tmp_path):
    directory = bert_files.written(tmp_path / "bert")
    s = changed(
        weights=str(directory), longest=16, vocabulary=8000, width=128, depth=4, heads=4
    )
    lib.check(s)
    vocabulary = lib.make_vocabulary(s, lib.open_sentences(s))
    described = lib.describe(s, vocabulary)
    assert described.tokenizer == vocabulary.checksum
    params, rest = lib.initialize(s, described, vocabulary)
    assert rest == {}
    table = bert_files.arrays(bert_files.config())["embeddings.word_embeddings.weight"]
    got = params["model"]["encoder"]["tokens"]["embedding"]
    np.testing.assert_array_equal(got, table)
    with pytest.raises(ValueError, match="longest must be at most the 16 places of"):
        lib.describe(dataclasses.replace(s, longest=17), vocabulary)
    large = vocabulary._replace(size=301)
    with pytest.raises(ValueError, match="must have at most the 300 tokens of"):
        lib.describe(s, large)


# A run. -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(made, tmp_path_factory):
    """Some steps of a run, in the order in which a script has them."""
    _, vocabulary, rows = made
    directory = tmp_path_factory.mktemp("run")
    s = changed(directory=str(directory), learning_rate=1e-2, warmup_epochs=0)
    mesh, sharding, whole = jaxcl.data_parallel()
    feed = lib.feed(s, rows, sharding)
    described = lib.describe(s, vocabulary)
    params, rest = lib.initialize(s, described, vocabulary)
    n = lib.examples_of_epoch(s, rows)
    tx = recipes.make_optimizer(s, n)

    def first():
        copied = jax.tree.map(jnp.copy, (params, rest))  # steps donate the state
        return data.put(training.create_state(*copied, tx), whole)

    encode = training.in_chunks(lib.make_encode_views(s, described, vocabulary), 1)
    loss = jaxcl.sharded(functools.partial(losses.nt_xent, temperature=0.1), mesh)

    def loss_fn(params, state, batch, key):
        variables = {"params": params["model"], **state.model_state}
        z, changes = encode(variables, batch["sentence"], key)
        return training.Outcome(loss(z), changes)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, batch, key):
        return training.train_step(loss_fn, state, batch, key)

    key = data.put(jax.random.key(0), whole)
    options = {"progress": False, "log_every": 1}
    last, values = recipes.run_options(s, n)["last"], []

    def train(directory, state, last):
        with training.open_run(directory, s, state, last=last, **options) as (r, state):
            lib.keep(directory, described, vocabulary)
            for i in r.steps():
                state, metrics = step(state, feed(i), key)
                values.append(float(metrics["loss"]))
                r.log(i + 1, metrics)
                r.save(i + 1, state)
        return jax.device_get(state.params)

    whole_run = train(directory, first(), last)
    broken = tmp_path_factory.mktemp("broken")
    train(broken, first(), 5)
    again = train(broken, first(), last)
    programs, lengths = step._cache_size(), len(rows.columns["sentence"].lengths)
    return directory, values[:last], programs, lengths, (whole_run, again)


@pytest.mark.slow
def test_a_run_learns_compiles_once_for_each_length_and_goes_on_where_it_was(run):
    # In one test, since workers that share a file would each make the run again.
    _, values, programs, lengths, ends = run
    assert programs == lengths
    assert np.mean(values[-5:]) < np.mean(values[:5]) - 0.2
    jax.tree.map(np.testing.assert_array_equal, *ends)


@pytest.mark.slow
def test_the_encoder_of_a_run_is_opened_exported_and_embeds(run, tmp_path, made):
    directory = run[0]
    encoder = recipes.open_encoder(directory)
    assert encoder.kind.takes(encoder.described) == "sentences of up to 48 tokens"
    rows = encoder.open("topics", "train[:50]")
    h = encoder.represent(rows.columns["sentence"])
    assert h.shape == (50, 8)
    assert np.abs(h - encoder.untrained().represent(rows.columns["sentence"])).max() > 0
    export.main(export.Settings(str(directory), out=str(tmp_path / "encoder")))
    out = str(tmp_path / "h.npz")
    flags = {"source": "topics", "split": "train[:50]"}
    again = embed.main(embed.Settings(str(tmp_path / "encoder"), out, **flags))
    np.testing.assert_allclose(again, h, rtol=1e-6)
    with pytest.raises(ValueError, match="run on images or graphs, got one on text"):
        probe.main(probe.Settings(str(directory)))


def test_another_vocabulary_than_the_encoders_is_refused(tmp_path, made):
    described = lib.describe(TINY, made[1])
    data.text.write(tmp_path, data.text.learn(["other sentences"], 270))
    with pytest.raises(
        ValueError, match="must be the one that the encoder has learned"
    ):
        lib.read_vocabulary(described, tmp_path)
    with pytest.raises(ValueError, match="encoder must have a directory, where"):
        recipes.Encoder(described, {}, None).open("topics", "train")
