"""A run from the store is the run without it, and never hears anything stale."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from processes import start

from headwater.core.errors import UserError
from headwater.core.options import merge
from headwater.downstream.answer import OneClass
from headwater.runs import store_choice
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import RunConfig, to_mapping
from headwater.runs.features import with_store
from headwater.runs.log import lines as log
from headwater.runs.prepare import describe_upstream, prepare
from headwater.runs.results import read_predictions
from headwater.runs.run import run
from headwater.runs.runtime import Runtime, make_accelerator, print_progress
from headwater.runs.store_choice import Reuse
from headwater.training.source import Source
from headwater.training.step import training_example as drawn_of
from headwater.upstream.hub.tiny import tiny_model
from headwater.upstream.store import store as store_module
from headwater.upstream.store.maintenance import StoredSpace, list_spaces
from headwater.upstream.store.shards import ShardWriter
from headwater.upstream.store.space import Space
from headwater.upstream.store.store import Store

CPU = Runtime("cpu")
MODEL = {False: "test_hubert", True: "test_hubert_large"}  # a base model's layers are normed already: nothing would be shown


@pytest.fixture(scope="session")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 utterances of 0.1 to 1.5 s in three classes: tones in noise, with silence between."""
    folder = tmp_path_factory.mktemp("voices")
    generator = np.random.default_rng(7)
    rows = ["audio,label,speaker,split"]
    for number in range(64):
        label = number % 3
        time_axis = np.arange(int(16_000 * np.clip(generator.lognormal(-0.9, 0.7), 0.1, 1.5))) / 16_000
        tone = np.sin(2 * np.pi * (150 + 250 * label) * time_axis) * (np.sin(9 * time_axis) > -0.3)
        wave = 0.2 * tone + 0.05 * generator.standard_normal(len(time_axis))
        soundfile.write(folder / f"{number:02d}.wav", wave, 16_000)
        rows.append(
            f"{number:02d}.wav,{'abc'[label]},spk{number % 8},{'train' if number < 40 else 'dev' if number < 52 else 'test'}"
        )
    (folder / "voices.csv").write_text("\n".join(rows) + "\n")
    return folder / "voices.csv"


