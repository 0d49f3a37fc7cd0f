"""MoCo's script: its losses against NumPy, and two steps of it on real images."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import jaxcl
from experiments import moco
from jaxcl import _cli, recipes
from tests.pictures import legible

TINY = moco.Settings(
    split="train[:200]",
    test_split="test[:60]",
    width=2,
    embedding=8,
    kernels=("simple_sum",),
    decoupled=True,
    mixture="losses",
    temperature=0.7,
    second_temperature=0.4,
    weight=0.3,
    queue_size=48,
    batch_size=16,
    momentum=0.75,
    epochs=1,
    save_every=100,
)

# Log-kernels of the distance of unit vectors, with the temperatures of TINY.
LOG_KERNELS = {
    "cosine": lambda d: (1 - d**2 / 2) / 0.7,
    "gaussian": lambda d: -(d**2) / 0.7,
    "laplacian": lambda d: -d / 0.7,
    "power_half": lambda d: -np.sqrt(d) / 0.7,
    "simple_sum": lambda d: np.log(
        0.7 * np.exp(-(d**2) / 0.7) + 0.3 * np.exp(-d / 0.4)
    ),
}


def _arrays():
    rng = np.random.default_rng(0)
    return [rng.standard_normal((n, 5)).astype(np.float32) for n in (8, 8, 24)]


def _oracle(log_kernel, decoupled):
    """Each query with its key and the queue, one at a time, float64."""
    queries, keys, queue = (
        x / np.linalg.norm(x, axis=1, keepdims=True)
        for x in (np.asarray(x, np.float64) for x in _arrays())
    )
    loss = []
    for query, key in zip(queries, keys, strict=True):
        positive = np.exp(log_kernel(np.linalg.norm(query - key)))
        below = np.exp(log_kernel(np.linalg.norm(query - queue, axis=1))).sum()
        loss.append(-np.log(positive / (below if decoupled else below + positive)))
    return np.array(loss)


def _loss(settings, mesh=None):
    queries, keys, queue = _arrays()
    loss = moco.make_loss(settings)
    if mesh is not None:
        loss = jaxcl.sharded(loss, mesh)
    groups = np.zeros(8, np.int32)
    return jax.jit(loss)(queries, keys, negatives=queue, groups=groups)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("kernel", list(LOG_KERNELS))
def test_a_loss_contrasts_a_query_with_its_key_and_the_queue(kernel, decoupled):
    settings = dataclasses.replace(
        TINY, kernels=(kernel,), decoupled=decoupled, mixture="kernels"
    )
    expected = _oracle(LOG_KERNELS[kernel], decoupled)
    np.testing.assert_allclose(_loss(settings), expected, rtol=2e-5, atol=2e-6)


def test_a_mixture_of_losses_is_their_weighted_sum_on_any_mesh():
    gaussian = _oracle(lambda d: -(d**2) / 0.7, decoupled=True)
    exponential = _oracle(lambda d: -d / 0.4, decoupled=True)
    expected = 0.7 * gaussian + 0.3 * exponential
    np.testing.assert_allclose(_loss(TINY), expected, rtol=2e-5, atol=2e-6)
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((8,), ("data",), axis_types=auto)
    np.testing.assert_allclose(_loss(TINY, mesh), expected, rtol=2e-5, atol=2e-6)


# One loss instead of two: what compiles.
RUN = dataclasses.replace(TINY, kernels=("gaussian",))


def _pretrain(directory, steps):
    settings = dataclasses.replace(RUN, directory=str(directory), max_steps=steps)
    return moco.pretrain(settings)


def _assert_close(got, expected):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_a_stopped_run_ends_bit_equal_and_moves_keys_and_queue(tmp_path):
    whole = jax.device_get(_pretrain(tmp_path / "whole", 2))
    half = jax.device_get(_pretrain(tmp_path / "run", 1))
    resumed = _pretrain(tmp_path / "run", 2)
    assert resumed.memory["queue"].keys.sharding.spec == jax.P("data")
    resumed = jax.device_get(resumed)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)

    # The key encoder moves by a quarter of the way, after each step.
    moved = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, half.average, resumed.params)
    _assert_close(resumed.average, moved)
    difference = jax.tree.map(lambda a, b: np.abs(a - b).max(), half.average, moved)
    assert max(jax.tree.leaves(difference)) > 1e-4

    # Each row of the batch owns three rows of the queue, and has written two.
    before, after = (state.memory["queue"] for state in (half, resumed))
    old, keys = (np.asarray(queue.keys).reshape(16, 3, 8) for queue in (before, after))
    np.testing.assert_allclose(np.linalg.norm(keys, axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(keys[:, [0, 2]], old[:, [0, 2]])
    assert (np.abs(keys[:, 1] - old[:, 1]).max(-1) > 1e-3).all()
    assert (int(before.position), int(after.position)) == (1, 2)


@pytest.mark.slow
def test_kernels_are_trained_probed_and_compared(tmp_path, capsys):
    settings = dataclasses.replace(
        RUN, directory=str(tmp_path), max_steps=2, kernels=("gaussian", "cosine")
    )
    with legible.checked() as drawn:
        rows = moco.main(settings)
    assert drawn == ["accuracy.png"]
    assert [row.name for row in rows] == ["untrained encoder", "gaussian", "cosine"]
    assert all(0.2 < x[0] <= 1 for row in rows for x in row.scores.values())
    written = json.loads((tmp_path / "results.json").read_text())
    assert [row["num_held_out"] for row in written["rows"]] == [60] * 3
    assert "Difference to 'gaussian' in points" in capsys.readouterr().out


def _cli_with(*flags):
    _cli.run(moco.main, moco.PROTOCOLS, prog="moco", default="digits", arguments=flags)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--queue_size", "100"], "queue_size must be divisible by the 128 rows"),
        (["digits", "--batch_size", "12", "--queue_size", "12"], "by the 8 devices"),
        (["--kernels", "cosine", "cosine"], "kernels must be one or more different"),
        (["--source", "nowhere.npz"], r"nowhere\.npz"),
    ],
)
def test_wrong_flags_end_with_a_message(flags, words, tmp_path):
    with pytest.raises(SystemExit, match=words):
        _cli_with(*flags, "--directory", str(tmp_path / "run"))
    assert not (tmp_path / "run" / "results.json").exists()


def test_named_settings_may_be_changed_by_flags(monkeypatch):
    asked = []
    monkeypatch.setattr(moco, "main", asked.append)
    for flags in ([], ["--seed", "3"], ["cifar100", "--epochs", "7"]):
        _cli_with(*flags)
    cifar100 = moco.PROTOCOLS["cifar100"].settings
    assert asked == [
        moco.Settings(),
        moco.Settings(seed=3),
        dataclasses.replace(cifar100, epochs=7),
    ]


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "tinyimagenet"])
def test_the_authors_settings_fit_their_images(name):
    settings = moco.PROTOCOLS[name].settings
    transform = recipes.make_transform(settings, (32, 32, 3))
    image = jax.ShapeDtypeStruct((32, 32, 3), np.float32)
    view = jax.eval_shape(transform, jax.random.key(0), image)
    assert view.shape == (32, 32, 3)
    described = recipes.describe(settings, (32, 32, 3))
    params, _ = jax.eval_shape(lambda: recipes.initialize(settings, described))
    head = params["model"]["projector"]
    assert head["Dense_0"]["kernel"].shape == (512, 512)
    assert head["Dense_1"]["kernel"].shape == (512, 128)
    queries, keys = np.ones((2, 4, 8), np.float32)
    loss = moco.make_loss(settings)(
        queries, keys, negatives=-keys, groups=np.zeros(4, np.int32)
    )
    # Distances 0 and 2, of which the mixture of losses is the weighted sum.
    expected = np.log(4) - 0.8 * 4 / 0.3 - 0.2 * 2 / 0.1
    np.testing.assert_allclose(loss, np.full(4, expected), rtol=1e-5)
