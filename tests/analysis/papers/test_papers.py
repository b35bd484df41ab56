"""A paper's tables and figures: ours beside the paper's, and a dash where nothing was run."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from PIL import Image

from headwater.analysis.papers.figures import FIGURES, draw_gain, gain, report, write_figure
from headwater.analysis.papers.tables import Finished, finished_runs, ours, published, spread_of, value_of, write_table
from headwater.commands import recipe as command
from headwater.plans.inventory import find_runs
from headwater.plans.paper import PaperPlan, plan_recipe
from headwater.plans.recipe import Column, Figure

TABLE = {
    "caption": "Two ways",
    "labels": ["Modality", "Model"],
    "columns": [
        {"header": "seen WA", "metric": "wa", "of": "a", "split": "dev"},
        {"header": "WA", "metric": "wa", "of": "b"},
        {"header": "#Params (M)", "field": "weights", "of": "a", "unit": "millions"},
    ],
    "rows": [
        {"label": ["Audio", "One"], "parts": {"a": "one", "b": "two"}, "paper": [0.7076, 0.6, 24]},
        {"label": ["Audio", "None"], "parts": {"a": "real", "b": "real"}, "paper": [0.5, None, None]},
    ],
}
FIGURES_OF = {
    "fig2": {"kind": "layer-weights", "caption": "Layers", "parts": {"one": "probe", "none": "real"}},
    "fig3": {
        "kind": "gain",
        "caption": "Gains",
        "metric": "ua",
        "splits": ["seen=dev", "unseen=test"],
        "groups": {"first": {"without": "one", "with": "two"}, "second": {"without": "real", "with": "one"}},
    },
    "fig4": {"kind": "gain", "metric": "ua", "groups": {"none": {"without": "real", "with": "real"}}},
}


@pytest.fixture(scope="module")
def mapping(tones: Path) -> dict[str, Any]:
    training = {"steps": 4, "batch_size": 8, "eval_every": 4}
    upstream, corpus = {"name": "fbank_no_cmvn"}, {"name": "manifest", "data": str(tones)}
    return {
        "paper": "A paper (2026)",
        "base": {"task": "emotion", "upstream": upstream, "corpus": corpus, "training": training},
        "seeds": [1, 2],
        "parts": {
            "two": {"init_head": "part:one", "optimizer": {"lr": 1e-2}},
            "one": {},
            "probe": {"upstream": {"name": "test_distilhubert"}, "plan": {"seeds": [1]}},
            "real": {"corpus": {"name": "iemocap", "data": None}},
        },
        "tables": {"table1": TABLE},
        "figures": FIGURES_OF,
    }


@pytest.fixture(scope="module")
def done(mapping: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the recipe with all of it run that can be."""
    folder = tmp_path_factory.mktemp("paper")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(mapping, sort_keys=False))
    assert command.main([str(folder / "recipe.yaml"), "-p", str(folder / "out"), "--quiet", "--device", "cpu"]) == 3
    return folder / "out"


@pytest.fixture
def plan(mapping: dict[str, Any]) -> PaperPlan:
    return plan_recipe(mapping)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def scores(folder: Path, part: str, split: str, metric: str) -> list[float]:
    files = sorted((folder / part).rglob("result.json"))
    return [json.loads(file.read_text())["scores"][split][metric] for file in files]


