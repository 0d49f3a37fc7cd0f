"""Encoders of sentences equal their architectures, and padding changes nothing."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from jaxcl import data, models
from jaxcl._token_batch import TokenBatch
from jaxcl.models import text
from tests.models import bert_files, text_oracles

TINY = models.TextDescription(
    60, 12, width=8, depth=2, heads=2, hidden=12, embedding=5, dropout=0.3
)
SIZES = np.array([9, 1, 4, 6])


@functools.cache
def variables():
    """Far from the initial values, so that biases and scales are seen."""
    first = models.initialize(TINY, jax.random.key(0))
    leaves, tree = jax.tree.flatten(first)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [
        x + 0.3 * jax.random.normal(key, x.shape)
        for x, key in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(tree, moved)


def rows(length=9, gap=None, fill=0):
    valid = np.arange(length) < SIZES[:, None]
    if gap is not None:
        valid[:, gap] = False
    # The same tokens whatever the length.
    drawn = np.random.default_rng(0).integers(0, 60, (4, 20))[:, :length]
    tokens = np.where(valid, drawn, fill).astype(np.int32)
    return TokenBatch(jnp.asarray(tokens), jnp.asarray(valid))


@functools.cache
def encoder(pooling="none", dtype=jnp.float32, attention_dropout=0.0, **options):
    module = text.Transformer(
        60, 12, 8, 2, 2, 12, pooling, 0.3, attention_dropout, dtype, **options
    )
    encode = functools.partial(module.apply, train=False)
    return jax.jit(lambda params, tokens: encode({"params": params}, tokens))


def states(tokens, **options):
    return np.asarray(encoder(**options)(variables()["params"]["encoder"], tokens))


# The Transformer. ---------------------------------------------------------------------


@pytest.mark.parametrize("gap", [None, 2])
def test_states_are_those_of_the_architecture(gap):
    tokens = rows(gap=gap)
    got, params = states(tokens), variables()["params"]["encoder"]
    for h, row, valid in zip(got, *map(np.asarray, tokens), strict=True):
        places = np.flatnonzero(valid)
        expected = text_oracles.transformer(params, 2, 2, row[places], places)
        np.testing.assert_allclose(h[places], expected, rtol=2e-5, atol=2e-5)
        assert (h[~valid] == 0).all()


def test_poolings_are_those_of_the_states():
    tokens = rows(gap=2)
    whole, valid = states(tokens), np.asarray(tokens.valid)
    mean = np.array([h[v].mean(axis=0) for h, v in zip(whole, valid, strict=True)])
    last = np.array(
        [h[np.flatnonzero(v)[-1]] for h, v in zip(whole, valid, strict=True)]
    )
    for kind, expected in (("mean", mean), ("last", last), ("cls", whole[:, 0])):
        got = text.pool(jnp.asarray(whole), tokens.valid, kind)
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)
        direct = states(tokens, pooling=kind)
        np.testing.assert_allclose(direct, expected, rtol=1e-5, atol=1e-6)
    none = text.pool(jnp.ones((1, 3, 2)), jnp.zeros((1, 3), bool), "mean")
    np.testing.assert_array_equal(none, 0)
    with pytest.raises(ValueError, match="pooling must be one of 'mean', 'cls'"):
        text.pool(jnp.ones((1, 3, 2)), jnp.ones((1, 3), bool), "sum")


def test_padding_changes_nothing():
    expected = states(rows())
    np.testing.assert_array_equal(states(rows(fill=59)), expected)
    np.testing.assert_array_equal(states(rows(fill=-7)), expected)
    longer = states(rows(length=12))
    np.testing.assert_allclose(longer[:, :9], expected, rtol=1e-5, atol=1e-6)
    assert (longer[:, 9:] == 0).all()


def test_a_batch_is_its_sentences_one_by_one():
    tokens = rows()
    together = states(tokens, pooling="mean")
    for i in range(len(SIZES)):
        alone = jax.tree.map(lambda x, i=i: x[i : i + 1], tokens)
        got = states(alone, pooling="mean")
        np.testing.assert_allclose(got[0], together[i], rtol=1e-5, atol=1e-6)


def test_gradients_are_finite_and_see_no_padding():
    tokens = rows()
    empty = tokens._replace(valid=tokens.valid.at[1].set(False))  # a row of nothing
    module = text.Transformer(60, 12, 8, 2, 2, 12, "mean", 0.0, 0.1)
    key = {"dropout": jax.random.key(0)}

    @jax.jit
    def gradient(params, tokens):
        def loss(p):
            return module.apply({"params": p}, tokens, train=True, rngs=key).sum()

        return jax.grad(loss)(params)

    params = variables()["params"]["encoder"]
    for given in (tokens, empty):
        found = gradient(params, given)
        assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(found))
        unused = np.setdiff1d(np.arange(60), np.asarray(given.tokens)[given.valid])
        assert (np.asarray(found["tokens"]["embedding"])[unused] == 0).all()


def test_bfloat16_stays_near():
    expected = states(rows(), pooling="mean")
    got = states(rows(), pooling="mean", dtype=jnp.bfloat16)
    assert got.dtype == np.float32
    # Four parts of two or three roundings each, 2^-9 of values up to 3.
    np.testing.assert_allclose(got, expected, atol=16 * 3 * 2**-9)


def test_two_keys_give_two_views_and_one_gives_one():
    model = models.build(TINY._replace(attention_dropout=0.2))

    @jax.jit
    def view(variables, key):
        rngs = {"dropout": key}
        same = jax.tree.map(lambda x: x[:1].repeat(4, axis=0), rows())
        return model.apply(variables, same, train=True, rngs=rngs)

    a, b, c = (view(variables(), jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (np.abs(a - c).max(axis=1) > 1e-3).all()
    assert (np.abs(a[1:] - a[:1]).max(axis=1) > 1e-3).all()  # rows of one batch


def test_dropout_keeps_the_mean_of_the_attention():
    """Against the path without dropout: the mean over keys is what JAX's gives."""
    part = text._Parts(text.Transformer(60, 12), 0)
    q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 6, 2, 4))
    among = jnp.arange(6)[None] < jnp.array([[6], [3]])
    among = among[:, None, None]
    expected = jax.nn.dot_product_attention(q, k, v, mask=among)

    class Once(text.nn.Module):
        @text.nn.compact
        def __call__(self, rate):
            return part._with_dropout(q, k, v, among, rate)

    keys = jax.random.split(jax.random.key(1), 4000)
    draw = functools.partial(Once().apply, {}, 0.25)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: draw(rngs={"dropout": key})))(keys))
    spread = drawn.std(axis=0) / np.sqrt(len(keys))
    assert (np.abs(drawn.mean(axis=0) - expected) < 5 * spread + 1e-6).all()


