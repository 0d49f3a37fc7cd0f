"""Time and memory of the losses against their dense forms, same inputs, same run.

python -m experiments.benchmark
python -m experiments.benchmark --sizes 16384 --losses nt_xent clip --repeats 9

Each line is the value and the gradient of a mean loss of float32 embeddings that are
not normalised beforehand, compiled. Repeats of all forms are interleaved, so that
whatever else the machine does hits all of them. Times are medians; memory is what XLA
sets aside besides inputs and outputs.
"""

import dataclasses
import datetime
import json
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
import tyro

from jaxcl import kernels, losses

TEMPERATURE = 0.1
SIMPLE_SUM = kernels.kernel_sum(kernels.gaussian(0.5), kernels.laplacian(0.5))


@dataclasses.dataclass(frozen=True)
class Settings:
    """Compares jaxcl with dense losses and prints a table in Markdown."""

    losses: tuple[Literal["nt_xent", "clip", "sup_con", "kernel_sum"], ...] = (
        "nt_xent",
        "clip",
        "sup_con",
        "kernel_sum",
    )
    """Losses to measure."""
    sizes: tuple[int, ...] = (4096, 8192)
    """Numbers n of anchors."""
    width: int = 256
    """Size d of the embeddings."""
    repeats: int = 7
    """Measurements of each form, interleaved."""
    tile: int | None = None
    """Edge of a tile; None is chosen."""
    output: str | None = None
    """Also write the measurements to this new JSON file."""


def unit(z: jax.Array) -> jax.Array:
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


