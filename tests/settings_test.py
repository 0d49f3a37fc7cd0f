"""Numbers in flags: each is checked before any work, and named as the user wrote it."""

import dataclasses
import importlib
import math
import pathlib
import pkgutil
import typing

import flax.linen as nn
import pytest

import experiments
import jaxcl
from experiments import gpu, moco, simclr
from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import chunks, loop, reading
from experiments.clip import __main__ as clip
from experiments.clip import settings as clip_settings
from experiments.gaussianity import images as gaussianity_images
from experiments.gaussianity import sweep, synthetic, synthetic_settings
from experiments.graphs import finetune as graphs_finetune
from experiments.graphs import frozen as graphs_frozen
from experiments.graphs import nodes as graphs_nodes
from experiments.graphs import settings as graphs_settings
from experiments.graphs import speed as graphs_speed
from experiments.kernel_infonce import compare, search
from experiments.kernel_infonce import pretraining as kernel_pretraining
from experiments.pair_graph import __main__ as pair_graph
from experiments.pods import __main__ as pods
from experiments.pods import blocks as pods_blocks
from experiments.pods import settings as pods_settings
from experiments.pods import summary as pods_summary
from experiments.pods import table as pods_table
from experiments.sc_infonce import images as sc_images
from experiments.sc_infonce import pretraining as sc_pretraining
from experiments.sc_infonce import synthetic as sc_synthetic
from experiments.spectral_clustering import __main__ as spectral
from experiments.text import compare as text_compare
from experiments.text import settings as text_settings
from experiments.text import speed as text_speed
from jaxcl import _rules, recipes, report
from jaxcl.data import prepare
from jaxcl.tools import embed, export, listing, probe

# Every command: what runs it, and settings with which it would.
COMMANDS = {
    "simclr": (simclr.main, simclr.Settings()),
    "moco": (moco.main, moco.Settings()),
    "spectral_clustering": (spectral.main, spectral.Settings()),
    "pair_graph": (pair_graph.main, pair_graph.Settings()),
    "kernel_infonce compare": (compare.main, compare.Settings()),
    "kernel_infonce search": (search.main, search.Settings()),
    "sc_infonce synthetic": (sc_synthetic.main, sc_synthetic.Settings()),
    "sc_infonce images": (sc_images.main, sc_images.Settings()),
    "gaussianity synthetic": (synthetic.main, synthetic_settings.Settings()),
    "gaussianity sweep": (sweep.main, sweep.Settings()),
    "gaussianity images": (gaussianity_images.main, gaussianity_images.Settings()),
    "graphs frozen": (graphs_frozen.main, graphs_frozen.Settings()),
    "graphs finetune": (graphs_finetune.main, graphs_finetune.Settings()),
    "graphs nodes": (graphs_nodes.main, graphs_nodes.Settings()),
    "graphs speed": (graphs_speed.main, graphs_speed.Settings()),
    "clip": (clip.main, clip_settings.Settings()),
    "text compare": (text_compare.main, text_compare.Settings()),
    "text speed": (text_speed.main, text_speed.Settings()),
    "benchmark losses": (benchmark.main, benchmark.Settings()),
    "benchmark chunks": (chunks.main, chunks.Settings()),
    "benchmark loop": (loop.main, loop.Settings()),
    "benchmark reading": (reading.main, reading.Settings("nowhere")),
    "pods plan": (pods.main, pods_settings.Settings()),
    "pods table": (pods_table.main, pods_table.Table()),
    "pods blocks": (pods_blocks.main, pods_blocks.Blocks()),
    "gpu": (gpu.main, gpu.Settings()),
    "report": (report.main, report.Settings("nowhere.npy")),
    "prepare": (prepare.main, prepare.Settings(name="x", folder="nowhere")),
    "probe": (probe.main, probe.Settings("nowhere")),
    "embed": (embed.main, embed.Settings("nowhere", "z.npz")),
    "export": (export.main, export.Settings("nowhere")),
    "recipes": (listing.main, listing.Settings()),
}
# What else is made of flags, or of a protocol's settings and flags.
PARTS = (
    recipes.Images(),
    recipes.Instead(),
    recipes.Processes(),
    recipes.graphs.Graphs(),
    recipes.text.Sentences(),
    recipes.pairs.Pairs(),
    recipes.PairLoss(),
    clip_settings.Training(),
    graphs_settings.Training(),
    graphs_settings.Compared(),
    graphs_nodes.Training(),
    text_settings.Training(),
    text_settings.Compared(),
    synthetic_settings.PAPER,
    pods_summary.Summary(("nowhere",)),
) + tuple(
    settings
    for protocols in (
        {name: command.settings for name, command in moco.PROTOCOLS.items()},
        {name: p.settings for name, p in kernel_pretraining.PROTOCOLS.items()},
        sc_pretraining.PROTOCOLS,
    )
    for settings in protocols.values()
)
SETTINGS = {
    **{type(s): s for s in PARTS},
    **{type(s): s for _, s in COMMANDS.values()},
}

