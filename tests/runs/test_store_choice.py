"""What a run keeps of its features: chosen by what fits and what is faster, said in one line, kept where a run goes on."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater.core.errors import UserError
from headwater.core.options import merge
from headwater.runs import features, store_choice
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import RunConfig
from headwater.runs.features import with_store
from headwater.runs.prepare import RunSetup, prepare
from headwater.runs.run import run
from headwater.runs.runtime import Runtime, make_accelerator, print_progress
from headwater.runs.store_choice import Paces, Reuse, seconds_without
from headwater.training.source import kind_of_role
from headwater.upstream.store.maintenance import clear_remains, list_spaces
from headwater.upstream.store.space import Space
from headwater.upstream.store.store import Store

CPU = Runtime("cpu")
FRAMES = {"emotion": {"pooling": "attentive"}}
SAID = {"low": "LOW\tL OW1", "middle": "MIDDLE\tM IH1 D AH0 L", "high": "HIGH\tHH AY1"}


def config_of(table: Path, *changes: dict[str, Any]) -> RunConfig:
    """A run whose head needs frames."""
    mapping: dict[str, Any] = {
        "task": "emotion",
        "upstream": {"name": "test_hubert"},
        "corpus": {"data": str(table)},
        "training": {"steps": 4, "batch_size": 8, "eval_every": 2, "save_every": 2, "patience": None},
        **FRAMES,
    }
    for change in changes:
        mapping = merge(mapping, change)
    return resolve([mapping])


def storing(**options: str) -> dict[str, Any]:
    """The section of the store."""
    return {"store": options}


def prepared(config: RunConfig, reuse: Reuse | None = None) -> RunSetup:
    """A run with its features."""
    return with_store(prepare(config), make_accelerator(config, CPU), partial(print_progress, CPU), reuse)


def kind_of(config: RunConfig, reuse: Reuse | None = None) -> str:
    """What a run's features are."""
    return prepared(config, reuse).tasks["emotion"].source.kind


def lines_of(captured: pytest.CaptureFixture[str], start: str = "store") -> list[str]:
    """What was said of the choice."""
    return [line for line in captured.readouterr().err.splitlines() if line.startswith(start)]


