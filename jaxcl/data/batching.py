"""Batches as a pure function of (seed, step).

No iterator has a position to save: a run that resumes at step i asks for batch i.
"""

import concurrent.futures
import functools
import operator
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl import _checks
from jaxcl.data import dataset as dataset_lib
from jaxcl.data import streaming

Batch = dict[str, Any]
T = TypeVar("T")


def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """An order of n images that depends on its arguments alone.

    It sorts the raw output of NumPy's Philox generator, which is the same in every
    version of NumPy; `Generator.permutation` promises no such thing.

    Args:
      n: number of images.
      seed: any integer; taken modulo 2^64.
      epoch: any integer; taken modulo 2^64.

    Returns:
      A permutation of 0 .. n - 1, int64 [n].

    >>> print(permutation(5, seed=0, epoch=0))
    [0 2 1 4 3]
    """
    key = np.array([seed % 2**64, epoch % 2**64], np.uint64)
    return np.argsort(np.random.Philox(key=key).random_raw(n), kind="stable")


def batches(
    dataset: dataset_lib.Dataset,
    batch_size: int,
    seed: int = 0,
    *,
    groups: np.ndarray | None = None,
    once: np.ndarray | None = None,
    process_index: int | None = None,
    process_count: int | None = None,
) -> Callable[[int], Batch]:
    """Shuffled batches for training.

    Each epoch is one permutation of the examples, cut into batches; those left over at
    its end are dropped. The batch of a step depends on (seed, step) and on nothing that
    happened before.

    With groups, every batch is of one group: each is cut for itself, and the batches of
    all are shuffled. So examples of one shape meet, in all processes.

    Args:
      dataset: any data set of at least `batch_size` examples.
      batch_size: examples per step, over all processes.
      seed: chooses the permutations.
      groups: the group of each example, int [n]; None: those of a column that has an
        attribute `groups`, such as `text.TokenRows`, else all examples are one.
      once: int [n]; of examples with the same number one is drawn for each epoch. None:
        an epoch has all of them.
      process_index: which of the processes this one is; None: `jax.process_index()`.
      process_count: number of processes; each reads only its own consecutive rows
        of the batch, batch_size / process_count of them. None: `jax.process_count()`.

    Returns:
      A function from the step, an integer >= 0, to a dictionary with a pytree of arrays
      [batch, ...] for each column of the data set, and "index" int32 [batch].

    Raises:
      TypeError: if a number is not an integer.
      ValueError: if the data set is smaller than a batch, or the processes do not
        divide it; or if groups are so small that an epoch might have no batch.

    >>> gray = dataset_lib.from_arrays("made up", np.zeros((5, 8, 8), np.uint8))
    >>> print(batches(gray, 2, seed=0)(1)["index"])
    [1 4]
    """
    rows = _indices(
        dataset, batch_size, seed, groups, once, process_index, process_count
    )

    def batch(step: int) -> Batch:
        index = rows(step)
        columns = {name: column[index] for name, column in dataset.columns.items()}
        return {**columns, "index": index}

    return batch


def _indices(
    dataset: dataset_lib.Dataset,
    batch_size: int,
    seed: int,
    groups: np.ndarray | None = None,
    once: np.ndarray | None = None,
    process_index: int | None = None,
    process_count: int | None = None,
) -> Callable[[int], np.ndarray]:
    """The function from a step to this process's rows of its batch, int32."""
    n, name = dataset_lib.size(dataset), dataset.name
    process_index = jax.process_index() if process_index is None else process_index
    process_count = jax.process_count() if process_count is None else process_count
    _checks.count("batch_size", batch_size, 1)
    _checks.count("seed", seed, 0)
    _checks.count("process_count", process_count, 1)
    _checks.count("process_index", process_index, 0)
    if batch_size > n:
        raise ValueError(
            f"batch_size must be at most the {n} examples of {name}, got {batch_size}"
        )
    if batch_size % process_count:
        raise ValueError(
            f"batch_size must be divisible by process_count {process_count}, "
            f"got {batch_size}"
        )
    if process_index >= process_count:
        raise ValueError(
            f"process_index must be less than process_count {process_count}, "
            f"got {process_index}"
        )
    groups = dataset_lib.groups_of(dataset) if groups is None else groups
    steps_per_epoch = batches_per_epoch(dataset, batch_size, groups=groups, once=once)
    rows = batch_size // process_count

    # Two epochs: a prefetching thread is ahead of the caller at the border.
    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        drawn = permutation(n, seed, epoch).astype(np.int32)
        if once is not None:
            drawn = drawn[np.sort(np.unique(once[drawn], return_index=True)[1])]
        if groups is None:
            return drawn
        each = _cut(drawn, groups, batch_size)
        # Epochs are less than 2^63: this order is no other's.
        shuffled = permutation(len(each), seed, epoch + 2**63)
        return each[shuffled[:steps_per_epoch]].reshape(-1)

    def indices(step: int) -> np.ndarray:
        # Steps may be arrays of no axes, such as `state.step`.
        number = operator.index(step) if hasattr(step, "__index__") else step
        _checks.count("step", number, 0)
        epoch, position = divmod(number, steps_per_epoch)
        first = position * batch_size + process_index * rows
        return order(epoch)[first : first + rows].copy()

    return indices


