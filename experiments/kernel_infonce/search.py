"""The hyperparameters of each kernel: a random search with successive halving."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import optuna
import tqdm
import tyro
from optuna.storages import journal

from experiments.kernel_infonce import pretraining
from experiments.kernel_infonce import rows as rows_lib
from experiments.kernel_infonce.rows import Training
from jaxcl import _files, _rules, _tables, _text, recipes, study
from jaxcl.training import settings as settings_lib

# The search space of the paper's code: from, to, and whether logarithmic; or choices.
SPACE: Mapping[str, Any] = {
    "temperature": (1e-2, 1.0, True),
    "second_temperature": (1e-2, 1.0, True),
    "arc_scale": (1e-2, 1.0, True),
    "weight": (0.0, 1.0, False),
    "power": [0.5, 1.0],
}
RATES = {
    "adamw": (1e-4, 1e-2),
    "lars": (1e-2, 10.0),
    "sgd": (1e-3, 1.0),
}  # LARS: theirs
FAILED = optuna.trial.TrialState.FAIL
FINISHED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Searches each kernel's hyperparameters on a part of the training images."""

    directory: str = "runs/kernel_infonce_search"
    """Holds the trials, the studies of optuna and tuned.json."""
    protocol: str = "digits"
    """Named settings: digits, mnist, cifar10_cpu, cifar10, cifar100 or tinyimagenet."""
    kernels: tuple[str, ...] = tuple(rows_lib.ROWS)
    """Rows of the table whose hyperparameters are searched."""
    trials: _rules.Count = 8
    """Random settings of each kernel."""
    metric: Literal["all_labels", "few_labels", "knn"] = "all_labels"
    """What is maximized: the linear probe as in the paper's code, or another probe
    where that one is near 100 %."""
    learning_rate: _rules.Positive | None = None
    """One for all instead of one that is searched: with few trials, rows would differ
    by chance in it more than by their kernel."""
    rungs: Annotated[int, _rules.whole(1, 31)] = 3
    """A trial stops at 1/2, 1/4, ... of the epochs unless it is in the better half."""
    seed: _rules.Seed = 0
    """Of the settings that are drawn, and of every run."""
    instead: tyro.conf.OmitArgPrefixes[recipes.Instead] = recipes.Instead()  # noqa: RUF009


def draw_settings(
    trial: optuna.Trial, name: str, optimizer: str, learning_rate: float | None
) -> dict[str, Any]:
    """Draws hyperparameters of a row."""
    low, high = RATES[optimizer]
    if learning_rate is not None:
        low = high = learning_rate
    drawn = {"learning_rate": trial.suggest_float("learning_rate", low, high, log=True)}
    for key in rows_lib.ROWS[name].space:
        if isinstance(SPACE[key], list):
            drawn[key] = trial.suggest_categorical(key, SPACE[key])
        else:
            low, high, logarithmic = SPACE[key]
            drawn[key] = trial.suggest_float(key, low, high, log=logarithmic)
    return drawn


def open_study(path: pathlib.Path, seed: int) -> optuna.Study:
    """A study kept in a file; what was running when it was stopped begins again."""
    storage = optuna.storages.JournalStorage(journal.JournalFileBackend(str(path)))
    opened = optuna.create_study(
        storage=storage,
        study_name="search",
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.SuccessiveHalvingPruner(
            min_resource=1, reduction_factor=2
        ),
    )
    # A sampler with the same seed again would draw what it has drawn already.
    opened.sampler = optuna.samplers.RandomSampler(1000 * seed + len(opened.trials))
    for trial in opened.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        opened.tell(trial.number, state=FAILED)
    trials = opened.get_trials()
    taken_up = {
        trial.user_attrs.get("directory") for trial in trials if trial.state != FAILED
    }
    for trial in trials:
        if trial.state == FAILED and trial.user_attrs.get("directory") not in taken_up:
            opened.enqueue_trial(trial.params, trial.user_attrs)
    return opened


