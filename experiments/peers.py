"""What jaxcl is compared with: dense and scanned losses in JAX, and other packages.

All of them return the mean over anchors of the same numbers. What a package leaves to
its caller, such as unit length, is done here. A package is imported when it is asked
for, since none of them is needed to use jaxcl.
"""

import functools
import importlib
import importlib.metadata
import math
import pathlib
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl import kernels, losses

TEMPERATURE, BIAS = 0.1, -10.0


class NotRun(Exception):
    """Says why a form is not measured."""


def unit(z: jax.Array) -> jax.Array:
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


def labels_of(n: int) -> jax.Array:
    return jnp.arange(n) * 7919 % max(1, min(100, n // 8))


def cosine_logits(x: jax.Array, y: jax.Array) -> jax.Array:
    return x @ y.T / TEMPERATURE


def kernel_sum_logits(x: jax.Array, y: jax.Array) -> jax.Array:
    squared = jnp.maximum(2 - 2 * x @ y.T, 1e-12)
    return jnp.logaddexp(-squared / 0.5, -jnp.sqrt(squared) / 0.5)


def views_rows(logits: Any, x: jax.Array, i: jax.Array, y: jax.Array) -> jax.Array:
    """Logits, the diagonal masked, a log-sum-exp per row.

    Like the three below it takes rows x, their numbers i, and all candidates y.
    """
    s = logits(x, y)
    s = jnp.where(i[:, None] == jnp.arange(len(y))[None], -jnp.inf, s)
    return jax.nn.logsumexp(s, axis=1) - s[jnp.arange(len(i)), i ^ 1]


def sup_con_rows(x: jax.Array, i: jax.Array, y: jax.Array) -> jax.Array:
    labels = labels_of(len(y))
    itself = i[:, None] == jnp.arange(len(y))[None]
    s = jnp.where(itself, -jnp.inf, cosine_logits(x, y))
    log_p = s - jax.nn.logsumexp(s, axis=1, keepdims=True)
    positive = (labels[i][:, None] == labels[None]) & ~itself
    number = positive.sum(1).astype(s.dtype)
    return -jnp.where(positive, log_p, 0).sum(1) / number


def info_nce_rows(x: jax.Array, i: jax.Array, y: jax.Array) -> jax.Array:
    s = cosine_logits(x, y)
    return jax.nn.logsumexp(s, axis=1) - s[jnp.arange(len(i)), i]


def siglip_rows(x: jax.Array, i: jax.Array, y: jax.Array) -> jax.Array:
    s = cosine_logits(x, y) + BIAS
    own = i[:, None] == jnp.arange(len(y))[None]
    return jax.nn.softplus(jnp.where(own, -s, s)).sum(1)


class Loss(NamedTuple):
    """A loss of one set of embeddings, or of pairs, as it is and by jaxcl.

    Attributes:
      rows: the loss of some rows, dense.
      ours: the same by jaxcl; of the inputs and `tile`.
      products: matrix products n x d x n that value and gradient need at least, in
        multiplications and additions: half as many where s_ij = s_ji.
      pairs: whether it compares images with texts.
    """

    rows: Callable[..., jax.Array]
    ours: Callable[..., jax.Array]
    products: int
    pairs: bool = False


def our_kernel_sum(z: jax.Array, tile: int | None) -> jax.Array:
    kernel = kernels.kernel_sum(kernels.gaussian(0.5), kernels.laplacian(0.5))
    return losses.kernel_info_nce(z, kernel=kernel, tile=tile)


def our_sup_con(z: jax.Array, tile: int | None) -> jax.Array:
    labels = labels_of(len(z))
    return losses.sup_con(z, labels, temperature=TEMPERATURE, tile=tile)


LOSSES = {
    "nt_xent": Loss(
        functools.partial(views_rows, cosine_logits),
        functools.partial(losses.nt_xent, temperature=TEMPERATURE),
        products=2,
    ),
    "clip": Loss(
        info_nce_rows,
        functools.partial(losses.clip, temperature=TEMPERATURE),
        products=4,
        pairs=True,
    ),
    "sup_con": Loss(sup_con_rows, our_sup_con, products=2),
    "kernel_sum": Loss(
        functools.partial(views_rows, kernel_sum_logits), our_kernel_sum, products=2
    ),
    "siglip": Loss(
        siglip_rows,
        functools.partial(losses.siglip, temperature=TEMPERATURE, bias=BIAS),
        products=4,
        pairs=True,
    ),
}


def dense(name: str, *inputs: jax.Array) -> jax.Array:
    """What people write: all pairs at once."""
    x, y = unit_rows(inputs)
    if name == "clip":  # one matrix serves both directions
        s = cosine_logits(x, y)
        both = jax.nn.logsumexp(s, axis=1) + jax.nn.logsumexp(s, axis=0)
        return jnp.mean(both / 2 - jnp.diagonal(s))
    return jnp.mean(LOSSES[name].rows(x, jnp.arange(len(x)), y))


def scan(name: str, block: int, *inputs: jax.Array) -> jax.Array:
    """The usual advice where memory is short: rows by blocks, each computed twice."""
    x, y = unit_rows(inputs)
    n, block = len(x), min(block, len(x))
    if n % block:
        raise NotRun(f"n is not a multiple of the block of {block} rows")

    def sum_by_blocks(x: jax.Array, y: jax.Array) -> jax.Array:
        @jax.checkpoint
        def add(total: jax.Array, rows: Any) -> tuple[jax.Array, None]:
            return total + LOSSES[name].rows(*rows, y).sum(), None

        blocks = x.reshape(-1, block, x.shape[1]), jnp.arange(n).reshape(-1, block)
        return jax.lax.scan(add, jnp.float32(0), blocks)[0]

    if name == "clip":
        return (sum_by_blocks(x, y) + sum_by_blocks(y, x)) / (2 * n)
    return sum_by_blocks(x, y) / n


def unit_rows(inputs: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    """Anchors and candidates [n, d] of length one; the same where there is one set."""
    rows = [unit(z.reshape(-1, z.shape[-1])) for z in inputs]
    return rows[0], rows[-1]


def make_inputs(name: str, n: int, d: int) -> list[np.ndarray]:
    """Embeddings of two views of n / 2 examples [n / 2, 2, d] or [n, d], or n pairs."""
    random = np.random.default_rng(0)
    examples = n if LOSSES[name].pairs else n // 2
    z = random.standard_normal((examples, 1, d), np.float32)
    z = z + np.float32(0.7) * random.standard_normal((examples, 2, d), np.float32)
    if LOSSES[name].pairs:
        return [np.ascontiguousarray(z[:, 0]), np.ascontiguousarray(z[:, 1])]
    return [z.reshape(n, d) if name == "sup_con" else z]


class Run(NamedTuple):
    """The value and the gradients of a loss, ready to be measured.

    Attributes:
      run: computes them and waits for them.
      fetch: makes NumPy arrays of what `run` returns.
      peak_bytes: the peak memory besides inputs and outputs; None where unknown.
    """

    run: Callable[[], Any]
    fetch: Callable[[Any], Any]
    peak_bytes: Callable[[], float | None]


def jax_run(
    mean_loss: Callable[..., jax.Array], arrays: list[np.ndarray], gradient: bool = True
) -> Run:
    """Compiles the value and the gradients, or only the value, for these arrays."""
    inputs = [jnp.asarray(x) for x in arrays]
    both = jax.value_and_grad(mean_loss, tuple(range(len(inputs))))
    compiled = jax.jit(both if gradient else mean_loss).lower(*inputs).compile()
    memory = compiled.memory_analysis()
    temporary = None if memory is None else memory.temp_size_in_bytes
    refuse_above_free_memory(temporary or 0)
    return Run(
        lambda: jax.block_until_ready(compiled(*inputs)),
        jax.device_get,
        lambda: temporary,
    )


def refuse_above_free_memory(needed: float) -> None:
    """Raises where the CPU has less: the process would be ended, not told."""
    path = pathlib.Path("/proc/meminfo")
    if jax.default_backend() == "cpu" and path.exists():
        lines = dict(line.split(":", 1) for line in path.read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
        if needed > free:
            raise NotRun(
                f"needs {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free"
            )


class Peer(NamedTuple):
    """Where a form comes from.

    Attributes:
      package: what pip installs.
      module: what is imported.
      losses: what it has.
      on_cuda_only: whether it needs a CUDA device.
    """

    package: str
    module: str
    losses: tuple[str, ...]
    on_cuda_only: bool = False


PEERS = {
    "optax": Peer("optax", "optax", ("nt_xent",)),
    "lightly": Peer("lightly", "lightly.loss", ("nt_xent",)),
    "open_clip": Peer("open_clip_torch", "open_clip.loss", ("clip", "siglip")),
    "metric_learning": Peer(
        "pytorch-metric-learning", "pytorch_metric_learning.losses", ("sup_con",)
    ),
    "inf_cl": Peer("inf_cl", "inf_cl", ("clip",), on_cuda_only=True),
}


def why_absent(form: str) -> str | None:
    """Says why a form cannot be measured here; None if it can be."""
    if form not in PEERS:
        return None
    peer, platform = PEERS[form], jax.default_backend()
    if peer.on_cuda_only and platform != "gpu":
        return "needs a CUDA device"
    if form != "optax" and platform not in ("cpu", "gpu"):
        return f"does not run on {platform}"
    try:
        importlib.import_module(peer.module)
        if form != "optax" and platform == "gpu":
            torch = importlib.import_module("torch")
            return None if torch.cuda.is_available() else "its torch sees no CUDA"
    except ModuleNotFoundError:
        return "not installed"
    except Exception as error:  # a broken installation can raise anything
        return f"cannot be imported: {error}".split("\n")[0]
    return None


def versions(forms: Collection[str]) -> list[str]:
    """Names and versions of the packages behind these forms."""
    packages = [PEERS[form].package for form in forms if form in PEERS]
    if any(form in PEERS and form != "optax" for form in forms):
        packages.insert(0, "torch")
    return [f"{name} {importlib.metadata.version(name)}" for name in packages]


def set_precision(precision: str, forms: Collection[str]) -> None:
    """Sets the precision of torch's products, if a form uses torch."""
    if any(form in PEERS and form != "optax" for form in forms):
        torch = importlib.import_module("torch")
        is_full = precision == "float32"
        torch.set_float32_matmul_precision("highest" if is_full else "high")


def optax_nt_xent(views: jax.Array) -> jax.Array:
    optax = importlib.import_module("optax")
    b, v, d = views.shape
    labels = jnp.repeat(jnp.arange(b), v)
    return optax.losses.ntxent(views.reshape(b * v, d), labels, TEMPERATURE)


def torch_loss(form: str, name: str, n: int) -> Callable[..., Any]:
    """The mean loss of a torch package, of the same inputs as the dense form."""
    torch = importlib.import_module("torch")
    module = importlib.import_module(PEERS[form].module)
    unit = torch.nn.functional.normalize
    if form == "lightly":
        nt_xent = module.NTXentLoss(temperature=TEMPERATURE)
        return lambda views: nt_xent(views[:, 0], views[:, 1])
    if form == "metric_learning":
        sup_con, groups = module.SupConLoss(temperature=TEMPERATURE), {}

        def mean_loss(z: Any) -> Any:
            if z.device not in groups:
                groups[z.device] = torch.tensor(np.array(labels_of(n)), device=z.device)
            return sup_con(z, groups[z.device])

        return mean_loss
    if form == "inf_cl":

        def flash(x: Any, y: Any) -> Any:
            # Its heads must be a power of two wide, at most 256, and divide the width.
            head = math.gcd(x.shape[1], 256)
            return module.cal_flash_loss(x, y, None, 1 / TEMPERATURE, head).mean()

        def both_ways(images: Any, texts: Any) -> Any:
            images, texts = unit(images), unit(texts)
            return (flash(images, texts) + flash(texts, images)) / 2

        return both_ways
    if name == "clip":
        clip = module.ClipLoss()
        return lambda x, y: clip(unit(x), unit(y), 1 / TEMPERATURE)
    siglip = module.SigLipLoss()
    return lambda x, y: siglip(unit(x), unit(y), 1 / TEMPERATURE, BIAS)


def torch_run(mean_loss: Callable[..., Any], arrays: list[np.ndarray]) -> Run:
    """Prepares a torch loss of these arrays, on the kind of device that JAX uses.

    On a CPU torch does not count its memory.
    """
    torch = importlib.import_module("torch")
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    # Ten matrices of all pairs is about what these losses hold.
    refuse_above_free_memory(10 * 4 * (arrays[0].size // arrays[0].shape[-1]) ** 2)
    inputs = [torch.tensor(x, device=device, requires_grad=True) for x in arrays]

    def run() -> Any:
        value = mean_loss(*inputs)
        gradients = torch.autograd.grad(value, inputs)
        if device == "cuda":
            torch.cuda.synchronize()
        return value.detach(), gradients

    def fetch(result: Any) -> tuple[np.ndarray, list[np.ndarray]]:
        value, gradients = result
        return value.cpu().numpy(), [g.cpu().numpy() for g in gradients]

    def peak_bytes() -> float | None:
        if device == "cpu":
            return None
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        grown = torch.cuda.max_memory_allocated() - before
        return max(grown - sum(x.nbytes for x in arrays), 0)

    return Run(run, fetch, peak_bytes)
