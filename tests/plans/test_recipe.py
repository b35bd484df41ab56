"""Recipes of papers: read as a whole, run in order, gone on with after a kill."""

from __future__ import annotations

import json
import subprocess
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from headwater.commands import recipe as command
from headwater.core.errors import UserError
from headwater.core.options import merge, parse_override, read_yaml
from headwater.core.run_folder import RunFolder
from headwater.core.tensors import save_tensors
from headwater.plans.execute import why_stopped
from headwater.plans.forecast import FIRST_STEPS, count_weights, missing_transcripts, missing_weights, outlook
from headwater.plans.paper import CommandOptions, PaperPlan, plan_recipe
from headwater.plans.recipe import read_recipe
from headwater.runs.config.recipes import find_recipe, task_default
from headwater.runs.config.resolve import resolve
from headwater.upstream.base import UpstreamConfig

IEMOCAP = {"task": "emotion", "corpus": {"name": "iemocap"}, "upstream": {"name": "fbank"}}
TINY = {"name": "test_distilhubert", "trainable": True, "keep_layers": 1}


def recipe(**changes: Any) -> dict[str, Any]:
    """A paper with a finetuned part and one that starts from it."""
    whole = {
        "paper": "A paper (2026)",
        "base": {**IEMOCAP, "upstream": TINY},
        "parts": {"frozen": {"upstream": {"name": "part:tuned", "trainable": False}}, "tuned": {}},
        "tables": {
            "table1": {
                "columns": [{"header": "WA", "metric": "wa"}],
                "rows": [{"label": ["Tuned"], "part": "tuned", "paper": [0.5]}],
            }
        },
    }
    return merge(whole, changes)


def refusal(mapping: dict[str, Any], given: CommandOptions | None = None) -> str:
    """What is said of a recipe that cannot be run."""
    with pytest.raises(UserError) as caught:
        plan_recipe(mapping, given)
    return str(caught.value)


def names(plan: PaperPlan) -> list[str]:
    return [run.name for runs in plan.runs.values() for run in runs]


def test_superb_is_the_experiments_of_its_nine_recipes_for_one_upstream() -> None:
    over = {"upstream": {"name": "wavlm"}}
    plan = plan_recipe(read_recipe(find_recipe("superb")), CommandOptions(overrides=[over]))
    assert [*plan.runs] == ["pr", "asr", "ks", "sid", "asv", "sd", "emotion", "ic", "sf"]
    for task, config in plan.configs.items():
        alone = resolve([task_default(task), read_yaml(find_recipe(f"superb/{task}")), over])
        located = replace(alone.only, corpus=replace(alone.only.corpus, data=None))
        assert config.with_only(located) == alone
        assert config.solver == "adam"
    assert len(plan.runs["emotion"]) == 5


def test_the_upstream_typed_is_that_of_every_part_and_names_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["superb", "-u", "test_hubert", "--dry-run"]) == 0
    assert f"folder    {Path('result', 'recipes', 'superb-test_hubert')}" in capsys.readouterr().out
    flags = command.make_parser().parse_args(["superb", "-u", "test_hubert"])
    plan = command.plan_of(flags, find_recipe("superb"))
    assert {config.upstream.name for config in plan.configs.values()} == {"test_hubert"}


def test_runs_that_others_start_from_come_first() -> None:
    plan = plan_recipe(recipe(seeds=[1, 2], folds=[3]))
    assert names(plan) == ["tuned/fold3/seed1", "tuned/fold3/seed2", "frozen/fold3/seed1", "frozen/fold3/seed2"]
    assert dict(plan.runs["frozen"][1].needs) == {"part:tuned": "tuned/fold3/seed2"}
    assert plan.runs["frozen"][0].config.upstream.keep_layers is None  # the run knows its own


def test_all_folds_are_those_of_the_parts_protocol() -> None:
    plan = plan_recipe(recipe(folds="all", parts={"tuned": {"plan": {"folds": "all"}}, "frozen": {"corpus": {"fold": 1}}}))
    assert [run.fold for run in plan.runs["tuned"]] == [1, 2, 3, 4, 5]


