"""Sentences as data, in rows of tokens of a few fixed lengths.

`data.text`, `augment.tokens` and `models.text` speak of these.
"""

from typing import NamedTuple

import jax


class TokenBatch(NamedTuple):
    """Rows of tokens; L is the room of a row.

    Room that is not used is padding, and so is what an augmentation has taken away: it
    stays where it is and is not valid. Nothing that is not valid counts, whatever it
    holds. The first token of a row is special, such as [CLS].

    The leading axis may be missing, as inside `vmap`, or there may be more, such as one
    of views, [n, v, L].

    Attributes:
      tokens: numbers in the vocabulary, int32 [n, L].
      valid: which are there, bool [n, L].
    """

    tokens: jax.Array
    valid: jax.Array
