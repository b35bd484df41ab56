"""Mistakes with ratings, directed speech, Turbo and texts: one clear line each, before anything is trained."""

from __future__ import annotations

import csv
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

AUDIO, TEXT = "-u fbank_no_cmvn", "--text-upstream hashed_words"
RATED = "python run_downstream.py --data tones/rated.csv -o training.steps=4 training.eval_every=2 training.batch_size=8"
AVD = f"{RATED} -d avd {AUDIO} -o avd.scale='[1, 7]'"
DSD = f"{RATED} -d dsd {AUDIO} -o corpus.options.columns.label=directed"
TURBO = f"{RATED} -d turbo {AUDIO} {TEXT}"

# the mistake in words: what is typed, what the answer must say
TYPED = {
    "a scale that nobody says": (f"{RATED} -d avd {AUDIO}", "the scale of the ratings of manifest", "Say it: -o avd.scale="),
    "a scale too small": (
        f"{RATED} -d avd {AUDIO} -o avd.scale='[1, 5]'",
        "Expected ratings from 1 to 5 in manifest, found valence",
        "(61 of 216 are outside",
        "or say the scale",
    ),
    "half a scale": (f"{RATED} -d avd {AUDIO} -o avd.scale='[7]'", "avd.scale='[LOWEST, HIGHEST]', found [7]"),
    "a dimension that is none": (f"{AVD} -o avd.dimensions='[valance]'", "arousal, valence, dominance, found 'valance'"),
    "ratings in columns of other names": (
        f"{AVD} -o corpus.options.columns.arousal=loudness",
        "a column 'loudness'",
        "audio, label, speaker, split, text, arousal",
    ),
    "a table without ratings": (
        f"python run_downstream.py --data tones/tones.csv -d avd {AUDIO} -o avd.scale='[1, 7]'",
        "Expected ratings of arousal, valence, dominance in manifest, found none (labels there: label)",
        "-o corpus.options.columns='{arousal: HEADER",
    ),
    "labels to keep of ratings": (f"{AVD} -o labels.keep='[low]'", "no labels.keep for avd, which has ratings", "Leave it out"),
    "a column of words as rating": (
        f"{AVD} -o corpus.options.columns.valence=text",
        "a number in column 'text', found '",
        "row 2",
    ),
    "a batch of one": (
        f"{AVD} -o training.batch_size=1",
        "from 2 to 48",
        "compares the utterances of a step. Found 1",
        "batch_size=16",
    ),
    "a batch larger than the training split": (f"{AVD} -o training.batch_size=49", "from 2 to 48", "Found 49"),
    "a step of turbo larger than the split": (f"{TURBO} -o training.batch_size=64", "the loss of turbo compares", "Found 64"),
    "a far of two": (
        f"{DSD} -o dsd.operating_point=far=2",
        "operating_point eer, frr=0.05, far=0.01 or a threshold",
        "found 'far=2'",
    ),
    "classes to keep of dsd": (
        f"{DSD} -o labels.keep='[directed]'",
        "no labels.keep for dsd",
        "other and directed, found ['directed']",
    ),
    "a label that says something else": (
        f"{RATED} -d dsd {AUDIO}",
        "in 'label' of manifest, found high (24), low (24), middle (24)",
        "labels.merge='{\"high\": directed}'",
    ),
    "a wrong column": (f"{RATED} -d dsd {AUDIO} -o corpus.options.columns.label=directd", "a column 'directd'", "directed"),
    "selecting by a metric of another task": (f"{DSD} -o select_by=ua", "'select_by' to be one of eer, auc", "found 'ua'"),
    "turbo that only hears": (f"{RATED} -d turbo {AUDIO}", "found one only", "Add --text-upstream NAME"),
    "turbo that only reads": (f"{RATED} -d turbo {TEXT}", "found one only", "Add -u NAME"),
    "views that are equal": (
        f"{TURBO} -o turbo.dropout=0",
        "two views of audio and text, found turbo.dropout=0",
        "-o turbo.dropout=0.2",
    ),
    "no joint space of unequal sizes": (
        f"{TURBO} -o turbo.joint=false",
        "Expected a joint space",
        "audio has 240 dimensions and text 256",
        "found turbo.joint=false",
    ),
    "a question that turbo has not": (f"{TURBO} -o turbo.task=avd", "'turbo.task' to be one of emotion, dsd, found 'avd'"),
    "a term that is none": (f"{TURBO} -o turbo.terms='[cross_13]'", "in_audio, in_text", "found 'cross_13'"),
    "a lambda of two": (f"{TURBO} -o turbo.balance=2", "'turbo.balance' from 0 to 1, found 2"),
    "a temperature of nothing": (f"{TURBO} -o turbo.temperature=0", "'turbo.temperature' above 0, found 0"),
    "a reader that listens": (
        f"{RATED} -d emotion -u hashed_words",
        "listens for -u, found 'hashed_words', which reads",
        "--text-upstream",
    ),
    "a listener that reads": (
        f"{RATED} -d emotion --text-upstream fbank",
        "reads for --text-upstream, found 'fbank', which listens",
        "Give it to -u",
    ),
    "a task that reads without text": (
        f"python run_downstream.py --data tones/tones.csv -d emotion {TEXT}",
        "a transcript of every utterance, since the run reads text, found none for 48 of 48 in train",
        "-o corpus.missing_text=drop",
    ),
    "modality dropout of one modality": (
        f"{DSD} -o dsd.modality_dropout=0.3",
        "audio and text for a modality_dropout",
        "found audio alone",
    ),
    "modality dropout of everything": (
        f"{DSD} {TEXT} -o dsd.modality_dropout=1",
        "'dsd.modality_dropout' from 0 to below 1, found 1",
    ),
    "no text of a run that reads none": ("headwater predict run tones/00.wav --no-text", "found one that reads no text in 'run'"),
    "the geometry of a run without a space": ("headwater plot geometry run --out out", "a joint space (-d turbo) in 'run'"),
    "the geometry of no run": (
        "headwater plot geometry tones --out out",
        "a run folder (or a plan of runs) at 'tones', found none",
    ),
}