def test_a_part_has_folds_and_seeds_of_its_own() -> None:
    plan = plan_recipe(
        recipe(seeds=[1, 2], parts={"other": {"upstream": {"name": "fbank", "trainable": False, "keep_layers": None}}})
    )
    apart = plan_recipe(
        merge(recipe(seeds=[1, 2]), {"parts": {"tuned": {"plan": {"seeds": [7]}}, "frozen": {"plan": {"seeds": [8]}}}})
    )
    assert len(plan.runs["other"]) == 2
    assert dict(apart.runs["frozen"][0].needs) == {"part:tuned": "tuned/fold1/seed7"}  # it has no other seed


def test_a_part_never_starts_from_a_run_trained_on_its_test() -> None:
    message = refusal(recipe(parts={"tuned": {"plan": {"folds": [1]}}, "frozen": {"plan": {"folds": [1, 2]}}}))
    assert message == (
        "Expected the run of 'part:tuned' for 'frozen/fold2/seed1', found fold1/seed1. Give both the same folds and seeds."
    )


def test_all_mistakes_of_a_recipe_are_reported_together_and_those_of_its_base_once() -> None:
    mapping = recipe(base={"trainig": {}}, parts={"late": {"emotion": {"dropuot": 1}}})
    mapping["tables"]["table1"] = {
        "columns": [{"header": "WA", "metric": "war"}, {"header": "WA"}],
        "rows": [{"label": [], "part": "tune", "paper": [1]}, {"label": ["x"], "parts": {"a": "tuned"}}],
    }
    mapping["figures"] = {"fig2": {"kind": "gain"}, "fig3": {"parts": {"a": "nobody"}}, "fig4": {"kind": "pie"}}
    message = refusal(mapping)
    for part in (
        "Unknown option 'trainig'. Did you mean 'training'?",
        "(every part)",
        "Unknown option 'emotion.dropuot'. Did you mean 'dropout'?",
        "(part late)",
        "Expected different headers in tables.table1, found 'WA' twice.",
        "Expected a metric or a field in column 'WA' of tables.table1, found both or none.",
        "Expected 1 labels in tables.table1.rows[0], found 0",
        "Expected 2 values of the paper in tables.table1.rows[0] (one for each column), found 1.",
        "Unknown part 'tune' in tables.table1.rows[0]. Did you mean 'tuned'?",
        "Expected '' in `parts` of tables.table1.rows[1] (column 'WA'), found ['a'].",
        "Expected `groups` and a `metric` in figures.fig2 (gain), found none.",
        "Unknown part 'nobody' in figures.fig3.",
        "Expected 'figures.fig4.kind' to be one of layer-weights, gain, geometry, found 'pie'.",
    ):
        assert part in message
    assert message.count("trainig") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": {"tuned": {"upstream": {"name": "part:frozen"}}}}, "found a circle: "),
        (
            {"parts": {"frozen": {"upstream": {"name": "part:tune"}}}},
            "starts from 'part:tune', which is no part. Did you mean 'tuned'?",
        ),
        ({"base": {"upstream": {"name": "fbnk"}}}, "There is no upstream 'fbnk'. Did you mean 'fbank'?"),
        ({"base": {"upstream": {"name": ""}}, "parts": {"frozen": None}}, "Expected a mapping"),
        ({"folds": "each"}, "Expected 'folds' to be `all` or a list of whole numbers, found 'each'. (every part)"),
        ({"folds": [9]}, "Expected 'corpus.fold' between 1 and 5"),
        ({"seeds": [1, 1]}, "Expected the runs of a plan to differ"),
        ({"base": {"task": ""}}, "Expected a task, found none."),
        ({"parts": {"tuned": {"plan": {"sedes": [1]}}}}, "Unknown option 'plan.sedes'. Did you mean 'seeds'?"),
        ({"tables": {"table1": {"rows": [{"label": ["x"]}]}}}, "Expected `part` or `parts` in tables.table1.rows[0]"),
        ({"tables": {"table1": {"columns": [{"header": "F1", "metric": "f1"}]}}}, "Part 'tuned' has no metric 'f1'"),
    ],
)
def test_a_wrong_recipe_says_what_is_right(changes: dict[str, Any], message: str) -> None:
    assert message in refusal(recipe(**changes))


def test_a_part_without_an_upstream_is_refused() -> None:
    assert "Expected an upstream, found none." in refusal({"base": {"task": "emotion"}, "parts": {"a": {}}})


