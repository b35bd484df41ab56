"""Mistakes with predictions that grow, with the folds of a plan, and with the final model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from headwater.core.errors import UserError
from headwater.inference.csv_journal import growing, hold
from headwater.plans.grid import expand, run_plan
from headwater.runs.config.recipes import task_default
from headwater.runs.config.resolve import resolve
from headwater.runs.runtime import Runtime

TypeIn = Callable[[str], tuple[int, str, str]]
SHORT = "training.steps=4 training.eval_every=2 training.batch_size=8"
TRAIN = f"python run_downstream.py -u fbank_no_cmvn -d emotion --data tones/tones.csv -o {SHORT}"


@pytest.fixture
def labels(type_in: TypeIn) -> Path:
    """The answers of the run for one file."""
    assert type_in("headwater predict run tones/00.wav --out labels.csv")[0] == 0
    return Path("labels.csv")


@pytest.fixture(scope="session")
def two_seeds(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of two seeds, of four steps each."""
    folder = tmp_path_factory.mktemp("plans") / "plan"
    training = {"steps": 4, "eval_every": 2, "batch_size": 8, "patience": None}
    mapping = {"task": "emotion", "upstream": {"name": "fbank_no_cmvn"}, "corpus": {"data": str(tones)}, "training": training}
    run_plan(expand(resolve([task_default("emotion"), mapping]), [1], [1, 2], []), folder, Runtime("cpu", quiet=True))
    return folder


@pytest.fixture
def plan(desk: Path, two_seeds: Path) -> Path:
    """A plan at the desk."""
    shutil.copytree(two_seeds, desk / "plan")
    return desk / "plan"


@pytest.mark.usefixtures("labels")
def test_rows_of_another_run_are_not_mixed(error_of: Callable[..., str], two_seeds: Path) -> None:
    before = Path("labels.csv").read_bytes()
    message = error_of(f"headwater predict {two_seeds}/seed1 tones/00.wav --out labels.csv")
    assert "Expected 'labels.csv' of the same run with the same options, found another (there -> now): run: " in message
    assert "Choose another --out, or begin anew: rm 'labels.csv' '.labels.csv.rows'" in message
    assert Path("labels.csv").read_bytes() == before


