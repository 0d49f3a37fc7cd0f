"""What jaxcl is compared with: other packages, and how anything is run.

What a package leaves to its caller, such as unit length, is done here. A package is
imported when it is asked for, since none of them is needed to use jaxcl.
"""

import importlib
import importlib.metadata
import math
import pathlib
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark import losses


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
    mean_loss: Callable[..., jax.Array],
    arrays: list[np.ndarray],
    dtype: str,
    gradient: bool = True,
) -> Run:
    """Compiles the value and the gradients, or only the value, for these arrays."""
    inputs = [jnp.asarray(x, dtype) for x in arrays]
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
    """Raises where the CPU has less: the OS would kill the process without an error."""
    path = pathlib.Path("/proc/meminfo")
    if jax.default_backend() == "cpu" and path.exists():
        lines = dict(line.split(":", 1) for line in path.read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
        if needed > free:
            raise losses.NotRun(
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
    return optax.losses.ntxent(views.reshape(b * v, d), labels, losses.TEMPERATURE)


def torch_loss(form: str, name: str, n: int) -> Callable[..., Any]:
    """The mean loss of a torch package, of the same inputs as the dense form."""
    torch = importlib.import_module("torch")
    module = importlib.import_module(PEERS[form].module)
    unit = torch.nn.functional.normalize
    if form == "lightly":
        nt_xent = module.NTXentLoss(temperature=losses.TEMPERATURE)
        return lambda views: nt_xent(views[:, 0], views[:, 1])
    if form == "metric_learning":
        sup_con, groups = module.SupConLoss(temperature=losses.TEMPERATURE), {}

        def mean_loss(z: Any) -> Any:
            if z.device not in groups:
                groups[z.device] = torch.tensor(
                    np.array(losses.labels_of(n)), device=z.device
                )
            return sup_con(z, groups[z.device])

        return mean_loss
    if form == "inf_cl":

        def flash(x: Any, y: Any) -> Any:
            # Its heads must be a power of two wide, at most 256, and divide the width.
            head = math.gcd(x.shape[1], 256)
            return module.cal_flash_loss(
                x, y, None, 1 / losses.TEMPERATURE, head
            ).mean()

        def both_ways(images: Any, texts: Any) -> Any:
            images, texts = unit(images), unit(texts)
            return (flash(images, texts) + flash(texts, images)) / 2

        return both_ways
    if name == "clip":
        clip = module.ClipLoss()
        return lambda x, y: clip(unit(x), unit(y), 1 / losses.TEMPERATURE)
    siglip = module.SigLipLoss()
    return lambda x, y: siglip(unit(x), unit(y), 1 / losses.TEMPERATURE, losses.BIAS)


def torch_run(
    mean_loss: Callable[..., Any], arrays: list[np.ndarray], dtype: str
) -> Run:
    """Prepares a torch loss of these arrays, on the kind of device that JAX uses.

    On a CPU torch does not count its memory.
    """
    torch = importlib.import_module("torch")
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    # Ten matrices of all pairs is about what these losses hold.
    refuse_above_free_memory(10 * 4 * (arrays[0].size // arrays[0].shape[-1]) ** 2)
    options = {"device": device, "dtype": getattr(torch, dtype)}
    inputs = [torch.tensor(x, requires_grad=True, **options) for x in arrays]

    def run() -> Any:
        value = mean_loss(*inputs)
        gradients = torch.autograd.grad(value, inputs)
        if device == "cuda":
            torch.cuda.synchronize()
        return value.detach(), gradients

    def fetch(result: Any) -> tuple[np.ndarray, list[np.ndarray]]:
        value, gradients = result
        return value.float().cpu().numpy(), [g.float().cpu().numpy() for g in gradients]

    def peak_bytes() -> float | None:
        if device == "cpu":
            return None
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        grown = torch.cuda.max_memory_allocated() - before
        return max(grown - sum(x.nbytes for x in inputs), 0)

    return Run(run, fetch, peak_bytes)
