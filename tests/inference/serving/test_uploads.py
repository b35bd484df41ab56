"""Audio that came as bytes: read as a file is, in memory, few at once."""

from __future__ import annotations

import io
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from headwater.inference.serving import uploads
from headwater.inference.serving.uploads import Upload, readable_path, waveform_of
from headwater.inference.waveforms import read_waveform


def encoded(samples: np.ndarray, rate: int, form: str) -> bytes:
    """Return a file of samples."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form)
    return file.getvalue()


def test_few_files_are_decoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, most, content = [], [], encoded(np.zeros(1600), 16_000, "WAV")

    def slowly(*_: Any) -> np.ndarray:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        return np.zeros(100, np.float32)

    monkeypatch.setattr(uploads, "read_audio", slowly)
    with ThreadPoolExecutor(16) as threads:
        assert len([*threads.map(lambda _: waveform_of(Upload("x", content), 5), range(24))]) == 24
    assert max(most) == 4


def test_without_memory_files_a_temporary_one_is_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delattr(os, "memfd_create", raising=False)
    with readable_path(b"content") as path:
        assert path.read_bytes() == b"content"
        assert tmp_path in path.parents
    assert not [*tmp_path.iterdir()]


def test_an_upload_is_read_as_a_file_is(tmp_path: Path) -> None:
    stereo = np.random.default_rng(0).uniform(-0.3, 0.3, (20_000, 2))
    for form_, rate in (("WAV", 44_100), ("FLAC", 48_000), ("OGG", 22_050), ("MP3", 16_000)):
        content = encoded(stereo, rate, form_)
        (tmp_path / "file").write_bytes(content)
        assert np.array_equal(waveform_of(Upload("x", content), 60).samples, read_waveform(str(tmp_path / "file"))), form_
