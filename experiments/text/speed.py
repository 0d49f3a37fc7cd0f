"""How fast a step of pretraining is, and what tokenizing and feeding cost of it.

python -m experiments.text speed --source path/to/captions.tsv.gz --sentence 1

A thread makes the next batch while a step runs; its time is counted as if it did not.
Sentences are tokenized once, before the first step of all trainings of a comparison;
its time is set beside that of the steps of one training.
"""

import dataclasses
import statistics
import time

import jax

from experiments.text import pretraining
from experiments.text.settings import Training, check
from jaxcl import _rules, data, recipes


@dataclasses.dataclass(frozen=True)
class Settings(Training):
    """Times steps of a pretraining."""

    directory: str = "runs/text_speed"
    rounds: _rules.Count = 30
    """Steps that are timed."""


def main(s: Settings) -> dict[str, float]:
    recipes.start_alone(s, "text speed")
    check(s)
    dataset = recipes.text.open_sentences(s)
    vocabulary = recipes.text.make_vocabulary(s, dataset)
    began = time.perf_counter()
    rows = recipes.text.tokenize(s, dataset, vocabulary)
    tokenizing = time.perf_counter() - began
    made = pretraining.Prepared(vocabulary, rows)
    print(data.text.about(rows))
    state, step, feed, key = pretraining.prepare_steps(s, made)
    examples = recipes.text.examples_of_epoch(s, rows)
    once = recipes.text.once(s, rows)
    host = data.batches(rows, s.batch_size, s.seed, once=once)

    # Every length is compiled before anything is timed.
    lengths: set[int] = set()
    each = recipes.steps_per_epoch(s, examples)
    for i in range(each):
        length = host(i)["sentence"].tokens.shape[-1]
        if length not in lengths:
            lengths.add(length)
            state, _ = step(state, feed(i), key)
        if len(lengths) == len(data.text.rows_of(rows).lengths):
            break
    jax.block_until_ready(state)
    seconds: dict[str, list[float]] = {"feeding": [], "step": []}
    valid = room = sentences = 0
    for i in range(s.rounds):
        began = time.perf_counter()
        batch = host(i)
        seconds["feeding"].append(time.perf_counter() - began)
        valid += int(batch["sentence"].valid.sum())
        room += batch["sentence"].valid.size
        sentences += batch["sentence"].valid[..., 0].size
        given = jax.block_until_ready(feed(i))
        began = time.perf_counter()
        state, _ = step(state, given, key)
        jax.block_until_ready(state)
        seconds["step"].append(time.perf_counter() - began)
    # Steps of another length take another time: means, not medians, add up.
    feeding, stepping = (statistics.fmean(seconds[name]) for name in seconds)
    each_second = sentences / s.rounds / (stepping + feeding)
    share = feeding / (feeding + stepping)
    last = recipes.last_step(s, examples)
    beside = tokenizing / (tokenizing + last * (feeding + stepping))
    padding = 1 - valid / room
    print(
        f"{each_second:,.0f} sentences per second: a step of {s.batch_size} takes "
        f"{1e3 * stepping:.1f} ms, making its batch {1e3 * feeding:.1f} ms, "
        f"{100 * share:.1f} %\nif nothing ran beside. {100 * padding:.1f} % of the "
        f"tokens in batches are padding. Tokenizing once takes {tokenizing:.1f} s,\n"
        f"{100 * beside:.1f} % of one training of {last:,} steps. Besides parameters "
        f"the step needs {memory(step, state, given, key):.0f} MiB."
    )
    return {
        "sentences_per_second": each_second,
        "feeding": share,
        "tokenizing": beside,
        "padding": padding,
    }


def memory(step: object, *arguments: object) -> float:
    """MiB that the compiled step sets aside."""
    compiled = step.lower(*arguments).compile()  # type: ignore[attr-defined]
    return float(compiled.memory_analysis().temp_size_in_bytes) / 2**20