# Where 0 means something; no other number may be it.
ZERO = {
    "warmup_epochs", "seed", "seeds", "step", "process_id", "average", "momentum",
    "jitter", "weight_decay", "weight", "alpha", "beta", "alphas", "betas", "penalty",
    "penalty_alignment", "noise", "eta", "snapshots", "view_noise", "view_dropout",
    "view_scale", "mean_scale", "flip", "beta_factor", "dense_limit", "optax_limit",
    "held_out", "ground", "max_unreadable", "ratio", "drop_edges", "mask_features",
    "apart", "dropout", "bias",
}  # fmt: skip
# Encoders of sentences may have no layers.
ZERO_IN = {(recipes.text.Sentences, "depth")}
# The seeds of the sweep are a number of seeds.
ZERO_OF_ONE = {(sweep.Settings, "seeds")}
NEGATIVE = {"alpha", "beta", "alphas", "betas", "bias"}


def _numbers(kind):
    """Names of the numeric fields of a dataclass, and whether they are integers."""
    hints = typing.get_type_hints(kind)  # without what `Annotated` adds
    for field in dataclasses.fields(kind):
        leaves, inside = set(), [hints[field.name]]
        while inside:
            hint = inside.pop()
            if typing.get_origin(hint) is typing.Literal:
                continue
            inside += typing.get_args(hint)
            leaves.add(hint)
        if leaves & {int, float}:
            yield field.name, int in leaves, tuple in map(typing.get_origin, leaves)


def _with(settings, name, value, several):
    return dataclasses.replace(settings, **{name: (value,) if several else value})


def test_all_dataclasses_of_settings_are_known():
    """A new one is checked by the tests below only if it is listed above."""
    found = set()
    for package in (experiments, jaxcl):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            loaded = importlib.import_module(module.name)
            found |= {
                kind
                for kind in vars(loaded).values()
                if isinstance(kind, type)
                and dataclasses.is_dataclass(kind)
                and not issubclass(kind, nn.Module)
                and kind.__module__ == module.name
                and (
                    package is experiments
                    or ".recipes." in module.name
                    or kind.__name__ == "Settings"
                )
            }
    bases = {base for kind in SETTINGS for base in kind.__mro__}  # such as `Scales`
    assert found <= bases, found - bases


@pytest.mark.parametrize("kind", SETTINGS, ids=lambda k: f"{k.__module__}.{k.__name__}")
def test_every_number_has_a_rule_and_is_named_as_the_flag(kind):
    settings = SETTINGS[kind]
    for name, whole, several in _numbers(kind):
        for value in (0, -1, math.nan, math.inf, -math.inf, 10**30, "3", True):
            may = {
                0: (name in ZERO and (kind, name) not in ZERO_OF_ONE)
                or any((base, name) in ZERO_IN for base in kind.__mro__),
                -1: name in NEGATIVE,
                10**30: not whole and name in NEGATIVE | {"temperature", "tau"},
            }.get(value if type(value) is int else None, False)
            if value == 10**30 and not whole and not may:
                continue  # no bound above, or one: either may be
            changed = _with(settings, name, value, several)
            if may:
                _rules.check(changed)
                continue
            with pytest.raises((ValueError, TypeError), match=f"^{name} must "):
                _rules.check(changed)


