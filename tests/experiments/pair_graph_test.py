"""The pair graph beside learned similarities: numbers are those of the losses."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.pair_graph import __main__ as script
from experiments.pair_graph import laws, measures, training
from jaxcl import graphs, losses

RANDOM = np.random.default_rng(0)
TINY = script.Settings(
    num_classes=2,
    images=15,
    phrases=12,
    captions=3,
    dimension=4,
    steps=30,
    batch_size=16,
    seeds=(0, 1),
)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def row_costs(w, s):
    """CE(P_i, Q_i) of every row and column, one at a time in float64."""
    found = []
    for edges, logits in ((w, s), (w.T, s.T)):
        costs = []
        for row, own in zip(edges, logits, strict=True):
            log_q = own - np.log(np.exp(own).sum())
            costs.append(
                -sum(p * q for p, q in zip(row / row.sum(), log_q, strict=True) if p)
            )
        found.append(np.array(costs))
    return found


def test_pairs_one_to_one_cost_the_symmetric_loss_of_clip(x64):
    images, texts = unit(RANDOM.normal(size=(9, 4))), unit(RANDOM.normal(size=(9, 4)))
    s = images @ texts.T / 0.2
    loss = np.asarray(losses.clip(jnp.asarray(images), texts, temperature=0.2))
    to_text, to_image = row_costs(np.eye(9), s)
    np.testing.assert_allclose(to_text.sum() + to_image.sum(), 18 * loss.mean(), 1e-12)
    found = measures.compare(np.eye(9), s)
    np.testing.assert_allclose(found["per edge"], loss.mean(), rtol=1e-12)
    np.testing.assert_allclose(found["per node"], loss.mean(), rtol=1e-12)
    np.testing.assert_allclose(found["KL image"], to_text.mean(), rtol=1e-12)


def test_edges_and_nodes_are_different_means_where_degrees_differ(x64):
    """Kernel-InfoNCE's caveat: sum over edges = sum_i outdeg_i CE(P_i, Q_i)."""
    w = (RANDOM.random((7, 5)) < 0.5).astype(float)
    w[0], w[:, 0] = 1, 1
    images, texts = unit(RANDOM.normal(size=(7, 4))), unit(RANDOM.normal(size=(5, 4)))
    s = images @ texts.T / 0.3
    to_text, to_image = row_costs(w, s)
    found = measures.compare(w, s)
    per_node = (to_text.mean() + to_image.mean()) / 2
    np.testing.assert_allclose(found["per node"], per_node, rtol=1e-12)
    log_q = [each - np.log(np.exp(each).sum(1, keepdims=True)) for each in (s, s.T)]
    of_edges = [-(w * log_q[0]).sum(), -(w.T * log_q[1]).sum()]
    np.testing.assert_allclose((w.sum(1) * to_text).sum(), of_edges[0], rtol=1e-12)
    per_edge = sum(of_edges) / 2 / w.sum()
    np.testing.assert_allclose(found["per edge"], per_edge, rtol=1e-12)
    assert abs(per_edge - per_node) > 0.01
    # The losses that are trained are these two.
    for how in ("per node", "per edge"):
        both = [
            training._direction(*map(jnp.asarray, x), how) for x in ((w, s), (w.T, s.T))
        ]
        np.testing.assert_allclose(sum(both) / 2, found[how], rtol=1e-12)


def test_a_graph_that_is_learned_costs_its_entropy():
    w = np.array([[2.0, 1, 0], [0, 1, 0]])
    found = measures.compare(w, np.log(w + 1e-300))
    assert found["KL image"] == pytest.approx(0, abs=1e-12)
    assert found["TV image"] == pytest.approx(0, abs=1e-12)
    # log w has the rows of w; of its columns, one is [2, 0] and one [1, 1].
    assert found["KL caption"] == pytest.approx(0, abs=1e-12)
    assert measures.entropy(w) == pytest.approx(
        {key: found[key] for key in ("per node", "per edge")}
    )
    # In batches a candidate is met as often as it has edges: the optimum is the ratio.
    expected = w.sum(1, keepdims=True) * w[:, :2].sum(0)
    ratio = np.log(w[:, :2] / expected + 1e-300)
    weighted = measures.compare(w, np.c_[ratio, [0, 0]], weighted=True)
    assert weighted["KL image"] == pytest.approx(0, abs=1e-12)
    assert weighted["KL caption"] == pytest.approx(0, abs=1e-12)


