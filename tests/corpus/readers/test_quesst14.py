"""QUESST 2014: its official lists and ground truth, what is missing, and what is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.core.errors import UserError
from headwater.corpus.readers import quesst14

LISTS = {
    "utterances": (
        "quesst14Database/Audio/quesst14_00001.wav nnenglish",
        "quesst14Database/Audio/quesst14_00002.wav slovak",
        "quesst14Database/Audio/quesst14_00003.wav nnenglish",
    ),
    "dev": (
        "quesst14Database/dev_queries/quesst14_dev_0001.wav nnenglish",
        "quesst14Database/dev_queries/quesst14_dev_0002.wav slovak",
    ),
    "eval": ("quesst14Database/eval_queries/quesst14_eval_0001.wav nnenglish",),
}
TRUTH = {
    "dev": (
        "LEXEME quesst14_00001 1 0.00 3.20 quesst14_dev_0001 lex quesst14 -",
        "LEXEME quesst14_00003 1 0.00 2.10 quesst14_dev_0001 lex quesst14 -",
        "SPEAKER quesst14_00001 1 0.00 3.20 <NA> <NA> quesst14 <NA>",
        "LEXEME quesst14_00002 1 0.00 4.00 quesst14_dev_0002 lex quesst14 -",
    ),
    "eval": ("LEXEME quesst14_00003 1 0.00 2.10 quesst14_eval_0001 lex quesst14 -",),
}


def write(root: Path) -> Path:
    folder = root / "quesst14Database"
    scoring = folder / "scoring"
    scoring.mkdir(parents=True)
    for name, lines in LISTS.items():
        (scoring / f"language_key_{name}.lst").write_text("\n".join(lines) + "\n")
        for line in lines:
            path = root / line.split()[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    for split, lines in TRUTH.items():
        path = scoring / f"groundtruth_quesst14_{split}" / f"quesst14_{split}.rttm"
        path.parent.mkdir()
        path.write_text("\n".join(lines) + "\n")
    return folder


def test_superb_searches_the_english_part_and_counts_are_compared_with_the_release(tmp_path: Path) -> None:
    write(tmp_path)
    corpus = quesst14.read(tmp_path)  # the folder above is accepted
    ids = {split: [row.id for row in rows] for split, rows in corpus.splits.items()}
    assert ids == {
        "documents": ["quesst14_00001", "quesst14_00003"],
        "dev": ["quesst14_dev_0001"],
        "test": ["quesst14_eval_0001"],
    }
    assert corpus.notes == (
        "QUESST 2014 differs from the release: documents 3 instead of 12492, dev queries 2 instead of 560, "
        "eval queries 1 instead of 555",
    )


def test_the_ground_truth_holds_all_languages(tmp_path: Path) -> None:
    corpus = quesst14.read(write(tmp_path))
    dev = corpus.tables_of("dev")
    assert dev["targets"] == {
        "quesst14_dev_0001": ("quesst14_00001", "quesst14_00003"),
        "quesst14_dev_0002": ("quesst14_00002",),
    }
    assert dev["all_queries"] == ["quesst14_dev_0001", "quesst14_dev_0002"]
    assert len(dev["all_documents"]) == 3
    assert corpus.tables_of("test")["targets"] == {"quesst14_eval_0001": ("quesst14_00003",)}


def test_all_languages_are_searched_where_the_protocol_says_so(tmp_path: Path) -> None:
    corpus = quesst14.read(write(tmp_path), protocol="all")
    assert {split: len(rows) for split, rows in corpus.splits.items()} == {"documents": 3, "dev": 2, "test": 1}


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("language_key_dev.lst", " nnenglish", "", r"Expected `FOLDER/FILE LANGUAGE` .* found '.*0001.wav' in line 1"),
        ("language_key_eval.lst", "nnenglish", "slovak", "Expected test of language nnenglish .* -o corpus.protocol=all"),
        ("groundtruth_quesst14_dev/quesst14_dev.rttm", "_00003", "_00009", "Expected `LEXEME DOCUMENT .* in line 2"),
    ],
)
def test_a_broken_list_is_named(file: str, old: str, new: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path) / "scoring" / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        quesst14.read(tmp_path)


def test_a_list_and_a_file_that_are_missing_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "Audio" / "quesst14_00003.wav").unlink()
    with pytest.raises(UserError, match=r"found 1 missing, the first: .*quesst14_00003.wav"):
        quesst14.read(tmp_path)
    (folder / "scoring" / "language_key_eval.lst").unlink()
    with pytest.raises(UserError, match=r"Expected a list of QUESST 2014 at .*language_key_eval.lst, found: No such file"):
        quesst14.read(tmp_path)