def test_all_named_settings_keep_the_rules():
    for settings in [*PARTS, *(s for _, s in COMMANDS.values())]:
        _rules.check(settings)
        if isinstance(settings, recipes.Images):
            recipes.check(settings)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_a_number_before_it_does_anything(
    name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    main, settings = COMMANDS[name]
    fields = [n for n in _numbers(type(settings)) if n[0] not in NEGATIVE]
    for field, _, several in fields[:2]:
        with pytest.raises(ValueError, match=f"^{field} must .*-7"):
            main(_with(settings, field, -7, several))
    assert not list(pathlib.Path().iterdir())


@pytest.mark.parametrize(
    ("main", "settings", "words"),
    [
        (simclr.main, {"epochs": 10}, "epochs must be more than warmup_epochs 20, got"),
        (simclr.main, {"batch_size": 12}, "batch_size must be divisible by the 8 dev"),
        (simclr.main, {"batch_size": 4000}, "batch_size must be at most the 1,300 im"),
        (simclr.main, {"epochs": 2**30}, "epochs must be at most 214,748,364, of 10"),
        (simclr.main, {"loss": "dhel", "num_views": 3}, "num_views must be at most 2"),
        (
            simclr.main,
            {"alpha": 2.0},
            "alpha must be left at 1.0, since only loss 'sc_",
        ),
        (simclr.main, {"kernel": "laplacian"}, "kernel must be left at 'gaussian'"),
        (
            simclr.main,
            {"loss": "kcl", "power": 2.0},
            "power must be left at 1.0, since",
        ),
        (simclr.main, {"penalty_scale": 1.0}, "penalty_scale must be left at 0.5"),
        (simclr.main, {"jitter": 1.0}, "jitter must be left at 0.5, since only augm"),
        (simclr.main, {"stem": "imagenet"}, "stem must be left at 'small', since only"),
        (moco.main, {"epochs": 5, "warmup_epochs": 5}, "epochs must be more than warm"),
        (
            moco.main,
            {"queue_size": 100},
            "queue_size must be divisible by the 128 rows",
        ),
        (
            moco.main,
            {"split": "train[:60]", "batch_size": 8},
            "split must have at least",
        ),
        (synthetic.main, {"hidden": 3}, "hidden must be left at 512, since only enc"),
        (
            synthetic.main,
            {"laws": ("binary",), "signal": 0.5},
            "signal must be left at",
        ),
        (gaussianity_images.main, {"jitter": 0.5}, "jitter must be left at 1.0, since"),
        (
            chunks.main,
            {"size": 30},
            "size must be divisible by the 4 pixels of a patch",
        ),
        (
            chunks.main,
            {"chunks": (3,)},
            "batch_size must be divisible by the 1 devices",
        ),
        (
            loop.main,
            {"batch_size": 12},
            "batch_size must be divisible by the 8 devices",
        ),
        (
            embed.main,
            {"untrained": True, "step": 3},
            "step must be None with untrained",
        ),
    ],
)
def test_numbers_that_do_not_go_together_are_refused_before_anything_is_written(
    main, settings, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    [known] = [s for run, s in COMMANDS.values() if run is main]
    with pytest.raises(ValueError, match=f"^{words}"):
        main(dataclasses.replace(known, **settings))
    assert not list(pathlib.Path().iterdir())


@pytest.mark.parametrize("main", [graphs_speed.main, text_speed.main])
def test_what_runs_in_one_process_says_so(main):
    [s] = [settings for command, settings in COMMANDS.values() if command is main]
    with pytest.raises(
        ValueError,
        match=r"coordinator must be left at None.*'(text|graphs) speed' \(one process",
    ):
        main(dataclasses.replace(s, coordinator="localhost:1234"))
