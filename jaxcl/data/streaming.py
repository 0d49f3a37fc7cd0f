"""Batches that several threads read ahead of the step, through Grain."""

import functools
import operator
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from jaxcl import _checks, _optional

T = TypeVar("T")


def streamed(batches: Callable[[int], T], *, threads: int | None = None) -> "Stream[T]":
    """The same function of the step, of which threads read the next values.

    Where images are decoded as they are asked for, one thread is not enough. Each of
    these reads a batch of its own, so there are as many in memory as threads. Asked for
    another step than the next one, it goes there.

    Args:
      batches: any function of the step that several threads may call at once, such as
        `data.batches`.
      threads: how many; None: `default_threads()`.

    Returns:
      A function with the same values and exceptions, fast where it is asked for one
      step after the other.

    Raises:
      ImportError: if grain is not installed.
      TypeError: if threads is no integer.
      ValueError: if it is below 1.

    >>> squares = streamed(lambda step: step**2, threads=2)
    >>> [squares(step) for step in (3, 4, 7)], squares.position()
    ([9, 16, 49], {'next_index': 8})
    """
    threads = default_threads() if threads is None else threads
    return Stream(batches, _checks.count("threads", threads))


def default_threads() -> int:
    """How many threads read where images are decoded as they are asked for.

    Returns:
      One for each processor, at most 8.
    """
    return min(8, os.cpu_count() or 1)


def _tried(batches: Callable[[int], T], step: int) -> tuple[T | None, Exception | None]:
    """The value or the error, which Grain would lengthen by a note."""
    try:
        return batches(step), None
    except Exception as error:
        return None, error


class Stream(Generic[T]):
    """What `streamed` returns; one step is given at a time."""

    def __init__(self, batches: Callable[[int], T], threads: int) -> None:
        grain = _optional.require("grain", "reading with several threads", "data")
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
        steps = grain.MapDataset.range(sys.maxsize)
        tried = functools.partial(_tried, batches)
        self._iterator: Any = iter(steps.map(tried).to_iter_dataset(options))
        self._lock = threading.Lock()

    def __call__(self, step: int) -> T:
        # Steps may be arrays of no axes, such as `state.step`.
        number = operator.index(step) if hasattr(step, "__index__") else step
        position = {"next_index": _checks.count("step", number, 0)}
        with self._lock:
            if self.position() != position:
                self._iterator.set_state(position)
            try:
                value, error = next(self._iterator)
                if error is not None:
                    raise error
            except BaseException:
                self._iterator.set_state(position)  # else it would go on behind it
                raise
            return value

    def position(self) -> dict[str, int]:
        """Where Grain stands: the next step, which is what a run saves."""
        return self._iterator.get_state()
