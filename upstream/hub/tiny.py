"""Tiny untrained models: each family of the hub at a size for tests and first tries, with the same random weights anywhere."""

from __future__ import annotations

import string
from typing import Any

from ..base import Upstream, UpstreamConfig
from .family import HubFamily, families
from .models import configure, new_model, wrap

# the true strides (320 samples a frame); wide initial weights, so that the layers differ as those of a trained model do
SMALL = {
    "conv_dim": (32, 32, 32, 32, 32, 64, 64),
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 4,
    "initializer_range": 0.1,
}
SMALL_TEXT = {
    "vocab_size": 1024,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,
}
_WORDS = """the of and to a in is you that it he was for on are as with his they i at be this have from or one had by word but
not what all were we when your can said there use an each which she do how their if will up other about out many then them these
so some her would make like him into time has look two more write go see number no way could people my than first water been
call who its now find long down day did get come made may part over new sound take only little work know place year live me back
give most very after thing our just name good sentence man think say great where help through much before line right too mean
old any same tell boy follow came want show also around form three small set put end does another well large must big even such
because turn here why ask went men read need land different home us move try kind hand again change off play spell air away
animal house point page letter mother"""


def family_with(name: str) -> HubFamily:
    """Return the family that a tiny model belongs to."""
    return next(family for family in families().values() if name in family.tiny)


def tiny_model(name: str, config: UpstreamConfig | None = None, **settings: Any) -> Any:
    """Return the transformers model behind a name, leaving the caller's random generator as it was."""
    family = family_with(name)
    settings = {**family.tiny[name].settings, **settings}
    return new_model(configure(family.model_class.config_class(**settings), config or UpstreamConfig())).eval()


def build_tiny(config: UpstreamConfig, *, name: str) -> Upstream:
    """Return a tiny model as an upstream."""
    is_text = family_with(name).tokenizer is not None
    made = {"tokenizer": tiny_tokenizer(name).backend_tokenizer.to_str()} if is_text else None
    upstream = wrap(tiny_model(name, config), config, architecture=made)
    upstream.source = "built in"
    return upstream


def tiny_tokenizer(name: str) -> Any:
    """Return transformers' tokenizer of a text model behind a name: letters, and the commonest words in one piece."""
    kind = family_with(name).tokenizer
    assert kind is not None, f"{name} reads"
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted({*string.ascii_lowercase, *string.digits, *string.punctuation})
    if kind.pieces == "word pieces":
        pieces = [*letters, *(f"##{letter}" for letter in letters), *_WORDS.split()]
        return kind.tokenizer_class(vocab=_numbered([*kind.special, *dict.fromkeys(pieces)]), **kind.names)
    if kind.pieces == "unigrams":
        words = dict.fromkeys(f"\u2581{word}" for word in _WORDS.split())
        scores = dict.fromkeys(kind.special, 0.0) | dict.fromkeys(["\u2581", *letters], -10.0) | dict.fromkeys(words, -5.0)
        return kind.tokenizer_class(vocab=[*scores.items()], **kind.names)
    merges = list(dict.fromkeys(pair for word in _WORDS.split() for pair in _merges(f"\u0120{word}")))
    vocabulary = [*kind.special, *sorted(ByteLevel.alphabet()), *dict.fromkeys(left + right for left, right in merges)]
    return kind.tokenizer_class(vocab=_numbered(vocabulary), merges=merges, **kind.names)


def _numbered(vocabulary: list[str]) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(vocabulary)}


def _merges(word: str) -> list[tuple[str, str]]:
    """Return the pairs that make one piece of a word, from its front to its end."""
    return [(word[:end], word[end]) for end in range(1, len(word))]
