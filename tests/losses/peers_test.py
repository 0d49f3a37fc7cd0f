"""Losses of other packages equal what docs/migrating.md says they are.

The functions under test are those of the document itself. A package that is not
installed skips its tests; only optax belongs to the development environment.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcl import kernels, losses
from tests import docs_test

THEIRS = pytest.mark.filterwarnings("ignore")  # what other packages warn of


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


X = random(6, 4)
Y = X + 0.7 * random(6, 4, seed=1)
LABELS = np.array([0, 0, 1, 1, 1, 2])  # one, two and no positives
PAIRS = np.array([0, 1, 2, 0, 1, 2])
SCALE = np.float32(7.0)


@pytest.fixture(scope="module")
def migrating():
    return docs_test.run(docs_test.ROOT / "docs" / "migrating.md")


def of_jax(function):
    def call(*arrays):
        # Other packages are written for JAX's ordinary promotion.
        with (
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
        ):
            return jax.value_and_grad(function, tuple(range(len(arrays))))(*arrays)

    return call


def of_torch(function):
    def call(*arrays):
        torch = pytest.importorskip("torch")
        tensors = [torch.tensor(np.asarray(x), requires_grad=True) for x in arrays]
        loss = function(*tensors)
        loss.backward()
        return loss.item(), [x.grad.numpy() for x in tensors]

    return call


def assert_same(ours, theirs, *arrays):
    """Value and gradient of two scalar functions of the same arrays."""
    arrays = tuple(jnp.asarray(x) for x in arrays)
    expected, expected_gradients = theirs(*arrays)
    value, gradients = jax.value_and_grad(ours, tuple(range(len(arrays))))(*arrays)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for gradient, known in zip(gradients, expected_gradients, strict=True):
        largest = np.abs(known).max()
        assert largest > 1e-4
        np.testing.assert_allclose(gradient, known, rtol=1e-5, atol=1e-5 * largest)


def cosine_logits(x, y, temperature):
    x, y = (z / jnp.linalg.norm(z, axis=-1, keepdims=True) for z in (x, y))
    return x @ y.T / temperature


# optax


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_optax_ntxent_averages_over_pairs(migrating, temperature):
    labels = jnp.asarray(LABELS)
    assert_same(
        lambda z: migrating["ntxent"](z, labels, temperature),
        of_jax(lambda z: optax.losses.ntxent(z, labels, temperature)),
        X,
    )


def test_optax_ntxent_of_one_positive_each_is_sup_con():
    labels = jnp.asarray(PAIRS)
    assert_same(
        lambda z: losses.sup_con(z, labels, temperature=0.07).mean(),
        of_jax(lambda z: optax.losses.ntxent(z, labels, 0.07)),
        X,
    )


def test_optax_ntxent_of_several_positives_is_not_sup_con():
    labels = jnp.asarray(LABELS)
    with jax.numpy_dtype_promotion("standard"):
        theirs = optax.losses.ntxent(jnp.asarray(X), labels, 0.5)
    ours = losses.sup_con(jnp.asarray(X), labels, temperature=0.5)
    assert abs(ours[:5].mean() - theirs) > 0.1


def test_optax_softmax_cross_entropy_with_integer_labels_is_info_nce():
    def theirs(x, y):
        logits = cosine_logits(x, y, 0.1)
        cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels
        return cross_entropy(logits, jnp.arange(6)).mean()

    assert_same(lambda x, y: losses.info_nce(x, y).mean(), of_jax(theirs), X, Y)


def test_optax_softmax_cross_entropy_is_graph_cross_entropy():
    target = jnp.asarray(np.abs(random(6, 6, seed=3)))
    itself = jnp.eye(6, dtype=bool)

    def theirs(z):
        logits = jnp.where(itself, -1e9, cosine_logits(z, z, 0.3))
        rows = jnp.where(itself, 0, target)
        rows = rows / rows.sum(axis=1, keepdims=True)
        return optax.losses.softmax_cross_entropy(logits, rows).mean()

    kernel = kernels.cosine(0.3)
    assert_same(
        lambda z: losses.graph_cross_entropy(z, target, kernel=kernel).mean(),
        of_jax(theirs),
        X,
    )


def test_optax_sigmoid_binary_cross_entropy_is_siglip():
    def theirs(x, y, bias):
        logits = cosine_logits(x, y, 0.1) + bias
        each = optax.losses.sigmoid_binary_cross_entropy(logits, jnp.eye(6))
        return each.sum(axis=1).mean()

    assert_same(
        lambda x, y, bias: losses.siglip(x, y, bias=bias).mean(),
        of_jax(theirs),
        X,
        Y,
        np.float32(-2.0),
    )


def test_optax_cosine_distance_is_half_of_alignment():
    assert_same(
        lambda x, y: losses.alignment(jnp.stack([x, y], axis=1)).mean() / 2,
        of_jax(lambda x, y: optax.losses.cosine_distance(x, y).mean()),
        X,
        Y,
    )


# lightly


@pytest.fixture
def lightly():
    pytest.importorskip("torch")
    return pytest.importorskip("lightly.loss")


@THEIRS
@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        ("lightly_ntxent", "NTXentLoss", {"temperature": 0.2}),
        ("lightly_ntxent", "NTXentLoss", {}),
        ("lightly_dcl", "DCLLoss", {"temperature": 0.3}),
        ("lightly_dcl", "DCLLoss", {}),
        ("lightly_dclw", "DCLWLoss", {"sigma": 0.7}),
        ("lightly_dclw", "DCLWLoss", {}),
        ("lightly_macl", "MACLLoss", {"alpha": 0.3, "A_0": 0.2}),
        ("lightly_macl", "MACLLoss", {}),
    ],
)
def test_lightly(migrating, lightly, ours, theirs, options):
    assert_same(
        lambda x, y: migrating[ours](x, y, **options),
        of_torch(getattr(lightly, theirs)(**options)),
        X,
        Y,
    )


@THEIRS
def test_lightly_ntxent_with_a_memory_bank(migrating, lightly):
    torch = pytest.importorskip("torch")
    bank = random(5, 4, seed=4)
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    loss = lightly.NTXentLoss(memory_bank_size=(5, 4))
    loss.memory_bank.bank = torch.tensor(bank)
    queue = jnp.asarray(bank)
    assert_same(
        lambda x, y: migrating["lightly_ntxent_with_bank"](x, y, queue),
        of_torch(loss),
        X,
        Y,
    )


@THEIRS
def test_lightly_direct_clr_sees_the_first_numbers(migrating, lightly):
    assert_same(
        lambda x, y: migrating["lightly_ntxent"](x[:, :3], y[:, :3]),
        of_torch(lightly.DirectCLRLoss(loss_dim=3)),
        X,
        Y,
    )


@THEIRS
def test_lightly_negative_cosine_similarity_is_alignment(lightly):
    assert_same(
        lambda x, y: losses.alignment(jnp.stack([x, y], axis=1)).mean() / 2 - 1,
        of_torch(lightly.NegativeCosineSimilarity()),
        X,
        Y,
    )


@THEIRS
@pytest.mark.parametrize("options", [{}, {"t": 2.0, "lam": 0.5, "alpha": 1.0}])
def test_lightly_hypersphere(migrating, lightly, options):
    module = pytest.importorskip("lightly.loss.hypersphere_loss")
    assert_same(
        lambda x, y: migrating["lightly_hypersphere"](x, y, **options),
        of_torch(module.HypersphereLoss(**options)),
        X,
        Y,
    )


# open_clip


@pytest.fixture
def open_clip():
    pytest.importorskip("torch")
    return pytest.importorskip("open_clip.loss")


def normalized(x):
    return x / x.norm(dim=-1, keepdim=True)


@THEIRS
def test_open_clip_clip(migrating, open_clip):
    loss = open_clip.ClipLoss()
    assert_same(
        migrating["open_clip_clip"],
        of_torch(lambda x, y, scale: loss(normalized(x), normalized(y), scale)),
        X,
        Y,
        SCALE,
    )


@THEIRS
def test_open_clip_siglip(migrating, open_clip):
    loss = open_clip.SigLipLoss()
    assert_same(
        migrating["open_clip_siglip"],
        of_torch(lambda x, y, *rest: loss(normalized(x), normalized(y), *rest)),
        X,
        Y,
        SCALE,
        np.float32(-3.0),
    )


@THEIRS
def test_open_clip_distill_clip(migrating, open_clip):
    loss = open_clip.DistillClipLoss()

    def theirs(x, y, scale, *teacher):
        of_teacher = [normalized(z).detach() for z in teacher[:2]]
        return loss(normalized(x), normalized(y), scale, *of_teacher, teacher[2])[1]

    torch = pytest.importorskip("torch")
    teacher = (random(6, 3, seed=8), random(6, 3, seed=9), np.float32(5.0))
    assert_same(
        lambda *student: migrating["open_clip_distill"](*student, *teacher),
        of_torch(lambda *student: theirs(*student, *map(torch.tensor, teacher))),
        X,
        Y,
        SCALE,
    )


@THEIRS
def test_open_clip_metrics_are_means_of_ranks(migrating):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("open_clip_train.train").get_clip_metrics
    x, y = random(40, 4), random(40, 4) + 0.7 * random(40, 4, seed=1)
    of_both = theirs(*(normalized(torch.tensor(z)) for z in (x, y)), 1.0)
    for way, arrays in (("image_to_text", (x, y)), ("text_to_image", (y, x))):
        got = migrating["open_clip_metrics"](*arrays)
        expected = {name: of_both[f"{way}_{name}"] for name in got}
        assert 0.1 < expected["R@1"] < 0.9
        for name, value in expected.items():
            np.testing.assert_allclose(got[name], value, rtol=1e-6)


# sentence-transformers


@pytest.fixture
def ranking_loss():
    pytest.importorskip("torch")
    module = pytest.importorskip("sentence_transformers.losses")
    make = module.MultipleNegativesRankingLoss

    def of_options(**options):
        loss = make(model=None, **options)
        return of_torch(lambda *z: loss.compute_loss_from_embeddings(list(z), None))

    return of_options


BOTH = {
    "directions": ("query_to_doc", "doc_to_query"),
    "partition_mode": "per_direction",
}
ALL_FOUR = {
    "directions": ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"),
    "partition_mode": "joint",
}


@THEIRS
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(
    ("ours", "options"), [("ranking", {}), ("symmetric_ranking", BOTH)]
)
def test_sentence_transformers_ranking(migrating, ranking_loss, ours, options, hard):
    arrays = (X, Y, random(6, 4, seed=5)) if hard else (X, Y)
    assert_same(migrating[ours], ranking_loss(**options), *arrays)


@THEIRS
def test_sentence_transformers_ranking_in_both_directions_is_clip(ranking_loss):
    assert_same(
        lambda x, y: losses.clip(x, y, temperature=0.1).mean(),
        ranking_loss(scale=10.0, **BOTH),
        X,
        Y,
    )


@THEIRS
def test_sentence_transformers_ranking_in_all_directions(migrating, ranking_loss):
    assert_same(migrating["gte_ranking"], ranking_loss(**ALL_FOUR), X, Y)


@THEIRS
def test_sentence_transformers_ranking_by_dot_products(ranking_loss):
    util = pytest.importorskip("sentence_transformers.util")
    assert_same(
        lambda x, y: losses.info_nce(x, y, kernel=kernels.dot(1 / 0.5)).mean(),
        ranking_loss(scale=0.5, similarity_fct=util.dot_score),
        X,
        Y,
    )


@THEIRS
def test_sentence_transformers_cosine_similarity_is_a_regression():
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("sentence_transformers.losses")
    loss, score = module.CosineSimilarityLoss(model=None), random(6, seed=6)
    cosine = kernels.cosine(1.0)
    assert_same(
        lambda u, v: jnp.square(kernels.matched(cosine, u, v) - score).mean(),
        of_torch(lambda *z: loss.compute_loss_from_embeddings(z, torch.tensor(score))),
        X,
        Y,
    )


GUIDE = [random(6, 3, seed=seed) for seed in (7, 8, 9)]


@pytest.fixture
def gist_loss(monkeypatch):
    """Their loss without models: of embeddings, beside those of the guide."""
    torch = pytest.importorskip("torch")
    module = pytest.importorskip(
        "sentence_transformers.sentence_transformer.losses.gist_embed"
    )
    monkeypatch.setattr(module, "embed_columns", lambda model, features: model)

    def of_options(anchors=True, positives=True, strategy="absolute", margin=0.0):
        loss = module.GISTEmbedLoss.__new__(module.GISTEmbedLoss)
        torch.nn.Module.__init__(loss)
        vars(loss).update(
            temperature=1 / 7,
            margin_strategy=strategy,
            margin=margin,
            contrast_anchors=anchors,
            contrast_positives=positives,
            gather_across_devices=False,
            must_retokenize=False,
            similarity_fct=torch.nn.CosineSimilarity(dim=-1),
            cross_entropy_loss=torch.nn.CrossEntropyLoss(),
        )

        def call(*z):
            guide = [torch.tensor(x) for x in GUIDE[: len(z)]]
            vars(loss).update(model=z, guide=guide)
            return loss([{}] * len(z), None)

        return of_torch(call)

    return of_options


@THEIRS
@pytest.mark.parametrize("hard", [False, True])
def test_sentence_transformers_gist(migrating, gist_loss, hard):
    arrays = (X, Y, random(6, 4, seed=5)) if hard else (X, Y)

    def ours(x, y, *hard):
        guide = [jnp.asarray(z) for z in GUIDE[: 2 + len(hard)]]
        return migrating["gist"](x, y, guide, *hard, margin=0.1, temperature=1 / 7)

    assert_same(ours, gist_loss(margin=0.1), *arrays)


@THEIRS
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(
    ("strategy", "limit"),
    [
        ("absolute", lambda own: own - 0.3),
        ("relative", lambda own: own - 0.3 * jnp.abs(own)),
    ],
)
def test_sentence_transformers_gist_of_one_kind_is_info_nce(
    gist_loss, strategy, limit, hard
):
    arrays = (X, Y, random(6, 4, seed=5)) if hard else (X, Y)

    def ours(x, y, negatives=None):
        guide = tuple(jnp.asarray(z) for z in GUIDE[: len(arrays)])
        loss = losses.info_nce(
            x,
            y,
            negatives=negatives,
            guide=guide,
            guide_limit=limit,
            temperature=1 / 7,
        )
        return loss.mean()

    theirs = gist_loss(False, False, strategy, margin=0.3)
    assert_same(ours, theirs, *arrays)
    assert not np.isclose(
        losses.info_nce(X, Y, temperature=1 / 7).mean(), theirs(*arrays)[0]
    )


@THEIRS
def test_sentence_transformers_gist_without_positives_is_nt_xent(gist_loss):
    guide = jnp.stack(GUIDE[:2], axis=1)

    def ours(x, y):
        views = jnp.stack([x, y], axis=1)
        return losses.nt_xent(views, guide=guide, temperature=1 / 7)[:, 0].mean()

    assert_same(ours, gist_loss(positives=False), X, Y)


# pytorch-metric-learning


@pytest.fixture
def metric_learning():
    pytest.importorskip("torch")
    return pytest.importorskip("pytorch_metric_learning.losses")


def labelled_by(loss, labels):
    def call(z):
        torch = pytest.importorskip("torch")
        return loss(z, torch.tensor(labels))

    return of_torch(call)


@THEIRS
@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        ("ntxent", "NTXentLoss", {}),
        ("ntxent", "NTXentLoss", {"temperature": 0.5}),
        ("metric_learning_sup_con", "SupConLoss", {}),
        ("metric_learning_sup_con", "SupConLoss", {"temperature": 0.5}),
        ("metric_learning_nca", "NCALoss", {"softmax_scale": 3.0}),
    ],
)
def test_metric_learning(migrating, metric_learning, ours, theirs, options):
    loss = getattr(metric_learning, theirs)(**options)
    labels = jnp.asarray(LABELS)
    assert_same(
        lambda z: migrating[ours](z, labels, **options), labelled_by(loss, LABELS), X
    )


@THEIRS
@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("SupConLoss", "metric_learning_sup_con"),
        ("NTXentLoss", "ntxent"),
    ],
)
def test_metric_learning_cross_batch_memory_is_a_queue(
    migrating, metric_learning, name, ours
):
    torch = pytest.importorskip("torch")
    loss = metric_learning.CrossBatchMemory(
        getattr(metric_learning, name)(temperature=0.3), embedding_size=4
    )
    memory, of_memory = random(5, 4, seed=7), np.array([0, 2, 2, 1, 9])
    loss(torch.tensor(memory), torch.tensor(of_memory))
    # There the batch is in the memory too: the value is the same, the gradient is not.
    theirs = loss(torch.tensor(X), torch.tensor(LABELS))
    queue = {
        "negatives": jnp.asarray(memory),
        "negative_labels": jnp.asarray(of_memory),
    }
    labels = jnp.asarray(LABELS)
    value = migrating[ours](jnp.asarray(X), labels, temperature=0.3, **queue)
    np.testing.assert_allclose(value, theirs.item(), rtol=1e-5)


@THEIRS
def test_metric_learning_self_supervised_ntxent_is_nt_xent(metric_learning):
    loss = metric_learning.SelfSupervisedLoss(metric_learning.NTXentLoss(0.2))
    assert_same(
        lambda x, y: losses.nt_xent(jnp.stack([x, y], axis=1), temperature=0.2).mean(),
        of_torch(loss),
        X,
        Y,
    )


@THEIRS
@pytest.mark.parametrize(
    ("distance", "options", "kernel"),
    [
        ("CosineSimilarity", {}, kernels.cosine),
        ("DotProductSimilarity", {"normalize_embeddings": False}, kernels.dot),
        ("LpDistance", {}, kernels.laplacian),
        ("LpDistance", {"power": 2}, kernels.gaussian),
    ],
)
def test_metric_learning_distances_are_kernels(
    metric_learning, distance, options, kernel
):
    module = pytest.importorskip("pytorch_metric_learning.distances")
    distance = getattr(module, distance)(**options)
    loss = metric_learning.NTXentLoss(temperature=0.5, distance=distance)

    def ours(z):
        views = jnp.stack([z[:3], z[3:]], axis=1)
        return losses.kernel_info_nce(views, kernel=kernel(0.5)).mean()

    assert_same(ours, labelled_by(loss, PAIRS), X)


@THEIRS
def test_metric_learning_multi_similarity_is_the_example(metric_learning):
    labels = jnp.asarray(LABELS)
    document = docs_test.run(docs_test.ROOT / "docs" / "howto" / "own_loss.md")
    assert_same(
        lambda z: document["multi_similarity"](z, labels).mean(),
        labelled_by(metric_learning.MultiSimilarityLoss(), LABELS),
        X,
    )


@THEIRS
def test_metric_learning_n_pairs_is_info_nce_of_dot_products(metric_learning):
    def ours(z):
        z = z / jnp.linalg.norm(z, axis=1, keepdims=True)
        return losses.info_nce(z[:3], z[3:], kernel=kernels.dot()).mean()

    assert_same(ours, labelled_by(metric_learning.NPairsLoss(), PAIRS), X)
