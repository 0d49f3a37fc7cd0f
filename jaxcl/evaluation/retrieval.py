"""How well one half of a pair is found by the other: recall, classes by their names."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxcl import _checks, diagnostics
from jaxcl.evaluation import neighbors

# Integers of queries and of candidates, or one array that serves both.
Groups = np.ndarray | tuple[np.ndarray, np.ndarray]


def recall(
    queries: np.ndarray,
    candidates: np.ndarray,
    groups: Groups | None = None,
    at: Sequence[int] = (1, 5, 10),
) -> dict[int, float]:
    """The share of queries that find a right candidate among the k nearest by cosine.

        recall@k = #{i: rank_i < k} / n
        rank_i   = #{wrong j: cos(q_i, c_j) >= max_{right l} cos(q_i, c_l)}

    Every right candidate counts: each caption of an image, each image of a caption. A
    wrong candidate as similar as the best right one is ahead of it, so embeddings that
    are all alike find nothing below k = the number of wrong ones. From there on recall
    is 1 whatever the embeddings: see `chance_recall`.

    Nothing of size n x m is kept.

    Args:
      queries: embeddings [n, d], floating point.
      candidates: embeddings [m, d].
      groups: integers of queries [n] and of candidates [m], a pair of arrays, or one
        array that serves both. Right are all candidates of the query's group. None:
        candidate i alone is right for query i, m >= n.
      at: values of k, integers >= 1.

    Returns:
      By k, in the order of `at`, a number in [0, 1].

    Raises:
      TypeError: if embeddings are not floating point or groups not integers.
      ValueError: for wrong shapes, values that are not finite, a k below 1, or a query
        without any right candidate.

    Source:
      R@K of VSE++, https://arxiv.org/abs/1707.05612; that ties count against the query
      is ours.

    >>> images = np.eye(2)
    >>> captions = np.array([[1.0, 0.1], [0.9, 1.0], [0.1, 1.0]])
    >>> recall(captions, images, (np.array([0, 0, 1]), np.array([0, 1])), at=(1, 2))
    {1: 0.6666666666666666, 2: 1.0}
    """
    queries = _checks.representation("queries", queries)
    candidates = _checks.representation("candidates", candidates, queries.shape[1])
    at = _ranks("at", at)
    of_queries, of_candidates = _groups(groups, len(queries), len(candidates))
    ranks = diagnostics.retrieval_ranks(
        jnp.asarray(neighbors.unit(queries)),
        jnp.asarray(neighbors.unit(candidates)),
        groups=(jnp.asarray(of_queries), jnp.asarray(of_candidates)),
    )
    found = np.asarray(ranks)
    return {k: float(np.mean(found < k)) for k in at}


def chance_recall(
    groups: tuple[np.ndarray, np.ndarray], at: Sequence[int] = (1, 5, 10)
) -> dict[int, float]:
    """The recall of candidates in an order drawn at random.

        1 - C(m - r_i, k) / C(m, k), the mean over queries

    with r_i of the m candidates right for query i.

    Args:
      groups: integers of queries [n] and of candidates [m].
      at: values of k, integers >= 1.

    Returns:
      By k, in the order of `at`, a number in [0, 1].

    Raises:
      TypeError: if groups are not integers.
      ValueError: as `recall`.

    >>> chance_recall((np.array([0, 1]), np.array([0, 0, 1, 1])), at=(1, 3))
    {1: 0.5, 3: 1.0}
    """
    at = _ranks("at", at)
    query, candidate = (
        _checks.classes(f"groups of {name}", each)
        for name, each in zip(("queries", "candidates"), groups, strict=True)
    )
    query, candidate = _groups((query, candidate), len(query), len(candidate))
    m = len(candidate)
    right, of_query = np.unique(np.bincount(candidate)[query], return_counts=True)
    missed = {
        k: [math.comb(m - r, k) / math.comb(m, k) if k <= m else 0.0 for r in right]
        for k in at
    }
    return {k: float(1 - np.dot(missed[k], of_query) / len(query)) for k in at}


def zero_shot(z: np.ndarray, class_z: np.ndarray) -> np.ndarray:
    """Classes of images by the texts that name them.

        predicted_i = argmax_c cos(z_i, w_c),   w_c = mean_t class_z_ct / |class_z_ct|

    Args:
      z: embeddings of images [n, d], floating point.
      class_z: embeddings of the prompts of each class [classes, templates, d], or of
        one prompt [classes, d].

    Returns:
      The predicted class of each image, int64 [n]; of equally near ones the first.

    Raises:
      TypeError: if an array is not floating point.
      ValueError: for wrong shapes, or values that are not finite.

    Source:
      CLIP, https://arxiv.org/abs/2103.00020, sections 3.1.2 and 3.1.4.

    >>> prompts_z = np.array([[[1.0, 0.0], [5.0, 5.0]], [[0.0, 1.0], [-1.0, 1.0]]])
    >>> print(zero_shot(np.array([[1.0, 0.5], [-2.0, 0.1]]), prompts_z))
    [0 1]
    """
    z = _checks.representation("z", z)
    class_z = np.asarray(class_z)
    if class_z.ndim == 2:
        class_z = class_z[:, None]
    if class_z.ndim != 3 or class_z.shape[2] != z.shape[1] or not class_z.size:
        raise ValueError(
            f"class_z must be [classes, templates, {z.shape[1]}] or "
            f"[classes, {z.shape[1]}], got shape {class_z.shape}"
        )
    rows = _checks.representation("class_z", class_z.reshape(-1, z.shape[1]))
    means = neighbors.unit(rows).reshape(class_z.shape).mean(axis=1)
    return neighbors.nearest(z, means, 1).indices[:, 0].astype(np.int64)


def prompts(
    class_names: Sequence[str], templates: Sequence[str] = ("{}",)
) -> list[list[str]]:
    """What a text encoder is asked about each class.

    Args:
      class_names: c different names.
      templates: texts with one {} each, in whose place the name stands.

    Returns:
      For each class a text for each template.

    Raises:
      ValueError: if there is no class or no template, two classes have one name, or a
        template does not hold {} once.

    >>> prompts(["dog", "cat"], ["a photo of a {}", "{}"])
    [['a photo of a dog', 'dog'], ['a photo of a cat', 'cat']]
    """
    names = _names("class_names", class_names)
    if isinstance(templates, str) or not len(templates):
        raise ValueError(
            f"templates must be one or more texts in a sequence, got {templates!r}"
        )
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(
                f"every one of templates must hold {{}} once, got {template!r}"
            )
    # Not str.format: what else is in braces, also in a name, is text.
    return [[each.replace("{}", name) for each in templates] for name in names]


def class_indices(class_names: Sequence[str], keep: Sequence[str]) -> np.ndarray:
    """The numbers of some classes, by their names.

    Args:
      class_names: c different names.
      keep: names to look up.

    Returns:
      int64 [len(keep)].

    Raises:
      ValueError: if keep is empty, or holds a name twice or one that no class has.

    >>> print(class_indices(["dog", "cat", "fox"], ["fox", "dog"]))
    [2 0]
    """
    names, keep = _names("class_names", class_names), _names("keep", keep)
    places = {name: place for place, name in enumerate(names)}
    unknown = [name for name in keep if name not in places]
    if unknown:
        shown = ", ".join(map(repr, names[:_SHOWN]))
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise ValueError(
            f"keep must hold names of classes, got {', '.join(map(repr, unknown))}; "
            f"there are {shown}{more}"
        )
    return np.array([places[name] for name in keep], np.int64)


_SHOWN = 50  # names of classes in an error


def _names(name: str, given: Sequence[str]) -> list[str]:
    if isinstance(given, str) or not len(given):
        raise ValueError(f"{name} must be one or more names in a sequence, got {given}")
    seen: set[str] = set()
    for each in given:
        if each in seen:
            raise ValueError(f"{name} must differ, got {each!r} twice")
        seen.add(each)
    return list(given)


def _ranks(name: str, at: Sequence[int]) -> tuple[int, ...]:
    if not len(at):
        raise ValueError(f"{name} must hold one or more integers, got none")
    return tuple(_checks.count(name, k) for k in at)


def _groups(given: Groups | None, n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Groups of n queries and m candidates as small numbers, int32 [n] and [m]."""
    if given is None:
        if m < n:
            raise ValueError(
                "candidates must have at least as many rows as queries, of which "
                f"candidate i belongs to query i, got {m} for {n} queries; say by "
                "groups which are right"
            )
        return np.arange(n, dtype=np.int32), np.arange(m, dtype=np.int32)
    query, candidate = given if isinstance(given, tuple) else (given, given)
    query = _checks.classes("groups of queries", query, n)
    candidate = _checks.classes("groups of candidates", candidate, m)
    lost = np.flatnonzero(~np.isin(query, candidate))
    if len(lost):
        raise ValueError(
            "groups must hold a right candidate for every query, got none for "
            f"{len(lost)} of {n} queries, the first is query {lost[0]} of group "
            f"{query[lost[0]]}"
        )
    # JAX may hold 32 bits only, which numbers made by hashing do not fit into.
    small = np.unique(np.concatenate([query, candidate]), return_inverse=True)[1]
    small = small.astype(np.int32)
    return small[:n], small[n:]
