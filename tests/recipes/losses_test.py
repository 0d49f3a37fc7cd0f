"""Losses by name: each is the library's, with the numbers of the settings."""

import dataclasses
import typing

import jax
import numpy as np
import pytest

import jaxcl
from jaxcl import losses, recipes

S = recipes.ViewLoss(
    temperature=0.3,
    alpha=0.5,
    beta=-0.2,
    variant="official",
    kernel="concatenation_sum",
    weight=0.3,
)
LABELS = np.arange(8) // 2


def _views(name=""):
    count = 3 if name == "is_info_nce" else 2
    return jax.random.normal(jax.random.key(0), (8, count, 6))


def _sup_con(z, valid=None):
    of_rows = {"temperature": 0.3, "valid": None if valid is None else valid.repeat(2)}
    return losses.sup_con(z.reshape(-1, 6), LABELS.repeat(2), **of_rows).reshape(8, 2)


# What each name stands for, at temperature 0.3.
NAMED = {
    "nt_xent": lambda z, **o: losses.nt_xent(z, temperature=0.3, **o),
    "dcl": lambda z, **o: losses.dcl(z, temperature=0.3, **o),
    "debiased_nt_xent": lambda z, **o: losses.debiased_nt_xent(z, temperature=0.3, **o),
    "dhel": lambda z, **o: losses.dhel(z, temperature=0.3, **o),
    "spectral_contrastive": losses.spectral_contrastive,
    "f_micl": losses.f_micl,
    "kernel_info_nce": lambda z, **o: losses.kernel_info_nce(
        z, kernel=recipes.make_kernel(S), **o
    ),
    "kcl": lambda z, **o: losses.kcl(z, kernel=recipes.make_kernel(S), **o),
    "info_nce": lambda z, **o: losses.info_nce(z[:, 0], z[:, 1], temperature=0.3, **o),
    "clip": lambda z, **o: losses.clip(z[:, 0], z[:, 1], temperature=0.3, **o),
    "siglip": lambda z, **o: losses.siglip(z[:, 0], z[:, 1], temperature=0.3, **o),
    "sc_info_nce": lambda z, **o: losses.sc_info_nce(
        z[:, 0],
        z[:, 1],
        temperature=0.3,
        alpha=0.5,
        beta=-0.2,
        variant="official",
        **o,
    ),
    "is_info_nce": lambda z, **o: losses.is_info_nce(
        *z.swapaxes(0, 1), temperature=0.3, **o
    ),
    "sup_con": _sup_con,
}


def test_the_losses_of_the_settings_are_all_here():
    assert set(typing.get_args(recipes.LossName)) == set(NAMED)


@pytest.mark.parametrize("name", NAMED)
def test_every_loss_is_the_librarys_with_the_numbers_of_the_settings(name):
    z = _views(name)
    loss = recipes.make_loss(dataclasses.replace(S, loss=name))
    np.testing.assert_allclose(loss(z, LABELS), NAMED[name](z), 1e-5)


@pytest.mark.parametrize("name", NAMED)
def test_examples_that_are_left_out_count_for_nothing(name):
    z, keep = _views(name), np.arange(8) != 2
    loss = recipes.make_loss(dataclasses.replace(S, loss=name))
    found = loss(z, LABELS, valid=keep)
    np.testing.assert_allclose(found, NAMED[name](z, valid=keep), 1e-5)
    without = loss(z.at[2].set(np.nan), LABELS, valid=keep)
    np.testing.assert_array_equal(found, without)
    # The mean over what is left is one number, whatever the shape of the loss.
    left = np.asarray(found)[keep].mean()
    np.testing.assert_allclose(jaxcl.mean(found, keep), left, 1e-5)


def test_a_kernel_has_the_numbers_of_the_settings():
    x, y = _views()[:, 0], _views()[:, 1]
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y)]
    distance = np.linalg.norm(unit[0][:, None] - unit[1][None], axis=-1)
    s = recipes.ViewLoss(temperature=0.3, second_temperature=0.7, power=0.5, weight=0.2)
    sums = 0.8 * np.exp(-(distance**2) / 0.3) + 0.2 * np.exp(-(distance**0.5) / 0.7)
    for name, expected in {
        "gaussian": -(distance**2) / 0.3,
        "laplacian": -distance / 0.3,
        "power_half": -(distance**0.5) / 0.3,
        "simple_sum": np.log(sums),
    }.items():
        kernel = recipes.make_kernel(dataclasses.replace(s, kernel=name))
        np.testing.assert_allclose(kernel(x, y), expected, rtol=1e-4)


