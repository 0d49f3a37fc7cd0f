"""Places of nodes: inside, apart, the same each time."""

import numpy as np
import pytest

from jaxcl.pictures import layouts


def ring(n, first=0):
    return [(first + i, first + (i + 1) % n) for i in range(n)]


@pytest.mark.parametrize(
    ("size", "pairs"),
    [
        (0, []),
        (1, []),
        (7, []),
        (2, [(0, 1)]),
        (6, ring(6)),
        (9, ring(3) + ring(4, first=4)),
        (300, ring(300)),
    ],
)
def test_all_lie_in_the_square_and_none_on_another(size, pairs):
    edges = np.array(pairs, np.int32).reshape(-1, 2)
    points, length = layouts.layout(size, edges)
    assert points.shape == (size, 2)
    assert np.all((points > -1e-9) & (points < 1 + 1e-9))
    apart = np.linalg.norm(points[:, None] - points, axis=2) + 9 * np.eye(size)
    assert size == 0 or apart.min() > 0.3 * length
    if pairs:
        ends = points[edges]
        lengths = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1)
        np.testing.assert_allclose(np.median(lengths), length, rtol=1e-6)
    again, _ = layouts.layout(size, edges)
    np.testing.assert_array_equal(points, again)


def test_components_do_not_touch():
    edges = np.array(ring(5) + ring(3, 5) + [(8, 9)], np.int32)
    points, length = layouts.layout(11, edges)
    parts = points[:5], points[5:8], points[8:10], points[10:]
    for i, part in enumerate(parts):
        for other in parts[:i]:
            gap = np.maximum(
                part.min(axis=0) - other.max(axis=0),
                other.min(axis=0) - part.max(axis=0),
            )
            assert gap.max() > 0.9 * length


def test_distances_are_those_along_the_edges():
    points, length = layouts.layout(4, np.array([(0, 1), (1, 2), (2, 3)], np.int32))
    along = np.linalg.norm(points - points[0], axis=1) / length
    np.testing.assert_allclose(along, [0, 1, 2, 3], atol=0.1)
