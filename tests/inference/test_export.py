"""An exported run: a folder that answers as the run does, wherever it lies, and without anything else."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import headwater as library
from headwater.core.errors import UserError
from headwater.core.options import merge, read_yaml
from headwater.inference.export import code as export_code
from headwater.inference.export import export
from headwater.inference.export.export import export_run
from headwater.inference.export.readme import scores_of
from headwater.inference.load import load_run
from headwater.inference.trained_run import TrainedRun
from headwater.plans.grid import expand, run_plan
from headwater.plugins import code as own_code
from headwater.plugins.registry import Origin
from headwater.runs.config.resolve import resolve
from headwater.runs.run import run
from headwater.runs.runtime import Runtime
from headwater.upstream.hub.models import class_of, new_model
from headwater.upstream.hub.tiny import SMALL as TINY
from headwater.upstream.load import load_upstream

QUIET = Runtime("cpu", quiet=True)
EXAMPLE = Path(__file__).parents[2] / "examples" / "my_upstream.py"
SAID = "they say so"
AVD = {"task": "avd", "avd": {"scale": [1, 7]}}
TUNED = {"trainable": True}
HEARD = {"keep_layers": 2, "normalize_layers": True, "normalize_waveform": "yes"}
# what is exported: a recipe's differences
KINDS: dict[str, Mapping[str, Any]] = {
    "frozen": {"upstream": {"name": "test_hubert", "layer": 2}},
    "finetuned": {"upstream": {"name": "test_data2vec", "padding": "s3prl", **TUNED}},
    "pruned": {"upstream": {"name": "test_wavlm", **HEARD}},
    "whisper": {"upstream": {"name": "test_whisper", "attend": "valid"}},
    "built_in": {"upstream": {"name": "fbank"}},
    "two": {**AVD, "upstream": {"name": "mfcc"}, "text_upstream": {"name": "test_gpt2", **TUNED}},
    "reading": {"task": "dsd", "labels": {"column": "directed"}, "text_upstream": {"name": "hashed_words"}},
    "writing": {
        "task": "asr",
        "upstream": {"name": "fbank"},
        "asr": {"projector_dim": 8, "hidden_dim": 8, "zero_infinity": True},
    },
    "above_pruned": {"upstream": {"name": "pruned", **TUNED}},
    "above_built_in": {"upstream": {"name": "built_in"}},
}
FORBIDDEN = """
import json, socket, sys
def refuse(*_, **__): raise AssertionError("a socket was opened")
socket.socket.__init__ = socket.getaddrinfo = socket.create_connection = refuse
import torch
torch.set_num_threads(1)
from headwater.inference.load import load_run
names, sound, said = sys.argv[1:-2], *sys.argv[-2:]
answers = {}
for name in names:
    run = load_run(name)
    answer = run.predict(sound, said if run.uses_text else None)
    answers[name] = [answer.label, answer.scores, list(run.marks)]
print(json.dumps(answers))
"""


def trained(rated: Path, folder: Path, difference: Mapping[str, Any]) -> Path:
    """A run of one step."""
    training = {"steps": 1, "batch_size": 8, "eval_every": 1}
    usual = {"task": "emotion", "corpus": {"data": str(rated)}, "training": training, "store": {"mode": "off"}}
    run(resolve([merge(usual, difference)]), folder, QUIET)
    return folder


def sound_of(rated: Path) -> Path:
    """A file of the test split."""
    return rated.parent / "70.wav"


@pytest.fixture(scope="module")
def runs(rated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each kind."""
    folder, found = tmp_path_factory.mktemp("runs"), dict[str, Path]()
    for kind, difference in KINDS.items():
        below = difference.get("upstream", {}).get("name")
        named = {"upstream": {"name": str(found[below])}} if below in found else {}
        found[kind] = trained(rated, folder / kind, merge(difference, named))
    return found


