"""Batches as a pure function of (seed, step).

No iterator has a position to save: a run that resumes at step i asks for batch i.
"""

import collections
import concurrent.futures
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from jaxcl.data import dataset as dataset_lib

Batch = dict[str, np.ndarray]
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
    process_index: int = 0,
    process_count: int = 1,
) -> Callable[[int], Batch]:
    """Shuffled batches for training.

    Each epoch is one permutation of the images, cut into batches; the images left over
    at its end are dropped. The batch of a step depends on (seed, step) and on nothing
    that happened before.

    Args:
      dataset: any data set of at least `batch_size` images.
      batch_size: images per step, over all processes.
      seed: chooses the permutations.
      process_index: which of the processes this one is.
      process_count: number of processes; each reads only its own consecutive rows
        of the batch, batch_size / process_count of them.

    Returns:
      A function from the step, an integer >= 0, to a dictionary with "image" uint8
      [batch, h, w, c], "index" int32 [batch] and, if there are labels, "label" int32
      [batch].

    Raises:
      TypeError: if a number is not an integer.
      ValueError: if the data set is smaller than a batch, or the processes do not
        divide it.

    >>> gray = dataset_lib.from_arrays("made up", np.zeros((5, 8, 8), np.uint8))
    >>> print(batches(gray, 2, seed=0)(1)["index"])
    [1 4]
    """
    n = len(dataset.images)
    batch_size = dataset_lib.checked_int("batch_size", batch_size)
    seed = dataset_lib.checked_int("seed", seed, least=0)
    process_count = dataset_lib.checked_int("process_count", process_count)
    process_index = dataset_lib.checked_int("process_index", process_index, least=0)
    if batch_size > n:
        raise ValueError(
            f"batch_size must be at most the {n} images of {dataset.name}, "
            f"got {batch_size}"
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
    steps_per_epoch = n // batch_size
    rows = batch_size // process_count

    # Two epochs: a prefetching thread is ahead of the caller at the border.
    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        return permutation(n, seed, epoch).astype(np.int32)

    def batch(step: int) -> Batch:
        step = dataset_lib.checked_int("step", step, least=0)
        epoch, position = divmod(step, steps_per_epoch)
        first = position * batch_size + process_index * rows
        index = order(epoch)[first : first + rows].copy()
        columns = {"image": np.asarray(dataset.images[index]), "index": index}
        if dataset.labels is not None:
            columns["label"] = dataset.labels[index]
        return columns

    return batch


def prefetch(
    batches: Callable[[int], T], start: int, stop: int, size: int = 2
) -> Iterator[T]:
    """Yields batches(start) .. batches(stop - 1), read ahead by one thread.

    Args:
      batches: any function of the step; moving to the device may be part of it.
      start: first step.
      stop: step after the last.
      size: how many batches are kept ready.

    Returns:
      An iterator, in order. An exception in `batches` is raised where its batch would
      have come. Leaving the loop early stops the thread after the batch it is at.

    Raises:
      ValueError: if size < 1.

    >>> list(prefetch(lambda step: 10 * step, 2, 5))
    [20, 30, 40]
    """
    size = dataset_lib.checked_int("size", size)
    return _prefetch(batches, iter(range(start, stop)), size)


def _prefetch(
    batches: Callable[[int], T], steps: Iterator[int], size: int
) -> Iterator[T]:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        ready = collections.deque(
            pool.submit(batches, step) for step in itertools.islice(steps, size)
        )
        try:
            while ready:
                batch = ready.popleft().result()
                ready.extend(
                    pool.submit(batches, step) for step in itertools.islice(steps, 1)
                )
                yield batch
        finally:
            for waiting in ready:
                waiting.cancel()
