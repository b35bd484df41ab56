"""Spoken orders for slot filling: people wrote down the slots, and nobody wrote down in which order they are said.

Whisper base transcribes each order, and a slot stands where its words are most alike to the transcript. So that order is a
machine's, the words of the slots are people's, and the other words of an order are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from pathlib import Path

import librosa
import torch
from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

SPOKEN = {"twelve": "12", "twenty": "20", "sixteen": "16", "eight": "8"}  # as Whisper writes them


def tagged_orders(folder: Path, work: Path, weights: Path) -> Iterator[dict[str, str]]:
    """Yield orders as their slots in the order of the transcript: of five in a row, three train, one is dev and one is tested."""
    labels = json.loads((folder / "label.json").read_text(encoding="utf-8"))
    said = transcripts(folder, sorted(labels), work / "orders-transcripts.json", weights / "whisper_base")
    for place, name in enumerate(sorted(labels)):
        split = ("train", "train", "train", "dev", "test")[place % 5]
        yield {"audio": str(folder / "speech" / name), "tagged": tagged(labels[name]["slots"], said[name]), "split": split}


def transcripts(folder: Path, names: list[str], path: Path, model: Path) -> dict[str, str]:
    """Return what Whisper understands of each recording; it is computed once."""
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    whisper = WhisperForConditionalGeneration.from_pretrained(model).eval()
    tokenizer, extractor = AutoTokenizer.from_pretrained(model), WhisperFeatureExtractor.from_pretrained(model)
    found = {}
    for name in names:
        waveform, _ = librosa.load(folder / "speech" / name, sr=16_000)
        features = extractor(waveform, sampling_rate=16_000, return_tensors="pt").input_features
        with torch.no_grad():
            tokens = whisper.generate(features, language="en", task="transcribe")
        found[name] = tokenizer.decode(tokens[0], skip_special_tokens=True)
    path.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


def tagged(slots: Mapping[str, str], transcript: str) -> str:
    """Return the slots in the order in which a transcript has them.

    >>> tagged({"coffeeDrink": "iced coffee", "size": "twelve ounce"}, "Get me a 12 ounce ice coffee.")
    '[size: twelve ounce] [coffeeDrink: iced coffee]'
    """
    places = {
        slot: place_of(" ".join(SPOKEN.get(word, word) for word in said.split()), transcript) for slot, said in slots.items()
    }
    return " ".join(f"[{slot}: {slots[slot].strip()}]" for slot in sorted(slots, key=places.__getitem__))


def place_of(said: str, transcript: str) -> int:
    """Return where in a transcript the stretch of that length stands that is most alike."""
    text, said = transcript.lower(), said.lower()
    places = range(max(1, len(text) - len(said) + 1))
    return max(places, key=lambda place: SequenceMatcher(None, said, text[place : place + len(said)]).ratio())
