"""Recipes: named settings that a script takes by a flag, and that can be built."""

import dataclasses
import pathlib
import shlex

import jax
import pytest

from experiments import simclr
from jaxcl import __main__ as command
from jaxcl import _cli, evaluation, models, recipes, training

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "recipes.md"

# Sides of the images and how many there are to learn from.
SETS = {
    "tfds:cifar10": (32, 50_000),
    "tfds:cifar100": (32, 50_000),
    "tfds:stl10": (96, 100_000),
    "tfds:tinyimagenet64": (64, 100_000),
    "tfds:imagenet224": (224, 1_281_167),
}


def parsed(*arguments):
    found = []
    _cli.run(
        found.append,
        simclr.Settings,
        prog="simclr",
        arguments=arguments,
        named=simclr.RECIPES,
    )
    return found[0]


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_is_allowed_and_its_model_and_optimizer_can_be_built(name):
    s = parsed("--recipe", name)
    assert (s.recipe, s.directory) == (name, f"runs/{name}")
    recipes.check(s)
    recipes.check_images(s)
    recipes.check_loss(s, s.num_views)
    recipes.make_loss(s)
    assert s.source in SETS, f"say in SETS what {s.source!r} holds"
    side, n = SETS[s.source]
    recipes.training.check_size(s, n)
    described = recipes.describe(s, (side, side, 3))

    def start():
        variables = models.initialize(described, jax.random.key(0))
        params = {"model": variables.pop("params")}
        tx = recipes.make_optimizer(s, n)
        return training.create_state(params, variables, tx, average=s.average > 0)

    state = jax.eval_shape(start)
    assert state.params["model"]["projector"]
    transform = recipes.make_transform(s, described.shape)
    view = jax.eval_shape(
        transform, jax.random.key(0), jax.ShapeDtypeStruct((side, side, 3), "float32")
    )
    assert view.shape == (side, side, 3)


def test_flags_win_over_a_recipe_and_a_recipe_over_the_defaults():
    s = parsed("--epochs=5", "--recipe=cifar10-resnet18-100ep", "--seed", "3")
    expected = recipes.with_recipe(simclr.Settings(), "cifar10-resnet18-100ep")
    assert s == dataclasses.replace(expected, epochs=5, seed=3)
    assert (s.optimizer, s.batch_size, s.augmentation) == ("sgd", 512, "cifar")
    assert parsed() == simclr.Settings()


def test_a_short_run_does_not_end_inside_the_warm_up_of_its_recipe(capsys):
    s = parsed("--recipe", "imagenet-resnet50", "--epochs", "5")
    assert (s.epochs, s.warmup_epochs) == (5, 2)
    assert "warmup_epochs is 2, not 10" in capsys.readouterr().out
    s = parsed("--recipe", "imagenet-resnet50", "--epochs", "50")
    assert (s.epochs, s.warmup_epochs) == (50, 10)


def test_an_unknown_recipe_is_answered_in_one_line_with_those_that_are_there():
    with pytest.raises(SystemExit) as end:
        parsed("--recipe", "cifar")
    assert str(end.value).startswith("ValueError: recipe must be one of cifar10-")
    assert "'cifar'" in end.value.code
    assert "\n" not in end.value.code


def test_help_lists_the_recipes(capsys):
    with pytest.raises(SystemExit):
        parsed("--help")
    said = capsys.readouterr().out
    for name, each in recipes.RECIPES.items():
        assert f"- {name}: {each.about}" in said


def test_what_a_run_has_otherwise_than_its_recipe_is_found():
    s = dataclasses.asdict(parsed("--recipe", "cifar10-resnet18-100ep"))
    assert recipes.changed_settings(s) == {}
    other = {**s, "seed": 4, "directory": "x", "epochs": 5, "loss": "dcl"}
    assert recipes.changed_settings(other) == {
        "epochs": (100, 5),
        "loss": ("nt_xent", "dcl"),
    }
    assert set(recipes.changed_settings({**s, "max_steps": 3})) == {"max_steps"}
    for name in (None, "of another version"):
        assert recipes.changed_settings({**s, "recipe": name}) == {}


def test_every_published_figure_says_how_it_was_measured_and_where_it_stands():
    for each in recipes.RECIPES.values():
        for figure in each.published:
            assert 0 < figure.value < 100
            assert figure.source
            assert figure.training
            assert figure.protocol.method
            assert figure.protocol.tested


def test_protocols_that_differ_say_where():
    [knn, linear, _] = recipes.recipe("cifar10-resnet18-100ep").published
    ours = knn.protocol._replace(details="k = 20")
    assert evaluation.protocol_differences(knn.protocol, knn.protocol) == []
    [line] = evaluation.protocol_differences(ours, knn.protocol)
    assert line == "details: here k = 20, there k = 10, equal votes"
    assert len(evaluation.protocol_differences(ours, linear.protocol)) == 4
    assert "500 epochs" in evaluation.protocol_text(linear.protocol)
    with pytest.raises(TypeError, match="theirs must be a Protocol, got str"):
        evaluation.protocol_differences(ours, "k-NN")


def test_the_page_of_recipes_is_what_the_command_prints(capsys):
    command.cli(["recipes", "--every"])
    printed = capsys.readouterr().out.strip()
    page = PAGE.read_text(encoding="utf-8")
    assert page.partition("<!-- jaxcl recipes --every -->")[2].strip() == printed
    command.cli(["recipes", "imagenet-resnet50"])
    assert capsys.readouterr().out.strip() in printed
    assert "jaxcl probe runs/imagenet-resnet50 --test_split val" in printed
    with pytest.raises(SystemExit, match="recipe must be one of"):
        command.cli(["recipes", "imagenet"])
    with pytest.raises(SystemExit, match="every must be left at False"):
        command.cli(["recipes", "imagenet-resnet50", "--every"])


def test_the_flags_that_a_recipe_stands_for_are_the_recipe():
    for name in recipes.RECIPES:
        text = recipes.section(name).partition("stands for:\n")[2]
        flags = shlex.split(text.partition("\njaxcl probe")[0])
        s = parsed(*flags)
        assert s == dataclasses.replace(
            parsed("--recipe", name), recipe=None, directory="runs/simclr"
        )
