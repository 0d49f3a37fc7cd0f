"""Memory and time of a step whose batch goes through the encoder in chunks.

The step is SimCLR's: an encoder with batch normalization and dropout, NT-Xent of the
whole batch, AdamW. Its gradient is compared with that of a plain loop
over the same chunks that keeps all activations.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import tqdm

import jaxcl
from experiments.benchmark import report
from jaxcl import _checks, _files, _rules, _tables, _text, losses, models, training


@dataclasses.dataclass(frozen=True)
class Settings:
    """Measures a step against the number of chunks of its batch."""

    directory: str = "runs/benchmark_chunks"
    """Where chunks.md and results.json go."""
    chunks: Annotated[tuple[_rules.Count, ...], _rules.Different] = (1, 2, 4, 8, 16)
    """Numbers of chunks."""
    devices: Annotated[tuple[_rules.Count, ...], _rules.Different] = (1,)
    """Numbers of devices; on a CPU, JAX_NUM_CPU_DEVICES=4 makes four."""
    encoder: Literal["patches", "convolutions"] = "patches"
    """Three dense layers over patches of 4 x 4 pixels, or three convolutions."""
    batch_size: _rules.Several = 256
    """Images per step, over all devices."""
    size: _rules.Count = 32
    """Edge of an image in pixels."""
    width: _rules.Count = 32
    """Channels of the first convolution, or an eighth of those of a patch."""
    repeats: _rules.Count = 3
    """Steps of each that are timed, interleaved."""


class Network(nn.Module):
    """An encoder with batch normalization and dropout, and a projector."""

    encoder: str
    width: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        if self.encoder == "convolutions":
            h = models.ConvEncoder(self.width)(images, train=True)
        else:
            b, size, _, c = images.shape
            tokens = images.reshape(b, size // 4, 4, size // 4, 4, c).swapaxes(2, 3)
            h = tokens.reshape(b, (size // 4) ** 2, 16 * c)
            for _ in range(3):
                h = nn.gelu(nn.Dense(8 * self.width, use_bias=False)(h))
                h = nn.BatchNorm(use_running_average=False)(h)
            h = h.mean(axis=1)
        h = nn.Dropout(0.1, deterministic=False)(h)
        return models.Projector(64)(h, train=True)


def by_hand(encode: Any, chunks: int) -> Any:
    """What `training.in_chunks` promises, as a loop that keeps all activations."""

    def encoded(variables: Any, x: jax.Array, key: jax.Array) -> Any:
        pieces: list[jax.Array] = []
        changed: dict[str, Any] = {}
        for c in range(chunks):
            given = {**variables, **changed}
            z, changed = encode(given, x[c::chunks], jax.random.fold_in(key, c))
            pieces.append(z)
        return jnp.stack(pieces, axis=1).reshape(len(x), -1), changed

    return encoded if chunks > 1 else encode


def main(s: Settings) -> list[dict[str, Any]]:
    _rules.check(s)
    home = _files.check_new("directory", s.directory)
    if s.encoder == "patches":
        _checks.divisible("size", s.size, 4, "4 pixels of a patch")
    most = len(jax.devices())
    if max(s.devices) > most:
        raise ValueError(
            f"devices must be at most the {most} there are, got {s.devices}"
        )
    cases = [(d, c) for d in s.devices for c in s.chunks]
    for devices, chunks in cases:
        parts = f"{devices} devices times {chunks} chunks"
        _checks.divisible("batch_size", s.batch_size, devices * chunks, parts)
    steps, rows = [], []
    for devices, chunks in tqdm.tqdm(cases, unit="program", file=_text.TERMINAL):
        step, row = prepare(s, devices, chunks)
        steps.append(step)
        rows.append(row)
    seconds: list[list[float]] = [[] for _ in steps]
    for repeat in tqdm.trange(s.repeats + 1, unit="round", file=_text.TERMINAL):
        for step, times in zip(steps, seconds, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(step())
            if repeat:  # the first one warms up
                times.append(time.perf_counter() - began)
    for row, times in zip(rows, seconds, strict=True):
        row["seconds"] = statistics.median(times)

    text = _tables.markdown(
        ["devices", "chunks", "temporary memory", "of one chunk", "time", "gradient"],
        [_cells(row, rows) for row in rows],
    )
    print(f"\n{report.machine()}\n\n{text}")
    _files.write_text(home / "chunks.md", f"{report.machine()}\n\n{text}\n")
    record = {"settings": dataclasses.asdict(s), "rows": rows}
    _files.write_json(home / "results.json", record)
    return rows


def prepare(
    s: Settings, devices: int, chunks: int
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """A compiled step on some devices, its memory, and how far its gradient is off."""
    mesh = jax.make_mesh(
        (devices,),
        ("data",),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:devices],
    )
    network, loss = Network(s.encoder, s.width), jaxcl.sharded(losses.nt_xent, mesh)
    x = np.random.default_rng(0).random((s.batch_size, s.size, s.size, 3), np.float32)
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = dict(jax.jit(network.init)(rngs, x[:2]))
    params = variables.pop("params")
    state = training.create_state(params, variables, training.adamw(1e-3))
    placed = jax.NamedSharding(mesh, jax.P("data")), jax.NamedSharding(mesh, jax.P())
    batch, (state, key) = jax.device_put((x, (state, jax.random.key(2))), placed)

    def encode(variables: Any, x: jax.Array, key: jax.Array) -> Any:
        rngs = {"dropout": key}
        return network.apply(variables, x, rngs=rngs, mutable=["batch_stats"])

    def loss_fn(encode: Any, params: Any, state: Any, x: Any, key: Any) -> Any:
        z, changed = encode({"params": params, **state.model_state}, x, key)
        return training.Outcome(loss(z.reshape(-1, 2, z.shape[-1])), changed)

    def gradient(encode: Any) -> Any:
        def mean(params: Any, state: Any, batch: Any, key: Any) -> jax.Array:
            return loss_fn(encode, params, state, batch, key).loss.mean()

        return jax.jit(jax.grad(mean))(state.params, state, batch, key)

    in_chunks = training.in_chunks(encode, chunks)
    step = functools.partial(training.train_step, functools.partial(loss_fn, in_chunks))
    compiled = jax.jit(step).lower(state, batch, key).compile()
    memory: Any = compiled.memory_analysis()
    row = {
        "devices": devices,
        "chunks": chunks,
        "temporary_mib": memory.temp_size_in_bytes / 2**20,
        "gradient_difference": _difference(
            gradient(in_chunks), gradient(by_hand(encode, chunks))
        ),
    }
    return functools.partial(compiled, state, batch, key), row


def _difference(a: Any, b: Any) -> float:
    """Largest difference, relative to the largest entry."""
    leaves = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    scale = max(float(jnp.abs(y).max()) for _, y in leaves)
    return max(float(jnp.abs(x - y).max()) for x, y in leaves) / scale


def _cells(row: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    first = next(other for other in rows if other["devices"] == row["devices"])
    return [
        str(row["devices"]),
        str(row["chunks"]),
        f"{row['temporary_mib']:.1f} MiB",
        f"{row['temporary_mib'] / first['temporary_mib']:.2f}x",
        f"{row['seconds']:.2f} s, {row['seconds'] / first['seconds']:.2f}x",
        f"{row['gradient_difference']:.0e}",
    ]