@pytest.fixture(scope="module")
def exported_runs(runs: Mapping[str, Path], rated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each exported run answers in a process without network and caches, where nothing else is left of the run."""
    here, away = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("away")
    for kind, folder in runs.items():
        export_run(folder, here / kind)
        (here / kind).rename(away / kind)
    empty = {}
    for name in ("HF_HOME", "HEADWATER_CACHE"):
        empty[name] = str(tmp_path_factory.mktemp("empty"))
        os.chmod(empty[name], 0o555)
    hidden = next(iter(runs.values())).parent
    hidden.rename(hidden.with_name("hidden"))
    try:
        command = [sys.executable, "-c", FORBIDDEN, *KINDS, str(sound_of(rated)), SAID]
        done = subprocess.run(command, cwd=away, env={**os.environ, **empty}, capture_output=True, text=True, check=False)
    finally:
        hidden.with_name("hidden").rename(hidden)
    assert done.returncode == 0, done.stderr
    assert not [path for place in empty.values() for path in Path(place).iterdir()]
    return {"folder": away, **json.loads(done.stdout)}


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_run_predicts_to_the_digit_without_network_or_caches(
    kind: str, runs: Mapping[str, Path], exported_runs: Mapping[str, Any], rated: Path
) -> None:
    there = load_run(runs[kind])
    prediction = there.predict(sound_of(rated), SAID if there.uses_text else None)
    assert exported_runs[kind] == [prediction.label, prediction.scores, list(there.marks)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_folder_names_no_path_of_the_machine(
    kind: str, runs: Mapping[str, Path], exported_runs: Mapping[str, Any]
) -> None:
    folder, places = exported_runs["folder"] / kind, (str(runs[kind].parent), str(Path.home()))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= 7
    for path in files:
        assert not [place for place in places if place.encode() in path.read_bytes()], path.name
    assert "data: null" in (folder / "config.yaml").read_text()


def test_no_name_of_a_model_is_a_place_of_the_machine(rated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = class_of("hubert").config_class(**TINY)
    new_model(settings).save_pretrained("models/mine")
    training = {"trainable": True}
    trained(rated, Path("below"), {"upstream": {"name": "./models/mine", **training}})
    trained(rated, Path("runs/above"), {"upstream": {"name": "./below"}})
    for name in ("below", "runs/above"):
        export_run(name, tmp_path / "out" / name)
        folder = tmp_path / "out" / name
        assert all(b"models/" not in path.read_bytes() for path in folder.rglob("*.*") if path.is_file())
        assert "_name_or_path" not in (folder / "upstream.json").read_text()
    report = json.loads((tmp_path / "out" / "runs" / "above" / "result.json").read_text())
    assert report["source"] == "below (from mine)"


def test_weights_of_a_file_lie_in_memory_as_exported_ones_do(tmp_path: Path) -> None:
    new_model(class_of("hubert").config_class(**TINY)).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt", "note": "8 bytes" * 5})
    upstream = load_upstream(str(tmp_path))  # where they do not, sums of a file shorter than a frame differ in the last digit
    assert not [name for name, weight in upstream.named_parameters() if weight.data_ptr() % 64]


@pytest.mark.parametrize("kind", ["frozen", "pruned", "whisper", "built_in"])
def test_an_exported_run_is_an_upstream_as_the_run_is(
    kind: str, runs: Mapping[str, Path], exported_runs: Mapping[str, Any]
) -> None:
    sound = np.random.default_rng(0).standard_normal(7000).astype(np.float32)
    ours, theirs = (load_upstream(str(place))([sound]).values for place in (runs[kind], exported_runs["folder"] / kind))
    assert all(bool((one == other).all()) for one, other in zip(ours, theirs, strict=True))


def test_an_exported_run_is_exported_again(exported_runs: Mapping[str, Any], rated: Path, tmp_path: Path) -> None:
    export_run(exported_runs["folder"] / "two", tmp_path / "again")
    prediction = library.load_run(tmp_path / "again").predict(sound_of(rated), SAID)
    assert prediction.scores == exported_runs["two"][1]


def test_a_finetuned_run_above_another_gets_the_input_of_its_training(runs: Mapping[str, Path], rated: Path) -> None:
    above = load_run(runs["above_pruned"])  # the run below was told to normalise
    for row in list(csv.DictReader((runs["above_pruned"] / "predictions-test.csv").open()))[:4]:
        scores = above.predict(rated.parent / row["id"]).scores
        assert scores == pytest.approx({name: float(row[f"score_{name}"]) for name in scores or {}}, abs=1e-5)


def test_the_readme_says_what_it_is_and_how_to_use_it(exported_runs: Mapping[str, Any]) -> None:
    message = (exported_runs["folder"] / "frozen" / "README.md").read_text()
    for part in (
        "UNTRAINED",
        "test_hubert, frozen, layer 2",
        "`high`, `low`, `middle`",
        "headwater predict . my.wav",
        "licence of",
        "| split | metric | score | 95 % interval |",
        "| test | ua | ",
    ):
        assert part in message
    assert "ratings from 1 to 7 of: `arousal`" in (exported_runs["folder"] / "two" / "README.md").read_text()


def test_the_readme_says_which_scores_flatter_and_has_none_of_dev() -> None:
    scores = {"dev": {"ua": 0.9}, "test": {"ua": 0.5}}
    notes = ["a table has other columns", "3 of the 9 test utterances are by speakers of train or dev (ann): scores flatter"]
    [found] = scores_of({"scores": scores, "metrics": {"ua": "higher"}, "intervals": {"test": {"ua": None}}, "notes": notes})
    assert found.splitlines()[4:] == ["| test | ua | 0.500 | none |", "", f"{notes[1]}."]
    assert scores_of({"trained_on_all": 9}) == []


def test_weights_for_an_exported_run_are_refused(exported_runs: Mapping[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Expected no -k for '.*frozen', which holds its upstream's weights\. Leave it out"):
        load_run(exported_runs["folder"] / "frozen", str(tmp_path))


def test_a_damaged_weight_is_found(runs: Mapping[str, Path], tmp_path: Path) -> None:
    export_run(runs["built_in"], tmp_path / "out")
    path = tmp_path / "out" / "checkpoints" / "best.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"the weights that were exported in .*, found others: it is damaged\. Export it again"):
        load_run(tmp_path / "out")


def interrupt(*_: object) -> None:
    """Stand where the last file would be written."""
    raise KeyboardInterrupt


def test_an_interrupted_export_leaves_nothing(runs: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "readme", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_run(runs["built_in"], tmp_path / "new" / "out")
    assert not [*tmp_path.iterdir()]


def test_an_empty_folder_is_filled(runs: Mapping[str, Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export_run(runs["built_in"], tmp_path / "out")
    assert load_run(tmp_path / "out")


def test_one_task_of_several_is_exported_alone(rated: Path, tmp_path: Path) -> None:
    corpus = {"data": str(rated)}
    recipe = {
        "upstream": {"name": "test_hubert", "trainable": True},
        "tasks": {
            "emotion": {"corpus": corpus, "batch_size": 4},
            "dsd": {"corpus": corpus, "batch_size": 4, "labels": {"column": "directed"}},
        },
        "shared_weights": True,  # one weighted sum, which becomes the task's own
        "training": {"steps": 2, "eval_every": 1},
    }
    run(resolve([recipe]), tmp_path / "run", QUIET)
    export_run(tmp_path / "run", tmp_path / "out", task="dsd")
    alone, joint = load_run(tmp_path / "out"), load_run(tmp_path / "run", task="dsd")
    assert alone.predict(sound_of(rated)) == joint.predict(sound_of(rated))
    assert json.loads((tmp_path / "out" / "result.json").read_text())["scores"]["test"]


def test_one_fold_of_a_plan_is_exported(rated: Path, tmp_path: Path) -> None:
    mapping = {"task": "emotion", "upstream": {"name": "fbank"}, "corpus": {"data": str(rated), "protocol": "speaker5"}}
    training = {"steps": 1, "batch_size": 4, "eval_every": 1}
    run_plan(expand(resolve([mapping, {"training": training}]), [1, 2], [1], []), tmp_path / "plan", QUIET)
    export_run(tmp_path / "plan", tmp_path / "out", fold=2)
    one, other = load_run(tmp_path / "out"), load_run(tmp_path / "plan" / "fold2")
    assert isinstance(one, TrainedRun)
    assert one.predict(sound_of(rated)) == other.predict(sound_of(rated))
    assert read_yaml(tmp_path / "out" / "config.yaml")["corpus"]["fold"] == 2


def written(folder: Path, *changes: tuple[str, str]) -> Path:
    """The example's code in a folder, with changes."""
    folder.mkdir(exist_ok=True)
    code = EXAMPLE.read_text()
    for old, new in changes:
        assert old in code, old
        code = code.replace(old, new)
    (folder / "up.py").write_text(code)
    return folder / "up.py"


WEIGHTS = ("        super().__init__()\n", "        super().__init__()\n        self.register_buffer('w', torch.load(HERE))\n")


def test_a_users_own_code_goes_along_and_is_executed_where_it_is_typed(
    rated: Path, tmp_path: Path, forget: Callable[[], None]
) -> None:
    name = own_code.use(str(written(tmp_path / "mine")), "upstream").name
    folder = trained(rated, tmp_path / "run", {"upstream": {"name": name}})
    assert export_run(folder, tmp_path / "out").code == ["code/audio/up.py"]
    prediction = load_run(folder).predict(sound_of(rated))
    shutil.rmtree(tmp_path / "mine")
    forget()
    with pytest.raises(UserError, match="only a path that you type is executed"):
        load_run(tmp_path / "out")
    assert "--use code/audio/up.py my.wav" in (tmp_path / "out" / "README.md").read_text()
    own_code.use(str(tmp_path / "out" / "code" / "audio" / "up.py"))
    assert load_run(tmp_path / "out").predict(sound_of(rated)) == prediction


def test_two_files_of_one_name_both_go_along(rated: Path, tmp_path: Path, forget: Callable[[], None]) -> None:
    reads = (
        ("@register_upstream\n", '@register_upstream(modality="text")\n'),
        ('modality="audio"', 'modality="text"'),
        ("def my_upstream", "def reads"),
        (
            "assert batch.waveforms is not None",
            "batch = as_batch([np.ones(640)] * len(batch))\n        assert batch.waveforms is not None",
        ),
    )
    first, second = written(tmp_path / "a"), written(tmp_path / "b", *reads)
    names = [own_code.use(str(path), "upstream").name for path in (first, second)]
    sections = {"upstream": {"name": names[0]}, "text_upstream": {"name": names[1]}}
    folder = trained(rated, tmp_path / "run", {**AVD, **sections})
    assert export_run(folder, tmp_path / "out").code == ["code/audio/up.py", "code/text/up.py"]
    forget()
    for role, original in (("audio", first), ("text", second)):
        assert (tmp_path / "out" / "code" / role / "up.py").read_bytes() == original.read_bytes()


READ = {  # what the code reads -> what is typed for it
    "Path(__file__).parent / 'w.pt'": "mine/w.pt",
    "Path(__file__).parent / 'w' / 'w.pt'": "mine/w",
    "Path(__file__).with_name('v.pt')": "v.pt",
}


@pytest.mark.parametrize(("place", "extra"), READ.items())
def test_files_that_a_users_own_code_reads_go_along(
    place: str, extra: str, rated: Path, tmp_path: Path, forget: Callable[[], None]
) -> None:
    code = written(tmp_path / "mine", ("WINDOW, BANDS", f"from pathlib import Path\nHERE = {place}\nWINDOW, BANDS"), WEIGHTS)
    (tmp_path / "mine" / "w").mkdir()
    for name in ("mine/w.pt", "mine/w/w.pt", "mine/v.pt", "v.pt"):
        torch.save(torch.ones(2), tmp_path / name)
    (tmp_path / "mine" / "diary.txt").write_text("mine")
    folder = trained(rated, tmp_path / "run", {"upstream": {"name": own_code.use(str(code), "upstream").name}})
    exported = export_run(folder, tmp_path / "out", extra=[tmp_path / extra])
    assert exported.needed == []
    prediction = load_run(folder).predict(sound_of(rated))
    assert not [*(tmp_path / "out").rglob("diary.txt")]
    shutil.rmtree(tmp_path / "mine")
    forget()
    own_code.use(str(tmp_path / "out" / exported.code[0]))
    assert load_run(tmp_path / "out").predict(sound_of(rated)) == prediction


def test_user_code_that_fails_from_the_folder_is_refused(
    rated: Path, tmp_path: Path, forget: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = written(tmp_path / "mine", ("WINDOW, BANDS", "HERE = 'w.pt'\nWINDOW, BANDS"), WEIGHTS)
    torch.save(torch.ones(2), "w.pt")  # where the command is typed
    folder = trained(rated, tmp_path / "run", {"upstream": {"name": own_code.use(str(code), "upstream").name}})
    with pytest.raises(UserError) as raised:
        export_run(folder, tmp_path / "out")
    assert "own code that runs from a folder of its own, found that it does not (FileNotFoundError:" in str(raised.value)
    assert "w.pt" in str(raised.value)
    assert "add --with FILE for each file that it reads" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()
    forget()


def test_what_a_folder_does_not_hold_is_reported(
    runs: Mapping[str, Path], rated: Path, tmp_path: Path, forget: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = SimpleNamespace(origin=lambda name: Origin("installed", f"{name}_task_package 1.0"))
    monkeypatch.setattr(export_code, "TASKS", installed)
    exported = export_run(runs["built_in"], tmp_path / "out")
    assert exported.needed == ["the package emotion_task_package 1.0"]
    message = (tmp_path / "out" / "README.md").read_text()
    assert "the folder needs the package emotion_task_package 1.0;" in message
    assert "holds all" not in message
    monkeypatch.undo()
    torch.save(torch.ones(2), tmp_path / "w.pt")
    code = written(tmp_path / "mine", ("WINDOW, BANDS", f"HERE = '{tmp_path / 'w.pt'}'\nWINDOW, BANDS"), WEIGHTS)
    folder = trained(rated, tmp_path / "run", {"upstream": {"name": own_code.use(str(code), "upstream").name}})
    assert export_run(folder, tmp_path / "own").needed == ["w.pt, which up.py reads elsewhere"]
    forget()


def test_a_failed_export_leaves_an_empty_folder_as_it_was(
    runs: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(export, "readme", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_run(runs["built_in"], tmp_path / "out")
    assert [*tmp_path.rglob("*")] == [tmp_path / "out"]