def test_rows_of_other_options_are_not_mixed(
    type_in: TypeIn, error_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("headwater.inference.waveforms.WINDOW_SECONDS", 15.0)
        assert type_in("headwater predict run tones/00.wav --out labels.csv")[0] == 0
    assert "window: 15.0 -> 20.0" in error_of("headwater predict run tones/00.wav --out labels.csv")


def test_a_csv_that_is_somebody_elses_stays_as_it_is(error_of: Callable[..., str]) -> None:
    Path("mine.csv").write_text("name,age\nme,40\n")
    message = error_of("headwater predict run tones/00.wav --out mine.csv")
    assert "in 'mine.csv', found name, age. Choose another --out, or move that file away." in message
    assert Path("mine.csv").read_text() == "name,age\nme,40\n"


def test_a_csv_that_another_hand_changed_stays_as_it_is(labels: Path, error_of: Callable[..., str]) -> None:
    changed = labels.read_text() + "tones/01.wav,0,1,low,1,0,0,\n"
    labels.write_text(changed)
    message = error_of("headwater predict run tones/00.wav --out labels.csv")
    assert "Expected 'labels.csv' as `headwater predict` left it, found it changed. Move it away" in message
    assert labels.read_text() == changed


def test_two_commands_do_not_write_one_csv(labels: Path, error_of: Callable[..., str]) -> None:
    with closing(hold(labels)):
        message = error_of("headwater predict run tones/00.wav --out labels.csv")
    assert "Expected 'labels.csv' to be free, found that another `headwater predict` is writing to it. Wait for it" in message


def test_one_stretch_with_two_texts_has_no_row(tmp_path: Path) -> None:
    versions = iter([[1, "yes"], [1, "no"]])
    found = r"one text for each stretch of a file, found two for a\.wav \(from 0 s\)"
    with growing(tmp_path / "l.csv", {}, ["file"]) as table, pytest.raises(UserError, match=found):
        table.todo(["a.wav", "a.wav"], lambda _: next(versions))


# several runs


@pytest.mark.usefixtures("plan")
def test_an_unknown_fold_lists_the_folds_that_exist(error_of: Callable[..., str]) -> None:
    assert "Expected a fold of 'plan' after --fold, found 3. There are: 1." in error_of(
        "headwater predict plan tones/00.wav --fold 3"
    )


def test_a_single_run_has_no_folds_to_choose_from(error_of: Callable[..., str]) -> None:
    message = error_of("headwater predict run tones/00.wav --fold 3")
    assert "a plan of several folds for --fold 3, found the single run 'run' (fold 1). Leave --fold out" in message


def test_runs_with_other_classes_have_no_mean(plan: Path, error_of: Callable[..., str]) -> None:
    path = plan / "seed2" / "vocabulary.json"
    known = json.loads(path.read_text())
    known["emotion"]["classes"][0] = "other"
    path.write_text(json.dumps(known))
    message = error_of("headwater predict plan tones/00.wav")
    assert "Expected runs with the same classes in 'plan', found high, low, middle against low, middle, other" in message


# the final model


FINAL = {
    "no earlier run": (f"{TRAIN} split=all", "Expected 'steps_from' beside split=all, found none", "steps_from=RUN"),
    "steps for a run that chooses its own": (f"{TRAIN} steps_from=run", "Expected split=all beside 'steps_from'", "Leave it out"),
    "another split": (f"{TRAIN} split=train", "split", "all"),
    "an earlier run that is none": (f"{TRAIN} split=all steps_from=tones", "a run folder at", "no config.yaml"),
    "an earlier run of other options": (
        f"{TRAIN} split=all steps_from=run",
        "Expected steps_from a run with these options",
        "optimizer.lr: 0.01 -> 0.001; training.batch_size: 16 -> 8",
        "or name another run",
    ),
    "an earlier run on another upstream": (
        f"{TRAIN.replace('fbank_no_cmvn', 'mfcc')} split=all steps_from=plan",
        "upstream.name: fbank_no_cmvn -> mfcc",
    ),
    "steps that the earlier run decides": (
        f"{TRAIN} split=all steps_from=plan training.steps=30",
        "Expected training.steps of ",
        "/plan' (4) beside steps_from, found 30: that run decided for how long",
        "Leave training.steps out, or train a run with it",
    ),
    "patience where nothing is evaluated": (f"{TRAIN} split=all steps_from=plan training.patience=3", "(None) beside", "found 3"),
    "several final models": (f"{TRAIN} split=all steps_from=plan --seeds 1,2", "Expected one run with split=all", "found 2"),
    "scores of groups": (f"{TRAIN} split=all steps_from=plan --by speaker", "no --by beside split=all", "Leave it out"),
}


@pytest.mark.usefixtures("plan")
@pytest.mark.parametrize("mistake", FINAL)
def test_a_final_model_that_cannot_be_is_refused_in_one_line(mistake: str, error_of: Callable[..., str]) -> None:
    typed, *parts = FINAL[mistake]
    message = error_of(typed)
    assert all(part in message for part in parts), message


def test_a_final_model_is_not_tested_on_what_it_was_trained_on(plan: Path, type_in: TypeIn, error_of: Callable[..., str]) -> None:
    code, _, err = type_in(f"{TRAIN} split=all steps_from=plan -p final")
    assert code == 0, err
    message = error_of("python run_downstream.py -m evaluate -e final")
    assert "that 'final' was not trained on, found 12 of 12: it was trained on all of manifest (split=all)" in message
    assert "Test it on another corpus: --corpus NAME or --data TABLE." in message
    again = error_of(f"{TRAIN} split=all steps_from=final")
    assert f"found the final model '{plan.parent}/final'. Name the run that it took its own from: {plan}" in again


def test_two_files_of_one_name_are_refused_for_a_table_without_folders(error_of: Callable[..., str], desk: Path) -> None:
    (desk / "other").mkdir()
    shutil.copy(desk / "tones" / "00.wav", desk / "other" / "00.wav")
    message = error_of("headwater predict run tones/00.wav other/00.wav --format msp-challenge")
    assert "found two called '00.wav': tones/00.wav and other/00.wav. Rename one" in message