def test_a_corpus_that_no_part_uses_is_refused() -> None:
    message = refusal(recipe(), CommandOptions({"iemocp": "x"}))
    assert message == "Expected --data for a corpus of the recipe (iemocap), found 'iemocp'. Did you mean 'iemocap'?"


def test_data_go_to_the_parts_that_use_them() -> None:
    parts = {"own": {"corpus": {"name": "manifest"}, "plan": {"data": "rej"}}}
    plan = plan_recipe(recipe(parts=parts), CommandOptions({"rej": "/somewhere/clips.csv"}))
    assert plan.configs["own"].only.corpus.data == "/somewhere/clips.csv"
    assert plan.configs["tuned"].only.corpus.data is None


def test_a_recipe_like_another_holds_the_differences_alone(tmp_path: Path) -> None:
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump(recipe()))
    (tmp_path / "demo.yaml").write_text(
        f"like: {tmp_path / 'paper.yaml'}\nbase: {{corpus: {{demo: true}}}}\nparts: {{frozen: null}}\nseeds: [5]\n"
    )
    plan = plan_recipe(read_recipe(tmp_path / "demo.yaml"))
    assert names(plan) == ["tuned/fold1/seed5"]
    assert plan.configs["tuned"].only.corpus.demo
    assert plan.recipe.tables["table1"].rows[0].paper == [0.5]


def test_recipes_like_each_other_are_refused(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"like: {tmp_path / other}.yaml\n")
    with pytest.raises(UserError, match=r"Expected `like` to name another recipe .* found a circle"):
        read_recipe(tmp_path / "a.yaml")


def test_only_brings_what_a_part_starts_from() -> None:
    plan = plan_recipe(recipe(parts={"other": {"seed": 3}}))
    assert plan.only(["frozen"]) == ["tuned", "frozen"]
    with pytest.raises(UserError, match=r"found 'frzen'\. Did you mean 'frozen'\?"):
        plan.only(["frzen"])


@pytest.fixture
def paper(tones: Path, tmp_path: Path) -> Path:
    """A recipe over the tones that takes a second, and a part whose corpus is nowhere."""
    training = {"steps": 4, "batch_size": 8, "eval_every": 4, "save_every": 4}
    mapping = recipe(parts={"real": {"corpus": {"name": "iemocap", "data": None}}})
    corpus, upstream = {"name": "manifest", "data": str(tones)}, {"name": "fbank_no_cmvn"}
    mapping["base"] = {"task": "emotion", "upstream": upstream, "corpus": corpus, "training": training}
    mapping["parts"]["frozen"] = {"init_head": "part:tuned"}
    mapping["tables"]["table1"]["rows"].append({"label": ["Real"], "part": "real", "paper": [0.7]})
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump(mapping))
    return tmp_path / "paper.yaml"


def test_a_plan_is_printed_and_nothing_run(paper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(paper), "--plan", "-p", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:5]}
    assert rows["tuned"][:5] == ["1", "0", "1", "4", "<"]
    assert rows["real"][-2:] == ["corpus", "missing"]
    assert any(line.startswith("missing   iemocap is not here; get it (") for line in lines)
    assert not (tmp_path / "out").exists()