def mark(folder: Path, marks: Sequence[str]) -> None:
    for file in folder.rglob("result.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "marks": marks}))


def test_ours_is_the_mean_and_spread_over_seeds_beside_the_papers(done: Path) -> None:
    row = rows_of(done / "table1.csv")[0]
    values = scores(done, "one", "dev", "wa")
    assert float(row["seen WA"]) == pytest.approx(sum(values) / 2, abs=1e-6)
    assert float(row["seen WA spread"]) == pytest.approx(abs(values[0] - values[1]) / 2**0.5, abs=1e-6)
    assert (row["seen WA runs"], row["seen WA paper"]) == ("2", "0.7076")
    assert float(row["WA"]) == pytest.approx(sum(scores(done, "two", "test", "wa")) / 2, abs=1e-6)


def test_a_table_has_the_papers_columns_side_by_side(done: Path) -> None:
    lines = (done / "table1.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert lines[0] == "table1: Two ways; ± standard deviation over 2 seeds"
    assert cells[0] == [
        "Modality",
        "Model",
        "seen WA",
        "seen WA (paper)",
        "WA",
        "WA (paper)",
        "#Params (M)",
        "#Params (M) (paper)",
        "runs",
    ]
    assert cells[2][3::2] == ["0.708", "0.600", "24"]
    assert cells[3][2:] == ["-", "0.500", "-", "", "-", "", "0 of 2"]
    assert lines[-1].startswith("- real: iemocap is not here; get it (")


def test_no_value_of_the_paper_stands_beside_a_marked_run(done: Path, plan: PaperPlan, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "out")
    mark(tmp_path / "out" / "two", ["UNTRAINED"])
    text = write_table(plan, "table1", find_runs(plan, tmp_path / "out"), {})
    marked, other = rows_of(tmp_path / "out" / "table1.csv")
    assert text.startswith("UNTRAINED · table1: Two ways")
    assert (marked["marks"], marked["seen WA paper"], marked["WA paper"]) == ("UNTRAINED", "", "")
    assert (other["marks"], other["seen WA paper"]) == ("", "0.5")
    assert "0.708" not in text


def test_a_demo_recipe_shows_no_value_of_the_paper_even_before_it_is_run(mapping: dict[str, Any], tmp_path: Path) -> None:
    base = {**mapping["base"], "corpus": {"name": "iemocap", "demo": True}}
    parts = {name: {"plan": {"seeds": [1]}} for name in mapping["parts"]}
    plan = plan_recipe({**mapping, "base": base, "parts": parts})
    text = write_table(plan, "table1", find_runs(plan, tmp_path), {})
    assert text.startswith("DEMO · ")
    assert "(paper)" not in text
    assert "- one: not run yet" in text


def test_half_of_the_runs_are_not_passed_off_as_all(done: Path, plan: PaperPlan, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "two" / "fold1" / "seed2")
    assert finished_runs(plan, "two", find_runs(plan, tmp_path / "out")).runs == "1 of 2"
    assert "2, 1 of 2" in write_table(plan, "table1", find_runs(plan, tmp_path / "out"), {})


def test_a_run_that_started_from_another_part_does_not_count(
    done: Path, mapping: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    parts = {**mapping["parts"], "two": {"init_head": "part:other", "optimizer": {"lr": 1e-2}}, "other": {}}
    changed = {**mapping, "parts": parts}
    shutil.copytree(done, done.with_name("other") / "out")
    shutil.copytree(done / "one", done.with_name("other") / "out" / "other")
    plan = plan_recipe(changed)
    found = find_runs(plan, done.with_name("other") / "out")
    assert [finished_runs(plan, part, found).runs for part in ("other", "two")] == ["2", "0 of 2"]
    path = done.with_name("other") / "recipe.yaml"
    path.write_text(yaml.safe_dump(changed, sort_keys=False))
    assert command.main([str(path), "-p", str(path.with_name("out")), "--quiet", "--only", "two"]) == 3
    assert "to start from other/fold1/seed1, found that it started from" in capsys.readouterr().out


def test_numbers_of_a_result_are_found_by_their_keys() -> None:
    result = {"scores": {"test": {"wa": 0.5}}, "weights": {"audio": 2e6, "text": 1e6}, "details": {"test": {"alignment": 0.25}}}
    columns = [
        Column(metric="wa"),
        Column(metric="wa", split="test2"),
        Column(metric="wa", unit="percent"),
        Column(field="weights", unit="millions"),
        Column(field="details.test.alignment"),
        Column(field="transcripts.wer"),
    ]
    assert [value_of(result, column) for column in columns] == [0.5, None, 50.0, 3.0, 0.25, None]


def test_every_kind_of_figure_has_its_drawing() -> None:
    assert {*FIGURES} == {*get_args(get_type_hints(Figure)["kind"])}


def test_a_figure_is_drawn_of_the_parts_there_are(done: Path) -> None:
    with Image.open(done / "fig2.png") as image:
        assert min(image.size) > 400
    rows = rows_of(done / "fig2.csv")
    assert [(row["part"], row["layer"], row["runs"], row["marks"]) for row in rows] == [
        ("one", str(layer), "1", "UNTRAINED") for layer in range(3)
    ]
    assert sum(float(row["weight_mean"]) for row in rows) == pytest.approx(1, abs=1e-4)


def test_a_gain_is_relative_to_the_first_part_of_its_group(done: Path) -> None:
    (seen, unseen) = rows_of(done / "fig3.csv")
    before, after = (sum(scores(done, part, "test", "ua")) for part in ("one", "two"))
    assert (seen["split"], unseen["split"], unseen["group"], unseen["bar"]) == ("seen", "unseen", "first", "with")
    assert float(unseen["relative_gain"]) == pytest.approx(after / before - 1, abs=1e-5)


def test_a_figure_says_which_parts_it_lacks(done: Path, plan: PaperPlan) -> None:
    reason = write_figure(plan, "fig3", find_runs(plan, done), {"real": "no corpus:\n  at all\n  here"})
    assert reason == f"fig3: {done}/fig3.png, without real (no corpus: at all; here)"
    assert write_figure(plan, "fig4", find_runs(plan, done), {}) == "fig4: - (no runs of real (not run yet))"
    assert not (done / "fig4.png").exists()


def test_a_report_has_every_table_and_figure(done: Path, plan: PaperPlan) -> None:
    text = report(plan, done, {})
    assert [line.partition(":")[0] for line in text.splitlines() if ": " in line and line[:3] in {"tab", "fig"}] == [
        "table1",
        "fig2",
        "fig3",
        "fig4",
    ]


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_table_never_mixes_two_corpora_under_one_name(
    done: Path, mapping: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(done, out := tmp_path / "out")
    edit(out / "probe" / "fold1" / "seed1" / "identity.json", corpus="of another table")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(mapping, sort_keys=False))
    arguments = [str(tmp_path / "recipe.yaml"), "-p", str(out), "--quiet", "--only", "probe"]
    assert command.main(arguments) == 3
    assert (
        "Expected 'probe/fold1/seed1' and 'one/fold1/seed1' to be comparable, found two corpora (other utterances, cuts or "
        "labels, under the same name). Remove the one that is wrong, or choose another folder with -p."
    ) in (reason := capsys.readouterr().out)
    assert "other runs there: 1" in reason
    assert "fig2: - (no runs of probe (Expected" in reason


def test_runs_on_audio_and_on_text_are_tested_on_the_same_utterances(done: Path, plan: PaperPlan, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "out")
    place = tmp_path / "out" / "probe" / "fold1" / "seed1" / "predictions-test.csv"
    lines = place.read_text().splitlines()
    place.write_text("\n".join([*lines[:-1], "another" + lines[-1]]) + "\n")
    found = find_runs(plan, tmp_path / "out")
    shared = len(lines) - 2
    words = f"found {shared} utterances in common of {shared + 1} and {shared + 1} in split 'test'."
    assert words in found.foreign["probe/fold1/seed1"]
    assert len(found.results) == 4


def test_a_part_has_one_upstream(done: Path, plan: PaperPlan, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "out")
    edit(tmp_path / "out" / "two" / "fold1" / "seed2" / "identity.json", upstreams={"audio": "of other weights"})
    found = find_runs(plan, tmp_path / "out")
    assert [*found.foreign] == ["two/fold1/seed2"]
    assert (
        "and 'two/fold1/seed1' to be comparable, found other weights of the audio upstream." in found.foreign["two/fold1/seed2"]
    )


def test_what_starts_from_another_recipes_run_does_not_count(done: Path, plan: PaperPlan, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "out")
    edit(tmp_path / "out" / "one" / "fold1" / "seed1" / "identity.json", config={})
    found = find_runs(plan, tmp_path / "out")
    assert found.foreign["two/fold1/seed1"].startswith("'two/fold1/seed1' starts from 'one/fold1/seed1': Expected the same run")
    assert [*found.results] == ["one/fold1/seed2", "probe/fold1/seed1", "two/fold1/seed2"]


def test_a_reason_keeps_every_difference(done: Path, plan: PaperPlan) -> None:
    text = write_table(
        plan, "table1", find_runs(plan, done), {"real": "Another one (there -> now):\n  a: 1 -> 2\n  b: 3 -> 4\nMend it."}
    )
    assert text.endswith("- real: Another one (there -> now): a: 1 -> 2; b: 3 -> 4; Mend it.")


def finished(*values: float) -> Finished:
    """Runs with these scores."""
    return Finished((), tuple({"scores": {"test": {"ua": value}}} for value in values), len(values), ())


def test_equal_values_have_no_spread() -> None:
    assert ours(finished(0.1, 0.1, 0.1), Column(metric="ua")) == (0.1, 0.0)
    assert ours(finished(0.1), Column(metric="ua")) == (0.1, None)


def test_the_caption_says_over_what_spreads_are(mapping: dict[str, Any]) -> None:
    parts = {"real": {"corpus": {"name": "iemocap", "data": None}, "plan": {"folds": [1, 2, 3]}}, "one": {}, "two": {}}
    table = {**TABLE, "rows": [{"label": ["a", "b"], "parts": {"a": "real", "b": "one"}}]}
    plan = plan_recipe({**mapping, "parts": parts, "tables": {"t": table}, "figures": {}})
    assert spread_of(plan, plan.recipe.tables["t"]) == "; ± standard deviation over 3 folds × 2 seeds (a), 2 seeds (b)"
    single = plan_recipe({**mapping, "seeds": [1], "parts": {"one": {}, "two": {}, "real": {}}, "figures": {}})
    assert spread_of(single, single.recipe.tables["table1"]) == ""


@pytest.mark.parametrize("base", [0.0, -0.1])
def test_nothing_is_gained_over_a_base_of_zero_or_less(base: float, tmp_path: Path) -> None:
    groups = {"first": {"without": "a", "with": "b"}, "second": {"without": "b", "with": "c"}}
    figure = Figure(kind="gain", metric="ua", groups=groups)
    done = {"a": finished(base), "b": finished(0.2), "c": finished(0.3)}
    assert gain(figure, done, groups["first"], "with", "test") is None
    reason = draw_gain(figure, done, tmp_path / "fig3")
    assert reason == f"{tmp_path / 'fig3.png'}; no gain for first (test): ua of 'without' is {base:.3f}"
    assert [row["group"] for row in rows_of(tmp_path / "fig3.csv")] == ["second"]


def test_a_release_that_is_not_the_papers_is_named_under_the_table(done: Path, mapping: dict[str, Any], tmp_path: Path) -> None:
    plan = plan_recipe({**mapping, "releases": {"manifest": "1.10"}})
    shutil.copytree(done, tmp_path / "out")
    for part, release in (("one", "1.10"), ("two", "1.11")):
        for file in (tmp_path / "out" / part).rglob("result.json"):
            file.write_text(json.dumps({**json.loads(file.read_text()), "release": release}))
    note = "- two: release 1.11 of manifest; the paper's values are of release 1.10, on other utterances"
    for text in (
        write_table(plan, "table1", find_runs(plan, tmp_path / "out"), {}),
        (tmp_path / "out" / "table1.md").read_text(),
    ):
        assert text.count(note) == 1
        assert "- one: release" not in text
    unknown = write_table(plan, "table1", find_runs(plan, done), {})  # results of before releases were known
    assert "- one, two: an unknown release of manifest; the paper's values are of release 1.10" in unknown
    mark(tmp_path / "out" / "two", ["DEMO"])
    assert "release 1.11" not in write_table(plan, "table1", find_runs(plan, tmp_path / "out"), {})


def test_published_values_stand_below_where_upstream_corpus_and_protocol_agree(mapping: dict[str, Any]) -> None:
    protocol = plan_recipe(mapping).configs["one"].only.corpus.protocol
    here = {"upstream": "fbank_no_cmvn", "corpus": "manifest", "protocol": protocol, "metric": "wa", "value": 0.5, "source": "S"}
    others = [{**here, "upstream": "fbank"}, {**here, "corpus": "iemocap"}, {**here, "protocol": "another"}]
    plan = plan_recipe({**mapping, "base": {**mapping["base"], "reference": [*others, here]}})
    done = {"one": Finished((), ({},), 1, ()), "two": Finished((), ({},), 1, ("DEMO",)), "probe": Finished((), (), 1, ())}
    assert published(plan, done) == ["- one: published wa 0.5 (S)"]
