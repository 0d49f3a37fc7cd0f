"""How fast a step of pretraining is, and what augmentation and packing cost of it.

python -m experiments.graphs speed --source path/to/NCI1.npz

The step and the same one without augmentation run in turns, on the same batches.
"""

import dataclasses
import statistics
import time
from typing import Any, Literal

import jax

from experiments.graphs import pretraining
from experiments.graphs.settings import Training
from jaxcl import _rules, data, recipes


@dataclasses.dataclass(frozen=True)
class Settings(Training):
    """Times steps of a pretraining, of the encoder of SC-InfoNCE's authors."""

    encoder: Literal["gin", "gcn"] = "gcn"
    readout: Literal["last", "concatenate"] = "last"
    projector: Literal["normalized", "plain"] = "normalized"
    embedding: _rules.Count = 32
    rounds: _rules.Count = 30
    """Steps of each kind."""


def main(s: Settings) -> dict[str, float]:
    recipes.start_alone(s, "graphs speed")
    plain = dataclasses.replace(s, augmentation=("identity",))
    dataset = recipes.graphs.open_graphs(s)
    packed = recipes.graphs.pack(s, dataset)
    print(data.graphs.about(packed))
    trainings = {
        name: pretraining.prepare_steps(settings, dataset, packed)
        for name, settings in (("with", s), ("without", plain))
    }
    seconds: dict[str, list[float]] = {name: [] for name in (*trainings, "packing")}
    host = data.batches(packed, s.batch_size, s.seed)
    states = {name: each.state for name, each in trainings.items()}
    for i in range(s.rounds + 2):
        began = time.perf_counter()
        host(i)
        seconds["packing"].append(time.perf_counter() - began)
        for name, each in trainings.items():
            batch = jax.block_until_ready(each.feed(i))
            began = time.perf_counter()
            states[name], _ = each.step(states[name], batch, each.key)
            jax.block_until_ready(states[name])
            seconds[name].append(time.perf_counter() - began)
    # The first two compile, and wait for what was started before.
    found = {name: statistics.median(each[2:]) for name, each in seconds.items()}
    share = 1 - found["without"] / found["with"]
    print(
        f"{s.batch_size / found['with']:,.0f} graphs per second: a step of "
        f"{s.batch_size} takes {1e3 * found['with']:.1f} ms, of which augmentation "
        f"takes {100 * share:.0f} %;\na thread packs the next batch meanwhile, in "
        f"{1e3 * found['packing']:.1f} ms. Besides parameters the step needs "
        f"{memory(trainings['with']):.0f} MiB, whatever the graphs."
    )
    return {**found, "share": share}


def memory(each: Any) -> float:
    """MiB that the compiled step sets aside."""
    compiled = each.step.lower(each.state, each.feed(0), each.key).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 2**20
