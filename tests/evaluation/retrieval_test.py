"""Recall and zero-shot classification, beside plain float64 NumPy."""

import numpy as np
import pytest

from jaxcl import evaluation

RANDOM = np.random.default_rng(0)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def found_by_sorting(queries, candidates, query_groups, candidate_groups, k):
    """Sorts the candidates, a wrong one before a right one that is as near."""
    hits = []
    for q, group in zip(queries.astype(np.float64), query_groups, strict=True):
        cosines = unit(candidates.astype(np.float64)) @ unit(q)
        right = candidate_groups == group
        order = np.lexsort((right, -np.round(cosines, 12)))
        hits.append(right[order[:k]].any())
    return np.mean(hits)


# Captions of an image, images of a caption, and images that share their captions.
CASES = {
    "five captions each": (np.arange(7), np.repeat(np.arange(7), 5)),
    "many images of one caption": (np.repeat(np.arange(3), 9), np.arange(3)),
    "groups on both sides": (
        RANDOM.permutation(np.repeat(np.arange(6), 4)),
        RANDOM.permutation(np.repeat(np.arange(-2, 8), 3)),
    ),
    "numbers of 64 bits": (np.array([2**40, 5, 2**40]), np.array([5, 2**40])),
    "one candidate": (np.zeros(4, int), np.zeros(1, int)),
}


@pytest.mark.parametrize("case", CASES)
def test_recall_is_that_of_sorting_with_every_right_candidate(case):
    groups = CASES[case]
    queries, candidates = (
        RANDOM.normal(size=(len(each), 4)).astype(np.float32) for each in groups
    )
    at = (1, 3, len(groups[1]), 1000)
    got = evaluation.recall(queries, candidates, groups, at)
    assert list(got) == list(dict.fromkeys(at))
    for k in at:
        expected = found_by_sorting(queries, candidates, *groups, k)
        assert got[k] == pytest.approx(expected, abs=1e-12), k
    assert got[1000] == 1


def test_without_groups_a_query_is_right_with_its_own_row():
    queries = RANDOM.normal(size=(20, 3)).astype(np.float32)
    candidates = RANDOM.normal(size=(25, 3)).astype(np.float32)
    rows = np.arange(20), np.arange(25)
    found = evaluation.recall(queries, candidates)
    assert found == evaluation.recall(queries, candidates, rows)
    assert found[1] == pytest.approx(found_by_sorting(queries, candidates, *rows, 1))
    shared = np.repeat(np.arange(4), 5)
    both = evaluation.recall(queries, candidates[:20], shared)
    assert both == evaluation.recall(queries, candidates[:20], (shared, shared))


def test_ties_count_against_the_query():
    groups = np.array([0, 0, 1, 1, 1])
    alike = np.ones((5, 3), np.float32)
    found = evaluation.recall(alike, alike, groups, (1, 2, 3, 4))
    # Two of the five have three wrong candidates, the others two.
    assert found == {1: 0.0, 2: 0.0, 3: 0.6, 4: 1.0}
    # Lengths are no part of a cosine, and neither are 64 bits that JAX has not.
    scaled = alike.astype(np.float64) * np.array([1e-200, 1, 3, 1e100, 1e200])[:, None]
    assert evaluation.recall(scaled, alike, groups, (1, 2, 3, 4)) == found


def test_chance_is_the_mean_over_random_orders():
    groups = np.array([0, 0, 1, 2]), np.array([0, 0, 0, 1, 1, 2, 3])
    expected = {1: (3 / 7 + 3 / 7 + 2 / 7 + 1 / 7) / 4}
    expected[2] = (2 * (1 - 4 * 3 / 42) + (1 - 5 * 4 / 42) + 2 / 7) / 4
    chance = evaluation.chance_recall(groups, at=(1, 2, 7, 9))
    assert chance == pytest.approx({**expected, 7: 1, 9: 1}, rel=1e-12)


BAD = [
    ({"groups": (np.array([0, 9]), np.arange(3))}, "for 1 of 2 queries, the first is "),
    ({"queries": np.array([[1, np.nan]])}, "queries must be finite, got NaN or inf"),
    ({"candidates": np.full((3, 2), np.inf)}, "candidates must be finite, got NaN or"),
    ({"candidates": np.ones((3, 5))}, r"candidates must be \[n, 2\], got shape"),
    ({"candidates": np.ones((1, 2))}, "at least as many rows as queries, of which"),
    ({"groups": np.arange(2)}, r"groups of candidates must be \[3\], one per row"),
    ({"at": (1, 0)}, "at must be"),
    ({"at": ()}, "at must hold one or more integers, got none"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_input_of_recall_is_named(change, message):
    good = {"queries": np.eye(2), "candidates": np.ones((3, 2))}
    with pytest.raises(ValueError, match=message):
        evaluation.recall(**(good | change))


def test_classes_are_the_mean_direction_of_their_prompts():
    z = RANDOM.normal(size=(40, 6)).astype(np.float32)
    prompts_z = 10 ** RANDOM.uniform(-9, 9, (5, 3, 1)) * RANDOM.normal(size=(5, 3, 6))
    means = unit(unit(prompts_z).mean(axis=1))
    expected = np.argmax(unit(z.astype(np.float64)) @ means.T, axis=1)
    got = evaluation.zero_shot(z, prompts_z)
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == np.int64
    one = evaluation.zero_shot(z, prompts_z[:, 0].astype(np.float32))
    np.testing.assert_array_equal(
        one, np.argmax(z @ unit(prompts_z[:, 0]).T.astype(np.float32), axis=1)
    )
    # Of equally near classes the first.
    assert not evaluation.zero_shot(z, np.ones((4, 2, 6))).any()


@pytest.mark.parametrize(
    ("class_z", "message"),
    [
        (np.ones((3, 4, 5)), r"class_z must be \[classes, templates, 2\] or .*3, 4, 5"),
        (np.ones(2), "class_z must be"),
        (np.ones((0, 2)), "class_z must be"),
        (np.full((2, 1, 2), np.nan), "class_z must be finite"),
    ],
)
def test_bad_embeddings_of_classes_are_named(class_z, message):
    with pytest.raises(ValueError, match=message):
        evaluation.zero_shot(np.eye(2), class_z)


def test_names_stand_where_the_braces_are_and_nothing_else_changes():
    got = evaluation.prompts(["{}", "a {b}", "{0}"], ["a {x} of {}.", "%s{}"])
    expected = [["a {x} of {}.", "%s{}"], ["a {x} of a {b}.", "%sa {b}"]]
    assert got == [*expected, ["a {x} of {0}.", "%s{0}"]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evaluation.prompts(["a"], ["photo"]), "hold {} once, got 'photo'"),
        (lambda: evaluation.prompts(["a"], ["{} {}"]), "hold {} once, got '{} {}'"),
        (lambda: evaluation.prompts(["a"], "a {}"), "templates must be one or more"),
        (lambda: evaluation.prompts(["a"], []), "templates must be one or more"),
        (lambda: evaluation.prompts([]), "class_names must be one or more names"),
        (lambda: evaluation.prompts(["a", "a"]), "class_names must differ, got 'a' tw"),
        (
            lambda: evaluation.class_indices(["dog", "cat"], ["cat", "cow", "ox"]),
            "^keep must hold names of classes, got 'cow', 'ox'; there are 'dog', 'cat'",
        ),
        (
            lambda: evaluation.class_indices([f"c{i}" for i in range(70)], ["x"]),
            "'c49' and 20 more$",
        ),
        (lambda: evaluation.class_indices(["dog"], "dog"), "keep must be one or more"),
    ],
)
def test_bad_names_and_templates_are_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