def test_the_mean_over_drawn_rewrites_is_the_extended_graphs_cross_entropy():
    """With denominators over all rewrites, the texts of an image averaged."""
    n, rewrites = 4, 2
    pairs = laws.Pairs(np.eye(n, dtype=np.float32), np.arange(n), np.arange(n))
    extended = laws.rewritten(pairs, rewrites)
    assert extended.of_caption.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    s = RANDOM.normal(size=(n, n * (rewrites + 1)))
    to_text, to_image = row_costs(extended.w.astype(float), s)
    log_rows = s - np.log(np.exp(s).sum(1, keepdims=True))
    log_columns = s - np.log(np.exp(s).sum(0, keepdims=True))
    draws = []
    for m in range(rewrites + 1):
        own = [i * (rewrites + 1) + m for i in range(n)]
        draws.append([-log_rows[range(n), own], -log_columns[range(n), own]])
    mean = np.mean(draws, axis=0).sum()
    averaged = to_text.sum() + to_image.reshape(n, -1).mean(axis=1).sum()
    np.testing.assert_allclose(mean, averaged, rtol=1e-12)


def test_rewrites_of_one_text_connect_no_images_and_shared_texts_do():
    pairs, drawn = laws.draw(3, 8, 4, 3, 0.2, seed=0)
    assert (pairs.w.sum(axis=1) == 3).all()
    one = laws.first(pairs, drawn, 1)
    assert (one.w.sum(axis=1) == 1).all()
    assert (one.w <= pairs.w).all()
    copies = laws.rewritten(one, 4)
    np.testing.assert_allclose(measures.walk(copies.w), measures.walk(one.w), atol=1e-7)
    assert measures.components(copies.w) == measures.components(one.w)
    assert measures.components(pairs.w) < measures.components(one.w)
    alone = np.eye(6)
    assert (
        measures.components(alone) == measures.components(np.repeat(alone, 5, 1)) == 6
    )


def test_clusters_of_separate_blocks_are_the_blocks():
    w = np.kron(np.eye(3), np.ones((4, 2)))
    found = measures.clusters(w, 3, seed=0)
    blocks = np.r_[np.repeat(np.arange(3), 4), np.repeat(np.arange(3), 2)]
    assert measures.agreement(found, blocks) == {"ARI": 1.0, "AMI": 1.0}
    # The graph of learned weights has the learned distributions.
    s = RANDOM.normal(size=(4, 3))
    graph = np.asarray(graphs.pair_graph(measures.learned_weights(s)))
    np.testing.assert_allclose(graph[:4, 4:], measures.rows(s), rtol=1e-5)
    np.testing.assert_allclose(graph[4:, :4], measures.rows(s.T), rtol=1e-5)


def _file(path, **change):
    random = np.random.default_rng(0)
    base = random.normal(size=(12, 5))
    held = {
        "image": (base + 0.1 * random.normal(size=base.shape))[np.repeat(range(12), 2)],
        "text": np.repeat(base, 3, axis=0),
        "example": np.repeat(np.arange(0, 24, 2), 3),
        "group": np.repeat(np.arange(12), 2),
        "label": np.repeat([7, 3, 9], 8),
    } | change
    np.savez(path, **{k: v for k, v in held.items() if v is not None})
    return str(path)