def configured(data: Path, *changes: dict[str, Any], upstream: str = "fbank_no_cmvn", steps: int = 4) -> RunConfig:
    """A run over a manifest."""
    training = {"steps": steps, "batch_size": 8, "eval_every": max(steps // 2, 1), "log_every": 1, "patience": None}
    mapping: dict[str, Any] = {
        "task": "emotion",
        "upstream": {"name": upstream},
        "corpus": {"data": str(data)},
        "training": training,
        "optimizer": {"lr": 1e-3},
    }
    for change in changes:
        mapping = merge(mapping, change)
    return resolve([mapping])


def run_with_store(config: RunConfig, folder: Path, mode: str = "on", runtime: Runtime = CPU, **store: str) -> dict[str, Any]:
    """Run with a way to use the store."""
    return run(replace(config, store=replace(config.store, mode=mode, **store)), folder, runtime)


def fill_store(config: RunConfig, mode: Path | str = "on", *, share_layers: bool = False, **store: str) -> Source:
    """Prepare a run and fill its store; nothing is trained."""
    config = replace(config, store=replace(config.store, mode=str(mode), **store))
    accelerator = make_accelerator(config, CPU)
    return with_store(prepare(config), accelerator, partial(print_progress, CPU), Reuse(share_layers)).tasks["emotion"].source


def head_inputs(config: RunConfig, mode: Path | str) -> np.ndarray:
    """What a run's head hears of its train utterances: (layer, batch, frame, dim)."""
    config = replace(config, store=replace(config.store, mode=str(mode)))
    setup = with_store(prepare(config), make_accelerator(config, CPU), partial(print_progress, CPU))
    task = setup.tasks["emotion"]
    batch = task.source.batch(task.splits["train"])
    return np.stack([value.numpy() for value in batch.stored["audio"].values])


def losses(folder: Path) -> np.ndarray:
    """Every loss of a run, of training and of dev."""
    return np.array([json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()])


def layer_weights(folder: Path) -> dict[str, np.ndarray]:
    """The weights and norms of a run's layers."""
    found = json.loads((folder / "layer_weights.json").read_text())["layers"]["emotion/audio"]
    return {name: np.array(values) for name, values in found.items()}


def features_of(folder: Path) -> str | None:
    """What a run's features were."""
    return json.loads((folder / "identity.json").read_text())["features"]


def predictions(folder: Path) -> tuple[tuple, np.ndarray]:
    """Predictions and scores on the test split."""
    outcome, _ = read_predictions(folder / "predictions-test.csv", OneClass(()))
    assert outcome.scores is not None
    return outcome.predictions, outcome.scores.numpy()


def only_space(root: Path) -> StoredSpace:
    """The one space there is."""
    (space,) = list_spaces(root)
    return space


def all_values(root: Path) -> dict[str, bytes]:
    """Every row below a root."""
    rows = {}
    for space in list_spaces(root):
        for path in space.folder.glob("*.safetensors"):
            shard = store_module.open_shard(path)
            assert shard is not None
            rows |= {row.key: shard.values[row.start : row.start + row.frames].tobytes() for row in shard.rows}
    return rows


@pytest.mark.parametrize("normalize", [False, True])
def test_training_from_means_is_training_on_the_full_computation(voices: Path, tmp_path: Path, normalize: bool) -> None:
    config = configured(voices, {"upstream": {"normalize_layers": normalize}}, upstream=MODEL[normalize], steps=60)
    run_with_store(config, tmp_path / "full", "off")
    run_with_store(config, tmp_path / "means")
    assert (features_of(tmp_path / "full"), features_of(tmp_path / "means")) == ("computed", "means, float32")
    assert len(losses(tmp_path / "full")) == 62
    assert np.abs(losses(tmp_path / "full") - losses(tmp_path / "means")).max() <= 1e-5
    weights = layer_weights(tmp_path / "full"), layer_weights(tmp_path / "means")
    assert np.abs(weights[0]["weights"] - 0.2).max() > 1e-3  # they have learnt
    assert np.abs(weights[0]["weights"] - weights[1]["weights"]).max() <= 1e-5
    np.testing.assert_allclose(weights[0]["norms"], weights[1]["norms"], rtol=1e-4)
    full, means = predictions(tmp_path / "full"), predictions(tmp_path / "means")
    assert full[0] == means[0]
    assert np.abs(full[1] - means[1]).max() <= 1e-5


@pytest.mark.parametrize("normalize", [False, True])
def test_training_from_float16_frames_predicts_what_the_full_computation_does(
    voices: Path, tmp_path: Path, normalize: bool
) -> None:
    changes = {"upstream": {"normalize_layers": normalize}, "emotion": {"pooling": "avgmax"}}
    config = configured(voices, changes, upstream=MODEL[normalize], steps=60)
    run_with_store(config, tmp_path / "full", "off")
    run_with_store(config, tmp_path / "frames")
    assert features_of(tmp_path / "frames") == "frames, float32"
    assert np.abs(losses(tmp_path / "full") - losses(tmp_path / "frames")).max() <= 1e-3
    assert predictions(tmp_path / "full")[0] == predictions(tmp_path / "frames")[0]


@pytest.mark.parametrize("head", [{"pooling": "avgmax"}, {"pooling": "attentive"}, {"activation": "relu"}, {"dropout": 0.1}])
def test_a_head_with_more_than_a_mean_gets_frames(voices: Path, tmp_path: Path, head: dict[str, Any]) -> None:
    assert fill_store(configured(voices, {"emotion": head}), tmp_path / "store").kind == "frames, float32"
    assert only_space(tmp_path / "store").holds == "frames"


def test_means_beyond_the_memory_are_read_from_their_shards(voices: Path, tmp_path: Path) -> None:
    config = configured(voices, upstream="test_hubert", steps=8)
    run_with_store(config, tmp_path / "memory")
    run_with_store(config, tmp_path / "disk", memory="1KB")
    assert losses(tmp_path / "memory").tolist() == losses(tmp_path / "disk").tolist()


def test_a_second_run_reads_no_audio(tmp_path: Path, tones: Path) -> None:
    data = copied(tones, tmp_path)
    first = run_with_store(configured(data), tmp_path / "first", str(tmp_path / "store"))
    for path in data.parent.glob("*.wav"):  # nothing could be heard any more, and nothing shows it
        overwrite(path, b"\0" * path.stat().st_size)
    second = run_with_store(configured(data), tmp_path / "second", str(tmp_path / "store"))
    assert second["scores"] == first["scores"]
    assert losses(tmp_path / "first").tolist() == losses(tmp_path / "second").tolist()


def copied(manifest: Path, folder: Path) -> Path:
    """A corpus of one's own to harm: its manifest."""
    (folder / "corpus").mkdir()
    for path in manifest.parent.iterdir():
        (folder / "corpus" / path.name).write_bytes(path.read_bytes())
    return folder / "corpus" / manifest.name


def overwrite(path: Path, content: bytes) -> None:
    """Change a file's bytes and neither its size nor its time."""
    state = path.stat()
    path.write_bytes(content)
    assert path.stat().st_size == state.st_size
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_a_changed_file_is_read_anew(tmp_path: Path, tones: Path) -> None:
    data = copied(tones, tmp_path)
    run_with_store(configured(data), tmp_path / "before", str(tmp_path / "store"))
    soundfile.write(data.parent / "50.wav", np.random.default_rng(0).normal(0, 0.1, 5000), 16_000)
    run_with_store(configured(data), tmp_path / "after", str(tmp_path / "store"))
    run_with_store(configured(data), tmp_path / "plain", "off")
    assert only_space(tmp_path / "store").rows == 73
    np.testing.assert_allclose(losses(tmp_path / "after"), losses(tmp_path / "plain"), atol=1e-5)
    assert np.abs(losses(tmp_path / "after") - losses(tmp_path / "before")).max() > 1e-4


def test_another_cut_of_a_file_is_read_anew(tmp_path: Path, tones: Path) -> None:
    rows, found = tones.read_text().splitlines(), []
    for name, end in (("a", 0.15), ("b", 0.2)):
        cut = [f"{rows[0]},start,end", *(f"{tones.parent}/{row},0.05,{end}" for row in rows[1:])]
        (tmp_path / f"{name}.csv").write_text("\n".join(cut) + "\n")
        found.append(head_inputs(configured(tmp_path / f"{name}.csv"), tmp_path / "store"))
    assert only_space(tmp_path / "store").rows == 144
    assert (found[0] != found[1]).any(axis=(0, 2, 3)).all()


def test_the_same_model_from_another_folder_is_not_run_again(voices: Path, tmp_path: Path) -> None:
    for name in ("here", "there"):
        tiny_model("test_hubert").save_pretrained(tmp_path / name)
        fill_store(configured(voices, upstream=str(tmp_path / name)), tmp_path / "store")
    assert only_space(tmp_path / "store").rows == 64


OPTIONS = {
    "upstream.name": {"upstream": {"name": "test_wavlm"}},
    "upstream.keep_layers": {"upstream": {"keep_layers": 2}},
    "upstream.normalize_layers": {"upstream": {"normalize_layers": True}},
    "upstream.normalize_waveform": {"upstream": {"normalize_waveform": "yes"}},
    "upstream.layer": {"upstream": {"layer": 1}},
    "emotion.pooling": {"emotion": {"pooling": "avgmax"}},
}


@pytest.fixture(scope="module")
def plain_store(voices: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with all layers' means; tests add spaces of their own."""
    root = tmp_path_factory.mktemp("plain")
    fill_store(configured(voices, upstream="test_hubert"), root)
    return root


@pytest.mark.parametrize("option", OPTIONS)
def test_another_option_never_finds_the_features_of_this_one(
    voices: Path, plain_store: Path, tmp_path: Path, option: str
) -> None:
    config = configured(voices, OPTIONS[option], upstream="test_hubert")
    after, alone = head_inputs(config, plain_store), head_inputs(config, tmp_path / "own")
    plain = head_inputs(configured(voices, upstream="test_hubert"), plain_store)
    np.testing.assert_array_equal(after, alone)
    assert after.shape != plain.shape or (after != plain).any(axis=(0, 2, 3)).all()


def test_one_layer_is_stored_alone(voices: Path, plain_store: Path, tmp_path: Path) -> None:
    one = head_inputs(configured(voices, {"upstream": {"layer": 3}}, upstream="test_hubert"), tmp_path / "store")
    assert only_space(tmp_path / "store").described["layers"] == [3]
    everything = head_inputs(configured(voices, upstream="test_hubert"), plain_store)
    np.testing.assert_allclose(one[0], everything[3], atol=1e-6)


@pytest.mark.parametrize("memory", ["4GB", "1KB"])
def test_one_layer_is_taken_from_all_where_they_are_there(voices: Path, plain_store: Path, memory: str) -> None:
    before = len(list_spaces(plain_store))
    one = configured(voices, {"upstream": {"layer": -2}, "store": {"memory": memory}}, upstream="test_hubert")
    everything = configured(voices, upstream="test_hubert")
    np.testing.assert_array_equal(head_inputs(one, plain_store)[0], head_inputs(everything, plain_store)[3])
    assert len(list_spaces(plain_store)) == before


def test_runs_that_share_layers_store_all_of_them(voices: Path, tmp_path: Path) -> None:
    one = configured(voices, {"upstream": {"layer": 1}}, upstream="test_hubert")
    fill_store(one, tmp_path / "store", share_layers=True)
    assert only_space(tmp_path / "store").described["layers"] == [0, 1, 2, 3, 4]


def test_what_would_exceed_the_limit_is_not_stored_and_one_line_names_the_ways_out(
    voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    assert fill_store(configured(voices), "auto", limit="1KB").kind == "computed"
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("store")]
    assert line.startswith("store     not used: 61.4 kB of means for 64 utterances, more than the limit of 1.0 kB.")
    assert all(way in line for way in ("-o store.limit=1GB", "(-l)", "a head that pools by the mean"))
    assert list_spaces(tmp_path / "cache" / "store") == []


@pytest.mark.parametrize("mode", ["on", "check", "DIR"])
def test_a_store_that_was_requested_and_is_too_small_is_an_error(voices: Path, tmp_path: Path, mode: str) -> None:
    with pytest.raises(UserError, match=r"Expected features that fit into the store, found .* Raise it \(-o store.limit=1GB\)"):
        fill_store(configured(voices, upstream="test_wavlm"), mode.replace("DIR", str(tmp_path)), limit="1KB")


def test_the_default_limit_is_used_where_none_is_given(
    voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store_choice, "default_limit", lambda _: 1000)
    fill_store(configured(voices), "auto")
    assert "more than the limit of 1.0 kB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"trainable": True}, "an upstream that is finetuned (-f)"),
        ({"padding": "s3prl"}, "padding s3prl: an utterance's features"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_the_reason(voices: Path, changes: dict[str, Any], reason: str) -> None:
    config = configured(voices, {"upstream": changes}, upstream="test_hubert", steps=1)
    with pytest.raises(UserError) as refused:
        fill_store(config)
    assert f"found {reason}" in str(refused.value)
    assert str(refused.value).endswith("Use --store off.")
    assert fill_store(config, "auto").kind == "computed"


def test_the_padding_of_a_run_folders_upstream_counts(voices: Path, tmp_path: Path) -> None:
    run_with_store(
        configured(voices, {"upstream": {"padding": "s3prl"}}, upstream="test_hubert", steps=1), tmp_path / "run", "off"
    )
    with pytest.raises(UserError, match="found padding s3prl"):
        fill_store(configured(voices, upstream=str(tmp_path / "run")))


def test_a_run_says_what_it_will_take_and_then_that_all_is_there(
    voices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = []
    for _ in range(2):
        fill_store(configured(voices), tmp_path / "store")
        message.append([line for line in capsys.readouterr().err.splitlines() if line.startswith("store")])
    assert message[0][0].startswith("store     64 utterances (0.01 h) to compute once: 61.4 kB of means, in ")
    assert message[1][0].startswith("store     64 utterances are there already (means): no audio is read, in ")
    assert [len(lines) for lines in message] == [1, 1]


def test_a_long_computation_of_features_says_how_far_it_is(
    voices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a log file there is no bar: without lines, minutes of a large model look like a command that hangs."""
    monkeypatch.setattr(log, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(log, "QUIET_SECONDS", 0.0)
    fill_store(configured(voices), tmp_path / "store")
    lines = [line for line in capsys.readouterr().err.splitlines() if " computed: " in line]
    assert lines[0].startswith("store     1 of 64 computed: about ")
    assert lines[-1].startswith("store     63 of 64 computed: about ")


def test_a_model_is_named_once_and_its_one_layer_is_no_sum(voices: Path) -> None:
    model = prepare(configured(voices)).model
    assert describe_upstream(model, "audio") == "fbank_no_cmvn (built in), frozen, its one layer"
    upstream = model.upstream("audio")
    upstream.name = upstream.source = "./my_model"
    assert describe_upstream(model, "audio") == "./my_model, frozen, its one layer"


def falsify(root: Path) -> None:
    """Write other features, with checksums that are right."""
    space = only_space(root)
    for path in space.folder.glob("*.safetensors"):
        shard = store_module.open_shard(path)
        assert shard is not None
        writer = ShardWriter(space.folder, path.name[:2], shard.dtype, *shard.shape[1:])
        for row in shard.rows:
            values = np.array(shard.values[row.start : row.start + row.frames])
            writer.append(row.key, values * 1.05, row.norms, row.utterance_frames)
        path.unlink()
        writer.finish()


@pytest.mark.parametrize("pooling", ["mean", "avgmax"])
def test_check_passes_on_what_is_right_and_stops_at_what_is_not(
    voices: Path, tmp_path: Path, pooling: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    config = configured(voices, {"emotion": {"pooling": pooling}}, upstream="test_hubert")
    fill_store(config, "check")
    assert "store     checked on 8 utterances: " in capsys.readouterr().err
    falsify(tmp_path / "cache" / "store")
    with pytest.raises(
        UserError, match=r"Expected the outputs from the store within .* of the full computation, found .*prune --all"
    ):
        fill_store(config, "check")


def test_a_cache_that_cannot_be_written_costs_the_store_and_not_the_run(
    voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "store").write_text("a file in the way")
    run_with_store(configured(voices), tmp_path / "auto", "auto")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("store")]
    assert line.startswith("store     not used, so that features are computed in every step: Expected to write")
    assert "a file stands in the way" in line
    assert "--store off goes without, --store DIR keeps features elsewhere" in line
    with pytest.raises(UserError, match=r"Expected to write .*, found that a file stands in the way"):
        fill_store(configured(voices))


def test_a_disk_that_fills_up_costs_the_store_and_nothing_half_written_stays(
    voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    append, rows = ShardWriter.append, []

    def fill_up(writer: ShardWriter, *arguments: Any) -> None:
        if len(rows) == 20:
            raise OSError(28, "No space left on device")
        rows.append(append(writer, *arguments))

    monkeypatch.setattr(ShardWriter, "append", fill_up)
    with pytest.raises(UserError, match=r"found that the disk is full\. Make room"):
        fill_store(configured(voices))
    assert fill_store(configured(voices), "auto").kind == "computed"
    assert "store     not used, so that features are computed in every step" in capsys.readouterr().err
    assert only_space(tmp_path / "cache" / "store").rows == 20
    monkeypatch.undo()
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    later = head_inputs(configured(voices), "on")
    np.testing.assert_array_equal(later, head_inputs(configured(voices), tmp_path / "own"))


def test_a_run_is_not_gone_on_with_from_other_features(voices: Path, tmp_path: Path) -> None:
    config = configured(voices, steps=6)
    run_with_store(config, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()  # as if it had been killed at its end
    with pytest.raises(UserError, match="features: means, float32 -> computed"):
        run_with_store(config, tmp_path / "run", "off")


def test_a_run_holds_its_space_as_long_as_it_reads_from_it(voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bool] = []
    backward = run.__globals__["train"]

    def train(*arguments: Any) -> Any:
        """Try to remove the space as the training begins."""
        tried.append(store_module.remove(only_space(tmp_path / "store").folder))
        return backward(*arguments)

    monkeypatch.setattr("headwater.runs.run.train", train)
    run_with_store(configured(voices, {"emotion": {"pooling": "avgmax"}}), tmp_path / "run", str(tmp_path / "store"))
    assert tried == [False]
    assert store_module.remove(only_space(tmp_path / "store").folder)


def recipe_of(config: RunConfig, folder: Path, store: Path) -> Path:
    """Write a run's recipe."""
    mapping = to_mapping(replace(config, store=replace(config.store, mode=str(store))))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(mapping))
    return folder / "recipe.yaml"


def test_all_processes_of_a_launch_fill_together(voices: Path, tmp_path: Path) -> None:
    config = configured(voices, upstream="test_hubert", steps=6)
    run_with_store(config, tmp_path / "one", str(tmp_path / "alone"))
    script = Path(__file__).with_name("filling.py")
    start(script, recipe_of(config, tmp_path, tmp_path / "together"), tmp_path / "two", processes=2).finish()
    counts = [int(path.read_text()) for path in sorted(tmp_path.glob("two.rank*"))]
    assert sum(counts) == 64
    assert min(counts) >= 4  # the rows were split, and none was computed twice
    assert all_values(tmp_path / "together") == all_values(tmp_path / "alone")
    one, two = predictions(tmp_path / "one"), predictions(tmp_path / "two")
    assert one[0] == two[0]
    np.testing.assert_allclose(one[1], two[1], atol=1e-5)


def test_ctrl_c_while_filling_keeps_what_was_computed(voices: Path, tmp_path: Path) -> None:
    config = configured(voices, upstream="test_hubert", steps=2)
    recipe = recipe_of(config, tmp_path, tmp_path / "store")
    process = start(Path(__file__).with_name("filling.py"), recipe, tmp_path / "run", "0.05")
    while sum(path.stat().st_size > 100 for path in (tmp_path / "store").glob("*/*.rows")) < 1:
        assert process.poll() is None, process.message()
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130, process.message()
    assert "interrupted" in process.message()
    assert not [*(tmp_path / "store").glob("*/*.part")]
    there = all_values(tmp_path / "store")
    assert 0 < len(there) < 64
    fill_store(config, tmp_path / "store")
    fill_store(config, tmp_path / "own")
    assert all_values(tmp_path / "store") == all_values(tmp_path / "own")
    assert there.items() <= all_values(tmp_path / "own").items()


def test_the_store_is_the_one_class_that_opens_a_space(voices: Path, tmp_path: Path) -> None:
    fill_store(configured(voices), tmp_path / "store")
    space = only_space(tmp_path / "store")
    described = {
        key: tuple(value) if isinstance(value, list) else value for key, value in space.described.items() if key != "name"
    }
    assert Space(**described).key == space.folder.name
    assert len(Store(tmp_path / "store", Space(**described), "fbank_no_cmvn").index) == 64


def test_a_task_that_draws_crops_gets_as_many_fixed_ones_as_the_store_keeps(tones: Path, tmp_path: Path) -> None:
    mapping = {"task": "sid", "upstream": {"name": "fbank_no_cmvn"}, "corpus": {"data": str(tones), "protocol": "random5"}}
    over = {"sid": {"crop_seconds": 0.2}, "store": {"mode": str(tmp_path / "store"), "crops": 3}}
    config = resolve([{**mapping, **over}])
    setup = with_store(prepare(config), make_accelerator(config, CPU), partial(print_progress, CPU))
    task = setup.tasks["sid"]
    train = task.splits["train"]
    assert {len(cuts) for cuts in task.crops.values()} == {3}
    drawn = {drawn_of(task, train[0], place, 1, 0).utterance.id for place in range(40)}
    assert drawn == {f"{train[0].utterance.id}#{number}" for number in range(3)}
    assert any("3 fixed stretches" in note for note in setup.notes)
    open_ended = replace(task, crops={})
    assert len({drawn_of(open_ended, train[0], place, 1, 0).utterance.start for place in range(40)}) > 30


def test_masks_are_over_frames_so_that_no_means_are_stored_and_a_note_says_so(voices: Path, tmp_path: Path) -> None:
    config = configured(voices, {"masks": {"time_masks": 2, "time_width": 9, "dim_masks": 1, "fill": "zero"}})
    run_with_store(config, tmp_path / "run", "on")
    assert features_of(tmp_path / "run") == "frames, float32"
    notes = json.loads((tmp_path / "run" / "result.json").read_text())["notes"]
    assert any("the store keeps frames, though this head needs their means alone: masks" in note for note in notes)
    run_with_store(configured(voices), tmp_path / "without", "on")
    assert not np.allclose(losses(tmp_path / "run")[0], losses(tmp_path / "without")[0], atol=1e-3)
