"""Checks of what `reduce_pairs` is given; under `jit` they cost nothing."""

import functools
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl import _checks, graphs, mesh
from jaxcl.pairwise import reductions


def asked(given: Any) -> None:
    """Checks that an argument called `reductions` is a tuple of reductions.

    Args:
      given: the argument.

    Returns:
      Nothing.

    Raises:
      TypeError: if it is something else, or a reduction holds the wrong type.
      ValueError: if a reduction holds an unknown word.
    """
    if not isinstance(given, tuple | list):
        raise TypeError(
            "reductions must be a tuple of Reductions, such as (reduction,), "
            f"got {type(given).__name__}"
        )
    for reduction in given:
        if not isinstance(reduction, reductions.Reduction):
            raise TypeError(
                "reductions must be a tuple of Reductions, "
                f"got {type(reduction).__name__} in it"
            )
        _checks.choice("accumulate", reduction.accumulate, ("logsumexp", "sum", "mean"))
        _checks.choice("over", reduction.over, ("candidates", "anchors"))
        for name in ("relation", "score"):
            function = getattr(reduction, name)
            if not callable(function):
                raise TypeError(f"{name} must be a function, got {function!r}")
        if not isinstance(reduction.parameters, tuple | list):
            raise TypeError(
                "parameters must be a tuple, such as (number,), "
                f"got {type(reduction.parameters).__name__}"
            )


def nodes(name: str, given: Any, names: tuple[str, ...]) -> None:
    """Checks that an argument is nodes, numbered over the mesh axes of the call.

    Args:
      name: what the caller calls the argument.
      given: the argument.
      names: the mesh axes that stand for `axis_name`.

    Returns:
      Nothing.

    Raises:
      TypeError: if it is no nodes, or an array has the wrong dtype.
      ValueError: if a shape is wrong, or the nodes were built with other mesh axes.
    """
    if not isinstance(given, graphs.Nodes):
        raise TypeError(
            f"{name} must be Nodes, such as jaxcl.graphs.labelled(z, labels), "
            f"got {'an array' if hasattr(given, 'shape') else type(given).__name__}"
        )
    _checks.embeddings(f"{name}.z", given.z, "n d")
    n = len(given.z)
    _checks.labels(f"{name}.group", given.group, n)
    _checks.labels(f"{name}.index", given.index, n)
    _checks.mask(f"{name}.valid", given.valid, n)
    for leaf in jax.tree.leaves(given.extra):
        if jnp.shape(leaf) != (n,):
            raise ValueError(
                f"{name}.extra must hold arrays of shape ({n},), a number for each "
                f"node, got shape {jnp.shape(leaf)}"
            )
    varying = mesh.varying_axes(given.index)
    if varying != frozenset(names):
        # Numbered from 0 on each device, different nodes would pass for the same one.
        raise ValueError(
            f"{name} must be built with the axis_name of reduce_pairs, {_axes(names)}, "
            f"got an index that varies over {_axes(varying)}; give the same axis_name "
            "to reduce_pairs and to the function of jaxcl.graphs that builds the nodes"
        )


def symmetric(given: Collection[reductions.Reduction]) -> None:
    """Checks that the relations of reductions are symmetric, as far as one can ask.

    Args:
      given: the reductions.

    Returns:
      Nothing.

    Raises:
      ValueError: if one is not.
    """
    for reduction in given:
        if not _is_symmetric(reduction.relation):
            raise ValueError(
                "relation must be symmetric where anchors are compared with each "
                f"other, got {reductions.called(reduction.relation)}; with the anchors "
                "given as candidates, too, it need not be"
            )


@functools.lru_cache(maxsize=256)
def _is_symmetric(relation: Callable[..., Any]) -> bool:
    """Whether a relation is symmetric on a few nodes; True where it cannot be asked.

    In NumPy, so that nothing is compiled. What the relation asks of JAX is computed at
    once, also inside of a trace.
    """
    for n, groups in ((4, 2), (256, 7)):
        index = np.arange(n, dtype=jnp.result_type(int))
        group = (index * index + index // 5) % groups
        of_each: Any = (group, index, index >= 0)
        a, b = (
            graphs.Nodes(np.empty(0), *(x.reshape(shape) for x in of_each))  # type: ignore[arg-type]
            for shape in ((n, 1), (1, n))
        )
        try:
            with jax.ensure_compile_time_eval():
                there, back = (np.asarray(relation(*ends)) for ends in ((a, b), (b, a)))
            different = bool((there != back).any())
        except Exception:  # it reads what is traced, or more than identities
            continue
        if different:
            return False
    return True


def _axes(names: Collection[str]) -> str:
    return " and ".join(repr(name) for name in sorted(names)) or "no mesh axis"
