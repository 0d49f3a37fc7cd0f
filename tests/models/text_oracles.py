"""Encoders of sentences in float64, one sentence and one head at a time."""

import math

import numpy as np


def softmax(x):
    x = np.exp(x - x.max())
    return x / x.sum()


def gelu(x):
    return np.vectorize(lambda t: t * 0.5 * (1 + math.erf(t / math.sqrt(2))))(x)


def normalize(x, scale, bias, epsilon):
    centered = x - x.mean(axis=-1, keepdims=True)
    variance = (centered**2).mean(axis=-1, keepdims=True)
    return centered / np.sqrt(variance + epsilon) * scale + bias


def attention(query, key, value, heads):
    """Of one sentence; tokens that are not there are not among the rows."""
    parts = []
    for q, k, v in zip(
        *(np.split(x, heads, 1) for x in (query, key, value)), strict=True
    ):
        mixed = [softmax(k @ row / math.sqrt(k.shape[1])) @ v for row in q]
        parts.append(np.array(mixed))
    return np.concatenate(parts, axis=1)


def bert(arrays, config, tokens):
    """Hidden states [m, c] of one sentence of m tokens, and the pooler's output [c].

    Args:
      arrays: weights by the names of published files.
      config: what `config.json` holds.
      tokens: of the sentence, int [m].
    """
    w = {name: np.asarray(x, np.float64) for name, x in arrays.items()}

    def linear(name, x):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name, x):
        scale, bias = w[f"{name}.weight"], w[f"{name}.bias"]
        return normalize(x, scale, bias, config["layer_norm_eps"])

    roberta = config["model_type"] == "roberta"
    first = config["pad_token_id"] + 1 if roberta else 0
    x = w["embeddings.word_embeddings.weight"][tokens]
    x = x + w["embeddings.position_embeddings.weight"][first : first + len(tokens)]
    x = norm(
        "embeddings.LayerNorm", x + w["embeddings.token_type_embeddings.weight"][0]
    )
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        q, k, v = (
            linear(f"{layer}.attention.self.{name}", x)
            for name in ("query", "key", "value")
        )
        mixed = attention(q, k, v, config["num_attention_heads"])
        mixed = linear(f"{layer}.attention.output.dense", mixed)
        x = norm(f"{layer}.attention.output.LayerNorm", x + mixed)
        inner = gelu(linear(f"{layer}.intermediate.dense", x))
        x = norm(
            f"{layer}.output.LayerNorm", x + linear(f"{layer}.output.dense", inner)
        )
    return x, np.tanh(linear("pooler.dense", x[0]))


def transformer(params, heads, depth, tokens, places):
    """Hidden states [m, c] of one sentence, normalized before each part.

    Args:
      params: of the encoder.
      heads, depth: its shape.
      tokens: of the sentence, int [m].
      places: of the tokens in the row, int [m].
    """

    def linear(name, x):
        p = params[name]
        return x @ np.asarray(p["kernel"], np.float64) + np.asarray(p["bias"])

    def norm(name, x):
        p = params[name]
        return normalize(x, np.asarray(p["scale"]), np.asarray(p["bias"]), 1e-6)

    x = np.asarray(params["tokens"]["embedding"], np.float64)[tokens]
    x = x + np.asarray(params["positions"]["embedding"], np.float64)[places]
    for i in range(depth):
        y = norm(f"norm_{i}_attention", x)
        q, k, v = (linear(f"{name}_{i}", y) for name in ("query", "key", "value"))
        x = x + linear(f"output_{i}", attention(q, k, v, heads))
        y = norm(f"norm_{i}_mlp", x)
        x = x + linear(f"down_{i}", gelu(linear(f"up_{i}", y)))
    return norm("norm", x)
