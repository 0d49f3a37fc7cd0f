"""Probes: how much a frozen representation knows about the classes.

Everything here takes and returns arrays. A probe never sees the encoder: `represent`
runs it once, and what follows works on its output h [n, r] as NumPy arrays, so no
gradient can reach the encoder's parameters. Whatever a probe chooses (a penalty, the
mean and the scale of h) it chooses on the training part.

    train_h = evaluation.represent(encode, train_images, batch_size=512)
    test_h = evaluation.represent(encode, test_images, batch_size=512)
    probe = evaluation.logistic_probe(train_h, train_labels, num_classes=10)
    print(evaluation.accuracy(evaluation.predict(probe, test_h), test_labels))

Where examples are too few for a test part, each is tested once, by a machine that has
seen the others: `svm_folds`, and `kernel_svm_folds` for kernels.
"""

from jaxcl import _optional

_optional.require("optax", "jaxcl.evaluation", "train")

from jaxcl.evaluation.correlation import pair_correlation, spearman
from jaxcl.evaluation.folds import (
    COSTS,
    FoldScores,
    kernel_svm_folds,
    stratified_folds,
    svm_folds,
)
from jaxcl.evaluation.graph_kernels import (
    degree_histogram,
    label_histogram,
    weisfeiler_lehman,
)
from jaxcl.evaluation.linear import (
    WEIGHT_DECAYS,
    LinearProbe,
    logistic_probe,
    logits,
    predict,
    ridge_probe,
)
from jaxcl.evaluation.monitors import (
    knn_within,
    online_probe,
    online_probe_params,
    watch,
)
from jaxcl.evaluation.neighbors import Neighbors, knn, nearest
from jaxcl.evaluation.protocols import (
    Protocol,
    protocol_differences,
    protocol_text,
)
from jaxcl.evaluation.representations import represent
from jaxcl.evaluation.retrieval import (
    chance_recall,
    class_indices,
    prompts,
    recall,
    zero_shot,
)
from jaxcl.evaluation.scores import (
    ProbeScores,
    accuracy,
    few_labels,
    hold_out,
    probe_scores,
    share_of_labels,
    warn_of_unseen,
)
from jaxcl.evaluation.sgd import LEARNING_RATES, Sweep, augmented_probe, sgd_probe
from jaxcl.evaluation.words import (
    Words,
    average_vectors,
    count_words,
    tf_idf,
    word_vectors,
)

__all__ = [
    "COSTS",
    "LEARNING_RATES",
    "WEIGHT_DECAYS",
    "FoldScores",
    "LinearProbe",
    "Neighbors",
    "ProbeScores",
    "Protocol",
    "Sweep",
    "Words",
    "accuracy",
    "augmented_probe",
    "average_vectors",
    "chance_recall",
    "class_indices",
    "count_words",
    "degree_histogram",
    "few_labels",
    "hold_out",
    "kernel_svm_folds",
    "knn",
    "knn_within",
    "label_histogram",
    "logistic_probe",
    "logits",
    "nearest",
    "online_probe",
    "online_probe_params",
    "pair_correlation",
    "predict",
    "probe_scores",
    "prompts",
    "protocol_differences",
    "protocol_text",
    "recall",
    "represent",
    "ridge_probe",
    "sgd_probe",
    "share_of_labels",
    "spearman",
    "stratified_folds",
    "svm_folds",
    "tf_idf",
    "warn_of_unseen",
    "watch",
    "weisfeiler_lehman",
    "word_vectors",
    "zero_shot",
]
