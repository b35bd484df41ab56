"""Mistakes with runs: their folders, what is asked of them, and what time did to them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from headwater.core.run_folder import RunFolder

TypeIn = Callable[[str], tuple[int, str, str]]
TRAIN = "python run_downstream.py -u fbank_no_cmvn -d emotion --data tones/tones.csv"

# the mistake in words: what is typed, what the answer must say
MISTAKES_OF_FLAGS = {
    "nothing to evaluate": ("python run_downstream.py -m evaluate", "the run to evaluate, found none", "Add `-e RUN`"),
    "evaluating what is no run": ("python run_downstream.py -m evaluate -e tones", "a run folder at 'tones'", "check the path"),
    "the plan of an evaluation": (
        "python run_downstream.py -m evaluate -e run --plan",
        "Expected --plan beside -m train, found -m evaluate",
        "Leave one out",
    ),
    "going on with what is no run": ("python run_downstream.py -e gone", "a run folder at 'gone'", "check the path"),
    "a split that is not there": (
        "python run_downstream.py -m evaluate -e run -t eval",
        "split 'eval'",
        "train, dev, test",
        "-t",
    ),
    "another upstream than the run's": ("python run_downstream.py -m evaluate -e run -u fbank", "fbank_no_cmvn -> fbank"),
    "more steps for a run that stands": ("python run_downstream.py -e run -o training.steps=99", "training.steps: 60 -> 99"),
    "a folder beside the run's": ("python run_downstream.py -e run -n mine", "found -n beside it", "Leave -n out"),
    "other classes for a run that stands": (
        "python run_downstream.py -m evaluate -e run -o labels.keep='[low, high]'",
        "a run predicts its own classes",
        "Leave it out",
    ),
    "asking what is no run": ("headwater predict tones tones/00.wav", "a run folder at 'tones'", "no config.yaml"),
    "asking without a file": (
        "headwater predict run",
        "audio files, or --corpus with --split, found neither",
        "headwater predict RUN my.wav",
    ),
    "asking on another device": (
        "headwater predict run tones/00.wav --device gpu",
        "--device cpu, cuda, cuda:N or mps, found 'gpu'",
    ),
    "asking on a missing device": ("headwater predict run tones/00.wav --device cuda", "a CUDA device", "--device cpu"),
    "a folder without sound": ("headwater predict run empty", "audio files below 'empty', found none", "Check the path"),
    "a list without a column of files": ("headwater predict run list.csv", "a column of audio files", "Call it 'audio'"),
    "a list with a hole": ("headwater predict run holes.csv", "a file in column 'audio'", "row 3", "Fill it in"),
    "a list that is no text": ("headwater predict run list.txt", "a list of files", "list.txt", "UTF-8"),
    "an answer where a folder is": ("headwater predict run tones/00.wav --out empty", "a folder stands in the way"),
    "an answer below a file": ("headwater predict run tones/00.wav --out list.csv/a.csv", "a file stands in the way"),
    "layers of what is no run": ("headwater plot layers tones", "layer_weights.json", "found none", "a finished run"),
    "layers of a single one": (
        "headwater plot layers run",
        "an upstream of several layers",
        "found that fbank_no_cmvn has one layer: there are no weights to show",
    ),
    "a start with other classes": (
        f"{TRAIN} -o labels.keep='[low, high]' -i run",
        "mismatch at 'experts.emotion",
        "number of cl",
    ),
}


@pytest.fixture
def lists(desk: Path) -> None:
    """What a user may name to predict on, wrongly."""
    (desk / "empty").mkdir()
    (desk / "list.csv").write_text("speaker,age\nme,40\n")
    (desk / "holes.csv").write_text("audio,speaker\ntones/00.wav,me\n,me\n")
    (desk / "list.txt").write_bytes(b"caf\xe9.wav\n")


@pytest.mark.usefixtures("lists")
@pytest.mark.parametrize("mistake", MISTAKES_OF_FLAGS)
def test_a_wrong_question_is_reported_in_one_line(mistake: str, error_of: Callable[..., str]) -> None:
    typed, *parts = MISTAKES_OF_FLAGS[mistake]
    message = error_of(typed)
    assert all(part in message for part in parts), message


def test_another_configuration_in_the_same_folder_is_refused_with_each_difference(
    error_of: Callable[..., str], desk: Path
) -> None:
    own = "training.steps=60 training.batch_size=16 training.eval_every=20 training.patience=null"
    before = (desk / "run" / "config.yaml").read_bytes()
    message = error_of(f"{TRAIN} -p run -o {own} optimizer.lr=1e-3 -l 0", lines=4)
    assert "another one there (there -> now):\n  optimizer.lr: 0.01 -> 0.001\n  upstream.layer: None -> 0\n" in message
    assert "Choose another folder with -n or -p" in message
    assert (desk / "run" / "config.yaml").read_bytes() == before


def test_a_folder_in_use_names_its_holder(error_of: Callable[..., str], desk: Path) -> None:
    with RunFolder(desk / "mine").locked():
        message = error_of(f"{TRAIN} -p mine")
    assert "the run folder 'mine' to be free, found that process " in message
    assert "holds it. Wait for it to end, or choose another folder" in message
    assert not (desk / "mine").exists()


def test_another_corpus_without_a_common_label_is_refused(error_of: Callable[..., str], desk: Path) -> None:
    (desk / "theirs.csv").write_text("audio,label\ntones/00.wav,squeak\ntones/01.wav,roar\n")
    message = error_of("python run_downstream.py -m evaluate -e run --data theirs.csv -o corpus.protocol=all_test")
    assert "among high, low, middle, found roar, squeak" in message
    assert "-o labels.merge='{THEIRS: ours}'" in message


def test_a_plans_folder_is_refused_with_its_runs(error_of: Callable[..., str], desk: Path) -> None:
    for seed in (1, 2):
        (desk / "plan" / f"seed{seed}").mkdir(parents=True)
        shutil.copy(desk / "run" / "config.yaml", desk / "plan" / f"seed{seed}")
    message = error_of("headwater predict plan tones/00.wav")
    assert "found a plan with the runs plan/seed1, plan/seed2: name one of them" in message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.wav", None, "no such file"),
        ("text.wav", b"not a sound\n" * 9, "cannot be decoded"),
        ("bytes.wav", b"", "an empty file (0 bytes)"),
        ("empty.wav", "samples", "found none"),
    ],
    ids=["a missing file", "text in place of sound", "an empty file", "a WAV without samples"],
)
def test_an_unreadable_file_is_skipped_and_the_others_are_predicted(
    name: str, content: bytes | str | None, words: str, type_in: TypeIn, desk: Path
) -> None:
    if content == "samples":
        soundfile.write(desk / name, [], 16_000)
    elif isinstance(content, bytes):
        (desk / name).write_bytes(content)
    code, out, err = type_in(f"headwater predict run tones/00.wav {name} tones/01.wav")
    assert code == 3
    assert [line.split(",")[0] for line in out.splitlines()] == ["file", "tones/00.wav", name, "tones/01.wav"]
    assert len(err.splitlines()) == 1
    assert err.startswith("passed over: ")
    assert words in err
    assert "skip_broken" not in err


def damaged(run: Path, name: str, content: bytes) -> Path:
    """Return a copy of a run in which a file holds something else."""
    copy = run.parent / "mine"
    shutil.copytree(run.resolve(), copy)
    (copy / name).write_bytes(content)
    return copy


def own_command(run: Path) -> str:
    """The command that trained a run."""
    return f"python run_downstream.py -c {run}/config.yaml -p {run}"


DAMAGE = {
    "config.yaml": (b"task: [", "Expected yaml in 'mine/config.yaml', found in line 1"),
    "identity.json": (b'{"config": ', "Expected a run's json in 'mine/identity.json'"),
    "vocabulary.json": (b"{}", "'mine/vocabulary.json', found: not all of emotion"),
    "checkpoints/best.safetensors": (
        b"\x08\x00\x00",
        "a checkpoint in 'mine/checkpoints/best.safetensors', found a damaged file",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_of_a_run_is_named(name: str, error_of: Callable[..., str], desk: Path) -> None:
    content, words = DAMAGE[name]
    damaged(desk / "run", name, content)
    message = error_of("headwater predict mine tones/00.wav")
    assert words in message
    assert "Mend the file" in message or "Remove" in message


@pytest.mark.parametrize(
    "typed", ["headwater predict mine tones/00.wav", "headwater compare run mine", "headwater export mine out"]
)
@pytest.mark.parametrize("emptied", [b'{"emotion": {}}', b'{"emotion": {"classes": 5}}'])
def test_a_vocabulary_changed_by_hand_is_one_line(typed: str, emptied: bytes, error_of: Callable[..., str], desk: Path) -> None:
    damaged(desk / "run", "vocabulary.json", emptied)
    message = error_of(typed)
    assert "mine/vocabulary.json', found a file that its task cannot use" in message
    assert "Put the file back, or train again." in message


@pytest.mark.parametrize("verb", ["audit mine", "compare run mine"])
@pytest.mark.parametrize("kept", [0, 1], ids=["emptied", "its head alone"])
def test_predictions_without_a_row_are_never_scored(verb: str, kept: int, error_of: Callable[..., str], desk: Path) -> None:
    lines = (desk / "run" / "predictions-test.csv").read_bytes().splitlines(keepends=True)
    damaged(desk / "run", "predictions-test.csv", b"".join(lines[:kept]))
    assert "'mine/predictions-test.csv', found a damaged file (not one row). Remove" in error_of(f"headwater {verb}")


def test_predictions_that_lost_rows_are_not_audited(error_of: Callable[..., str], desk: Path) -> None:
    lines = (desk / "run" / "predictions-test.csv").read_bytes().splitlines(keepends=True)
    damaged(desk / "run", "predictions-test.csv", b"".join(lines[:4]))
    assert "'mine/predictions-test.csv', found a damaged file (3 rows, 12 were written). Remove" in error_of(
        "headwater audit mine"
    )


def test_a_result_that_names_no_corpus_is_not_compared(error_of: Callable[..., str], desk: Path) -> None:
    result = json.loads((desk / "run" / "result.json").read_text())
    del result["corpus"]
    damaged(desk / "run", "result.json", json.dumps(result).encode())
    assert "a run's json in 'mine/result.json', found: not all of corpus, protocol" in error_of("headwater compare run mine")


def test_the_geometry_of_an_emptied_vocabulary_is_one_line(error_of: Callable[..., str], desk: Path) -> None:
    damaged(desk / "run", "vocabulary.json", b"{}")
    assert "with a joint space (-d turbo) in 'mine', found one without" in error_of("headwater plot geometry mine --out new")


@pytest.mark.parametrize(
    "changed",
    [
        {"roles": None},
        {"roles": 5},
        {"roles": {"audio": 5}},
        {"roles": {"audio": {"mixture": [1.0], "layers": [7]}}},
        {"select_by": 5},
    ],
)
def test_layers_changed_by_hand_are_one_line(changed: dict[str, object], error_of: Callable[..., str], desk: Path) -> None:
    damaged(desk / "run", "layers.json", json.dumps({"roles": {}, "select_by": "ua", **changed}).encode())
    assert "Expected a run's json in 'mine/layers.json', found:" in error_of("headwater plot layers mine")


def test_a_final_model_takes_no_threshold_of_an_emptied_vocabulary(error_of: Callable[..., str], desk: Path) -> None:
    damaged(desk / "run", "vocabulary.json", b"{}")
    message = error_of("python run_downstream.py -c run/config.yaml -p new -o split=all steps_from=mine")
    assert "mine/vocabulary.json', found: not all of emotion" in message


@pytest.mark.parametrize("name", ["identity.json", "vocabulary.json", "result.json", "checkpoints/best.safetensors"])
def test_the_advice_on_damage_mends_the_run(name: str, type_in: TypeIn, desk: Path) -> None:
    copy = damaged(desk / "run", name, b"")
    (copy / name).unlink()
    code, out, err = type_in(f"python run_downstream.py -c run/config.yaml -p {copy.name}")
    assert code == 0, err
    assert "ua" in out
    assert type_in("headwater predict mine tones/00.wav")[:2] == type_in("headwater predict run tones/00.wav")[:2]


def test_a_damaged_result_is_named(error_of: Callable[..., str], desk: Path) -> None:
    damaged(desk / "run", "result.json", b'{"scores": {"te')
    message = error_of("python run_downstream.py -c run/config.yaml -p mine")
    assert "Expected a run's json in 'mine/result.json'" in message
    assert "Remove the file: the command that trained the run writes it again." in message


def test_without_its_identity_a_run_is_still_not_taken_for_another(error_of: Callable[..., str], desk: Path) -> None:
    (damaged(desk / "run", "identity.json", b"") / "identity.json").unlink()
    message = error_of("python run_downstream.py -c run/config.yaml -p mine -o optimizer.lr=1e-3", lines=3)
    assert "optimizer.lr: 0.01 -> 0.001" in message


def test_a_run_that_was_never_trained_says_so(error_of: Callable[..., str], desk: Path) -> None:
    shutil.rmtree(damaged(desk / "run", "result.json", b"") / "checkpoints")
    message = error_of("python run_downstream.py -m evaluate -e mine")
    assert "a checkpoint at 'mine/checkpoints/best.safetensors', found none. Train the run first" in message


@pytest.mark.parametrize("flags", ["--jobs 2", ""], ids=["a plan in two processes", "a plan in one process"])
def test_a_plan_names_the_part_that_fails(flags: str, error_of: Callable[..., str], desk: Path) -> None:
    (desk / "gone.csv").write_text(
        "audio,label,split\n"
        + "".join(f"{n}.wav,{'ab'[n % 2]},{s}\n" for n, s in enumerate(["train", "train", "dev", "dev", "test", "test"]))
    )
    message = error_of(f"{TRAIN.replace('tones/tones.csv', 'gone.csv')} -o solver=adam --seeds 1,2 {flags}", lines=10)
    assert "6 broken" in message
    assert "Run 'seed" in message or not flags