def test_edges_of_a_file_join_what_is_of_one_group(tmp_path):
    found = laws.read(_file(tmp_path / "z.npz"), 1000, seed=0)
    assert found.pairs.w.shape == (24, 36)
    assert (found.pairs.w.sum(axis=1) == 3).all()
    assert (found.pairs.w.sum(axis=0) == 2).all()
    assert found.num_classes == 3
    assert np.bincount(found.pairs.of_caption).tolist() == [12, 12, 12]
    i, j = np.nonzero(found.pairs.w)
    assert (found.pairs.classes[i] == found.pairs.of_caption[j]).all()
    some = laws.read(_file(tmp_path / "z.npz"), 22, seed=0)
    assert some.pairs.w.shape == (8, 12)  # four whole groups of five nodes
    assert (some.pairs.w.sum(axis=0) == 2).all()
    bare = laws.read(_file(tmp_path / "z.npz", group=None, label=None), 1000, seed=0)
    assert bare.num_classes == 1
    assert (bare.pairs.w.sum(axis=0) == 1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"text": None},
            "embeddings must be an .npz with image, text and example, got",
        ),
        ({"text": np.ones((36, 4))}, r"text must be \[n, 5\]"),
        ({"example": np.full(36, 24)}, r"example must lie in \[0, 24\)"),
        ({"group": np.zeros(3, int)}, r"group must be \[24\]"),
        ({"image": np.full((24, 5), np.nan)}, "image must be finite"),
    ],
)
def test_a_file_that_does_not_fit_is_named(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        laws.read(_file(tmp_path / "z.npz", **change), 1000, seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"captions": 11},
            "captions must be at most the 10 phrases of a class, got 11",
        ),
        (
            {"most_nodes": 9},
            "most_nodes must be left at 1200, since only a run with emb",
        ),
        (
            {"embeddings": ("z.npz",), "noise": 0.5},
            "noise must be left at 0.1, since only",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(change, message, tmp_path):
    settings = script.Settings(directory=str(tmp_path / "run"), **change)
    with pytest.raises(ValueError, match=message):
        script.main(settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_known_law_is_learned_and_shared_captions_connect(tmp_path, capsys):
    settings = dataclasses.replace(TINY, directory=str(tmp_path / "run"), steps=300)
    results = script.main(settings)
    written = json.loads((tmp_path / "run" / "results.json").read_text())
    assert written["clusters"] == results["clusters"]
    for name in ("graph.png", "clusters.png", "embeddings.npz", "report_text"):
        assert (tmp_path / "run" / name).exists(), name
    for of_seeds in results["fits"].values():
        for seed, row in zip(results["entropy"], of_seeds, strict=True):
            # Nearer to the least than to what collapsed embeddings cost.
            collapsed = (np.log(30) + np.log(24)) / 2
            middle = (seed["per node"] + collapsed) / 2
            assert seed["per node"] < row["per node"] < middle
    components = {
        name: [row["components"] for row in rows]
        for name, rows in results["clusters"].items()
    }
    assert components["2 rewrites of it"] == components["one caption"]
    assert max(components["2 captions more"]) < min(components["one caption"])
    assert results["walk differs by"] < 1e-6
    assert results["components of single pairs"] == [30, 30]
    assert "Are the embeddings Gaussian?" in capsys.readouterr().out
    with pytest.raises(FileExistsError, match="directory must be new"):
        script.main(settings)


@pytest.mark.slow
def test_a_file_is_held_beside_its_own_graph(tmp_path):
    files = (_file(tmp_path / "z.npz"), _file(tmp_path / "other.npz"))
    settings = script.Settings(directory=str(tmp_path / "run"), embeddings=files)
    results = script.main(settings)
    assert results["components"] == 12
    first, second = results["fits"]
    assert results["entropy"]["per node"] <= first["per node"] == second["per node"]
    assert first["ARI learned, classes"] <= 1
    assert set(results["gaussian"]) == {"image", "text"}
    assert (tmp_path / "run" / "graph.png").exists()