# Descriptions. ------------------------------------------------------------------------


def test_an_encoder_of_text_is_saved_and_gives_a_row_for_each_sentence(tmp_path):
    described = TINY._replace(tokenizer="0123abcd")
    models.save(tmp_path, described, variables())
    assert models.read_description(tmp_path) == described
    about = json.loads((tmp_path / "encoder.json").read_text())
    assert (about["kind"], about["format"]) == ("text", "jaxcl encoder 2")
    model = models.build(described)
    for layer, method, size in (("h", "represent", 8), ("z", "__call__", 5)):
        got = jax.jit(models.load(tmp_path, layer=layer))(rows())
        assert got.shape == (4, size)
        apply = functools.partial(model.apply, train=False, method=method)
        expected = jax.jit(apply)(variables(), rows())
        np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoder": "lstm"}, "encoder must be one of 'transformer', 'bert'"),
        ({"pooling": "pooler"}, "pooling must be one of 'mean', 'cls', 'last'"),
        ({"projector": "deep"}, "projector must be one of"),
        ({"projector": "none"}, "embedding must be the width 8 with projector 'none'"),
        ({"encoder": "bert", "depth": 0}, "depth must be at least 1, got 0"),
        ({"heads": 3}, "width must be divisible by the 3 heads, got 8"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
        ({"dtype": "float64"}, "dtype must be one of bfloat16, float32"),
        ({"encoder": "bert", "activation": "relu"}, "activation must be one of 'gelu'"),
    ],
)
def test_models_of_text_that_are_not_there_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        models.build(TINY._replace(**change))


