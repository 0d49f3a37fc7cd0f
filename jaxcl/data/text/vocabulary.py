"""From sentences to tokens: a vocabulary that is learnt, or one that is read."""

import os
import pathlib
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcl import _checks, _files, _optional

# Numbers of special tokens in a vocabulary that is learnt: 0, 1, ...
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# What others call them, in the same order.
_ALSO = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
FILE = "tokenizer.json"
# The special tokens, and each of the bytes that text is made of.
SMALLEST = len(SPECIAL) + 256


class Vocabulary(NamedTuple):
    """Tokens, and how sentences become rows of them.

    Attributes:
      tokenizer: of the package tokenizers.
      text: the content of its file.
      size: how many tokens there are.
      pad, unk, cls, sep, mask: numbers of the special tokens; a row begins with cls and
        ends with sep.
    """

    tokenizer: Any
    text: str
    size: int
    pad: int
    unk: int
    cls: int
    sep: int
    mask: int

    @property
    def checksum(self) -> str:
        """CRC-32 of the file, by which an encoder knows its vocabulary."""
        return f"{zlib.crc32(self.text.encode()):08x}"


def learn(
    sentences: Iterable[str], size: int = 8000, *, lower: bool = True
) -> Vocabulary:
    """Learns a byte-pair vocabulary.

    It begins with all bytes, so there is no text that it cannot write and no token that
    stands for the unknown; then the most frequent pair of neighbors becomes a token of
    its own, again and again. A token never reaches over a space.

    Args:
      sentences: texts to learn from.
      size: of the vocabulary, with the special tokens; it is smaller where there is no
        pair left that occurs twice.
      lower: whether capital letters are made small.

    Returns:
      The vocabulary, which depends on the sentences alone.

    Raises:
      ImportError: if tokenizers is not installed.
      TypeError: if sentences are a single text.
      ValueError: if size is too small.

    Source:
      Neural machine translation of rare words with subword units,
      https://arxiv.org/abs/1508.07909, section 3.2; on bytes as in GPT-2.
    """
    tk = _tokenizers()
    if isinstance(sentences, str):
        raise TypeError("sentences must be several texts, got one")
    _checks.count("size", size, SMALLEST)
    tokenizer = tk.Tokenizer(tk.models.BPE())
    if lower:
        tokenizer.normalizer = tk.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = tk.decoders.ByteLevel()
    trainer = tk.trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(tk.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(iter(sentences), trainer)
    tokenizer.post_processor = tk.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, SPECIAL.index(name)) for name in ("[CLS]", "[SEP]")],
    )
    return _vocabulary(tokenizer, tokenizer.to_str(pretty=True) + "\n")


def write(directory: str | os.PathLike[str], vocabulary: Vocabulary) -> None:
    """Writes `tokenizer.json`, beside what has learned with it.

    Args:
      directory: of the file; made if needed.
      vocabulary: what is written, as it was read or learnt.
    """
    _files.write_text(pathlib.Path(directory) / FILE, vocabulary.text)


def read_vocabulary(directory: str | os.PathLike[str]) -> Vocabulary:
    """Reads `tokenizer.json`, of a run or of any model of the kind of BERT.

    Args:
      directory: of the file. Padding and cutting that the file may ask for are left
        out: `tokenize` does both.

    Returns:
      The vocabulary.

    Raises:
      FileNotFoundError: if there is no such file.
      ImportError: if tokenizers is not installed.
      ValueError: if it cannot be read, or has no special tokens around a sentence.
    """
    path = pathlib.Path(directory).expanduser() / FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        text = path.read_text(encoding="utf-8")
        tokenizer = _tokenizers().Tokenizer.from_str(text)
    except ImportError:
        raise
    except Exception as error:  # tokenizers raises nothing more special
        raise ValueError(f"{path}: not a readable tokenizer: {error}") from error
    try:
        return _vocabulary(tokenizer, text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def encode(
    vocabulary: Vocabulary, sentences: Sequence[str] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of sentences, one after the other.

    What looks like a special token in a sentence is text like any other.

    Args:
      vocabulary: which tokens.
      sentences: texts [n].

    Returns:
      (ids, ptr): int32 [N], and where each sentence begins in it, int64 [n + 1].

    Raises:
      ValueError: if a sentence is empty.
    """
    texts = [str(text) for text in sentences]
    for i, text in enumerate(texts):
        if not text.strip():
            raise ValueError(f"sentences must not be empty, and sentence {i} is")
    found = vocabulary.tokenizer.encode_batch(texts)
    rows = [row.ids for row in found]
    ptr = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=ptr[1:])
    ids = np.fromiter((token for row in rows for token in row), np.int32, int(ptr[-1]))
    return ids, ptr


def decode(vocabulary: Vocabulary, tokens: Iterable[int]) -> str:
    """The sentence that tokens were made of; special tokens are left out.

    Args:
      vocabulary: which tokens.
      tokens: of one sentence.

    Returns:
      The text, in small letters where the vocabulary knows no others.
    """
    text = vocabulary.tokenizer.decode([int(token) for token in tokens])
    return text.removeprefix(" ")


def _tokenizers() -> Any:
    return _optional.require("tokenizers", "a vocabulary", "data")


def _vocabulary(tokenizer: Any, text: str) -> Vocabulary:
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    for names in (SPECIAL, _ALSO):
        numbers = [tokenizer.token_to_id(name) for name in names]
        if None not in numbers:
            break
    else:
        raise ValueError(
            f"must have the special tokens {', '.join(SPECIAL)} or {', '.join(_ALSO)}"
        )
    pad, unk, cls, sep, mask = numbers
    ids = tokenizer.encode("a").ids
    if len(ids) < 3 or (ids[0], ids[-1]) != (cls, sep):
        raise ValueError(
            f"must put {names[2]} before and {names[3]} behind a sentence, and makes "
            f"{tokenizer.encode('a').tokens} of 'a'"
        )
    size = tokenizer.get_vocab_size()
    return Vocabulary(tokenizer, text, size, pad, unk, cls, sep, mask)