def test_parts_without_a_corpus_are_dashes_and_all_others_are_run(
    paper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert command.main([str(paper), "-p", str(out), "--quiet", "--device", "cpu"]) == 3
    assert (out / "frozen" / "fold1" / "seed1" / "result.json").is_file()
    text = (out / "table1.md").read_text()
    assert [cell.strip() for cell in text.splitlines()[5].split("|")[1:-1]] == ["Real", "-", "0.700", "0 of 1"]
    assert "- real: iemocap is not here; get it (" in text
    stamp = (out / "tuned" / "fold1" / "seed1" / "result.json").stat().st_mtime_ns
    assert command.main([str(paper), "-p", str(out), "--quiet", "--device", "cpu"]) == 3
    assert (out / "tuned" / "fold1" / "seed1" / "result.json").stat().st_mtime_ns == stamp
    shown = capsys.readouterr().out
    assert [line.split()[1:4] for line in shown.splitlines() if line.startswith("tuned ")] == [["1", "0", "1"], ["1", "1", "0"]]


def test_a_killed_recipe_goes_on(paper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, arguments = tmp_path / "out", [str(paper), "-p", str(tmp_path / "out"), "--quiet", "--device", "cpu", "--only", "frozen"]

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("headwater.runs.run.write_all", kill)
        with pytest.raises(KeyboardInterrupt):
            command.main(arguments)
    assert not (out / "tuned" / "fold1" / "seed1" / "result.json").exists()
    assert command.main(arguments) == 0
    assert json.loads((out / "frozen" / "fold1" / "seed1" / "result.json").read_text())["steps"] == 4


def test_a_run_with_other_options_is_not_the_recipes(paper: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command.main([str(paper), "-p", str(out), "--quiet", "--only", "tuned"])
    command.main([str(paper), "-p", str(out), "--quiet", "--only", "tuned", "-o", "optimizer.lr=0.5"])
    text = (out / "table1.md").read_text()
    assert "- tuned: Expected the same run in" in text
    assert "(there -> now): optimizer.lr: 0.001 -> 0.5; Choose another folder" in text
    assert text.splitlines()[4].split("|")[2].strip() == "-"


def test_a_plan_calls_no_run_done_that_has_other_options(paper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(paper), "-p", str(tmp_path / "out"), "--only", "tuned"]
    command.main([*arguments, "--quiet"])
    capsys.readouterr()
    command.main([*arguments, "--plan", "-o", "tuned.optimizer.lr=0.5"])
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.startswith("tuned"))
    assert row.split()[:5] == ["tuned", "1", "0", "1", "0"]
    assert row.endswith("other runs there: 1")
    assert any(line.startswith("other ") and "optimizer.lr: 0.001 -> 0.5" in line for line in lines)


def test_an_option_may_be_for_some_parts() -> None:
    whole = recipe(parts={"other": {}, "tuned-more": {}})
    plan = plan_recipe(
        whole, CommandOptions(overrides=[{"tuned*": {"corpus": {"protocol": "random10"}}}, {"other": {"seed": 7}}])
    )
    assert {name: config.only.corpus.protocol for name, config in plan.configs.items()} == {
        "tuned": "random10",
        "tuned-more": "random10",
        "other": "session5",
        "frozen": "session5",
    }
    assert [run.seed for run in plan.runs["other"]] == [7]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            {"tunde": {"seed": 1}},
            "Expected parts of the recipe before their option, found 'tunde'. Did you mean 'tuned'? Known: ",
        ),
        ({"x*": {"seed": 1}}, "found 'x*'. Known: frozen, tuned."),
        ({"tuned": 3}, "Expected `-o tuned.key=value`, found 'tuned=3'."),
        ({"tuned": {"sead": 1}}, "Unknown option 'sead'. Did you mean 'seed'?"),
        ({"tuned": {"sead": 1}}, "Options of some parts alone are given as -o PART.key=value"),
        ({"trainig": {"steps": 1}}, "Unknown option 'trainig'. Did you mean 'training'?"),
    ],
)
def test_an_option_for_no_part_is_refused(override: dict[str, Any], message: str) -> None:
    assert message in refusal(recipe(), CommandOptions(overrides=[override]))


def test_a_caption_says_what_is_run() -> None:
    whole = recipe(tables={"table1": {"caption": "by {tuned.corpus.protocol}, all: {*.corpus.protocol}"}})
    plan = plan_recipe(whole, CommandOptions(overrides=[{"tuned": {"corpus": {"protocol": "random10"}}}]))
    assert plan.filled(plan.recipe.tables["table1"].caption) == "by random10, all: session5 and random10"
    wrong = recipe(tables={"table1": {"caption": "by {tuned.corpus.protcol}"}})
    assert "Expected an option of a part in the caption of tables.table1, found '{tuned.corpus.protcol}'." in refusal(wrong)


def test_turbos_other_reading_of_its_folds_can_be_run() -> None:
    mapping = read_recipe(find_recipe("turbo/paper"))
    plan = plan_recipe(mapping, CommandOptions(overrides=[parse_override("iemocap-*.corpus.protocol=random10")]))
    assert "IEMOCAP by protocol random10 (" in plan.filled(plan.recipe.tables["table1"].caption)
    assert "protocol speaker10 (" in plan_recipe(mapping).filled(plan.recipe.tables["table1"].caption)