def test_rows_that_do_not_fit_are_refused_in_words():
    encode = models.encode(TINY)
    with pytest.raises(ValueError, match=r"1 to 12 places, as many as .* got 13; data"):
        encode(variables(), rows(length=13))
    with pytest.raises(TypeError, match=r"tokens must be a jaxcl\.data\.text\.TokenBa"):
        encode(variables(), rows().tokens)
    with pytest.raises(TypeError, match=r"tokens\.tokens must be integers, got float"):
        encode(variables(), rows()._replace(tokens=jnp.zeros((4, 9))))
    with pytest.raises(TypeError, match=r"tokens\.valid must be boolean, got int32"):
        encode(variables(), rows()._replace(valid=rows().tokens))
    strange = TokenBatch(*map(np.asarray, rows(fill=60)))
    with pytest.raises(ValueError, match=r"must lie in \[0, 60\), .* got \d+ to 60"):
        encode(variables(), strange)


@pytest.mark.parametrize("last_norm", [False, True])
def test_without_layers_a_sentence_is_the_mean_of_its_tokens(last_norm):
    described = TINY._replace(
        depth=0,
        last_norm=last_norm,
        order=last_norm,
        projector="none",
        embedding=8,
    )
    variables = models.initialize(described, jax.random.key(0))
    tokens, valid = map(np.asarray, rows(gap=2))
    params = jax.tree.map(np.float64, variables["params"]["encoder"])
    x = params["tokens"]["embedding"][tokens]
    assert ("positions" in params) == last_norm
    if last_norm:
        x = x + params["positions"]["embedding"][: tokens.shape[1]]
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    expected = [row[there].mean(0) for row, there in zip(x, valid, strict=True)]
    for layer in ("h", "z"):  # no projector: both are the same
        got = models.encode(described, layer)(variables, rows(gap=2))
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


# BERT from files. ---------------------------------------------------------------------


@functools.cache
def bert_states(directory, pooling):
    described, params = models.read_bert(directory, pooling="cls")
    options = {
        name: getattr(described, name)
        for name in ("vocabulary", "positions", "width", "depth", "heads", "hidden",
                     "types", "offset", "epsilon", "activation")
    }  # fmt: skip
    if pooling == "pooler":
        params = models.read_bert(directory, pooling="pooler")[1]
    module = text.Bert(**options, pooling=pooling)
    tokens, valid = bert_files.rows(bert_files.config(directory.name))
    apply = jax.jit(functools.partial(module.apply, train=False))
    batch = TokenBatch(jnp.asarray(tokens), jnp.asarray(valid))
    return np.asarray(apply({"params": params}, batch)), tokens, valid


@pytest.fixture(scope="module", params=["bert", "roberta"])
def directory(request, tmp_path_factory):
    root, kind = tmp_path_factory.mktemp("weights"), request.param
    return bert_files.written(
        root / kind, kind, prefix={"roberta": "roberta."}.get(kind, "")
    )