def dense_of_views(z: jax.Array, logits: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """What people write: all logits, the diagonal masked, a log-sum-exp per row."""
    n = z.shape[0] * z.shape[1]
    s = logits(unit(z.reshape(n, -1)))
    s = jnp.where(jnp.eye(n, dtype=bool), -jnp.inf, s)
    partner = jnp.arange(n) ^ 1
    return jnp.mean(jax.nn.logsumexp(s, axis=1) - s[jnp.arange(n), partner])


def dense_nt_xent(z: jax.Array) -> jax.Array:
    return dense_of_views(z, lambda u: u @ u.T / TEMPERATURE)


def dense_kernel_sum(z: jax.Array) -> jax.Array:
    def logits(u: jax.Array) -> jax.Array:
        squared = jnp.maximum(2 - 2 * u @ u.T, 1e-12)
        return jnp.logaddexp(-squared / 0.5, -jnp.sqrt(squared) / 0.5)

    return dense_of_views(z, logits)


def dense_clip(pairs: tuple[jax.Array, jax.Array]) -> jax.Array:
    s = unit(pairs[0]) @ unit(pairs[1]).T / TEMPERATURE
    both = jax.nn.logsumexp(s, axis=1) + jax.nn.logsumexp(s, axis=0)
    return jnp.mean(both / 2 - jnp.diagonal(s))


def dense_sup_con(z: jax.Array) -> jax.Array:
    u = unit(z)
    labels = labels_of(u.shape[0])
    itself = jnp.eye(u.shape[0], dtype=bool)
    s = jnp.where(itself, -jnp.inf, u @ u.T / TEMPERATURE)
    log_p = s - jax.nn.logsumexp(s, axis=1, keepdims=True)
    positive = (labels[:, None] == labels[None, :]) & ~itself
    return -jnp.mean(jnp.where(positive, log_p, 0).sum(1) / positive.sum(1))


def labels_of(n: int) -> jax.Array:
    return jnp.arange(n) * 7919 % 100


def inputs(name: str, n: int, d: int) -> Any:
    """Makes embeddings of two views of n / 2 examples, or of n pairs."""
    base, noise = jax.random.split(jax.random.key(0))
    examples = n if name == "clip" else n // 2
    z = jax.random.normal(base, (examples, 1, d))
    z = z + 0.7 * jax.random.normal(noise, (examples, 2, d))
    if name == "clip":
        return z[:, 0], z[:, 1]
    return z.reshape(n, d) if name == "sup_con" else z


def forms(name: str, tile: int | None) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns the dense form of a loss, and jaxcl's."""
    t: dict[str, Any] = {"temperature": TEMPERATURE, "tile": tile}
    both: dict[str, tuple[Any, Any]] = {
        "nt_xent": (dense_nt_xent, lambda z: losses.nt_xent(z, **t).mean()),
        "kernel_sum": (
            dense_kernel_sum,
            lambda z: losses.kernel_info_nce(z, kernel=SIMPLE_SUM, tile=tile).mean(),
        ),
        "clip": (dense_clip, lambda pairs: losses.clip(*pairs, **t).mean()),
        "sup_con": (
            dense_sup_con,
            lambda z: losses.sup_con(z, labels_of(z.shape[0]), **t).mean(),
        ),
    }
    return both[name]


def measure(
    functions: dict[str, Callable[..., Any]], z: Any, repeats: int
) -> dict[str, dict[str, float]]:
    """Measures the value and gradient of each function, interleaved."""
    compiled = {
        name: jax.jit(jax.value_and_grad(f)).lower(z).compile()
        for name, f in functions.items()
    }
    results = {name: jax.block_until_ready(run(z)) for name, run in compiled.items()}
    exact = jax.tree.leaves(results["dense"][1])
    seconds: dict[str, list[float]] = {name: [] for name in compiled}
    for _ in range(repeats):
        for name, run in compiled.items():
            began = time.perf_counter()
            jax.block_until_ready(run(z))
            seconds[name].append(time.perf_counter() - began)
    memory: dict[str, Any] = {n: run.memory_analysis() for n, run in compiled.items()}
    return {
        name: {
            "seconds": float(np.median(seconds[name])),
            "temporary_mib": memory[name].temp_size_in_bytes / 2**20,
            "gradient_difference": max(
                float(jnp.abs(a - b).max() / jnp.abs(b).max())
                for a, b in zip(jax.tree.leaves(results[name][1]), exact, strict=True)
            ),
        }
        for name in compiled
    }


def machine() -> str:
    model = platform.processor() or platform.machine()
    path = pathlib.Path("/proc/cpuinfo")
    if path.exists():
        names = [x for x in path.read_text().splitlines() if x.startswith("model name")]
        model = f"{len(names)} cores of {names[0].split(':')[1].strip()}"
    kind = jax.devices()[0].device_kind
    return f"{kind}, {model}, jax {jax.__version__}, {datetime.date.today()}"


def main(s: Settings) -> list[dict[str, Any]]:
    if s.output is not None and pathlib.Path(s.output).exists():
        raise FileExistsError(f"output must be a new file, and {s.output} exists")
    rows = []
    cases = [(name, n) for name in s.losses for n in s.sizes]
    for name, n in tqdm.tqdm(cases, unit="case"):
        dense, ours = forms(name, s.tile)
        z = inputs(name, n, s.width)
        result = measure({"dense": dense, "jaxcl": ours}, z, s.repeats)
        rows.append({"loss": name, "n": n, "d": s.width, **result})

    print(f"\n{machine()}; value and gradient, float32, d = {s.width}\n")
    print("| loss | n | dense | jaxcl | time | dense | jaxcl | memory | gradients |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        a, b = row["dense"], row["jaxcl"]
        print(
            f"| {row['loss']} | {row['n']:,} "
            f"| {a['seconds']:.3f} s | {b['seconds']:.3f} s "
            f"| **{b['seconds'] / a['seconds']:.2f}x** "
            f"| {a['temporary_mib']:.0f} MiB | {b['temporary_mib']:.0f} MiB "
            f"| **{100 * b['temporary_mib'] / a['temporary_mib']:.1f} %** "
            f"| {b['gradient_difference']:.0e} |"
        )
    if s.output is not None:
        record = {"machine": machine(), "settings": dataclasses.asdict(s), "rows": rows}
        pathlib.Path(s.output).write_text(json.dumps(record, indent=2) + "\n")
    return rows


if __name__ == "__main__":
    main(tyro.cli(Settings))