def test_weights_go_to_every_part_that_names_them(tmp_path: Path) -> None:
    whole = recipe(base={"upstream": {"name": "distilhubert"}}, parts={"own": {"upstream": {"name": "hubert_base"}}})
    plan = plan_recipe(whole, CommandOptions(weights={"distilhubert": str(tmp_path)}))
    assert plan.configs["tuned"].upstream.path == str(tmp_path)
    assert plan.configs["own"].upstream.path is None
    assert plan.configs["frozen"].upstream.path is None
    message = refusal(whole, CommandOptions(weights={"distilhubrt": str(tmp_path), "hubert_base": "/nowhere"}))
    assert "--weights for an upstream of the recipe (distilhubert, hubert_base), found 'distilhubrt'. Did you mean" in message
    assert "Expected a folder with weights after --weights hubert_base=, found none at '/nowhere'." in message


def test_what_is_not_on_this_machine_is_reported_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    whole = recipe(
        base={"upstream": {"name": "distilhubert"}, "text_upstream": {"name": "hashed_words"}, "corpus": {"demo": True}}
    )
    whole["base"]["corpus"]["transcripts"] = "whisper_tiny:de"
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(whole))
    assert command.main([str(tmp_path / "recipe.yaml"), "--plan", "-p", str(tmp_path / "out")]) == 0
    report = capsys.readouterr().out
    assert "weights of distilhubert (ntu-spml/distilhubert) are not here" in report
    assert "then --weights distilhubert=DIR" in report
    assert "`headwater corpus transcribe iemocap --demo --model whisper_tiny --language de`" in report


def test_weights_and_transcripts_that_are_here_are_not_missed(tmp_path: Path, cache_folder: Path) -> None:
    whole = recipe(base={"upstream": {"name": "distilhubert"}, "corpus": {"transcripts": "some_whisper"}})
    whole["base"]["text_upstream"] = {"name": "hashed_words"}
    plan = plan_recipe(whole, CommandOptions(weights={"distilhubert": str(tmp_path)}))
    assert missing_weights(plan.runs["tuned"][0]) == {}
    assert missing_transcripts(plan.configs["tuned"])
    (cache_folder / "transcripts").mkdir(exist_ok=True)
    (cache_folder / "transcripts" / "some.jsonl").write_text('{"about": {"model": "some_whisper"}}\n')
    assert missing_transcripts(plan.configs["tuned"]) == ""


def test_a_failure_for_want_of_weights_names_the_recipes_flag(
    paper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    out = tmp_path / "out"
    assert command.main([str(paper), "-p", str(out), "--quiet", "--only", "tuned", "-o", "upstream.name=distilhubert"]) == 3
    text = (out / "table1.md").read_text()
    assert "- tuned: weights of distilhubert (ntu-spml/distilhubert) are not here; without a network bring them" in text
    assert "-k DIR" not in text


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_part_that_fails_says_why_in_one_line(
    jobs: str, paper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 2, "", "corpus    manifest\nerror: Expected gold:\n  lead\n  tin\n")

    def refuse(*_: Any, **__: Any) -> None:
        raise UserError("Expected gold:\n  lead\n  tin")

    monkeypatch.setattr("headwater.plans.execute.subprocess.run", stopped)
    monkeypatch.setattr("headwater.plans.execute.run", refuse)
    out = tmp_path / "out"
    assert command.main([str(paper), "-p", str(out), "--only", "tuned", "--jobs", jobs]) == 3
    assert "Expected gold: lead; tin\n" in (out / "table1.md").read_text()
    assert "passed over: " in capsys.readouterr().err


def test_a_crash_is_reported_by_its_last_line_and_kept_whole(tmp_path: Path) -> None:
    report = "Traceback (most recent call last):\n  File x\nMemoryError: too large\n"
    assert why_stopped("a/seed1", report, tmp_path) == (
        f"Run 'a/seed1' stopped: MemoryError: too large (its whole output: {tmp_path / 'stopped.txt'})"
    )
    assert (tmp_path / "stopped.txt").read_text() == report


def test_a_demo_takes_no_data() -> None:
    message = refusal(recipe(base={"corpus": {"demo": True}}), CommandOptions({"iemocap": "/nowhere"}))
    assert message == "Expected no --data for 'iemocap' (the part uses a miniature), found '/nowhere'. Leave it out."


def test_a_runs_recipe_is_refused_with_its_command() -> None:
    with pytest.raises(UserError, match="Run it: headwater downstream -c superb/emotion"):
        command.main(["superb/emotion"])


def test_without_a_name_the_command_that_lists_recipes_is_named() -> None:
    with pytest.raises(UserError, match=r"a recipe, found none\. `headwater list recipes` lists ours"):
        command.main([])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--jobs", "0"], "Expected --jobs of 1 or more, found 0"), (["--data", "iemocap=/nowhere"], "found nothing there")],
)
def test_a_wrong_flag_is_reported_before_anything_runs(arguments: list[str], message: str, paper: Path) -> None:
    with pytest.raises(UserError, match=message):
        command.main([str(paper), *arguments])


