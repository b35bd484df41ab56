"""Tokenizers: the files they come from, and a text cut into the numbers that a model reads."""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from ...core.errors import UserError, first_line
from ...core.hub import fetch_tokenizer
from .family import HubTokenizer

_BERT, _BERT_VOCABULARY = "google-bert/bert-base-uncased", 30522  # TinyBERT reads with it, and may come without it


def read_tokenizer(folder: Path, settings: Any, source: str, kind: HubTokenizer) -> str:
    """Return the tokenizer of a model's folder as json; one that only the hub has yet is fetched from there."""
    if not _is_there(folder, kind):
        folder = fetch_tokenizer(source) or folder
    if not _is_there(folder, kind) and _is_tinybert(settings, source):
        folder = _tokenizer_of_bert(source)
    if not _is_there(folder, kind):
        files = f"tokenizer.json, or {' and '.join(kind.files)}" if kind.files else "tokenizer.json"
        raise UserError(
            f"Expected a tokenizer in '{folder}' ({files}), found none of these files. "
            "Copy them from where the model was trained."
        )
    _refuse_missing_reader(folder, kind)
    tokenizer = _read(folder, kind)
    size = tokenizer.get_vocab_size(with_added_tokens=False)
    if size > settings.vocab_size:
        raise UserError(
            f"Expected a tokenizer of at most {settings.vocab_size} tokens (vocab_size of config.json) in '{folder}', found "
            f"{size}. Take the tokenizer's files from the same model."
        )
    numbers = tokenizer.get_vocab(with_added_tokens=False).values()
    refuse_number(max(numbers, default=0), settings.vocab_size, str(folder))
    for text in _PROBES:
        refuse_number(max(encoded(tokenizer, text, str(folder)).ids, default=0), settings.vocab_size, str(folder))
    return tokenizer.to_str()


_PROBES = ("", "Some words, 12 of them: aA\u00e9\u4e00\U0001f600\u0301.")  # with signs that few vocabularies have
_LARGEST_FILE = 64 * 2**20  # bytes of a tokenizer.json
_MOST_GROWTH = 64  # times that a normaliser may make a text longer


def encoded(tokenizer: Any, text: str, source: str) -> Any:
    """Return a text's encoding without the tokens that stand around it, or say what the tokenizer lacks."""
    try:
        return tokenizer.encode(text, add_special_tokens=False)
    except Exception as error:  # the tokenizers package raises no other class
        raise UserError(
            f"Expected a tokenizer that reads any text in '{source}', found: {first_line(error)}. Fetch its files again."
        ) from None


def refuse_number(number: int, size: int, source: str) -> None:
    """Refuse a token that a model has no row for."""
    if number >= size:
        raise UserError(
            f"Expected tokens below {size} (vocab_size of config.json) in '{source}', found {number}. "
            "Take the tokenizer's files from the same model."
        )


def refuse_growth(described: str) -> None:
    """Raise ValueError for a tokenizer whose replacements, one after the other, make texts too long for any memory."""
    content = json.loads(described)
    left, growth = [content.get("normalizer"), content.get("pre_tokenizer")], 1.0
    while left:
        part = left.pop()
        if isinstance(part, list):
            left += part
        elif isinstance(part, dict):
            left += [value for value in part.values() if isinstance(value, (dict, list))]
            pattern = part.get("pattern")
            if part.get("type") == "Replace" and isinstance(pattern, dict):
                growth *= max(1.0, len(str(part.get("content"))) / max(1, len(str(pattern.get("String", "x")))))
    if growth > _MOST_GROWTH:
        raise ValueError(f"replacements that make a text {growth:.3g} times as long")


def plain_tokenizer(described: str) -> Any:
    """Return the tokenizer of a json that neither cuts nor pads: a model's own length decides, and its batches."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(described)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _is_there(folder: Path, kind: HubTokenizer) -> bool:
    replaced = bool(kind.files) and all((folder / name).is_file() for name in kind.files)
    return (folder / "tokenizer.json").is_file() or replaced


def _is_tinybert(settings: Any, source: str) -> bool:
    """Tell a TinyBERT (4 layers of 312 without a name for it, others by name) from a BERT with words of its own."""
    named = "tinybert" in source.lower() or settings.hidden_size == 312
    return settings.model_type == "bert" and settings.vocab_size == _BERT_VOCABULARY and named


def _tokenizer_of_bert(source: str) -> Path:
    """Return the folder of BERT's tokenizer for a model that comes without one, and say so."""
    try:
        folder = fetch_tokenizer(_BERT)
    except UserError as error:
        raise UserError(
            f"Expected a tokenizer.json or vocab.txt in '{source}', found none, and that of {_BERT}, which TinyBERT reads with, "
            f"neither here nor on the hub. Copy its vocab.txt into the model's folder."
        ) from error
    assert folder is not None, f"{_BERT} is a hub id"
    _print_once(f"note      '{source}' has no tokenizer of its own: it reads with that of {_BERT}, as TinyBERT was trained")
    return folder


@functools.cache  # once in a process
def _print_once(message: str) -> None:
    print(message, file=sys.stderr)


def _refuse_missing_reader(folder: Path, kind: HubTokenizer) -> None:
    """Refuse a file of sentencepiece's where nothing can read it: transformers would ask for another package."""
    models = [name for name in kind.files if name.endswith(".model")]
    if models and not (folder / "tokenizer.json").is_file() and importlib.util.find_spec("sentencepiece") is None:
        raise UserError(
            f"Expected a tokenizer.json in '{folder}', or sentencepiece to read its {models[0]} with, found neither. "
            "Run `pip install sentencepiece protobuf`."
        )


def _read(folder: Path, kind: HubTokenizer) -> Any:
    try:
        if (folder / "tokenizer.json").is_file():
            path = folder / "tokenizer.json"
            if path.stat().st_size > _LARGEST_FILE:
                raise ValueError(f"a tokenizer.json of more than {_LARGEST_FILE:,} bytes")
            described = path.read_text(encoding="utf-8")
            refuse_growth(described)
            return plain_tokenizer(described)
        made = kind.tokenizer_class.from_pretrained(folder, local_files_only=True)
        return plain_tokenizer(made.backend_tokenizer.to_str())
    except Exception as error:  # the tokenizers package raises no other class
        raise UserError(
            f"Expected a whole tokenizer in '{folder}', found: {first_line(error)}. Fetch its files again."
        ) from error
