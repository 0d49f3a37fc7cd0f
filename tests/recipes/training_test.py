"""What the settings that all kinds of data share stand for."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import data, recipes, training


@dataclasses.dataclass(frozen=True)
class Points(recipes.Training):
    """Another kind of data."""

    examples: ClassVar[str] = "points"

    directory: str = "runs/points"
    source: str = "plane"
    corners: int = 3


@dataclasses.dataclass(frozen=True)
class Settings(recipes.ViewLoss, Points):
    """Of a script that trains on them."""

    seed: int = 1


TINY = Settings(batch_size=8, epochs=4, warmup_epochs=1)


def test_another_kind_of_data_adds_what_is_its_own_to_what_is_common():
    names = [field.name for field in dataclasses.fields(Settings)]
    assert names[:3] == ["directory", "source", "split"]
    # What is common, what is their own, and the loss.
    assert names[-len(dataclasses.fields(recipes.ViewLoss)) :][0] == "loss"
    assert "corners" in names
    assert "examples" not in names
    recipes.start(TINY)
    recipes.check_loss(TINY, 2)
    recipes.check_size(TINY, 8)


def test_a_set_that_the_settings_do_not_fit_is_named_as_its_kind_is():
    with pytest.raises(ValueError, match="at most the 5 points of 'plane' 'train', go"):
        recipes.check_size(TINY, 5)
    with pytest.raises(ValueError, match="at most the 5 images of 'digits' 'train'"):
        recipes.check_size(recipes.Images(), 5)
    with pytest.raises(ValueError, match="epochs must be at most 715,827,882, of 3 st"):
        recipes.check_size(dataclasses.replace(TINY, epochs=2**30), 30)


@pytest.mark.parametrize("of", [int, lambda n: data.Dataset("p", {"x": np.zeros(n)})])
def test_a_run_ends_with_its_epochs_or_where_it_is_told(of):
    points = of(30)
    assert recipes.steps_per_epoch(TINY, points) == 3
    assert recipes.last_step(TINY, points) == 4 * 3
    stopped = dataclasses.replace(TINY, max_steps=5, log_every=7)
    assert recipes.last_step(stopped, points) == 5
    assert recipes.run_options(stopped, points) == {
        "last": 5,
        "log_every": 7,
        "save_every": 500,
        "progress": True,
    }


@pytest.mark.parametrize("name", ["adamw", "lars", "sgd"])
def test_the_learning_rate_rises_and_falls_with_every_optimizer(name):
    s = dataclasses.replace(TINY, optimizer=name, learning_rate=1.0, weight_decay=0.0)
    tx = recipes.make_optimizer(s, 30)
    params = {"bias": jnp.zeros(3)}  # LARS takes the stated rate for biases
    state, lengths = tx.init(params), []
    for _ in range(12):
        # As in `train_step`: optax raises a float to an integer step.
        with jax.numpy_dtype_promotion("standard"):
            updates, state = tx.update({"bias": jnp.ones(3)}, state, params)
        lengths.append(float(jnp.abs(updates["bias"]).max()))
    assert lengths[0] == 0  # the warm-up begins at 0
    # The peak is at the end of the first epoch; momentum carries on for a while.
    assert 3 <= np.argmax(lengths) < 9
    assert lengths[-1] < 0.9 * max(lengths)


def test_a_run_inside_its_warm_up_is_refused():
    with pytest.raises(ValueError, match="epochs must be more than warmup_epochs 9"):
        recipes.check(dataclasses.replace(TINY, warmup_epochs=9))


def test_gradients_are_summed_as_they_are_in_single_precision():
    with pytest.raises(ValueError, match="gradients must be left at 'compute', since"):
        recipes.start(dataclasses.replace(TINY, gradients="float32"))


def test_a_batch_that_devices_and_chunks_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="by the 8 devices, got 12"):
        recipes.start(dataclasses.replace(TINY, batch_size=12))
    with pytest.raises(ValueError, match="by the 8 devices times 3 chunks, got 16"):
        recipes.start(dataclasses.replace(TINY, batch_size=16, chunks=3))


def test_the_moving_average_is_evaluated_where_settings_ask_for_one():
    params, statistics = {"model": {"w": jnp.ones(3)}}, {"mean": jnp.zeros(2)}
    for s in (TINY, dataclasses.replace(TINY, average=0.9)):
        tx = recipes.make_optimizer(s, 30)
        state = training.create_state(params, statistics, tx, average=s.average > 0)
        if s.average:
            state = state.replace(average=jax.tree.map(jnp.zeros_like, params))
        variables = recipes.variables_of(s, state)
        assert set(variables) == {"params", "mean"}
        expected = np.zeros(3) if s.average else np.ones(3)
        np.testing.assert_array_equal(variables["params"]["w"], expected)
