"""What the settings of a training on images with captions stand for."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcl
from jaxcl import data, models, recipes, training
from jaxcl.recipes import pair_losses
from jaxcl.recipes import pairs as lib


@dataclasses.dataclass(frozen=True)
class Settings(recipes.PairLoss, lib.Pairs):
    """Of a script."""


TINY = Settings(
    split="train[:96]",
    width=2,
    units=8,
    depth=1,
    heads=2,
    vocabulary=280,
    longest=12,
    embedding=4,
    batch_size=16,
    epochs=4,
    warmup_epochs=0,
    augmentation="identity",
    captions="first",
)


def changed(**changes):
    return dataclasses.replace(TINY, **changes)


# Losses. ------------------------------------------------------------------------------


def dense(s, x, y, t, bias, groups):
    """The loss of each pair in float64, of a matrix of all pairs."""
    x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    cos, n = x @ y.T, len(x)
    own = np.eye(n, dtype=bool)
    same = groups[:, None] == groups
    apart = ~same if pair_losses.takes_groups(s) else ~own
    if s.loss == "siglip":
        logits = cos / t + bias
        return np.log1p(np.exp(-np.diag(logits))) + np.sum(
            np.log1p(np.exp(logits)) * apart, axis=1
        )
    logits = 2 * (cos - 1) / t if s.loss == "kernel_info_nce" else cos / t

    def one_way(logits):
        own_logit = np.diag(logits)
        negative = np.log(np.sum(np.exp(logits) * apart, axis=1))
        if s.loss == "uni_cl":
            everything = np.log(np.sum(np.exp(logits), axis=1))
            return everything - np.sum(logits * same, axis=1) / same.sum(axis=1)
        if s.loss == "dcl":
            return negative - own_logit
        if s.loss == "sc_info_nce":
            mean = np.sum(logits * apart, axis=1) / apart.sum(axis=1)
            return negative - s.alpha * own_logit + s.beta * mean
        return np.log(np.exp(own_logit) + np.exp(negative)) - own_logit

    return (one_way(logits) + one_way(logits.T)) / 2


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "clip"},
        {"loss": "clip", "shared": False},
        {"loss": "siglip"},
        {"loss": "uni_cl"},
        {"loss": "kernel_info_nce"},
        {"loss": "dcl"},
        {"loss": "sc_info_nce", "alpha": 1.3, "beta": 0.3},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_a_loss_is_both_directions_without_false_negatives(options):
    s = recipes.PairLoss(**options)
    recipes.check_pair_loss(s)
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 8, 3))
    groups = np.array([0, 1, 0, 2, 3, 1, 1, 4])  # of images that share their captions
    numbers = {"temperature": 0.4, "bias": -0.5 if s.loss == "siglip" else None}
    expected = dense(s, x, y, 0.4, -0.5, groups)
    loss = jax.jit(recipes.make_pair_loss(s))
    of = jnp.float32(x), jnp.float32(y)
    got = loss(*of, **numbers, groups=jnp.int32(groups))
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-5)
    if not recipes.takes_groups(s):
        return
    with pytest.raises(ValueError, match=f"groups must be given for loss '{s.loss}'"):
        recipes.make_pair_loss(s)(*of, **numbers)


def test_a_batch_over_two_devices_has_the_loss_and_gradients_of_one():
    s = recipes.PairLoss(loss="siglip")
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    random = np.random.default_rng(0)
    z = jnp.float32(random.normal(size=(8, 2, 3)))
    groups = jnp.int32([0, 1, 0, 2, 3, 1, 1, 4])
    params = recipes.loss_params(s)
    assert set(params) == {"temperature", "bias"}

    def mean(loss, params, z):
        numbers = recipes.loss_numbers(s, params)
        return loss(z[:, 0], z[:, 1], **numbers, groups=groups).mean()

    alone, split = (
        jax.jit(jax.value_and_grad(functools.partial(mean, loss), (0, 1)))(params, z)
        for loss in (
            recipes.make_pair_loss(s),
            jaxcl.sharded(recipes.make_pair_loss(s), mesh),
        )
    )
    assert abs(float(alone[1][0]["temperature"])) > 0.1
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        alone,
        split,
    )


def test_what_a_loss_learns_is_its_temperature_and_siglips_bias():
    learned = {
        loss: sorted(recipes.loss_params(recipes.PairLoss(loss=loss)))
        for loss in recipes.pair_losses.READ_BY["shared"] + ("uni_cl", "sc_info_nce")
    }
    assert learned == {
        "clip": ["temperature"],
        "siglip": ["bias", "temperature"],
        "kernel_info_nce": ["temperature"],
        "uni_cl": ["temperature"],
        "dcl": [],  # it would become sharper for ever
        "sc_info_nce": [],
    }
    assert sorted(recipes.loss_params(recipes.PairLoss(learned=False))) == []
    s = recipes.PairLoss(minimum=0.05)
    for parameter, number in ((-9.0, 0.05), (0.0, 1.0), (9.0, 100.0)):
        found = recipes.loss_numbers(s, {"temperature": jnp.float32(parameter)})
        assert float(found["temperature"]) == pytest.approx(number)
    assert recipes.loss_numbers(recipes.PairLoss("siglip", learned=False), {}) == {
        "temperature": 0.1
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"loss": "sc_info_nce", "shared": True},
            "shared must be left at None, since",
        ),
        ({"loss": "uni_cl", "shared": False}, "shared must be left at None"),
        ({"bias": -5.0}, "bias must be left at -10.0, since only loss 'siglip' reads"),
        ({"alpha": 2.0}, "alpha must be left at 1.0, since only loss 'sc_info_nce'"),
        ({"kernel": "laplacian"}, "kernel must be left at 'gaussian', since only loss"),
        ({"loss": "kernel_info_nce", "power": 2.0}, "power .*a sum of kernels"),
        (
            {"loss": "kernel_info_nce", "kernel": "arc_cosine_1", "learned": True},
            "learned must be left at None, since only a kernel with a temperature",
        ),
        ({"learned": False, "minimum": 0.1}, "minimum .*a temperature that is learned"),
        ({"minimum": 0.1}, "temperature must be at least the minimum 0.1 of what is"),
    ],
)
def test_settings_that_a_loss_does_not_read_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        recipes.check_pair_loss(recipes.PairLoss(**options))


# Settings. ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"image_from": "a", "encoder": "small", "width": 3},
            "width .*an image tower",
        ),
        ({"stem": "imagenet"}, "stem .*a residual network"),
        ({"text_from": "a", "width": 32}, "vocabulary .*a text tower without weights"),
        ({"frozen": ("text", "text")}, "frozen must name a tower once"),
        ({"heads": 3}, "heads must divide the 8 units, got 3"),
        ({"batch_size": 12}, "batch_size must be divisible by the 8 devices"),
    ],
)
def test_settings_that_cannot_run_or_that_nothing_reads_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        lib.check(changed(**changes))


def test_the_parts_are_settings_of_the_towers_that_exist_already():
    s = changed(encoder="resnet18", stem="imagenet", pooling="cls", seed=3)
    images, sentences = lib.images_of(s), lib.sentences_of(s)
    assert (images.encoder, images.stem, images.width) == ("resnet18", "imagenet", 2)
    assert (sentences.width, sentences.pooling, sentences.seed) == (8, "cls", 3)
    assert images.embedding == sentences.embedding == 4


# Models. ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made():
    """Pairs, towers, and rows of tokens."""
    dataset = lib.open_pairs(TINY)
    towers = lib.open_towers(TINY, dataset)
    return dataset, towers, lib.tokenize(TINY, dataset, towers)


def batch_of(rows, n=16):
    found = data.batches(rows, n, 0)(0)
    return jax.tree.map(jnp.asarray, {k: found[k] for k in ("image", "caption")})


def test_both_towers_have_embeddings_of_one_size(made):
    dataset, towers, rows = made
    assert towers.image.shape == (8, 8, 1)
    assert towers.image.embedding == towers.text.embedding == 4
    assert rows.columns["caption"][np.arange(2)].tokens.shape[:2] == (2, 5)
    assert len(dataset.columns["group"]) == 96
    first = lib.first_variables(TINY, towers)
    shapes = [first[name]["params"]["projector"] for name in lib.TOWERS]
    assert shapes[0]["Dense_1"]["kernel"].shape == (16, 4)
    assert shapes[1]["Dense_1"]["kernel"].shape == (8, 4)


@pytest.mark.slow
def test_a_batch_in_chunks_is_what_it_is_by_parts(made):
    _, towers, rows = made
    s = changed(captions="drawn", augmentation="crops")
    encode, batch, key = lib.make_encode(s, towers), batch_of(rows), jax.random.key(3)
    params, stats = lib.initialize(s, towers)
    loss = recipes.make_pair_loss(changed(shared=False))

    def by_parts(variables):
        z = jnp.zeros((16, 2, 4))
        for c in range(2):
            part = jax.tree.map(lambda x, c=c: x[c::2], batch)
            found, new = encode(variables, part, jax.random.fold_in(key, c))
            variables, z = {**variables, **new}, z.at[c::2].set(found)
        return z, variables["batch_stats"]

    def in_chunks(variables):
        z, new = training.in_chunks(encode, 2)(variables, batch, key)
        return z, new["batch_stats"]

    def cost(run, params):
        z, new = run({"params": params, **stats})
        return loss(z[:, 0], z[:, 1], temperature=0.1).mean(), (z, new)

    @jax.jit
    def both(params):
        return [
            jax.value_and_grad(functools.partial(cost, run), has_aux=True)(params)
            for run in (by_parts, in_chunks)
        ]

    expected, got = both(params["model"])
    assert np.abs(got[1]["text"]["encoder"]["tokens"]["embedding"]).max() > 1e-4
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5),
        got,
        expected,
    )
    moved = got[0][1][1]
    assert set(moved) == {"image"}  # the text tower has no batch statistics


@pytest.mark.slow
def test_captions_are_drawn_in_each_step_or_the_first(made):
    _, towers, rows = made
    batch, keys = batch_of(rows), jax.random.split(jax.random.key(0), 3)
    params, stats = lib.initialize(TINY, towers)
    variables = {"params": params["model"], **stats}
    texts = {}
    for captions in ("first", "drawn"):
        encode = lib.make_encode(changed(captions=captions), towers)
        run = jax.jit(lambda key, encode=encode: encode(variables, batch, key)[0][:, 1])
        texts[captions] = np.stack([run(key) for key in keys])
    np.testing.assert_array_equal(texts["first"][0], texts["first"][1])
    differ = np.abs(texts["drawn"] - texts["drawn"][:1]).max(axis=(0, 2)) > 0
    assert differ.mean() > 0.5


# A run. -------------------------------------------------------------------------------


def steps_of(s, made, count):
    """The first and the last state of some steps."""
    dataset, towers, rows = made
    params, stats = lib.initialize(s, towers)
    params["loss"] = recipes.loss_params(s)
    tx = lib.make_optimizer(s, dataset)
    state = training.create_state(params, stats, tx, average=s.average > 0)
    first = jax.device_get(state)
    loss, encode = recipes.make_pair_loss(s), lib.make_encode(s, towers)
    batches = data.batches(rows, s.batch_size, 0)

    def loss_fn(params, state, batch, key):
        variables = {"params": params["model"], **state.model_state}
        inputs = {name: batch[name] for name in ("image", "caption")}
        z, new = encode(variables, inputs, key)
        numbers = recipes.loss_numbers(s, params["loss"])
        values = loss(z[:, 0], z[:, 1], **numbers, groups=batch["group"])
        return training.Outcome(values, new, metrics=numbers)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, batch, key):
        return training.train_step(loss_fn, state, batch, key, momentum=s.average)

    logged = []
    for i in range(count):
        state, metrics = step(state, batches(i), jax.random.key(0))
        logged.append({k: float(v) for k, v in metrics.items()})
    return first, jax.device_get(state), logged


@pytest.mark.slow
def test_frozen_encoders_stay_to_the_bit_and_temperatures_within_bounds(made):
    s = changed(
        loss="siglip",
        frozen=("image", "text"),
        projector="normalized",
        dropout=0.2,
        weight_decay=0.5,
        learning_rate=0.3,
        average=0.5,
        optimizer="sgd",
        minimum=0.09,
    )
    dataset = made[0]
    towers = lib.open_towers(s, dataset)
    first, last, logged = steps_of(s, (dataset, towers, made[2]), 6)
    for state in (last.params, last.average):
        for tower in lib.TOWERS:
            before, after = (p["model"][tower] for p in (first.params, state))
            jax.tree.map(
                np.testing.assert_array_equal, before["encoder"], after["encoder"]
            )
            moved = jax.tree.map(
                lambda a, b: np.abs(a - b).max() > 0,
                before["projector"],
                after["projector"],
            )
            assert all(jax.tree.leaves(moved))
    stats = first.model_state["batch_stats"], last.model_state["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, *(x["image"]["encoder"] for x in stats))
    for tower in lib.TOWERS:
        means = [x[tower]["projector"]["BatchNorm_0"]["mean"] for x in stats]
        assert np.abs(means[0] - means[1]).max() > 0
    temperatures = [line["temperature"] for line in logged]
    assert temperatures[0] == pytest.approx(0.1)
    assert min(temperatures) >= 0.09 - 1e-6
    assert len(set(temperatures)) > 2
    assert logged[0]["bias"] == -10.0
    assert logged[-1]["bias"] != -10.0


def test_a_tower_begins_with_the_encoder_of_a_directory(made, tmp_path):
    dataset, towers, _ = made
    params, stats = lib.initialize(TINY, towers)
    marked = jax.tree.map(lambda x: x + 1, params["model"])
    lib.keep(tmp_path, towers)
    with pytest.raises(FileNotFoundError, match=r"encoder\.safetensors: no such file"):
        models.load(tmp_path / "image")
    lib.export(tmp_path, towers, {"params": marked, **stats}, trained={"step": 1})
    s = changed(
        image_from=str(tmp_path / "image"),
        text_from=str(tmp_path / "text"),
        embedding=6,
        frozen=("image",),
        **{
            field.name: field.default
            for field in dataclasses.fields(Settings)
            if field.name in ["width", "vocabulary", "units", "depth", "heads"]
        },
    )
    lib.check(s)
    again = lib.open_towers(s, dataset)
    assert again.vocabulary.checksum == towers.vocabulary.checksum
    assert (again.image.width, again.text.width) == (2, 8)
    found = lib.initialize(s, again)[0]["model"]
    for tower in lib.TOWERS:
        assert found[tower]["projector"]["Dense_1"]["kernel"].shape[1] == 6
        jax.tree.map(
            np.testing.assert_array_equal,
            found[tower]["encoder"],
            marked[tower]["encoder"],
        )
    # What reads encoders reads the towers.
    with pytest.raises(FileNotFoundError, match="encoders in its directories image, t"):
        recipes.open_encoder(tmp_path)
    encoder = recipes.open_encoder(tmp_path / "text")
    assert encoder.kind.takes(encoder.described) == "sentences of up to 12 tokens"
    swapped = dataclasses.replace(s, image_from=s.text_from)
    with pytest.raises(ValueError, match="image_from must be an encoder of images"):
        lib.open_towers(swapped, dataset)
    with pytest.raises(ValueError, match="longest must be at most the 12 places of"):
        lib.open_towers(dataclasses.replace(s, longest=13), dataset)
    larger = dataset._replace(
        columns={**dataset.columns, "image": np.zeros((96, 9, 9, 1), np.uint8)}
    )
    with pytest.raises(ValueError, match=r"images \[9, 9, 1\], as those of 'digits', "):
        lib.open_towers(s, larger)


def test_embeddings_are_of_all_captions(made):
    dataset, towers, _ = made
    variables = lib.first_variables(TINY, towers)
    found = lib.embed(towers, variables, data.dataset.part(dataset, 0, 6))
    assert found.image.shape == (6, 4)
    assert found.text.shape == (30, 4)
    np.testing.assert_array_equal(found.example, np.repeat(np.arange(6), 5))
    np.testing.assert_array_equal(found.label, dataset.columns["label"][:6])
    names = np.array([["a three"], ["a four"]], object)
    assert lib.embed_texts(towers, variables, names).shape == (2, 1, 4)
