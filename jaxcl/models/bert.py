"""Weights of BERT and RoBERTa, from the files in which they are passed on.

config.json          the architecture
model.safetensors    the weights, whose names may begin with "bert." or "roberta."
tokenizer.json       the vocabulary, which `data.text.read_vocabulary` reads
"""

import json
import os
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcl import _checks, _optional
from jaxcl.models.of_text import TextDescription

# Names of files, and what they are here.
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
_EMBEDDINGS = {
    "word_embeddings": "tokens",
    "position_embeddings": "positions",
    "token_type_embeddings": "types",
}
_LINEAR = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "output",
    "intermediate.dense": "up",
    "output.dense": "down",
}
_NORMS = {"attention.output.LayerNorm": "attention", "output.LayerNorm": "mlp"}


def read_bert(
    directory: str | os.PathLike[str],
    *,
    pooling: str = "cls",
    tokenizer: str = "",
    dtype: str = "float32",
    embedding: int = 128,
    projector: str = "plain",
) -> tuple[TextDescription, dict[str, Any]]:
    """Reads an encoder of BERT's or RoBERTa's architecture from a local directory.

    Args:
      directory: with `config.json` and `model.safetensors`.
      pooling, tokenizer, dtype, embedding, projector: of the description; with the
        projector "none" the embedding is as wide as the encoder.

    Returns:
      (description, parameters of the encoder): those of the projector are drawn, as by
      `models.initialize`.

    Raises:
      FileNotFoundError: if the directory or a file of it is missing.
      ImportError: if safetensors is not installed.
      ValueError: if a file is damaged, of another architecture, or lacks weights.
    """
    folder = pathlib.Path(directory).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such directory")
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        described = _described(config)
    except (ValueError, KeyError, TypeError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path}: not the config of a BERT: {what}") from error
    described = described._replace(
        pooling=pooling,
        tokenizer=tokenizer,
        dtype=dtype,
        embedding=described.width if projector == "none" else embedding,
        projector=projector,
    )
    path = folder / "model.safetensors"
    if not path.is_file():
        hint = ""
        if (folder / "pytorch_model.bin").is_file():
            hint = "; pytorch_model.bin holds pickled objects, which are not read"
        raise FileNotFoundError(f"{path}: there is no such file{hint}")
    return described, _parameters(path, described)


def _described(config: Any) -> TextDescription:
    """The architecture of a config."""
    _checks.choice("model_type", config["model_type"], ("bert", "roberta"))
    _checks.choice("hidden_act", config["hidden_act"], tuple(_ACTIVATIONS))
    kind = config.get("position_embedding_type", "absolute")
    _checks.choice("position_embedding_type", kind, ("absolute",))
    # RoBERTa counts places from the one behind that of padding.
    roberta = config["model_type"] == "roberta"
    offset = config.get("pad_token_id", 1) + 1 if roberta else 0
    return TextDescription(
        vocabulary=config["vocab_size"],
        positions=config["max_position_embeddings"] - offset,
        encoder="bert",
        width=config["hidden_size"],
        depth=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        hidden=config["intermediate_size"],
        dropout=config.get("hidden_dropout_prob", 0.1),
        attention_dropout=config.get("attention_probs_dropout_prob", 0.1),
        types=config["type_vocab_size"],
        offset=offset,
        epsilon=config["layer_norm_eps"],
        activation=_ACTIVATIONS[config["hidden_act"]],
    )


def _parameters(path: pathlib.Path, d: TextDescription) -> dict[str, Any]:
    """Of the encoder, as Flax calls them: kernels are [in, out], files [out, in]."""
    stored = _stored(path)
    missing: list[str] = []

    def take(name: str, *shape: int) -> np.ndarray:
        # Some files are older than the names weight and bias.
        old = name.replace("weight", "gamma").replace("bias", "beta")
        x = stored.get(name, stored.get(old) if "LayerNorm" in name else None)
        if x is None:
            missing.append(name)
            return np.zeros(shape, np.float32)
        if x.shape != shape:
            raise ValueError(
                f"{path}: {name} must be {list(shape)} as config.json says, got "
                f"{list(x.shape)}"
            )
        return np.asarray(x, np.float32)

    def linear(name: str, inputs: int, outputs: int) -> dict[str, np.ndarray]:
        kernel = take(f"{name}.weight", outputs, inputs)
        return {"kernel": kernel.T, "bias": take(f"{name}.bias", outputs)}

    def norm(name: str) -> dict[str, np.ndarray]:
        scale, bias = (take(f"{name}.{x}", d.width) for x in ("weight", "bias"))
        return {"scale": scale, "bias": bias}

    counts = {
        "tokens": d.vocabulary,
        "positions": d.positions + d.offset,
        "types": d.types,
    }
    params: dict[str, Any] = {"norm": norm("embeddings.LayerNorm")}
    for name, ours in _EMBEDDINGS.items():
        rows = take(f"embeddings.{name}.weight", counts[ours], d.width)
        params[ours] = {"embedding": rows}
    units = {"up": (d.width, d.hidden), "down": (d.hidden, d.width)}
    for layer in range(d.depth):
        prefix = f"encoder.layer.{layer}"
        for name, ours in _LINEAR.items():
            sizes = units.get(ours, (d.width, d.width))
            params[f"{ours}_{layer}"] = linear(f"{prefix}.{name}", *sizes)
        for name, ours in _NORMS.items():
            params[f"norm_{layer}_{ours}"] = norm(f"{prefix}.{name}")
    if d.pooling == "pooler":
        params["pooler"] = linear("pooler.dense", d.width, d.width)
    if missing:
        raise ValueError(
            f"{path}: lacks {len(missing)} weights that config.json asks for, the "
            f"first is {missing[0]}"
        )
    return params


def _stored(path: pathlib.Path) -> dict[str, Any]:
    safetensors: Any = _optional.require("safetensors", "an encoder's file", "train")
    try:
        # Of JAX, since NumPy alone knows no bfloat16.
        with safetensors.safe_open(path, "flax") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors has an error of its own
        raise ValueError(f"{path}: not a readable safetensors file: {error}") from error
    plain = {}
    for name, x in stored.items():
        short = name.removeprefix("bert.").removeprefix("roberta.")
        plain[short] = np.asarray(x.astype(jnp.float32))
    return plain
