"""A tiny BERT and a tiny RoBERTa as others pass them on, and their published states.

The weights are drawn by NumPy, by the names of the files. `published` has what
`FlaxBertModel` and `FlaxRobertaModel` of transformers 4.46.3 make of these rows.
"""

import json
import pathlib

import numpy as np
from safetensors import numpy as safetensors

from jaxcl.data import text

WIDTH, HIDDEN, DEPTH = 8, 12, 2
SIZES = (9, 5, 2)
SENTENCES = ["a small file", "of a tiny model", "which a test has drawn"]


def config(kind="bert"):
    return {
        "model_type": kind,
        "vocab_size": 300,
        "hidden_size": WIDTH,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": 2,
        "intermediate_size": HIDDEN,
        "max_position_embeddings": 16,
        "type_vocab_size": 2 if kind == "bert" else 1,
        "layer_norm_eps": 1e-12 if kind == "bert" else 1e-5,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "pad_token_id": 0 if kind == "bert" else 1,
    }


def arrays(config):
    """Weights by the names of files, float32, large enough for each to be seen."""
    shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], WIDTH),
        "embeddings.position_embeddings.weight": (16, WIDTH),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], WIDTH),
        "embeddings.LayerNorm.weight": (WIDTH,),
        "embeddings.LayerNorm.bias": (WIDTH,),
        "pooler.dense.weight": (WIDTH, WIDTH),
        "pooler.dense.bias": (WIDTH,),
    }
    for layer in range(DEPTH):
        for name, units in {
            "attention.self.query": (WIDTH, WIDTH),
            "attention.self.key": (WIDTH, WIDTH),
            "attention.self.value": (WIDTH, WIDTH),
            "attention.output.dense": (WIDTH, WIDTH),
            "attention.output.LayerNorm": (WIDTH,),
            "intermediate.dense": (HIDDEN, WIDTH),
            "output.dense": (WIDTH, HIDDEN),
            "output.LayerNorm": (WIDTH,),
        }.items():
            shapes[f"encoder.layer.{layer}.{name}.weight"] = units
            shapes[f"encoder.layer.{layer}.{name}.bias"] = units[:1]
    random = np.random.default_rng(7)
    return {
        name: (0.5 * random.standard_normal(shape)).astype(np.float32)
        + np.float32(name.endswith("LayerNorm.weight"))
        for name, shape in sorted(shapes.items())
    }


def rows(config):
    """Tokens int32 [3, 9] and which are valid; padding as RoBERTa counts places."""
    random = np.random.default_rng(3)
    valid = np.arange(9) < np.array(SIZES)[:, None]
    tokens = random.integers(5, config["vocab_size"], (3, 9))
    return np.where(valid, tokens, config["pad_token_id"]).astype(np.int32), valid


def published(kind):
    """Hidden states of the valid tokens [16, 8], and outputs of the pooler [3, 8]."""
    path = pathlib.Path(__file__).with_name("bert_states.json")
    found = json.loads(path.read_text())[kind]
    return np.array(found["hidden"]), np.array(found["pooler"])


def written(directory, kind="bert", prefix="", **changes):
    """Writes the files; `changes` are of the config."""
    directory.mkdir(exist_ok=True)
    content = config(kind)
    weights = {prefix + name: x for name, x in arrays(content).items()}
    safetensors.save_file(weights, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(content | changes))
    text.write(directory, text.learn(SENTENCES * 3, 300))
    return directory
