"""Encoders of every kind of data come back as they were saved."""

import functools
import json
import types
import typing
import zlib

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from jaxcl import data, models
from jaxcl.models import kinds

IMAGES = models.Description((8, 8, 1), width=2, embedding=3, mean=(0.5,), std=(0.25,))
GRAPHS = models.GraphDescription(
    ("labels", "degree"), (2, 1), (6, 8), width=3, depth=2, embedding=5
)
# What was written of images when there was no other kind.
FIRST = """{
  "format": "jaxcl encoder 1",
  "model": {
    "shape": [
      8,
      8,
      1
    ],
    "encoder": "small",
    "width": 2,
    "stem": "small",
    "dtype": "float32",
    "embedding": 3,
    "projector": "normalized",
    "projector_norm": false,
    "mean": [
      0.5
    ],
    "std": [
      0.25
    ]
  }
}"""


def packs():
    """Three paths of two, three and four nodes in one pack."""
    graphs = data.graphs.from_edges(
        "paths",
        np.repeat([0, 1, 2], [2, 3, 4]),
        [[0, 1], [2, 3], [3, 4], [5, 6], [6, 7], [7, 8]],
        node_labels=[6, 8, 6, 6, 8, 8, 6, 6, 6],
    )
    graphs = data.graphs.with_features(graphs, ("labels", "degree"))
    column = data.graphs.Packed(graphs, 3, nodes=11, edges=7)
    return jax.tree.map(jnp.asarray, column[np.arange(3)])


def test_files_of_images_stay_as_they_were_first(tmp_path):
    models.write_description(tmp_path, IMAGES)
    assert (tmp_path / "encoder.json").read_text().strip() == FIRST


def test_files_written_when_images_were_the_only_kind_are_loaded(tmp_path):
    shapes = jax.eval_shape(lambda: models.initialize(IMAGES, jax.random.key(0)))
    random = np.random.default_rng(0)
    arrays = {
        name: random.uniform(0.1, 1, leaf.shape).astype(np.float32)
        for name, leaf in flax.traverse_util.flatten_dict(shapes, sep="/").items()
    }
    model = json.dumps(json.loads(FIRST)["model"], sort_keys=True).encode()
    checks = {name: f"{zlib.crc32(x.tobytes()):08x}" for name, x in arrays.items()}
    metadata = {
        "format": "jaxcl encoder 1",
        "model": f"{zlib.crc32(model):08x}",
        "arrays": json.dumps(checks, sort_keys=True),
    }
    weights = safetensors.save(arrays, metadata=metadata)
    (tmp_path / "encoder.safetensors").write_bytes(weights)
    (tmp_path / "encoder.json").write_text(FIRST)
    images = jnp.asarray(random.integers(0, 256, (2, 8, 8, 1), np.uint8))
    variables = flax.traverse_util.unflatten_dict(arrays, sep="/")
    found = jax.jit(models.load(tmp_path))(images)
    pixels = (images.astype(jnp.float32) / 255 - 0.5) / 0.25
    model = models.build(IMAGES)
    expected = jax.jit(lambda v, x: model.apply(v, x, train=False, method="represent"))(
        variables, pixels
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert models.read_description(tmp_path) == IMAGES


def test_an_encoder_of_graphs_is_saved_and_gives_a_row_for_each_graph(tmp_path):
    variables = models.initialize(GRAPHS, jax.random.key(1))
    models.save(tmp_path, GRAPHS, variables, trained={"step": 3})
    assert models.read_description(tmp_path) == GRAPHS
    about = json.loads((tmp_path / "encoder.json").read_text())
    assert (about["kind"], about["format"]) == ("graphs", "jaxcl encoder 2")
    graphs, model = packs(), models.build(GRAPHS)
    for layer, method, size in (("h", "represent", 6), ("z", "__call__", 5)):
        rows = jax.jit(models.load(tmp_path, layer=layer))(graphs)
        assert rows.shape == (3, size)
        apply = functools.partial(model.apply, train=False, method=method)
        expected = jax.jit(apply)(variables, graphs)[0]
        np.testing.assert_allclose(rows, expected, rtol=1e-6)


def test_nodes_with_other_features_are_refused_in_words(tmp_path):
    encode = models.encode(GRAPHS)
    graphs = packs()
    wide = graphs._replace(nodes=jnp.zeros((1, 11, 4), jnp.float32))
    words = "the 3 features .* 2 of labels and 1 of degree, got 4; data.graphs.with_sa"
    with pytest.raises(ValueError, match=words):
        encode({}, wide)
    with pytest.raises(TypeError, match="graphs must be a jaxcl"):
        encode({}, graphs.nodes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"kind": "smells"},
            "kind must be one of 'images', 'graphs', 'text', got 'smells'",
        ),
        ({"format": "jaxcl encoder 9"}, "'jaxcl encoder 1' or 'jaxcl encoder 2', got"),
        ({"kind": "images"}, "not an encoder's description"),
        ({"kind": None}, "kind must be one of"),
    ],
)
def test_descriptions_that_are_no_ones_are_refused(tmp_path, change, words):
    models.write_description(tmp_path, GRAPHS)
    path = tmp_path / "encoder.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=words):
        models.read_description(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"columns": (3,)}, "columns must be a count for each of features"),
        ({"encoder": "small"}, "encoder must be one of 'gin', 'gcn'"),
        ({"pooling": "none"}, "pooling must be one of 'sum', 'mean'"),
        ({"projector": "deep"}, "projector must be one of"),
    ],
)
def test_models_of_graphs_that_are_not_there_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        models.build(GRAPHS._replace(**change))
    with pytest.raises(
        TypeError, match="must be a Description or GraphDescription or TextD"
    ):
        models.build("gin")


def test_a_third_kind_is_a_line_of_the_table(tmp_path, monkeypatch):
    class Sizes(typing.NamedTuple):
        """Numbers, as they are."""

        size: int

    numbers = types.SimpleNamespace(
        build=lambda described: models.Embedder(
            Dense(described.size), models.Projector(2, batch_norm=False)
        ),
        example=lambda described: jnp.zeros((1, 3)),
        prepare=lambda described, x: x,
    )
    monkeypatch.setitem(kinds.KINDS, "numbers", kinds._of(numbers, Sizes))
    described = Sizes(4)
    variables = models.initialize(described, jax.random.key(0))
    models.save(tmp_path, described, variables)
    assert models.read_description(tmp_path) == described
    assert models.load(tmp_path)(jnp.ones((5, 3))).shape == (5, 4)


class Dense(nn.Module):
    size: int

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(self.size)(x)
