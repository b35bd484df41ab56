"""Speech recognition with a beam search as a run: both rates, asked about files, read otherwise once it is trained."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headwater.analysis.comparison.compare import compare
from headwater.analysis.table import result_table
from headwater.core.errors import UserError
from headwater.core.options import merge
from headwater.downstream.asr.beam import Search
from headwater.inference.export.export import export_run
from headwater.inference.load import load_run
from headwater.runs.config.identity import identity_of
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import RunConfig
from headwater.runs.run import run
from headwater.runs.runtime import Runtime

pytest.importorskip("ctc_beam_decoder", reason="the extra 'decode' is not installed")

WORDS = {"low": "LO", "middle": "MI", "high": "HI"}
ARPA = """\\data\\
ngram 1=6
ngram 2=1

\\1-grams:
-3.0\t<unk>
-99\t<s>\t0.0
-0.7\t</s>
-0.4\tHI\t0.0
-1.2\tLO\t0.0
-1.3\tMI\t0.0

\\2-grams:
-0.3\t<s> HI

\\end\\
"""
SIZES = {"projector_dim": 16, "hidden_dim": 16, "layers": 0, "downsample": 2, "spec_augment": False}


@pytest.fixture(scope="module")
def spoken(tones: Path) -> Path:
    """The tones as a table of audio and text: each says its name."""
    with tones.open() as file:
        rows = list(csv.DictReader(file))
    lines = ["audio,text,speaker,split", *(f"{r['audio']},{WORDS[r['label']]},{r['speaker']},{r['split']}" for r in rows)]
    path = tones.with_name("spoken_words.csv")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lm") / "one.arpa"
    path.write_text(ARPA)
    return path


def config_of(table: Path, over: dict[str, Any] | None = None) -> RunConfig:
    training = {"steps": 12, "batch_size": 8, "eval_every": 6, "patience": None}
    mapping = {"task": "asr", "upstream": {"name": "fbank"}, "corpus": {"data": str(table)}, "training": training}
    return resolve([merge({**mapping, "asr": SIZES, "optimizer": {"lr": 1e-2}}, over or {})])


def trained(table: Path, folder: Path, **asr: Any) -> Path:
    run(config_of(table, {"asr": asr}), folder, Runtime("cpu", quiet=True))
    return folder


@pytest.fixture(scope="module")
def searched(spoken: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that searches with a model; tests only read it."""
    return trained(spoken, tmp_path_factory.mktemp("asr") / "searched", beam={"size": 8, "lm": str(model)})


@pytest.fixture(scope="module")
def greedy(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, read greedily."""
    return trained(spoken, tmp_path_factory.mktemp("asr") / "greedy")


def test_both_rates_stand_in_the_result_and_nothing_else_has_changed(searched: Path, greedy: Path) -> None:
    result, plain = (json.loads((folder / "result.json").read_text()) for folder in (searched, greedy))
    for split in ("dev", "test"):
        scores = result["scores"][split]
        assert {name: scores[name] for name in plain["scores"][split]} == plain["scores"][split]
        assert scores["wer_beam"] >= 0
        assert scores["wer_beam"] != scores["wer"]
    assert [row.split()[0] for row in result_table(result).splitlines()[2:6]] == ["wer", "wer_beam", "cer", "cer_beam"]
    weights = json.loads((searched / "vocabulary.json").read_text())["asr"]["beam"]
    assert {*weights} == {"lm_weight", "word_bonus", "lm"}
    assert "test: beam search (lm_weight " in result_table(result)
    assert "of speech)" in result_table(result)


def test_steps_are_chosen_without_a_search(spoken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Search, "find", lambda *_: pytest.fail("searched before the end"))
    with pytest.raises(pytest.fail.Exception, match="searched before the end"):
        trained(spoken, tmp_path / "run", beam={"size": 2})
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    dev = [line for line in lines if line["split"] == "dev"]
    assert [line["step"] for line in dev] == [6, 12]
    assert all("wer" in line and "wer_beam" not in line for line in dev)


def test_a_file_gets_the_searched_text_or_the_greedy_one_on_request(searched: Path, tones: Path) -> None:
    with (searched / "predictions-test.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert any(row["prediction"] != row["prediction_beam"] for row in rows)
    run_, plain = load_run(searched), load_run(searched, options={"asr": {"beam": None}})
    for row in rows[:4]:
        assert run_.predict(str(tones.with_name(row["id"]))).label == row["prediction_beam"]
        assert plain.predict(str(tones.with_name(row["id"]))).label == row["prediction"]
    assert run_.fingerprint != plain.fingerprint


def test_a_greedy_run_can_be_searched_afterwards(greedy: Path, model: Path, tones: Path, headwater: Callable[..., Any]) -> None:
    file = str(tones.with_name("50.wav"))
    done = headwater("predict", greedy, file, "-o", f"asr.beam.lm={model}", "asr.beam.lm_weight=2", "asr.beam.word_bonus=0")
    assert done.returncode == 0, done.stderr
    options = {"asr": {"beam": {"lm": str(model), "lm_weight": 2.0, "word_bonus": 0.0}}}
    assert f",{load_run(greedy, options=options).predict(file).label}," in done.stdout
    missing = headwater("predict", greedy, file, "-o", f"asr.beam.lm={model}")
    assert missing.returncode == 2
    assert "Expected asr.beam.lm_weight and asr.beam.word_bonus for" in missing.stderr
    other = headwater("predict", greedy, file, "-o", "asr.normalize=none")
    assert other.returncode == 2
    assert "Expected asr.beam of a finished run of asr, found 'asr.normalize'" in other.stderr


def test_a_finished_run_is_tested_with_a_search(greedy: Path, headwater: Callable[..., Any]) -> None:
    done = headwater("downstream", "-m", "evaluate", "-e", greedy, "-o", "asr.beam.size=4")
    assert done.returncode == 0, done.stderr
    assert "wer_beam" in done.stdout
    [written] = (greedy / "evaluations").glob("*/result.json")
    found, own = (json.loads(path.read_text())["scores"]["test"] for path in (written, greedy / "result.json"))
    assert found["wer"] == own["wer"]
    assert found["wer_beam"] is not None


def test_an_exported_run_reads_greedily_since_its_model_lies_elsewhere(searched: Path, tones: Path, tmp_path: Path) -> None:
    export_run(searched, tmp_path / "whole")
    file = str(tones.with_name("50.wav"))
    plain = load_run(searched, options={"asr": {"beam": None}})
    assert load_run(tmp_path / "whole").predict(file).label == plain.predict(file).label
    assert "Left out here, since its files lie elsewhere: `asr.beam`" in (tmp_path / "whole" / "README.md").read_text()


def test_a_searched_run_and_a_greedy_one_are_compared_by_what_both_have(searched: Path, greedy: Path) -> None:
    for pair in ((searched, greedy), (greedy, searched)):
        found = compare(pair).comparisons[0]
        assert found.differences["wer"].value == 0


def test_a_run_of_before_stays_what_it_is_and_another_search_is_another_run(spoken: Path, model: Path) -> None:
    assert "beam" not in identity_of(config_of(spoken))["asr"]
    beam = identity_of(config_of(spoken, {"asr": {"beam": {"lm": str(model)}}}))["asr"]["beam"]
    assert (beam["lm"], beam["size"]) == ("one.arpa", 100)


def test_no_step_is_chosen_by_a_search(spoken: Path) -> None:
    with pytest.raises(UserError, match="'select_by' to be one of wer, cer, found 'wer_beam'"):
        config_of(spoken, {"asr": {"beam": {}}, "select_by": "wer_beam"})