def test_the_size_foretold_is_that_of_the_checkpoints(tones: Path, tmp_path: Path) -> None:
    training = {"steps": 2, "batch_size": 4, "eval_every": 2}
    mapping = recipe()
    mapping["base"] = {"task": "emotion", "upstream": TINY, "corpus": {"data": str(tones)}, "training": training}
    plan = plan_recipe(mapping)
    others = {run.name: run for runs in plan.runs.values() for run in runs}
    foretold = outlook(plan.runs["tuned"], tmp_path, others).size
    (path := tmp_path / "recipe.yaml").write_text(yaml.safe_dump(mapping))
    command.main([str(path), "--quiet", "--only", "tuned", "-p", str(tmp_path), "--device", "cpu"])
    written = sum(
        file.stat().st_size for file in (tmp_path / "tuned").rglob("*.safetensors") if file.parent.name == "checkpoints"
    )
    assert foretold is not None
    head = 4 * 17_671 * 4  # its weights are not foretold: they are next to nothing beside a real model's
    assert foretold == pytest.approx(written - head, rel=0.02)


def test_weights_are_counted_without_loading_any(tmp_path: Path) -> None:
    described = {
        "model_type": "hubert",
        "num_hidden_layers": 4,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
    }
    (tmp_path / "config.json").write_text(json.dumps(described))
    all_blocks, one = (count_weights(UpstreamConfig(str(tmp_path), trainable=True, keep_layers=keep)) for keep in (None, 1))
    assert all_blocks is not None
    assert one is not None
    block = 4 * (64 * 64 + 64) + 2 * 64 * 128 + 128 + 64 + 4 * 64
    assert [whole - pruned for whole, pruned in zip(all_blocks, one, strict=True)] == [3 * block] * 2
    assert count_weights(UpstreamConfig("nobody/has-this", trainable=True)) is None


def test_weights_of_the_encoder_inside_a_larger_model_are_counted(tmp_path: Path) -> None:
    sizes = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "voxtral", "audio_config": sizes}))
    both, one = (count_weights(UpstreamConfig(str(tmp_path), trainable=True, keep_layers=keep)) for keep in (None, 1))
    assert both is not None
    assert one is not None
    assert both[0] - one[0] == 4 * 32 * 32 + 3 * 32 + 2 * 32 * 64 + 64 + 32 + 4 * 32  # keys have no bias
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    assert count_weights(UpstreamConfig(str(tmp_path), trainable=True)) is None


def test_hours_are_known_once_a_run_has_saved_its_pace(tmp_path: Path) -> None:
    plan = plan_recipe(recipe(base={"training": {"steps": 1000}}, seeds=[1, 2]))
    others = {run.name: run for runs in plan.runs.values() for run in runs}
    for step, seconds in ((FIRST_STEPS - 1, None), (100, 190.0)):
        facts = {"progress": {"step": step, "seconds": 0.1 * step}}
        save_tensors(RunFolder(tmp_path / "tuned" / "fold1" / "seed1").last, {"w": torch.zeros(1)}, facts)
        view = outlook(plan.runs["tuned"], tmp_path, others)
        assert (view.steps, view.seconds) == (2000 - step, pytest.approx(seconds))


def test_a_mapping_is_left_as_it_was() -> None:
    mapping = recipe()
    before = deepcopy(mapping)
    plan_recipe(mapping, CommandOptions({"iemocap": "/x"}, [{"seed": 3}]))
    assert mapping == before