def try_out(
    trial: optuna.Trial, s: Settings, base: Training, name: str, rungs: list[int]
) -> float:
    """Trains with settings that are drawn, as long as they are among the better."""
    drawn = draw_settings(trial, name, base.optimizer, s.learning_rate)
    # A trial that was stopped goes on in the directory where it began.
    place = trial.user_attrs.get("directory", f"trial_{trial.number}")
    trial.set_user_attr("directory", place)
    settings = dataclasses.replace(
        base,
        **rows_lib.variant(base, name, drawn),
        seed=s.seed,
        directory=str(pathlib.Path(base.directory) / place),
    )
    accuracy = 0.0
    for rung, last in enumerate(rungs, 1):
        try:
            found, _ = study.measure(
                pretraining.STUDY,
                dataclasses.replace(settings, max_steps=last),
                may_change=rows_lib.MAY_CHANGE,
            )
        except FloatingPointError as error:  # diverged: among the worst
            raise optuna.TrialPruned(str(error)) from error
        accuracy = found[s.metric]
        trial.report(accuracy, rung)
        if last < rungs[-1] and trial.should_prune():
            raise optuna.TrialPruned
    return accuracy


def search(
    s: Settings, base: Training, name: str, rungs: list[int], bar: tqdm.tqdm
) -> optuna.Study:
    """Completes the trials of one row."""
    home = pathlib.Path(s.directory) / study.directory_of(name)
    base = dataclasses.replace(base, directory=str(home))
    # Trials with other settings must not end up in one study.
    same = dataclasses.asdict(base) | dataclasses.asdict(s)
    same |= {"test_split": base.test_split, "instead": None, "kernels": name}
    settings_lib.save_settings(home, same, may_change=("directory", "trials"))
    found = open_study(home / "study.log", s.seed)
    # A kernel without hyperparameters has nothing to draw once the rate is given.
    nothing = s.learning_rate is not None and not rows_lib.ROWS[name].space
    wanted = 1 if nothing else s.trials
    done = len(found.get_trials(states=FINISHED))
    bar.update(s.trials - wanted + min(done, wanted))
    bar.set_postfix_str(name)
    if done < wanted:
        found.optimize(
            lambda trial: try_out(trial, s, base, name, rungs),
            wanted - done,
            callbacks=[lambda *_: bar.update()],
        )
    return found


def main(s: Settings) -> dict[str, dict[str, Any]]:
    _rules.check(s)
    named = pretraining.protocol(s.protocol, s.kernels, s.instead, s.directory)
    base = dataclasses.replace(
        named.settings,
        split=s.instead.split or named.search_split,
        test_split=named.search_test_split,
        save_every=10**9,
    )
    recipes.check_study(base, base.test_split)
    steps = recipes.last_step(base, recipes.open_images(base))
    rungs = [max(1, steps >> k) for k in reversed(range(s.rungs))]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tuned, lines = {}, []
    with tqdm.tqdm(
        total=s.trials * len(s.kernels), unit="trial", file=_text.TERMINAL
    ) as bar:
        for name in s.kernels:
            found = search(s, base, name, rungs, bar)
            complete = found.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
            if not complete:
                raise ValueError(f"no trial of {name!r} was finished: raise trials")
            best = found.best_trial.params
            tuned[name] = best
            shown = ", ".join(f"{key} {value:.3g}" for key, value in best.items())
            percent = f"{100 * found.best_value:.1f}"
            lines.append([name, percent, len(complete), shown])
    path = pathlib.Path(s.directory) / "tuned.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    _files.write_json(path, earlier | tuned)
    print(f"\n{s.trials} trials each; accuracy on {base.test_split} in %\n")
    head = ["kernel", "accuracy", "whole trials", "best settings"]
    print(_tables.markdown(head, lines))
    print(
        f"\nNow compare with --protocol {s.protocol} --tuned {path}, and the same "
        "flags instead of\nthe protocol's as here."
    )
    return tuned
