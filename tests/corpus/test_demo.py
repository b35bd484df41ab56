"""The miniatures: deterministic, whole, in the layout that the reader of the real corpus reads."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from headwater.core.errors import UserError
from headwater.corpus.audio import check_files, read_audio
from headwater.corpus.base import Corpus
from headwater.corpus.demo import make as demo
from headwater.corpus.demo.make import demo_root
from headwater.corpus.load import get_reader, list_corpora
from headwater.corpus.locate import MARKER, is_demo
from headwater.runs.config.resolve import complete_corpus
from headwater.runs.config.schema import CorpusConfig
from headwater.runs.prepare import read_corpus

pytest.importorskip("espeakng_loader", reason="the extra `demo` is not installed")

TINY = 0.05
WITH_DEMO = [name for name, reader in list_corpora().items() if reader.make_demo is not None]


def digest(root: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        total.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return total.hexdigest()


def rows(corpus: Corpus) -> list:
    return [row for split in corpus.splits.values() for row in split]


def test_six_corpora_have_a_miniature() -> None:
    assert set(WITH_DEMO) >= {"iemocap", "ravdess", "cremad", "emodb", "msp_podcast", "directed"}


@pytest.mark.parametrize("name", WITH_DEMO)
def test_a_miniature_is_read_by_the_very_reader_in_every_fold(name: str) -> None:
    reader = get_reader(name)
    root = demo_root(reader, scale=TINY)
    assert is_demo(root)
    for protocol, folds in reader.protocols.items():
        for fold in (1, folds):
            corpus = reader.read(root, protocol=protocol, fold=fold)
            assert {reader.train, "dev"} <= {*corpus.splits}
            assert reader.test in corpus.splits  # what a table of several tasks is about
            assert all(corpus.splits.values())
            assert not any("differs" in note for note in corpus.notes)
    seconds, broken = check_files(rows(corpus))
    assert broken == []
    assert 0.5 < np.mean(list(seconds.values())) < 6


@pytest.mark.parametrize("name", WITH_DEMO)
def test_the_same_seed_gives_the_same_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = demo_root(get_reader(name), scale=TINY)
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path))
    assert digest(demo_root(get_reader(name), scale=TINY)) == digest(made)


def test_another_seed_gives_other_files() -> None:
    reader = get_reader("ravdess")
    assert digest(demo_root(reader, seed=1, scale=TINY)) != digest(demo_root(reader, scale=TINY))


def test_a_second_call_speaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first = demo_root(get_reader("ravdess"), scale=TINY)
    monkeypatch.setattr(demo, "_make_aside", None)
    assert demo_root(get_reader("ravdess"), scale=TINY) == first


def test_two_processes_make_one_miniature_and_leave_nothing_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path))
    code = (
        "from headwater.corpus.load import get_reader; from headwater.corpus.demo.make import demo_root; "
        f"print(demo_root(get_reader('ravdess'), scale={TINY}))"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(2)]
    predictions, words = zip(*(process.communicate() for process in both), strict=True)
    assert len(set(predictions)) == 1
    assert "".join(words).count("speaking") == 1
    assert [path.name for path in (tmp_path / "demo").iterdir() if path.is_dir()] == [Path(predictions[0].strip()).name]


def test_a_miniature_that_was_cut_off_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path))
    root = demo_root(get_reader("ravdess"), scale=TINY)
    whole = digest(root)
    (root / MARKER).unlink()
    next(root.rglob("*.wav")).unlink()
    assert digest(demo_root(get_reader("ravdess"), scale=TINY)) == whole


def test_a_disk_that_is_full_is_named_with_another_folder(tmp_path: Path) -> None:
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
    script = f"{full}; import runpy; runpy.run_module('headwater.corpus.demo', run_name='__main__', alter_sys=False)"
    words = ["ravdess", str(tmp_path), "0", str(TINY)]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "found that the disk refuses it (" in done.stderr
    assert "Make room, or choose another folder: HEADWATER_CACHE=FOLDER" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_a_kill_left_of_a_miniature_goes_when_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path))
    root = demo_root(get_reader("ravdess"), scale=TINY)
    left, other = root.with_name(f".{root.name}.a1b2c3d4"), root.with_name(".iemocap-seed0-scale1-v1.a1b2c3d4")
    (left / "below").mkdir(parents=True)
    other.mkdir()
    (root / MARKER).unlink()
    demo_root(get_reader("ravdess"), scale=TINY)
    assert not left.exists()
    assert other.exists()  # perhaps being made just now


def test_classes_of_the_iemocap_miniature_are_even_in_every_session() -> None:
    corpus = get_reader("iemocap").read(demo_root(get_reader("iemocap"), scale=0.3))
    for session in range(1, 6):
        codes = Counter(row.labels["emotion"] for row in rows(corpus) if row.session == f"Ses0{session}")
        counts = [codes["neu"], codes["hap"] + codes["exc"], codes["ang"], codes["sad"]]
        assert min(counts) > 0.12 * sum(counts)
    assert len({row.speaker for row in rows(corpus)}) == 10


def test_the_iemocap_miniature_has_texts_and_ratings_that_follow_the_emotion() -> None:
    corpus = get_reader("iemocap").read(demo_root(get_reader("iemocap"), scale=0.3))
    assert all(row.text for row in rows(corpus))
    assert {row.labels["improvised"] for row in rows(corpus)} == {True, False}

    def mean(code: str, rating: str) -> float:
        return float(np.mean([row.labels[rating] for row in rows(corpus) if row.labels["emotion"] == code]))

    assert mean("ang", "arousal") > mean("sad", "arousal") + 0.5
    assert mean("exc", "valence") > mean("ang", "valence") + 0.5


def test_an_angry_voice_is_not_a_sad_one() -> None:
    """Louder on the whole, so that the miniature cannot be silence or noise alone."""
    corpus = get_reader("iemocap").read(demo_root(get_reader("iemocap"), scale=0.3))

    def loudness(code: str) -> float:
        return float(np.mean([read_audio(row.audio).std() for row in rows(corpus) if row.labels["emotion"] == code][:30]))

    assert loudness("ang") > 1.3 * loudness("sad")


def test_a_synthesiser_that_is_not_installed_is_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "espeakng_loader.py").write_text("raise ImportError('no module of this name')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"pip install -e '\.\[demo\]'"):
        demo_root(get_reader("ravdess"), scale=TINY)
    assert not [path for path in (tmp_path / "cache" / "demo").iterdir() if path.is_dir()]


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("in the way")
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="HEADWATER_CACHE=FOLDER"):
        demo_root(get_reader("ravdess"), scale=TINY)


@pytest.mark.parametrize(("name", "scale", "words"), [("manifest", 1.0, "a corpus with a demo"), ("ravdess", 0.0, "demo scale")])
def test_a_demo_that_cannot_be_is_refused(name: str, scale: float, words: str) -> None:
    with pytest.raises(UserError, match=words):
        demo_root(get_reader(name), scale=scale)


def test_a_miniature_is_known_for_one_however_it_is_named() -> None:
    reader = get_reader("ravdess")
    root = demo_root(reader, scale=TINY)
    assert read_corpus(complete_corpus(CorpusConfig("ravdess", data=str(root)), reader, [])).demo
    assert read_corpus(complete_corpus(CorpusConfig("ravdess", demo=True, demo_scale=TINY), reader, [])).demo
    assert not is_demo(root.parent)


def test_a_link_into_a_miniature_is_one_and_a_way_out_of_it_is_none(tmp_path: Path) -> None:
    made, real = tmp_path / "made", tmp_path / "real"
    (made / "deep").mkdir(parents=True)
    real.mkdir()
    (made / MARKER).touch()
    (tmp_path / "link").symlink_to(made / "deep")
    assert is_demo(tmp_path / "link")
    assert not is_demo(made / ".." / "real")
