"""Whisper as a recogniser: 16 kHz waveforms to words, greedily and without timestamps."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...core.errors import UserError, first_line, nearest
from ...core.file_cache import FileKey, FileMemory, file_key
from ...core.files import cache_folder, hash_file
from ...core.hub import check_torchaudio, is_hub_id, load_weights, model_folder, quiet, read_config, snapshot

SAMPLE_RATE = 16_000
LANGUAGE = "en"  # that of the corpora here; `auto` lets the model guess, which short utterances mislead
_VERSION = 1  # raise it when a text changes: what was remembered before is then recognised anew
_LONGEST = 30 * SAMPLE_RATE  # samples that the model takes at once
_SEARCHED = 5 * SAMPLE_RATE  # before that, in which a pause to cut at is looked for
_PAUSE = SAMPLE_RATE // 5
_AT_ONCE = {"cpu": 1, "cuda": 16}  # windows in one pass

_HUB_IDS = {
    "whisper_tiny": "openai/whisper-tiny",
    "whisper_tiny_en": "openai/whisper-tiny.en",
    "whisper_base": "openai/whisper-base",
    "whisper_base_en": "openai/whisper-base.en",
    "whisper_small": "openai/whisper-small",
    "whisper_small_en": "openai/whisper-small.en",
    "whisper_medium": "openai/whisper-medium",
    "whisper_medium_en": "openai/whisper-medium.en",
    "whisper_large": "openai/whisper-large",
    "whisper_large_v2": "openai/whisper-large-v2",
    "whisper_large_v3": "openai/whisper-large-v3",
    "whisper_large_v3_turbo": "openai/whisper-large-v3-turbo",
}
# beside the weights: what decides which words come out
_DECIDING = ("config.json", "generation_config.json", "preprocessor_config.json")
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
_BESIDE = [*_DECIDING, "tokenizer*.json", "vocab.json", "merges.txt", "*tokens*.json", "normalizer.json"]
_ADVICE = "bring DIR here and name it: `--model DIR`, `--transcripts DIR`."


@dataclass(frozen=True)
class AsrModel:
    """A recogniser that is known by its files and not loaded yet."""

    name: str  # as the user calls it
    folder: Path
    language: str  # two letters, or auto
    is_multilingual: bool
    fingerprint: str  # of weights, tokenizer and generation settings

    @property
    def spelling(self) -> str:
        """What `--transcripts` takes to mean this model."""
        return self.name if self.language == LANGUAGE else f"{self.name}:{self.language}"


def find_asr(what: str, language: str | None = None) -> AsrModel:
    """Return the recogniser of a name, hub id or folder (`NAME:de` names its language too), its weights hashed, not loaded."""
    name, suffix = _split_language(what)
    if name not in _HUB_IDS and not re.search(r"[/.~]", name) and not Path(name).is_dir():
        known = ", ".join(_HUB_IDS)
        raise UserError(f"There is no recogniser '{name}'.{nearest(name, _HUB_IDS)} Known: {known}, a hub id, or a folder.")
    check_torchaudio()
    folder = _folder_of(_HUB_IDS.get(name, name))
    found = read_config(folder).get("model_type")
    if found != "whisper":
        raise UserError(f"Expected a Whisper model to transcribe with, found model_type '{found}' in '{name}'. Try whisper_base.")
    tokenizer = _tokenizer_in(folder)
    if tokenizer is None:
        raise UserError(_lacking(name, folder, "tokenizer.json (or vocab.json and merges.txt)"))
    generation = _generation_settings(name, folder)
    code = _code_of(language or suffix or LANGUAGE, generation, name)
    is_multilingual = bool(generation.get("is_multilingual", "lang_to_id" in generation))
    return AsrModel(name, folder, code, is_multilingual, _fingerprint(folder, tokenizer, code))


def _folder_of(source: str) -> Path:
    """Return the folder of a hub id or a folder, with what a recogniser needs beside the encoder that an upstream is."""
    if is_hub_id(source) and not Path(source).is_dir():
        cached = snapshot(source, _BESIDE)
        if cached is None or _tokenizer_in(cached) is None:
            snapshot(source, _BESIDE, _ADVICE)
    return model_folder(source)


def _tokenizer_in(folder: Path) -> tuple[str, ...] | None:
    return next((files for files in _TOKENIZERS if all((folder / file).is_file() for file in files)), None)


def _split_language(what: str) -> tuple[str, str | None]:
    match = re.fullmatch(r"(.+):([a-z]{2,})", what)
    return (match[1], match[2]) if match else (what, None)


def _lacking(name: str, folder: Path, files: str) -> str:
    return (
        f"Expected {files} beside the weights of '{name}' in '{folder}', found none: no words can come out. "
        f"Fetch the whole folder: `hf download {_HUB_IDS.get(name, 'HUB_ID')} --local-dir DIR`, and name DIR."
    )


def _generation_settings(name: str, folder: Path) -> dict[str, Any]:
    path = folder / "generation_config.json"
    try:
        content, size = json.loads(path.read_text(encoding="utf-8")), read_config(folder).get("vocab_size")
        if not isinstance(content, dict):
            raise ValueError(f"{type(content).__name__} in place of a mapping")
        for key, value in content.items():
            if key.endswith("_token_id") and isinstance(value, int) and isinstance(size, int) and not 0 <= value < size:
                raise ValueError(f"{key} {value} of a model with {size:,} tokens")
        return content
    except FileNotFoundError:
        raise UserError(_lacking(name, folder, "generation_config.json")) from None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"Expected json of the same model in '{path}', found {first_line(error)}. Fetch the file again."
        ) from None


def _code_of(language: str, generation: dict[str, Any], name: str) -> str:
    """Return a language as the two letters that the model knows it by."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    code = TO_LANGUAGE_CODE.get(language.lower(), language.lower())
    known = sorted(token.strip("<|>") for token in generation.get("lang_to_id", {})) or [LANGUAGE]
    if code != "auto" and code not in known:
        close = nearest(language.lower(), [word for word, short in TO_LANGUAGE_CODE.items() if short in known])
        raise UserError(
            f"Expected a language that '{name}' knows ({', '.join(known)}; auto: it guesses), found '{language}'.{close} "
            "Name one of these, or another model."
        )
    return code if len(known) > 1 or code != "auto" else LANGUAGE