@pytest.fixture
def at_desk(desk: Path, rated: Path) -> Path:
    """The desk, where the table of ratings lies too: beside the tones."""
    assert (desk / "tones" / rated.name).is_file()
    return desk


@pytest.mark.usefixtures("at_desk")
@pytest.mark.parametrize("mistake", TYPED)
def test_a_mistake_is_reported_in_one_line(mistake: str, error_of: Callable[..., str]) -> None:
    typed, *parts = TYPED[mistake]
    message = error_of(typed)
    assert all(part in message for part in parts), message


def changed(desk: Path, change: Callable[[int, dict[str, str]], None]) -> None:
    """Write mine.csv: the table of ratings with its rows changed."""
    with (desk / "tones" / "rated.csv").open() as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        row["audio"] = f"tones/{row['audio']}"
        change(number, row)
    with (desk / "mine.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def scaled(every: int) -> Callable[[int, dict[str, str]], None]:
    """Bring some rows' ratings from 0 to 1, as another lab gives them."""

    def change(number: int, row: dict[str, str]) -> None:
        if number % every == 1:
            row.update({name: f"{(float(row[name]) - 1) / 6:.3f}" for name in ("arousal", "valence", "dominance")})

    return change


def one_class_in_dev(_: int, row: dict[str, str]) -> None:
    row["directed"] = "no" if row["split"] == "dev" else row["directed"]


MINE = AVD.replace("tones/rated.csv", "mine.csv")
# the mistake in words: what the rows become, what is typed, what the answer must say
TABLES: dict[str, tuple[Callable[[int, dict[str, str]], None], str, tuple[str, ...]]] = {
    "a rating out of range": (
        lambda number, row: row.update({"valence": "70"} if number == 3 else {}),
        MINE,
        ("from 1 to 7", "found valence 70 of 'tones/03.wav' (1 of 216 are outside", "Mend them"),
    ),
    "two scales mixed": (scaled(3), MINE, ("found arousal", "It looks as if two scales were mixed")),
    "constant ratings": (
        lambda _, row: row.update(dominance="4"),
        MINE,
        ("ratings of dominance that differ in the training split", "found 4 in all 48", "avd.dimensions='[arousal, valence]'"),
    ),
    "a rating that is no number": (
        lambda number, row: row.update({"arousal": "loud"} if number == 3 else {}),
        MINE,
        ("a number in column 'arousal', found 'loud' in row 5",),
    ),
    "one class in dev": (
        one_class_in_dev,
        DSD.replace("tones/rated.csv", "mine.csv"),
        ("both classes in split 'dev' of manifest", "found other only"),
    ),
    "another word in between": (
        lambda number, row: row.update({"directed": "tv"} if number == 3 else {}),
        DSD.replace("tones/rated.csv", "mine.csv"),
        ("tv (1)", "labels.merge='{\"tv\": directed}'"),
    ),
    "a transcript missing": (
        lambda number, row: row.update({"text": ""} if number == 3 else {}),
        f"{MINE} {TEXT}",
        ("a transcript of every utterance", "found none for 1 of 48 in train (the first: tones/03.wav)"),
    ),
}


@pytest.mark.parametrize("mistake", TABLES)
def test_a_mistake_in_the_table_is_reported_in_one_line(mistake: str, at_desk: Path, error_of: Callable[..., str]) -> None:
    change, typed, parts = TABLES[mistake]
    changed(at_desk, change)
    message = error_of(typed)
    assert all(part in message for part in parts), message


def test_a_step_that_two_processes_cannot_share_is_refused_and_all_of_them_end(at_desk: Path) -> None:
    words = shlex.split(AVD.replace("batch_size=8", "batch_size=7").removeprefix("python run_downstream.py"))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "headwater"]
    command = [*launch, "downstream", *words, "--device", "cpu", "-p", "run2"]
    done = subprocess.run(command, cwd=at_desk, capture_output=True, text=True, timeout=120, env=os.environ, check=False)
    assert done.returncode != 0
    assert "training.batch_size that 2 processes share evenly" in done.stderr
    assert "found 7. Set -o training.batch_size=6" in done.stderr
    assert "commands/downstream.py" not in done.stderr  # a traceback of ours, beside the launcher's own
    assert not (at_desk / "run2" / "config.yaml").exists()