def features_of(folder: Path) -> Any:
    """What a run's features were."""
    return json.loads((folder / "identity.json").read_text())["features"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of its own."""
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "store"


@pytest.fixture(scope="module")
def sizes(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """The bytes that the tones' frames take, by what they are kept in."""
    found = {}
    for numbers in ("float16", "int8"):
        root = tmp_path_factory.mktemp(numbers)
        prepared(config_of(tones, storing(mode=str(root), precision=numbers)))
        [space] = list_spaces(root)
        values = {key: tuple(v) if isinstance(v, list) else v for key, v in space.described.items() if key != "name"}
        places = Store(root, Space(**values), "").index.values()
        found[numbers] = sum({place.shard.path: place.shard.values.nbytes for place in places}.values())
    return found


@pytest.fixture
def between(sizes: dict[str, int]) -> str:
    """A limit that has room for 8 bits and none for float16."""
    return f"{(sizes['int8'] + sizes['float16']) // 2}B"


def test_what_a_store_takes_is_forecast_to_the_byte(tones: Path, sizes: dict[str, int]) -> None:
    for numbers, size in sizes.items():
        assert kind_of(config_of(tones, storing(limit=f"{size - 1}B", precision=numbers))) == "computed"
        assert kind_of(config_of(tones, storing(limit=f"{size}B", precision=numbers))).startswith("frames")
    assert sizes["int8"] < 0.65 * sizes["float16"]  # these are of 20 frames, with 4 in front of each


def test_frames_are_in_float16_where_those_fit(tones: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kind_of(config_of(tones)) == "frames, float32"
    [line] = lines_of(capsys)
    assert " of frames, in " in line


def test_frames_are_in_eight_bits_where_only_those_fit_and_one_line_says_why_and_how_not(
    tones: Path, between: str, capsys: pytest.CaptureFixture[str]
) -> None:
    setup = prepared(config_of(tones, storing(limit=between)))
    assert setup.tasks["emotion"].source.kind == setup.identity["features"] == "frames in 8 bits, float32"
    assert any(note.startswith("frames are kept in 8 bits, which lose 0.") for note in setup.notes)
    [line] = lines_of(capsys)
    assert " of frames in 8 bits, in " in line
    assert "; in float16 " in line
    assert line.endswith(" (otherwise: -o store.limit=1GB, or --store off)")


def test_eight_bits_are_marked_in_the_result(tones: Path, tmp_path: Path) -> None:
    config = config_of(tones, storing(mode=str(tmp_path / "store"), precision="int8"))
    assert any("frames are kept in 8 bits" in note for note in run(config, tmp_path / "run", CPU)["notes"])
    assert features_of(tmp_path / "run") == "frames in 8 bits, float32"


@pytest.mark.parametrize("layer", [None, 2])
def test_a_head_gets_from_eight_bits_what_it_gets_from_float16(tones: Path, tmp_path: Path, layer: int | None) -> None:
    batches = []
    for numbers in ("float16", "int8"):
        config = config_of(tones, {"upstream": {"layer": layer}}, storing(mode=str(tmp_path), precision=numbers))
        task = prepared(config).tasks["emotion"]
        batches.append(task.source.batch(task.splits["train"]).stored["audio"])
    assert batches[0].lengths == batches[1].lengths
    assert len(batches[1].values) == (5 if layer is None else 1)
    for exact, coarse in zip(batches[0].values, batches[1].values, strict=True):
        assert exact.dtype == coarse.dtype
        np.testing.assert_allclose(coarse, exact, atol=0.01 * float(exact.float().abs().max()))
    assert {tuple(space.described["layers"]) for space in list_spaces(tmp_path)} == {(2,) if layer else (0, 1, 2, 3, 4)}


@pytest.mark.parametrize("numbers", ["float16", "int8"])
def test_one_layer_is_served_by_a_store_of_all_and_nothing_is_computed(
    tones: Path, tmp_path: Path, numbers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = storing(mode=str(tmp_path), precision=numbers)
    everything = prepared(config_of(tones, there)).tasks["emotion"]
    monkeypatch.setattr(features, "compute", None)
    one = prepared(config_of(tones, {"upstream": {"layer": 3}}, there)).tasks["emotion"]
    rows = one.splits["dev"]
    [alone] = one.source.batch(rows).stored["audio"].values
    np.testing.assert_array_equal(alone, everything.source.batch(rows).stored["audio"].values[3])


def test_check_allows_eight_bits_what_they_lose(tones: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind_of(config_of(tones, storing(mode="check", precision="int8")))
    assert "checked on" in lines_of(capsys)[-1]


def test_what_fits_in_neither_is_computed_in_every_step(tones: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kind_of(config_of(tones, storing(limit="1KB"))) == "computed"
    [line] = lines_of(capsys)
    assert line.startswith("store     not used: ")
    assert " of frames or " in line
    assert " of frames in 8 bits for 72 utterances, more than the limit of 1.0 kB." in line
    assert list_spaces(cache) == []


def test_float16_that_was_requested_and_does_not_fit_names_eight_bits(tones: Path) -> None:
    with pytest.raises(UserError, match=r"Expected features that fit .* keep frames in 8 bits \(-o store.precision=int8\)"):
        kind_of(config_of(tones, storing(mode="on", limit="1KB", precision="float16")))


def test_an_unknown_precision_is_refused_in_one_line(tones: Path) -> None:
    with pytest.raises(UserError, match=r"^Expected 'store.precision' to be one of auto, float16, int8, found 'int4'\.$"):
        config_of(tones, storing(precision="int4"))


def test_means_are_as_they_were_whatever_frames_are_kept_in(tones: Path, tmp_path: Path) -> None:
    for numbers in ("float16", "int8"):
        config = config_of(tones, {"emotion": {"pooling": "mean"}}, storing(mode=str(tmp_path), precision=numbers))
        assert kind_of(config) == "means, float32"
    assert len(list_spaces(tmp_path)) == 1


@pytest.mark.parametrize("limit", ["between", "1KB", "1GB"])
def test_a_run_goes_on_with_the_features_that_it_began_with(tones: Path, tmp_path: Path, limit: str, between: str) -> None:
    """By then the disk has more room, so that float16 would fit."""
    run(config_of(tones, storing(limit=limit.replace("between", between))), tmp_path / "run", CPU)
    began = features_of(tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()  # as if it had been killed at its end
    run(config_of(tones), tmp_path / "run", CPU)
    assert features_of(tmp_path / "run") == began
    assert began == {"between": "frames in 8 bits, float32", "1KB": "computed", "1GB": "frames, float32"}[limit]


def test_a_run_is_not_gone_on_with_in_another_precision(tones: Path, tmp_path: Path) -> None:
    there = storing(mode=str(tmp_path / "store"), precision="int8")
    run(config_of(tones, there), tmp_path / "run", CPU)
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(UserError, match=r"features: frames in 8 bits, float32 -> frames, float32\n.*store.precision=int8"):
        run(config_of(tones, merge(there, storing(precision="float16"))), tmp_path / "run", CPU)


def test_the_kind_of_one_role_is_found_among_those_of_several() -> None:
    kind = "audio frames in 8 bits, float32; text computed"
    assert [kind_of_role(kind, role) for role in ("audio", "text")] == ["frames in 8 bits, float32", "computed"]
    assert kind_of_role("means, float32", "text") == "means, float32"
    assert kind_of_role("", "audio") == ""


# ten times as slow to compute as to read; a run of 4 steps of 8 computes less than all that there is to fill
SLOW = Paces(compute=1.0, write=0.01, read=0.1)


def measured(monkeypatch: pytest.MonkeyPatch, paces: Paces) -> None:
    """Have even the tones measured, and this be what comes out."""
    monkeypatch.setattr(store_choice, "MEASURED_FROM", 0.0)
    monkeypatch.setattr(store_choice, "measure", lambda *_: paces)


@pytest.mark.parametrize(
    ("steps", "runs", "paces", "kind"),
    [
        (2, 1, SLOW, "computed"),
        (2, 5, SLOW, "frames, float32"),  # of a plan: filled once for five runs
        (40, 1, SLOW, "frames, float32"),
        (40, 1, Paces(compute=0.1, write=0.0, read=0.1), "computed"),  # a quick upstream and a slow disk
    ],
)
def test_a_store_is_filled_where_that_and_reading_is_faster_than_computing(
    tones: Path,
    steps: int,
    runs: int,
    paces: Paces,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    measured(monkeypatch, paces)
    config = config_of(tones, {"training": {"steps": steps}})
    assert kind_of(config, Reuse(runs=runs)) == kind
    [line] = lines_of(capsys)
    assert "(measured)" in line
    assert ("--store on fills it for later runs" in line) == (kind == "computed")
    if kind == "computed":
        assert kind_of(replace(config, store=replace(config.store, mode="on")), Reuse(runs=runs)) == "frames, float32"


def test_a_run_that_began_with_a_store_is_not_weighed_again(tones: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, SLOW)
    config = config_of(tones, {"training": {"steps": 2}})
    assert kind_of(config, Reuse(before={"emotion": "frames, float32"})) == "frames, float32"


def test_what_a_run_computes_without_a_store_counts_steps_and_evaluations(tones: Path) -> None:
    config = config_of(tones, {"training": {"steps": 6, "eval_every": 2}})
    [task] = prepare(config).tasks.values()
    seconds = {split: sum(row.seconds for row in rows) for split, rows in task.splits.items()}
    expected = 6 * 8 * seconds["train"] / len(task.splits["train"]) + 3 * seconds["dev"] + seconds["test"]
    assert seconds_without(config, task) == pytest.approx(expected)


def test_measuring_leaves_nothing_and_finds_times(tones: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_choice, "MEASURED_FROM", 0.0)
    found: list[Paces] = []
    measure = store_choice.measure
    monkeypatch.setattr(store_choice, "measure", lambda *arguments: found.append(measure(*arguments)) or found[0])
    kind_of(config_of(tones, {"training": {"steps": 400}}))
    assert min(found[0].compute, found[0].write, found[0].read) > 0
    assert not [*cache.glob(f"{store_choice.TRIAL}*")]


def test_what_a_killed_measurement_left_is_cleared_by_prune_unless_it_is_held(tmp_path: Path) -> None:
    space = Space("model", (0,), 4, False, False, "exact", "auto", "all", "float32")
    trial = Store(tmp_path / f"{store_choice.TRIAL}abc", space, "trial")
    clear_remains(tmp_path)
    assert trial.folder.is_dir()
    trial.held.close()
    clear_remains(tmp_path)
    assert not [*tmp_path.iterdir()]


def test_recognisers_of_words_and_phones_on_one_corpus_share_one_store(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tones.open() as file:
        rows = list(csv.DictReader(file))
    lines = [f"{tones.with_name(row['audio'])},{row['label']},{row['speaker']},{row['split']}" for row in rows]
    table, lexicon = tmp_path / "said.csv", tmp_path / "lexicon.txt"
    table.write_text("\n".join(["audio,text,speaker,split", *lines]) + "\n")
    lexicon.write_text("\n".join(SAID.values()) + "\n")
    computed: list[str] = []
    compute = features.compute

    def counted(*arguments: Any) -> Any:
        for position, row in compute(*arguments):
            computed.append(arguments[2][position].utterance.audio)
            yield position, row

    monkeypatch.setattr(features, "compute", counted)
    corpus = {"data": str(table)}
    tasks = {
        "asr": {"corpus": corpus, "asr": {"projector_dim": 8, "hidden_dim": 8, "layers": 1}},
        "pr": {"corpus": corpus, "pr": {"lexicon": str(lexicon)}},
    }
    training = {"steps": 2, "batch_size": 4, "eval_every": 2}
    mapping = {"upstream": {"name": "test_hubert"}, "tasks": tasks, "training": training, **storing(mode=str(tmp_path / "store"))}
    run(resolve([mapping]), tmp_path / "run", CPU)
    assert features_of(tmp_path / "run") == dict.fromkeys(("asr", "pr"), "frames, float32")
    [space] = list_spaces(tmp_path / "store")
    assert space.rows == len(computed) == len({*computed}) == len(rows)