def _fingerprint(folder: Path, tokenizer: Sequence[str], language: str) -> str:
    """Return a hash of everything that decides the words; those of files are remembered, so that a second look opens none."""
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    files = [*weights, *(folder / name for name in (*_DECIDING, *tokenizer) if (folder / name).is_file())]
    keys = {path.name: file_key(path) for path in files}
    loss = "Model files are hashed again in every run"
    with FileMemory(cache_folder() / "transcripts" / "models-1.sqlite", loss) as memory:
        known: dict[FileKey, str] = memory.recall(keys.values())
        for path in files:
            if keys[path.name] not in known:
                known[keys[path.name]] = hash_file(path)
                memory.keep(keys[path.name], known[keys[path.name]])
    hashes = {name: known[key] for name, key in keys.items()}
    return hashlib.sha256(json.dumps([_VERSION, language, hashes], sort_keys=True).encode()).hexdigest()


class Recogniser:
    """A loaded recogniser: the transcript of a waveform depends on nothing but that waveform."""

    def __init__(self, asr: AsrModel, device: str = "cpu") -> None:
        from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer

        config = WhisperConfig.from_dict(read_config(asr.folder))
        self.device = torch.device(device)
        self.model: Any = load_weights(WhisperForConditionalGeneration, config, asr.folder).eval().to(self.device)
        self.tokenizer: Any = WhisperTokenizer.from_pretrained(asr.folder, local_files_only=True)
        has_extractor = (asr.folder / "preprocessor_config.json").is_file()
        self.extractor: Any = (
            WhisperFeatureExtractor.from_pretrained(asr.folder, local_files_only=True)
            if has_extractor
            else WhisperFeatureExtractor(feature_size=config.num_mel_bins)
        )
        self.settings: dict[str, Any] = {"do_sample": False, "num_beams": 1, "return_timestamps": False}
        if asr.is_multilingual:  # an English-only model has no tokens for either
            self.settings |= {"task": "transcribe", "language": None if asr.language == "auto" else asr.language}
        self.at_once = _AT_ONCE.get(self.device.type, 1)

    def text(self, waveform: np.ndarray) -> str:
        """Return the transcript of one 16 kHz mono waveform; it may be empty."""
        return self.texts([waveform])[0]

    def texts(self, waveforms: Sequence[np.ndarray]) -> list[str]:
        """Return the transcript of each waveform; longer ones are cut at pauses, and their transcripts joined."""
        windows = [(row, window) for row, waveform in enumerate(waveforms) for window in cut_at_pauses(waveform)]
        words: list[list[str]] = [[] for _ in waveforms]
        for first in range(0, len(windows), self.at_once):
            some = windows[first : first + self.at_once]
            for (row, _), text in zip(some, self._recognise([window for _, window in some]), strict=True):
                words[row] += text.split()
        return [" ".join(pieces) for pieces in words]

    @torch.no_grad()
    def _recognise(self, windows: Sequence[np.ndarray]) -> list[str]:
        made = self.extractor(
            list(windows),
            sampling_rate=SAMPLE_RATE,
            return_tensors="pt",
            return_attention_mask=True,
            device=str(self.device),
        ).to(self.device)
        with quiet():  # transformers warns of what it does itself
            tokens = self.model.generate(made.input_features, attention_mask=made.attention_mask, **self.settings)
        return self.tokenizer.batch_decode(tokens, skip_special_tokens=True)


def cut_at_pauses(waveform: np.ndarray) -> list[np.ndarray]:
    """Return a waveform in windows of at most 30 s, each cut at the quietest fifth of a second of its last five."""
    windows = []
    while len(waveform) > _LONGEST:
        energy = np.cumsum(np.square(waveform[_LONGEST - _SEARCHED : _LONGEST], dtype=np.float64))
        place = _LONGEST - _SEARCHED + int(np.argmin(energy[_PAUSE:] - energy[:-_PAUSE])) + _PAUSE // 2
        windows.append(waveform[:place])
        waveform = waveform[place:]
    return [*windows, waveform]
