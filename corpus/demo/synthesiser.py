"""A speech synthesiser: espeak-ng, called by ctypes from its wheel."""

from __future__ import annotations

import ctypes
import importlib
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ...core.errors import UserError
from ...core.installation import install_command

SAMPLE_RATE = 22050  # what espeak-ng returns

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: audio comes by callback, and espeak_Synth returns when all of it came
_UTF8, _CHARACTER_POSITION = 1, 1
_RATE, _VOLUME, _PITCH, _RANGE, _WORD_GAP = 1, 2, 3, 4, 7  # espeak_PARAMETER
_OK = 0
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True)
class Voice:
    """How a sentence is spoken: espeak-ng's own parameters in its own units."""

    name: str  # a voice with its variant: en-us+f3
    rate: float = 175.0  # words per minute
    pitch: float = 50.0  # 0 to 99
    range: float = 50.0  # 0 (monotone) to 99
    volume: float = 100.0  # 0 to 200
    word_gap: float = 0.0  # units of 10 ms between words


def speak(text: str, voice: Voice) -> np.ndarray:
    """Return the sentence as a waveform in -1..1 at `SAMPLE_RATE`.

    The same calls in the same order give the same samples in a fresh process: espeak-ng goes on from the phase it left.
    """
    engine = _engine()
    if engine.library.espeak_SetVoiceByName(voice.name.encode()) != _OK:
        raise UserError(f"Expected a voice of espeak-ng such as 'en-us+f3', found '{voice.name}'. See its folder of voices.")
    settings = {_RATE: voice.rate, _VOLUME: voice.volume, _PITCH: voice.pitch, _RANGE: voice.range, _WORD_GAP: voice.word_gap}
    for parameter, value in settings.items():
        engine.library.espeak_SetParameter(parameter, round(value), 0)
    engine.library.espeak_ng_SetRandSeed(1)  # breath is noise, and its seed is the time of day otherwise
    engine.pieces.clear()
    data = text.encode()
    status = engine.library.espeak_Synth(data, len(data) + 1, 0, _CHARACTER_POSITION, 0, _UTF8, None, None)
    if status != _OK or not engine.pieces:
        raise UserError(f"Expected speech for '{text}', found nothing (espeak-ng's status {status}). Is the text empty?")
    return np.concatenate(engine.pieces).astype(np.float32) / 32768.0


@dataclass(frozen=True)
class _Engine:
    library: Any  # the loaded shared library
    pieces: list[np.ndarray]  # what the callback received
    callback: Any  # kept alive: espeak-ng holds only its address


@cache
def _engine() -> _Engine:
    try:
        loader = importlib.import_module("espeakng_loader")
    except ImportError as error:
        raise UserError(
            "Expected the speech synthesiser of the demo corpora, found no package 'espeakng-loader'. "
            f"Install it with: {install_command('demo')}"
        ) from error
    library = ctypes.CDLL(str(loader.get_library_path()))
    if library.espeak_Initialize(_SYNCHRONOUS, 0, str(loader.get_data_path()).encode(), 0) != SAMPLE_RATE:
        raise UserError(
            f"Expected espeak-ng to start with its data in {loader.get_data_path()}, found that it does not. "
            "Install it again with: pip install --force-reinstall espeakng-loader"
        )
    pieces: list[np.ndarray] = []

    @_CALLBACK
    def collect(samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            pieces.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0

    library.espeak_SetSynthCallback(collect)
    return _Engine(library, pieces, collect)
