"""One's own task, upstream and corpus, outside the clone: typed once, trained, predicted with, and known by its hash."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

import headwater as library
from headwater.commands.check import main as check
from headwater.commands.compare import main as compare
from headwater.commands.downstream import main as downstream
from headwater.commands.mtl import main as mtl
from headwater.commands.recipe import main as recipe
from headwater.commands.use.export import main as export
from headwater.commands.use.predict import main as predict
from headwater.core.errors import UserError
from headwater.downstream.load import load_task
from headwater.inference.load import load_run
from headwater.plugins import code as own_code
from headwater.runs.config.recipes import task_default
from headwater.runs.config.resolve import resolve
from headwater.upstream.base import UpstreamConfig
from headwater.upstream.load import load_upstream

pytestmark = pytest.mark.usefixtures("forget")
EXAMPLES = Path(library.__file__).parent / "examples"
QUICK = ["--quiet", "--device", "cpu", "-o", "training.steps=6", "training.eval_every=3", "training.batch_size=12"]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's, outside the clone, with a copy of the examples."""
    folder = tmp_path / "desk"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def trained(desk: Path, tones: Path, forget: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> Path:
    """A run of the example task on the example upstream, in `run`; nothing is typed any more."""
    assert downstream(["-d", "./my_task", "-u", "./my_upstream.py", "--data", str(tones), "-p", "run", *QUICK]) == 0
    forget()
    capsys.readouterr()
    return desk / "run"


def test_the_examples_are_trained_and_predicted_with(trained: Path, tones: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads((trained / "result.json").read_text())
    assert (result["task"], result["upstream"]) == ("my_task", "my_upstream")
    assert result["source"] == str(trained.parent / "my_upstream.py")
    wave = str(tones.with_name("70.wav"))
    assert predict([str(trained), wave, "-d", "./my_task", "-u", "./my_upstream.py"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "file,start,end,label,score_high,score_low,score_middle,error"


def test_a_run_records_name_and_hash_and_no_path(trained: Path) -> None:
    identity = json.loads((trained / "identity.json").read_text())
    assert identity["code"] == {
        "task": own_code.digest_of(trained.parent / "my_task"),
        "audio": own_code.digest_of(trained.parent / "my_upstream.py"),
    }
    assert identity["config"]["task"] == "my_task"
    assert str(trained.parent) not in (trained / "identity.json").read_text()


def test_nothing_is_written_beside_the_users_code(trained: Path) -> None:
    assert not list(trained.parent.rglob("__pycache__"))


def test_runs_of_ones_own_code_are_compared_with_their_task_typed_alone(
    trained: Path, forget: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(trained), str(shutil.copytree(trained, trained.with_name("other")))]
    with pytest.raises(UserError, match=r"Expected the code of the task 'my_task' .* Add --use PATH\."):
        compare(runs)
    forget()
    assert compare([*runs, "--use", "./my_task"]) == 0
    assert "run and other cannot be told apart" in capsys.readouterr().out


def test_the_library_takes_typed_paths_too(trained: Path, tones: Path) -> None:
    assert library.use("./my_task").name == "my_task"
    assert library.load_upstream("./my_upstream.py").spec.num_layers == 2
    assert set(load_run(trained).predict(tones.with_name("70.wav")).scores or {}) == {"high", "low", "middle"}


@pytest.mark.parametrize("word", ["./my_task", "my_task/", "my_task/expert.py", "{desk}/my_task", "../desk/my_task"])
def test_a_path_may_be_typed_in_many_ways(desk: Path, word: str) -> None:
    assert own_code.use(word.format(desk=desk), "task").name == "my_task"


def test_a_bare_word_is_a_name() -> None:
    assert not own_code.is_path("my_task", "task")
    assert not own_code.is_path("facebook/hubert-base-ls960", "upstream")


def test_files_beside_expert_are_part_of_the_code(desk: Path) -> None:
    before = own_code.digest_of(desk / "my_task")
    (desk / "my_task" / "question.py").write_text('"""Metrics."""\nNAME = "ua"\n')
    code = (desk / "my_task" / "expert.py").read_text()
    (desk / "my_task" / "expert.py").write_text(code.replace("@dataclass", "from .question import NAME\n\n\n@dataclass", 1))
    assert own_code.use("./my_task").digest != before
    middle = own_code.digest_of(desk / "my_task")
    (desk / "my_task" / "default.yaml").write_text("optimizer: {lr: 0.5}\n")
    assert own_code.digest_of(desk / "my_task") != middle


def test_its_defaults_and_options_count_as_those_of_a_built_in_task(desk: Path, tones: Path) -> None:
    (desk / "my_task" / "default.yaml").write_text("optimizer: {lr: 0.5}\nmy_task: {hidden_dim: 7}\n")
    name = own_code.use("./my_task", "task").name
    config = resolve([task_default(name), {"task": name, "upstream": {"name": "fbank"}, "corpus": {"data": str(tones)}}])
    assert (config.optimizer.lr, config.only.expert.hidden_dim, config.only.corpus.name) == (0.5, 7, "manifest")


def test_code_edited_in_a_notebook_is_read_again(desk: Path) -> None:
    first = own_code.use("./my_task")
    text = (desk / "my_task" / "expert.py").read_text()
    (desk / "my_task" / "expert.py").write_text(text.replace("hidden_dim: int = 64", "hidden_dim: int = 32"))
    assert own_code.use("./my_task").digest != first.digest
    assert load_task("my_task").options().hidden_dim == 32


def test_code_of_the_same_size_written_in_the_same_second_is_not_mistaken_for_the_former(desk: Path) -> None:
    path = desk / "my_upstream.py"
    own_code.use("my_upstream.py")
    path.write_text(path.read_text().replace("num_layers=2", "num_layers=3"))
    assert load_upstream("my_upstream.py").spec.num_layers == 3


def test_features_of_other_code_are_other_features(desk: Path) -> None:
    path, before = desk / "my_upstream.py", load_upstream("./my_upstream.py").weights_hash()
    path.write_text(path.read_text().replace("+ 1e-6", "+ 1e-3"))
    assert load_upstream("./my_upstream.py").weights_hash() != before


@pytest.mark.usefixtures("trained")
def test_a_run_of_own_code_is_an_upstream_without_its_task() -> None:
    own_code.use("./my_upstream.py")
    upstream = load_upstream(UpstreamConfig(name="run"))
    assert upstream.spec.dim == 20
    assert upstream.weights_hash() == load_upstream("./my_upstream.py").weights_hash()


def test_an_own_corpus_is_read_and_its_runs_predict_without_it(
    desk: Path, forget: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    for label in ("calm", "angry"):
        (desk / "data" / label).mkdir(parents=True)
        for speaker in ("anna", "bert", "carl", "dora", "emil", "fred"):
            for number in range(2):
                noise = generator.standard_normal(4000) * (0.3 if label == "angry" else 0.02)
                soundfile.write(desk / "data" / label / f"{speaker}_{number}.wav", noise, 16_000)
    corpus = ["--corpus", "./my_corpus.py", "--data", "data"]
    assert downstream(["-d", "emotion", "-u", "fbank_no_cmvn", *corpus, "-p", "own", *QUICK]) == 0
    forget()
    assert predict(["own", "data/calm/anna_0.wav"]) == 0
    capsys.readouterr()
    assert downstream(["-m", "evaluate", "-e", "own", "--corpus", "./my_corpus.py", "--data", "data", "--quiet"]) == 0
    assert "my_corpus" in capsys.readouterr().out
    forget()
    with pytest.raises(UserError, match="There is no corpus 'my_corpus'"):
        downstream(["-m", "evaluate", "-e", "own", "--quiet"])


@pytest.mark.usefixtures("desk")
def test_an_own_task_takes_the_labels_of_one_of_our_corpora() -> None:
    own_code.use("./my_task")
    config = resolve([{"task": "my_task", "upstream": {"name": "fbank"}, "corpus": {"name": "iemocap", "demo": True}}])
    assert (config.only.corpus.protocol, config.only.select_by) == ("session5", "ua")


def test_runs_in_other_processes_get_the_path(desk: Path, tones: Path) -> None:
    command = [
        "-d",
        "./my_task",
        "-u",
        "./my_upstream.py",
        "--data",
        str(tones),
        "-o",
        "corpus.protocol=speaker5",
        "--folds",
        "1,2",
    ]
    assert downstream([*command, "--jobs", "2", "-p", "plan", *QUICK]) == 0
    assert (desk / "plan" / "fold2" / "result.json").is_file()


def test_no_other_process_is_started_with_code_that_was_edited_since(desk: Path) -> None:
    own_code.use("./my_task")
    own_code.refuse_edited()
    with (desk / "my_task" / "expert.py").open("a", encoding="utf-8") as file:
        file.write("# edited while a plan ran\n")
    with pytest.raises(UserError, match=r"my_task' as this command began with it \(\w{8}\), found it edited \(\w{8}\)"):
        own_code.refuse_edited()


def test_an_own_task_is_one_of_several(desk: Path, tones: Path, forget: Callable[[], None]) -> None:
    data = ["--data", f"my_task={tones},emotion={tones}", "-o", "upstream.trainable=false", "training.save_every=6"]
    steps = ["training.steps=6", "training.eval_every=6", "training.batch_size=6"]
    command = ["-u", "fbank_no_cmvn", "--tasks", "emotion,./my_task", *data, *steps, "--device", "cpu", "--quiet", "-p", "joint"]
    assert mtl(command) == 0
    forget()
    run = next((desk / "joint").rglob("identity.json")).parent
    assert [*json.loads((run / "identity.json").read_text())["code"]] == ["task.my_task"]
    wave = str(tones.with_name("70.wav"))
    assert predict([str(run), wave, "--task", "my_task", "-d", "./my_task"]) == 0
    forget()
    with pytest.raises(UserError, match=r"only a path that you type is executed\. Add -d PATH"):
        predict([str(run), wave, "--task", "emotion"])


def test_a_regression_of_ones_own(desk: Path, tones: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header, *rows = tones.read_text().splitlines()
    table = tones.with_name("age.csv")
    ages = {"low": "60", "middle": "40", "high": "20"}
    cells = [row.split(",") for row in rows]
    table.write_text("\n".join([header.replace("label", "age"), *(",".join([a, ages[b], *c]) for a, b, *c in cells)]) + "\n")
    assert check(["./my_regression", "--data", str(table)]) == 0
    typed = ["-d", "./my_regression", "-u", "fbank_no_cmvn", "--data", str(table), *QUICK]
    assert downstream([*typed, "-p", "aged"]) == 0
    assert downstream([*typed, "-p", "plan", "-o", "corpus.protocol=speaker5", "--folds", "1,2"]) == 0
    for run in ("aged", "plan"):
        capsys.readouterr()
        assert predict([run, str(tones.with_name("70.wav")), "-d", "./my_regression"]) == 0
        head, row = capsys.readouterr().out.splitlines()
        assert head == "file,start,end,score_age,error"
        assert 0 < float(row.split(",")[3]) < 100
    assert export(["aged", "exported", "--use", "./my_regression"]) == 0
    assert "From the sound of a file, a number for each of: `age`." in (desk / "exported" / "README.md").read_text()
    assert downstream(["-m", "evaluate", "-e", "aged", "-d", "./my_regression", "--quiet"]) == 0


def test_the_parts_of_a_recipe_may_name_what_was_typed(desk: Path, tones: Path) -> None:
    base = {"task": "./my_task", "upstream": {"name": "fbank_no_cmvn"}, "corpus": {"name": "manifest", "data": str(tones)}}
    steps = {"training": {"steps": 4, "eval_every": 2, "batch_size": 8}}
    (desk / "paper.yaml").write_text(yaml.safe_dump({"paper": "mine", "base": {**base, **steps}, "parts": {"one": {}}}))
    with pytest.raises(UserError, match=r"Add -d ./my_task \(or --use ./my_task\)"):
        recipe(["paper.yaml", "-p", "parts", "--quiet"])
    assert recipe(["paper.yaml", "-p", "parts", "--quiet", "--device", "cpu", "--use", "./my_task"]) == 0
    assert [*(desk / "parts" / "one").rglob("predictions-test.csv")]
