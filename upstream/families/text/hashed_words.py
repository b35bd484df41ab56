"""Hashed words: each word a fixed random vector, so that the mean over them is a bag of words; needs no download."""

from __future__ import annotations

import hashlib
import re
import sys
import unicodedata
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ....corpus.batch import Batch
from ...base import Layers, Upstream, UpstreamConfig, UpstreamSpec, named_layers, register_upstream
from ...hub.text_encoder import no_samples, texts_of

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")  # letters and digits, with apostrophes between them
_DIM = 256  # the bits of a sha256


class HashedWords(Upstream):
    """A word's frame is the bits of its hash, each +1 or -1: mean zero, variance one; an empty text is one frame of zeros.

    What a text upstream must beat, as fbank is for audio: with a mean over time, logistic regression on a bag of words.
    """

    family = ("headwater.upstream.hashed_words", "HashedWords")

    max_tokens = sys.maxsize  # no text is cut
    nothing: Tensor  # (frame, dim), of an empty text

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("nothing", torch.zeros(1, _DIM))
        self.spec = UpstreamSpec(modality="text", num_layers=1, dim=_DIM, sample_rate=0, num_frames=no_samples)

    def forward(
        self,
        batch: Batch | Sequence[Tensor | np.ndarray | str],
        *,
        views: int = 1,
        masked: Tensor | None = None,  # noqa: ARG002 (refused where there is no mask embedding)
        layers: Sequence[int] | None = None,
    ) -> Layers:
        """Return the one layer of each utterance's text; nothing is random, so that all views are alike."""
        wanted = named_layers(layers, 1)
        copies = views if self.training else 1
        rows = [self._frames(text) for text in texts_of(batch)] * copies
        values = nn.utils.rnn.pad_sequence(rows, batch_first=True)  # (batch, word, dim)
        return Layers([values for _ in wanted], tuple(len(row) for row in rows))

    def num_tokens(self, text: str) -> int:
        """Return the words of a text, at least one."""
        return max(len(words_of(text)), 1)

    def _frames(self, text: str) -> Tensor:
        vectors = [vector_of(word) for word in words_of(text)]
        return torch.from_numpy(np.stack(vectors)).to(self.nothing) if vectors else self.nothing


def words_of(text: str) -> list[str]:
    """Return the lower-cased words of a text, without its punctuation.

    >>> words_of("Don't 'panic' - it's OK_2!")
    ["don't", 'panic', "it's", 'ok', '2']
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'"))


def vector_of(word: str) -> np.ndarray:
    """Return a word's vector (dim), the same on every machine."""
    bits = np.unpackbits(np.frombuffer(hashlib.sha256(word.encode()).digest(), dtype=np.uint8))
    return bits.astype(np.float32) * 2 - 1


@register_upstream(modality="text")
def hashed_words(config: UpstreamConfig) -> Upstream:  # noqa: ARG001
    """A fixed random vector for each word: the bag of words, without a download."""
    return HashedWords()