def test_the_penalty_is_added_with_the_weight_of_the_theory():
    plain = recipes.ViewLoss(temperature=0.2, penalty_alignment=0.4)
    z = jax.random.normal(jax.random.key(0), (8, 2, 8))
    penalized = recipes.make_loss(dataclasses.replace(plain, penalty=1.5))
    weight = 1.5 * 2 * (1 - 0.4) / (8 * 0.2)  # c 2 alpha (1 - eta) / d
    alone = recipes.make_loss(plain)

    penalty = losses.norm_entropy_penalty(z.reshape(16, 8), scale=0.5)
    np.testing.assert_allclose(penalized(z), alone(z) + weight * penalty, rtol=1e-5)

    keep = np.arange(8) != 5
    penalty = losses.norm_entropy_penalty(z[keep].reshape(14, 8), scale=0.5)
    expected = alone(z, valid=keep) + weight * penalty
    np.testing.assert_allclose(penalized(z, valid=keep), expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"loss": "sup_con"}, {"penalty": 1.0}])
def test_devices_change_nothing(changes):
    mesh, *_ = jaxcl.data_parallel()
    loss = recipes.make_loss(recipes.ViewLoss(**changes))
    z = jax.random.normal(jax.random.key(0), (16, 2, 4))
    given = {"labels": np.arange(16) // 2, "valid": np.arange(16) != 3}
    split = jaxcl.sharded(loss, mesh)(z, **given)
    np.testing.assert_allclose(split, loss(z, **given), rtol=1e-5)


def test_labels_that_are_missing_are_asked_for():
    loss = recipes.make_loss(recipes.ViewLoss(loss="sup_con"))
    with pytest.raises(ValueError, match="labels must be given for loss 'sup_con'"):
        loss(_views())


@pytest.mark.parametrize(
    ("changes", "num_views", "words"),
    [
        ({"loss": "is_info_nce"}, 2, "num_views must be at least 3, got 2"),
        ({"loss": "dhel"}, 3, "num_views must be at most 2, got 3"),
        ({"alpha": 2.0}, 2, "alpha must be left at 1.0, since only loss 'sc_info"),
        ({"loss": "kcl", "weight": 0.1}, 2, "weight must be left at 0.5, since only"),
    ],
)
def test_what_a_loss_does_not_read_or_take_is_refused(changes, num_views, words):
    s = recipes.ViewLoss(**changes)
    with pytest.raises(ValueError, match=f"^{words}"):
        recipes.check_loss(s, num_views)
    recipes.check_loss(recipes.ViewLoss(loss="is_info_nce"), 3)


HARD = {
    "info_nce": lambda z: losses.info_nce(
        z[:, 0], z[:, 1], hard_negatives=z[:, 2:], temperature=0.3
    ),
    "clip": lambda z: losses.clip(
        z[:, 0], z[:, 1], hard_negatives=z[:, 2:], temperature=0.3
    ),
}


@pytest.mark.parametrize("name", HARD)
def test_the_last_views_may_be_hard_negatives(name):
    z = jax.random.normal(jax.random.key(0), (8, 4, 6))
    s = recipes.ViewLoss(loss=name, temperature=0.3)
    loss = recipes.make_loss(s, hard_negatives=2)
    np.testing.assert_allclose(loss(z), HARD[name](z), 1e-5)
    assert abs(loss(z) - recipes.make_loss(s)(z)).max() > 0.1


@pytest.mark.parametrize("name", sorted(set(NAMED) - set(HARD)))
def test_losses_without_hard_negatives_refuse_them(name):
    words = f"loss must be one of info_nce, clip for an anchor, .*, got '{name}'"
    with pytest.raises(ValueError, match=words):
        recipes.make_loss(recipes.ViewLoss(loss=name), hard_negatives=1)
