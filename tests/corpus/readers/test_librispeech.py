"""LibriSpeech: the official layout, what may be missing in it, and its miniature."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from headwater.core.errors import UserError
from headwater.corpus.demo import librispeech as demo
from headwater.corpus.readers.librispeech import read

LINES = {"84-1-0000": "GO DO YOU HEAR", "84-1-0001": "THE BOYS' O'CLOCK"}


def write_chapter(folder: Path, lines: dict[str, str], files: list[str] | None = None) -> None:
    """Write one chapter's transcripts and (silent) files."""
    speaker, chapter, _ = next(iter(lines)).split("-")
    place = folder / speaker / chapter
    place.mkdir(parents=True)
    (place / f"{speaker}-{chapter}.trans.txt").write_text("".join(f"{name} {text}\n" for name, text in lines.items()))
    for name in [*lines] if files is None else files:
        soundfile.write(place / f"{name}.flac", [0.0] * 1600, 16_000)


@pytest.fixture
def libri(tmp_path: Path) -> Path:
    """The release with one chapter in each split, in a folder LibriSpeech."""
    folder = tmp_path / "LibriSpeech"
    for number, split in enumerate(("train-clean-100", "dev-clean", "test-clean", "test-other")):
        write_chapter(folder / split, {name.replace("84", str(84 + number)): text for name, text in LINES.items()})
    table = [
        ";ID  |SEX| SUBSET           |MINUTES| NAME",
        "84   | F | train-clean-100  | 25.03 | A | B",
        "86 | M | x | 1 | C",
        "85 | ?",
    ]
    (folder / "SPEAKERS.TXT").write_text("\n".join(table) + "\n")
    return folder


@pytest.mark.parametrize("above", [False, True])
def test_the_official_layout_is_read_from_its_folder_and_the_one_above(libri: Path, above: bool) -> None:
    corpus = read(libri.parent if above else libri)
    assert {name: len(rows) for name, rows in corpus.splits.items()} == {"train": 2, "dev": 2, "test": 2, "test-other": 2}
    first, second = corpus.splits["train"]
    assert (first.id, first.text, first.speaker, first.session, first.labels) == (
        "84-1-0000",
        "GO DO YOU HEAR",
        "84",
        "84-1",
        {"sex": "F"},
    )
    assert first.audio == str(libri / "train-clean-100" / "84" / "1" / "84-1-0000.flac")
    assert second.text == "THE BOYS' O'CLOCK"
    assert corpus.splits["dev"][0].labels == {}
    assert corpus.splits["test"][0].labels == {"sex": "M"}


def test_counts_that_differ_from_the_release_are_noted(libri: Path) -> None:
    assert any("train-clean-100 2 instead of 28539" in note for note in read(libri).notes)


def test_a_split_that_is_not_there_is_noted_with_its_source(libri: Path) -> None:
    (libri / "dev-clean").rename(libri / "later")
    corpus = read(libri)
    assert "dev" not in corpus.splits
    assert "dev-clean is not there: no dev (https://www.openslr.org/12)" in corpus.notes


def test_files_and_lines_without_each_other_are_noted(libri: Path) -> None:
    write_chapter(libri / "train-clean-100", {"90-2-0000": "A", "90-2-0001": "B"}, files=["90-2-0000", "90-2-0007"])
    corpus = read(libri)
    assert "train-clean-100: 1 files without a transcript (90-2-0007)" in corpus.notes
    assert "train-clean-100: 1 transcripts without a file (90-2-0001)" in corpus.notes
    assert {row.id: row.text for row in corpus.splits["train"]}["90-2-0007"] is None


def test_a_split_without_files_is_refused(libri: Path) -> None:
    (libri / "dev-other").mkdir()
    with pytest.raises(UserError, match=r"84-121123-0000\.flac in .*dev-other, found none\. Unpack the archive again"):
        read(libri)


def test_another_folder_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="folders such as train-clean-100, dev-clean and test-clean"):
        read(tmp_path)


def test_the_miniature_has_the_layout_and_other_speakers_in_each_split(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="the extra `demo` is not installed")
    demo.make_demo(tmp_path, seed=0, scale=0.1)
    corpus = read(tmp_path)
    speakers = [{row.speaker for row in rows} for rows in corpus.splits.values()]
    assert [len(each) for each in speakers] == [12, 4, 8]
    assert len(set.union(*speakers)) == 24
    assert all(row.text and row.labels["sex"] in "FM" for rows in corpus.splits.values() for row in rows)


def test_lexicons_beside_the_splits_are_found_in_the_order_in_which_s3prl_reads_them(libri: Path) -> None:
    assert "lexicon" not in read(libri).tables
    names = ["librispeech-lexicon-200k-g2p.txt", "librispeech-lexicon-allothers-g2p.txt", "librispeech-lexicon.txt"]
    for name in names:
        (libri / name).write_text("GO\tG OW1\n")
    assert read(libri).tables["lexicon"] == [str(libri / name) for name in names]


def test_the_miniature_has_a_lexicon_of_all_its_words(tmp_path: Path) -> None:
    demo.make_demo(tmp_path, seed=0, scale=0.1)
    corpus = read(tmp_path)
    (path,) = map(Path, corpus.tables["lexicon"])
    known = {line.split("\t")[0] for line in path.read_text().splitlines()}
    words = {*demo._DIGITS, *demo._WAYS, *" ".join(demo._ORDERS).replace("{digit}", "").replace("{way}", "").split()}
    assert words == known