def batches_per_epoch(
    dataset: dataset_lib.Dataset,
    batch_size: int,
    *,
    groups: np.ndarray | None = None,
    once: np.ndarray | None = None,
) -> int:
    """How many batches an epoch of `batches` has.

    Args:
      dataset: as there.
      batch_size: examples per step, over all processes.
      groups: as there.
      once: as there. With groups, what is drawn decides how many each has; an epoch has
        as many batches as any draw gives, at most one less for each group.

    Returns:
      The number.

    Raises:
      TypeError: if groups or once are no integers.
      ValueError: if they are of another length, or if it would be 0.

    >>> gray = dataset_lib.from_arrays("made up", np.zeros((9, 8, 8), np.uint8))
    >>> batches_per_epoch(gray, 2, groups=np.arange(9) % 2)
    4
    """
    n, name = dataset_lib.size(dataset), dataset.name
    groups = dataset_lib.groups_of(dataset) if groups is None else groups
    for argument, numbers in (("groups", groups), ("once", once)):
        if numbers is not None:
            _checks.labels(argument, numbers, n)
    if groups is None:
        found = (n if once is None else len(np.unique(once))) // batch_size
    elif once is None:
        found = int((np.unique(groups, return_counts=True)[1] // batch_size).sum())
    else:
        pairs = np.unique(np.stack([groups, once]), axis=1)[0]
        left_over = np.minimum(
            np.unique(pairs, return_counts=True)[1], batch_size - 1
        ).sum()
        found = max(0, int(-((left_over - len(np.unique(once))) // batch_size)))
    if not found:
        raise ValueError(
            f"batch_size must be so small that an epoch of {name} has a batch, got "
            f"{batch_size}, for {n} examples"
            + ("" if groups is None else f" in {len(np.unique(groups))} groups")
            + ("" if once is None else f", {len(np.unique(once))} of them in an epoch")
        )
    return found


def _cut(drawn: np.ndarray, groups: np.ndarray, batch_size: int) -> np.ndarray:
    """Batches [k, batch_size] of one group each, in the order in which it is drawn."""
    of = groups[drawn]
    by_group = drawn[np.argsort(of, kind="stable")]
    ends = np.cumsum(np.unique(of, return_counts=True)[1])
    parts = np.split(by_group, ends[:-1])
    kept = [part[: len(part) - len(part) % batch_size] for part in parts]
    return np.concatenate(kept).reshape(-1, batch_size)


def put(tree: T, sharding: jax.sharding.Sharding) -> T:
    """Puts what this process holds onto a mesh.

    Args:
      tree: pytree of arrays, random keys among them. For a sharding by rows, this
        process's rows of each; for one that is replicated, the whole of each, the same
        in every process.
      sharding: of the global arrays, for instance from `jaxcl.data_parallel`.

    Returns:
      The pytree of global arrays.

    >>> import jaxcl
    >>> mesh, rows, whole = jaxcl.data_parallel()
    >>> put({"label": np.arange(8)}, rows)["label"].shape
    (8,)
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def of_leaf(x: Any) -> Any:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = of_leaf(jax.random.key_data(x))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        return jax.make_array_from_process_local_data(sharding, np.asarray(x))

    return jax.tree.map(of_leaf, tree)


def feed(
    dataset: dataset_lib.Dataset,
    batch_size: int,
    seed: int,
    rows: jax.NamedSharding,
    *,
    groups: np.ndarray | None = None,
    once: np.ndarray | None = None,
    on_device: bool | None = None,
    threads: int | None = None,
) -> Callable[[int], Any]:
    """Batches on the mesh, each ready before it is asked for.

    A data set that fits lives on the devices, as uint8 for images, and a batch is taken
    there; another one is read, by several threads where that takes long, and moved by
    one that is a step ahead. Both give the arrays of
    `put(batches(dataset, batch_size, seed, ...)(step), rows)`.

    Args:
      dataset: any data set of at least `batch_size` examples.
      batch_size: examples per step, over all processes; the devices divide it.
      seed: chooses the permutations.
      rows: sharding of a batch.
      groups: as `batches`.
      once: as `batches`.
      on_device: whether the data set lives on every device; None: where it takes less
        than a tenth of a device's memory, or of `memory_limit()` on a CPU, and its
        batches are not put together on the host.
      threads: that read what does not live on the devices; None: several, as of
        `streamed`, where a column says that it is lazy, else one. Several need Grain.

    Returns:
      A function from the step to a dictionary of global arrays, as of `batches`.

    Raises:
      ImportError: if grain is needed and not installed.
      TypeError: if a number is not an integer.
      ValueError: as `batches`; if the devices do not divide the batch or its packs;
        or if a packed set, put together on the host, is to live on the devices.
    """
    devices = rows.mesh.size
    _checks.count("batch_size", batch_size, 1)
    if batch_size % devices:
        raise ValueError(
            f"batch_size must be divisible by the {devices} devices, got {batch_size}"
        )
    packed = dataset_lib.is_packed(dataset)
    if on_device and packed:
        raise ValueError(
            f"on_device must not be True for {dataset.name}, packed on the host"
        )
    for column in dataset.columns.values():
        per_pack = getattr(column, "per_pack", 1)
        if batch_size % (per_pack * devices):
            raise ValueError(
                f"batch_size must be whole packs of {per_pack} examples for each of "
                f"the {devices} devices, got {batch_size}; {dataset.name} must be "
                f"packed with packs={devices} or a multiple of it"
            )
    if on_device is None:
        on_device = (
            not packed and dataset_lib.size_in_bytes(dataset) <= _room(rows) // 10
        )
    if not on_device:
        host = batches(dataset, batch_size, seed, groups=groups, once=once)
        if threads is None:
            lazy = any(getattr(c, "lazy", False) for c in dataset.columns.values())
            threads = streaming.default_threads() if lazy else 1
        if _checks.count("threads", threads) > 1:
            host = streaming.streamed(host, threads=threads)
        return ahead(lambda step: put(host(step), rows))

    indices = _indices(dataset, batch_size, seed, groups, once)
    whole = jax.NamedSharding(rows.mesh, jax.P())
    dataset = dataset_lib.to_memory(dataset, limit=sys.maxsize)
    columns = {
        name: put(getattr(column, "tree", column), whole)  # of `Rows`, or an array
        for name, column in dataset.columns.items()
    }

    @functools.partial(jax.jit, out_shardings=rows)
    def take(columns: Any, index: jax.Array) -> Any:
        return {**jax.tree.map(lambda x: x[index], columns), "index": index}

    return lambda step: take(columns, put(indices(step), rows))


def _room(sharding: jax.NamedSharding) -> int:
    """Bytes of one device of this process, as far as it says."""
    devices: list[Any] = list(sharding.addressable_devices)
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return dataset_lib.memory_limit() // len(devices)


def ahead(batches: Callable[[int], T]) -> Callable[[int], T]:
    """The same function of the step, of which a thread prepares the next value.

    Args:
      batches: any function of the step; moving to the device may be part of it.

    Returns:
      A function with the same values and exceptions, fast where it is asked for one
      step after the other.

    >>> squares = ahead(lambda step: step**2)
    >>> [squares(step) for step in (3, 4, 7)]
    [9, 16, 49]
    """
    pool = concurrent.futures.ThreadPoolExecutor(1, "jaxcl-batches")
    ready: dict[int, concurrent.futures.Future[T]] = {}

    def batch(step: int) -> T:
        waiting = ready.pop(step, None)
        for other in ready.values():
            other.cancel()
        ready.clear()
        value = batches(step) if waiting is None else waiting.result()
        ready[step + 1] = pool.submit(batches, step + 1)
        return value

    return batch
