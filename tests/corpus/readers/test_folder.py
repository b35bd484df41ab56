"""Any folder of audio: a share held out by file, mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from headwater.core.errors import UserError
from headwater.corpus.readers.folder import read


def written(folder: Path, *seconds: float) -> Path:
    """Write noise of so many seconds each, some in a folder below."""
    for number, length in enumerate(seconds):
        place = folder / ("below" if number % 2 else ".") / f"{number}.{'flac' if number % 3 else 'wav'}"
        place.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(place, 0.1 * np.random.default_rng(number).normal(size=int(16_000 * length)), 16_000)
    return folder


def test_files_are_held_out_whole_and_the_same_every_time(tmp_path: Path) -> None:
    corpus = read(written(tmp_path, 1.0, 2.5, 0.5, 4.1), dev_share=0.3)
    assert sorted(map(len, corpus.splits.values())) == [1, 3]
    assert {row.audio for row in corpus.splits["dev"]}.isdisjoint({row.audio for row in corpus.splits["train"]})
    assert read(tmp_path, dev_share=0.3).splits == corpus.splits
    assert corpus.notes == ("4 files, 0.00 h; dev is 1 of them",)


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Expected a folder of audio"):
        read(tmp_path / "none")
    with pytest.raises(UserError, match="at least two audio files"):
        read(written(tmp_path, 1.0))
    written(tmp_path, 1.0, 1.0)
    with pytest.raises(UserError, match="dev_share between 0 and 1, found 1"):
        read(tmp_path, dev_share=1.0)


def test_litter_and_other_files_are_passed_over(tmp_path: Path) -> None:
    written(tmp_path, 1.0, 1.0)
    (tmp_path / "notes.txt").write_text("no audio")
    (tmp_path / "._0.wav").write_bytes(b"litter")
    corpus = read(tmp_path)
    assert sum(map(len, corpus.splits.values())) == 2
