"""Mistakes in what is heard: where a corpus lies, its table, its labels, its audio files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from headwater.core.errors import UserError

TypeIn = Callable[[str], tuple[int, str, str]]
TRAIN = "python run_downstream.py -u fbank_no_cmvn -d emotion"
TONES = f"{TRAIN} --data tones/tones.csv"

# the mistake in words: what is typed, what the answer must say
PLACES = {
    "no such folder": (f"{TRAIN} --data IEMOCAP", "the folder of iemocap at", "found nothing there", "Check the path"),
    "no such table": (f"{TRAIN} --data my.csv", "the table at", "my.csv", "Check the path"),
    "a folder where a table belongs": (
        f"{TRAIN} --corpus manifest --data tones",
        "Expected the table",
        "found the folder",
        "Name the table in it",
    ),
    "a table where a folder belongs": (
        f"{TRAIN} --corpus ravdess --data tones/tones.csv",
        "the folder of ravdess",
        "--corpus manifest",
    ),
    "another folder": (f"{TRAIN} --data tones", "Session1 to Session5", "tones", "with --data"),
    "one level too deep": (f"{TRAIN} --data IEMOCAP_full_release/Session1", "a part of it", "IEMOCAP_full_release"),
    "half a release": (f"{TRAIN} --data IEMOCAP_full_release", "all five sessions", "found no", "Unpack the whole release"),
    "an audio root that is not there": (
        f"{TONES} -o corpus.options.audio_root=gone",
        "72 broken",
        "no such file",
        "corpus.skip_broken=true",
    ),
    "a protocol in a check": ("headwater corpus check tones/tones.csv -o corpus.protocol=speaker", "speaker5", "found 'speaker'"),
    "a fold of a fixed split": (f"{TONES} -v 2", "fold 2", "-o corpus.protocol=speaker5"),
    "a corpus that is none": ("headwater corpus check tonnes", "no corpus 'tonnes'", "Known: "),
    "another corpus' option": (
        "headwater corpus check iemocap -o corpus.options.columns.audio=wav",
        "options.columns'",
        "improvised_only",
    ),
    "an option of the wrong type": (f"{TRAIN} -o corpus.options.improvised_only=maybe", "true or false, found 'maybe'"),
    "columns that are no mapping": (f"{TONES} -o corpus.options.columns=wav_path", "a mapping at", "found 'wav_path'"),
    "a column that is not needed": (f"{TONES} -o corpus.options.columns.adio=audio", "the name 'adio'", "Did you mean 'audio'?"),
    "a header that is not there": (
        f"{TONES} -o corpus.options.columns.label=emotion",
        "a column 'emotion'",
        "audio, label, speaker, split",
    ),
    "labels.keep with a typo": (f"{TONES} -o labels.keep='[low, hihg]'", "found 'hihg'", "Did you mean 'high'?", "middle (24)"),
    "labels.merge with a typo": (f"{TONES} -o labels.merge='{{lwo: high}}'", "found 'lwo'", "Did you mean 'low'?"),
    "labels.column with a typo": (f"{TONES} -o labels.column=labl", "a label 'labl'", "Set labels.column"),
    "one class kept": (f"{TONES} -o labels.keep='[low]'", "at least two classes, found ['low']", "labels.keep"),
    "all classes merged": (f"{TONES} -o labels.merge='{{low: high, middle: high}}'", "at least two classes", "labels.keep"),
}


@pytest.fixture
def iemocap(desk: Path) -> None:
    """A first session, unpacked alone."""
    for part in ("dialog/EmoEvaluation", "sentences/wav"):
        (desk / "IEMOCAP_full_release" / "Session1" / part).mkdir(parents=True)
    (desk / "IEMOCAP_full_release" / "Session1" / "dialog" / "EmoEvaluation" / "a.txt").touch()


@pytest.mark.usefixtures("iemocap")
@pytest.mark.parametrize("mistake", PLACES)
def test_a_wrong_place_or_label_is_reported_in_one_line(mistake: str, error_of: Callable[..., str]) -> None:
    typed, *parts = PLACES[mistake]
    message = error_of(typed, lines=8 if "audio root" in mistake else 1)
    assert all(part in message for part in parts), message


def rows_of(desk: Path) -> list[dict[str, str]]:
    """The table of tones, its audio paths as seen from the desk."""
    with (desk / "tones" / "tones.csv").open() as file:
        return [{**row, "audio": f"tones/{row['audio']}"} for row in csv.DictReader(file)]


def write_table(
    path: Path, rows: Sequence[dict[str, str]], headers: Sequence[str] = ("audio", "label", "speaker", "split")
) -> None:
    """Write a table under headers of one's own."""
    lines = [",".join(headers), *(",".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


# the mistake in words: which rows the table keeps, what the answer must say
ROWS: dict[str, tuple[Callable[[dict[str, str]], bool], tuple[str, ...]]] = {
    "no rows at all": (lambda _: False, ("at least one row in", "found a header")),
    "no training rows": (lambda row: row["split"] != "train", ("rows of split 'train'", "dev (12), test (12)")),
    "no test rows": (lambda row: row["split"] != "test", ("rows of split 'test'", "-o corpus.protocol=all_test")),
    "one class only": (lambda row: row["label"] == "low", ("at least two classes", "found only 'low'", "label=HEADER")),
    "a class in test only": (
        lambda row: row["label"] != "low" or row["split"] == "test",
        ("every class in the training split", "found no 'low'", "-o labels.keep='[high, middle]'"),
    ),
}


def test_a_class_that_train_spells_otherwise_is_one_line_with_the_merge(error_of: Callable[..., str], desk: Path) -> None:
    rows = [{**row, "label": row["label"].upper() if row["split"] == "test" else row["label"]} for row in rows_of(desk)]
    write_table(desk / "mine.csv", rows)
    message = error_of(f"{TRAIN} --data mine.csv")
    assert "found no 'HIGH, LOW, MIDDLE', there spelled 'high, low, middle'. Make them one: " in message
    assert message.endswith("-o labels.merge='{HIGH: high, LOW: low, MIDDLE: middle}'")


def test_many_classes_without_training_make_no_long_message(error_of: Callable[..., str], desk: Path) -> None:
    write_table(desk / "mine.csv", [{**row, "label": f"class{number}"} for number, row in enumerate(rows_of(desk))])
    message = error_of(f"{TRAIN} --data mine.csv")
    assert "and 12 more'. Leave out these classes: -o labels.keep='[…]', with the 48 others." in message
    assert len(message) < 400


@pytest.mark.parametrize("mistake", ROWS)
def test_a_table_that_cannot_be_trained_on_is_reported_in_one_line(
    mistake: str, error_of: Callable[..., str], desk: Path
) -> None:
    keep, parts = ROWS[mistake]
    write_table(desk / "my.csv", [row for row in rows_of(desk) if keep(row)])
    message = error_of(f"{TRAIN} --data my.csv")
    assert all(part in message for part in parts), message


def test_a_flattered_score_is_called_so_under_the_table_with_quiet_too(type_in: TypeIn, desk: Path) -> None:
    rows = rows_of(desk)
    for row in rows:
        row["speaker"] = "ann"
    write_table(desk / "my.csv", rows)
    code, out, _ = type_in(f"{TRAIN} --data my.csv -p flattered --quiet")
    assert (code, out.count("note: 12 of the 12 test utterances are by speakers of train or dev (ann): scores flatter")) == (0, 1)


def test_a_split_left_empty_by_the_labels_is_named(error_of: Callable[..., str], desk: Path) -> None:
    write_table(desk / "my.csv", [row for row in rows_of(desk) if row["split"] != "dev" or row["label"] == "low"])
    message = error_of(f"{TRAIN} --data my.csv -o labels.keep='[middle, high]'")
    assert "labelled utterances in split 'dev' of manifest, found none" in message


def test_a_missing_column_is_refused_with_the_option_filled_in(error_of: Callable[..., str], type_in: TypeIn, desk: Path) -> None:
    write_table(desk / "my.csv", rows_of(desk), ("wav_path", "emotion", "spk", "partition"))
    message = error_of(f"{TRAIN} --data my.csv")
    option = "-o corpus.options.columns='{audio: wav_path, label: emotion, speaker: spk, split: partition}'"
    assert option in message
    assert type_in(f"headwater corpus check my.csv {option}")[0] == 0


def test_missing_files_are_named_as_the_cause(error_of: Callable[..., str], desk: Path) -> None:
    (desk / "my.csv").write_text("audio,label\na.wav,low\nb.wav,high\n")
    message = error_of(f"{TRAIN} --data my.csv", lines=4)
    assert "readable audio for all 2 utterances, found 2 broken" in message
    assert "a.wav: no such file" in message


def test_a_single_actor_of_ravdess_is_said_to_be_alone(error_of: Callable[..., str], desk: Path) -> None:
    (desk / "RAVDESS" / "Actor_02").mkdir(parents=True)
    (desk / "RAVDESS" / "Actor_01").mkdir()
    for emotion in "123":
        (desk / "RAVDESS" / "Actor_01" / f"03-01-0{emotion}-01-01-01-01.wav").write_bytes(b"RIFF")
    message = error_of(f"{TRAIN} --corpus ravdess --data RAVDESS")
    assert "found none (splits: train 0, dev 0, test 3; 23 of 24 actors are missing: 02, 03, 04" in message


@pytest.mark.parametrize("verb", ["check", "transcribe"])
def test_a_verb_that_needs_no_folds_asks_for_no_speakers(
    verb: str, type_in: TypeIn, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row for row in rows_of(desk) if row["speaker"] == rows_of(desk)[0]["speaker"]]
    write_table(
        desk / "my.csv", [{key: row[key] for key in ("audio", "label", "speaker")} for row in rows], ["audio", "label", "speaker"]
    )

    def find_asr(*_: object) -> None:
        """Stand behind the corpus, which is read first."""
        raise UserError("the corpus was read")

    monkeypatch.setattr("headwater.corpus.transcription.recogniser.find_asr", find_asr)
    if verb == "check":
        code, out, err = type_in("headwater corpus check my.csv")
        assert (code, err) == (0, "")
        assert "fewer than 5 speakers make no folds" in out
        return
    assert type_in(f"headwater corpus {verb} my.csv")[2].endswith("error: the corpus was read\n")


BYTES = {
    "another encoding": ("my.csv", "audio,label\ncafé.wav,low\n".encode("latin-1"), ("UTF-8 text", "found byte 0xe9")),
    "a spreadsheet": ("my.xlsx", b"PK\x03\x04", ("a table (.csv, .tsv, .jsonl)", "Save it")),
    "a row too short": ("my.csv", b"audio,label\na.wav\n", ("2 columns, found 1 in row 2", "quotes")),
    "a file twice": ("my.csv", b"audio,label\na.wav,x\na.wav,y\n", ("every utterance once", "rows 2 and 3")),
    "no label in a row": (
        "my.csv",
        b"audio,label\na.wav,\n",
        ("a value in column 'label', found none in row 2", "missing_label=drop"),
    ),
    "a start that is no number": ("my.csv", b"audio,label,start\na.wav,x,soon\n", ("seconds in column 'start', found 'soon'",)),
    "json that is none": ("my.jsonl", b'{"audio": "a.wav"\n', ("one json object in each line", "row 1")),
}


@pytest.mark.parametrize("mistake", BYTES)
def test_a_broken_table_is_reported_in_one_line(mistake: str, error_of: Callable[..., str], desk: Path) -> None:
    name, content, parts = BYTES[mistake]
    (desk / name).write_bytes(content)
    message = error_of(f"{TRAIN} --corpus manifest --data {name}")
    assert all(part in message for part in parts), message


# what is wrong with an audio file, what the answer must say
AUDIO = {
    "a missing file": "no such file",
    "text in place of sound": "cannot be decoded",
    "an empty file": "an empty file (0 bytes)",
    "a WAV without samples": "no samples in it",
    "a WAV cut short": "cut short: the header promises",
    "samples that are no numbers": "no numbers (NaN or infinite)",
}


def spoil(path: Path, how: str) -> None:
    """Leave a broken audio file at a path."""
    value, subtype = (np.nan, "FLOAT") if how == "samples that are no numbers" else (0.5, "PCM_16")
    soundfile.write(path, np.full(8000, value, dtype=np.float32), 16_000, subtype=subtype)
    sound = path.read_bytes()
    contents = {
        "text in place of sound": b"not a sound\n" * 9,
        "an empty file": b"",
        "a WAV without samples": sound[:40] + bytes(4),
        "a WAV cut short": sound[: len(sound) // 2],
    }
    path.write_bytes(contents.get(how, sound))
    if how == "a missing file":
        path.unlink()


MINE = {"audio": "mine.wav", "label": "low", "speaker": "me", "split": "train"}


@pytest.mark.parametrize("how", AUDIO)
def test_a_broken_audio_file_is_named_before_training(how: str, error_of: Callable[..., str], desk: Path) -> None:
    spoil(desk / "mine.wav", how)
    write_table(desk / "my.csv", [*rows_of(desk), MINE])
    message = error_of(f"{TRAIN} --data my.csv", lines=3)
    assert "readable audio for all 73 utterances, found 1 broken" in message
    assert "mine.wav" in message
    assert AUDIO[how] in message
    assert "corpus.skip_broken=true" in message


def test_many_broken_files_are_counted_and_a_few_named(error_of: Callable[..., str], desk: Path) -> None:
    write_table(desk / "my.csv", [{**row, "audio": f"gone/{row['audio']}"} for row in rows_of(desk)])
    message = error_of(f"{TRAIN} --data my.csv", lines=8)
    assert "found 72 broken" in message
    assert "and 67 more" in message


def test_skip_broken_goes_on_without_the_file(type_in: TypeIn, desk: Path) -> None:
    write_table(desk / "my.csv", [*rows_of(desk), MINE])
    code, out, err = type_in(f"{TRAIN} --data my.csv -o corpus.skip_broken=true QUICK")
    assert code == 0
    assert "1 broken file left out" in err
    assert "train 48" in err
    assert "ua" in out


def test_skip_broken_with_nothing_left_is_an_error(error_of: Callable[..., str], desk: Path) -> None:
    write_table(desk / "my.csv", [{**row, "audio": f"gone/{row['audio']}"} for row in rows_of(desk)])
    message = error_of(f"{TRAIN} --data my.csv -o corpus.skip_broken=true")
    assert "utterances in split 'train' of manifest, found none" in message


def test_corpus_check_lists_broken_files_and_ends_with_3(type_in: TypeIn, desk: Path) -> None:
    spoil(desk / "mine.wav", "a WAV cut short")
    write_table(desk / "my.csv", [*rows_of(desk), MINE])
    code, out, _ = type_in("headwater corpus check my.csv")
    assert code == 3
    assert "broken files: 1" in out
    assert "cut short" in out