def test_bert_has_the_states_of_its_architecture_and_of_what_was_published(directory):
    config = bert_files.config(directory.name)
    arrays = bert_files.arrays(config)
    got, tokens, valid = bert_states(directory, "none")
    pooled = bert_states(directory, "pooler")[0]
    oracle = [
        text_oracles.bert(arrays, config, row[v])
        for row, v in zip(tokens, valid, strict=True)
    ]
    hidden = np.concatenate([h for h, _ in oracle])
    published = bert_files.published(directory.name)
    for expected, pooler in ((hidden, np.array([p for _, p in oracle])), published):
        np.testing.assert_allclose(got[valid], expected, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(pooled, pooler, rtol=2e-5, atol=2e-5)
    assert (got[~valid] == 0).all()


def test_bert_equals_the_torch_model(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed"
    )
    directory = bert_files.written(tmp_path / "bert")
    config = bert_files.config()
    model = transformers.BertModel(transformers.BertConfig(**config)).eval()
    weights = {k: torch.tensor(x) for k, x in bert_files.arrays(config).items()}
    model.load_state_dict(weights, strict=False)
    got, tokens, valid = bert_states(directory, "none")
    with torch.no_grad():
        mask = torch.tensor(valid.astype(np.int64))
        found = model(torch.tensor(tokens.astype(np.int64)), attention_mask=mask)
    expected = found.last_hidden_state.numpy()[valid]
    np.testing.assert_allclose(got[valid], expected, rtol=2e-5, atol=2e-5)


def test_a_read_encoder_is_described_and_stands_in_a_model(tmp_path):
    directory = bert_files.written(
        tmp_path / "b", prefix="bert.", hidden_act="gelu_new"
    )
    described, params = models.read_bert(directory, pooling="pooler", embedding=4)
    assert (described.encoder, described.activation) == ("bert", "gelu_tanh")
    assert (described.positions, described.offset) == (16, 0)
    first = models.initialize(described, jax.random.key(0))["params"]
    shapes = jax.tree.map(np.shape, first["encoder"])
    assert shapes == jax.tree.map(np.shape, params)
    models.save(tmp_path, described, {"params": {**first, "encoder": params}})
    assert models.read_description(tmp_path) == described
    words = data.text.read_vocabulary(directory)
    assert words.size <= described.vocabulary


def test_older_names_and_shorter_numbers_are_read(tmp_path):
    directory = bert_files.written(tmp_path / "bert")
    expected = models.read_bert(directory)[1]
    arrays = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): x
        for name, x in bert_files.arrays(bert_files.config()).items()
    }
    safetensors.save_file(arrays, directory / "model.safetensors")
    got = models.read_bert(directory)[1]
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    short = {
        name: np.asarray(jnp.asarray(x, jnp.bfloat16)) for name, x in arrays.items()
    }
    safetensors.save_file(short, directory / "model.safetensors")
    got = models.read_bert(directory)[1]
    close = functools.partial(np.testing.assert_allclose, rtol=2**-8)
    jax.tree.map(close, got, expected)


def test_wrong_directories_are_refused_in_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="none: there is no such directory"):
        models.read_bert(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"config\.json: there is no such file"):
        models.read_bert(tmp_path)
    path = tmp_path / "config.json"
    for content, words in (
        ("{", "not the config of a BERT: Expecting"),
        ("[]", "not the config of a BERT: list indices"),
        ("{}", "not the config of a BERT: lacks 'model_type'"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=words):
            models.read_bert(tmp_path)
    for change, words in (
        ({"model_type": "gpt2"}, "must be one of 'bert', 'roberta', got 'gpt2'"),
        ({"hidden_act": "relu"}, "hidden_act must be one of 'gelu', .* got 'relu'"),
        ({"position_embedding_type": "relative_key"}, "must be one of 'absolute', got"),
        ({"num_hidden_layers": 3}, r"lacks 16 weights .* first is encoder\.layer\.2\."),
        ({"hidden_size": 6}, r"must be \[6\] as config\.json says, got \[8\]"),
    ):
        directory = bert_files.written(tmp_path / "b", **change)
        with pytest.raises(ValueError, match=words):
            models.read_bert(directory)
    directory = bert_files.written(tmp_path / "b")
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        models.read_bert(directory)
    weights.unlink()
    (directory / "pytorch_model.bin").touch()
    with pytest.raises(FileNotFoundError, match="pickled objects, which are not read"):
        models.read_bert(directory)
