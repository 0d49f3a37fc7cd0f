"""What the settings of a training on graphs stand for, as its encoder is described."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxcl import data, models, recipes
from jaxcl.recipes import training as training_lib

TINY = recipes.graphs.Graphs(
    width=3, depth=1, embedding=4, batch_size=8, epochs=2, source="a.npz"
)


def written(path, labels):
    """A file of as many pairs of nodes, of labels, which a label of the graph tells."""
    n = len(labels)
    ends = np.arange(2 * n).reshape(n, 2)
    np.savez(
        path,
        edge_index=np.concatenate([ends, ends[:, ::-1]]).T,
        node_ptr=np.arange(n + 1) * 2,
        y=np.arange(n) % 2,
        node_label=np.repeat(labels, 2),
    )
    return str(path)


@pytest.fixture
def source(tmp_path):
    return written(tmp_path / "a.npz", [1, 6, 8, 1] * 4)


def test_a_model_is_described_with_the_columns_of_the_whole_source(source):
    s = dataclasses.replace(TINY, source=source, split="train[:1]", encoder="gcn")
    few = data.graphs.open(s.source, s.split)  # no node of label 6 or 8
    described = recipes.graphs.describe(s, few)
    assert described == models.GraphDescription(
        ("labels",), (3,), (1, 6, 8), "gcn", 3, 1, "sum", "concatenate", "float32", 4
    )
    by_hand = data.Dataset("x", {"graph": data.graphs.Ragged(by_attributes())})
    described = recipes.graphs.describe(s, by_hand)
    assert (described.features, described.columns) == (("attributes",), (2,))


def by_attributes():
    return data.graphs.from_edges("x", [0, 0], [[0, 1]], nodes=np.ones((2, 2)))


def test_other_graphs_are_opened_with_the_columns_of_a_description(source, tmp_path):
    described = recipes.graphs.describe(TINY, data.graphs.open(source))
    # Without label 1, so that 6 and 8 have other numbers in their own file.
    other = written(tmp_path / "b.npz", [8, 6])
    opened = recipes.graphs.open_like(described, other, "train")
    x = data.graphs.graphs_of(opened).nodes
    np.testing.assert_array_equal(x, np.eye(3)[[2, 2, 1, 1]])
    strange = written(tmp_path / "c.npz", [8, 9])
    with pytest.raises(ValueError, match=r"^c: labels of nodes must be among 3 values"):
        recipes.graphs.open_like(described, strange, "train")


def test_seeds_share_one_program_and_differ(source):
    described = recipes.graphs.describe(TINY, data.graphs.open(source))
    first = [recipes.first_variables(described, seed) for seed in (0, 1, 0)]
    leaves = [np.concatenate([x.ravel() for x in jax.tree.leaves(v)]) for v in first]
    np.testing.assert_array_equal(leaves[0], leaves[2])
    assert (leaves[0] != leaves[1]).any()
    assert training_lib._initialize(described)._cache_size() == 1


def test_representations_do_not_depend_on_what_is_packed_together(source):
    dataset = data.graphs.open(source)
    described = recipes.graphs.describe(TINY, dataset)
    variables = recipes.first_variables(described, 0)
    of_all, of_few = (
        recipes.graphs.represent(
            described, variables, dataset.columns["graph"], batch_size=size
        )
        for size in (100, 5)
    )
    assert of_all.shape == (16, 3)
    np.testing.assert_allclose(of_all, of_few, rtol=1e-6)
