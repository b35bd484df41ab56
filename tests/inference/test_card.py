"""The card of a shared run: what the hub reads of it, whose licences it inherits, and that it names nobody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from headwater.core.errors import UserError
from headwater.core.options import merge
from headwater.corpus.base import CORPORA
from headwater.inference.sharing.card import nameless
from headwater.inference.sharing.estimate import estimates_of
from headwater.inference.sharing.lineage import Part, known_licences, lineage, terms_of
from headwater.inference.sharing.push import Choice, dry_run
from headwater.plans.grid import expand, run_plan
from headwater.runs.config.resolve import resolve
from headwater.runs.run import run
from headwater.runs.runtime import Runtime
from headwater.upstream.hub.models import class_of, new_model
from headwater.upstream.hub.tiny import SMALL
from headwater.upstream.load import list_upstreams

QUIET = Runtime("cpu", quiet=True)
NAME = "ann/tones"


def recipe(data: Path, **others: Any) -> dict[str, Any]:
    """A run of one step over the tones."""
    usual = {
        "task": "emotion",
        "corpus": {"data": str(data)},
        "upstream": {"name": "fbank"},
        "training": {"steps": 1, "batch_size": 8, "eval_every": 1},
        "store": {"mode": "off"},
    }
    return dict(merge(usual, others))


def trained(data: Path, folder: Path, **others: Any) -> Path:
    """The folder of a run that is trained."""
    run(resolve([recipe(data, **others)]), folder, QUIET)
    return folder


@pytest.fixture(scope="module")
def plain(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a spectrogram, tested on eight speakers."""
    folder = tmp_path_factory.mktemp("runs")
    header, *rows = (line.rsplit(",", 1)[0] for line in tones.read_text().splitlines())
    splits = {"spk0": "train", "spk1": "train", "spk2": "dev", "spk3": "dev"}
    lines = [f"{tones.parent / row},{splits.get(row.rsplit(',', 1)[1], 'test')}" for row in rows]
    (folder / "clips.csv").write_text("\n".join([f"{header},split", *lines]) + "\n")
    return trained(folder / "clips.csv", folder / "plain")


def shared(folder: Path, place: Path, **choice: Any) -> tuple[dict[str, Any], str]:
    """The yaml head of a run's card, and the rest of it."""
    dry_run(folder, NAME, place, Choice(**choice))
    _, head, text = (place / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), text


def test_the_hub_reads_scores_with_intervals_from_the_card(plain: Path, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    head, text = shared(plain, tmp_path / "card")
    data = ModelCard((tmp_path / "card" / "README.md").read_text()).data
    result = json.loads((plain / "result.json").read_text())
    found = {row.metric_type: row for row in data.eval_results}
    low, high = result["intervals"]["test"]["ua"]
    assert found["recall"].metric_value == pytest.approx(result["scores"]["test"]["ua"], abs=1e-4)
    assert found["recall"].metric_args["interval"] == pytest.approx([low, high], abs=1e-4)
    assert found["recall"].metric_name == f"UA (95 % interval {low:.3f} to {high:.3f})"
    assert (head["library_name"], head["pipeline_tag"]) == ("headwater", "audio-classification")
    assert head["tags"] == ["headwater", "speech", "emotion"]
    assert "datasets" not in head  # a table of one's own has no name that others know
    assert f"{low:.3f} to {high:.3f} |" in text
    for part in (
        "headwater predict hf:ann/tones my.wav",
        'load_run("hf:ann/tones")',
        "Trained on 12 utterances.",
        "test (48 utterances, 8 speakers)",
        "Not audited",
        "## Limits",
    ):
        assert part in text


def test_nothing_of_a_shared_folder_names_a_place_of_the_machine(plain: Path, tmp_path: Path) -> None:
    shared(plain, tmp_path / "card")
    for path in (path for path in (tmp_path / "card").rglob("*") if path.is_file()):
        assert str(plain.parent).encode() not in path.read_bytes(), path.name
        assert str(Path.home()).encode() not in path.read_bytes(), path.name


def model_folder(place: Path, licence: str) -> Path:
    """A model as it is downloaded, with a card of its own."""
    new_model(class_of("hubert").config_class(**SMALL)).save_pretrained(place)
    (place / "README.md").write_text(f"---\nlicense: {licence}\n---\n\n# A model\n")
    return place


def test_a_non_commercial_model_below_makes_a_non_commercial_card(tones: Path, tmp_path: Path) -> None:
    model = model_folder(tmp_path / "nc_model", "cc-by-nc-4.0")
    below = trained(tones, tmp_path / "below", upstream={"name": str(model), "trainable": True})
    above = trained(tones, tmp_path / "above", upstream={"name": str(below)})
    for number, folder in enumerate((below, above)):
        head, text = shared(folder, tmp_path / f"card{number}")
        assert head["license"] == "cc-by-nc-4.0"
        assert "Non-commercial, since it is made of nc_model (cc-by-nc-4.0, as its own card says)." in text
    assert "| a table of its user's own | finetuned 'below' | not known |" in text
    with pytest.raises(
        UserError, match=r"^Expected a non-commercial licence .* nc_model .* found --license apache-2\.0\. Leave it out"
    ):
        shared(above, tmp_path / "free", licence="apache-2.0")
    assert not (tmp_path / "free").exists()
    assert shared(above, tmp_path / "strict", licence="cc-by-nc-nd-4.0")[0]["license"] == "cc-by-nc-nd-4.0"


def test_a_non_commercial_teacher_makes_the_card_of_what_it_taught_non_commercial(plain: Path, tmp_path: Path) -> None:
    teacher = model_folder(tmp_path / "nc_teacher", "cc-by-nc-4.0")
    config = yaml.safe_load((plain / "config.yaml").read_text())
    student = {"task": "distil", "corpus": config["corpus"], "upstream": {"name": "new/hubert", "trainable": True}}
    written(tmp_path / "student", {**student, "teacher": {"name": str(teacher)}}, plain)
    written(tmp_path / "again", {**student, "teacher": {"name": str(tmp_path / "student")}}, plain)
    for below in ("student", "again"):
        config["upstream"]["name"] = str(tmp_path / below)
        found = {one.name: one.how for one in lineage(written(tmp_path / f"above-{below}", config, plain))}
        assert found["nc_teacher"] == "teacher upstream of 'student'"
        assert terms_of(lineage(tmp_path / f"above-{below}"), None).head["license"] == "cc-by-nc-4.0"


def written(folder: Path, config: dict[str, Any], like: Path) -> Path:
    """The folder of a run by its config alone."""
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "identity.json").write_text((like / "identity.json").read_text())
    return folder


def part(name: str, **others: Any) -> Part:
    """A part of a run."""
    return Part("model", name, "below", **others)


NC = {"licence": "CC BY-NC 4.0", "id": "cc-by-nc-4.0", "use": "research"}
FREE = {"licence": "MIT", "id": "mit", "use": "open"}


@pytest.mark.parametrize(
    ("parts", "chosen", "head"),
    [
        ([part("a", **FREE)], None, {"license": "mit"}),
        ([part("a", **FREE), part("b")], None, {"license": "unknown"}),
        ([part("a", **FREE), part("b")], "apache-2.0", {"license": "apache-2.0"}),
        ([part("a", **FREE), part("b", **NC)], None, {"license": "cc-by-nc-4.0"}),
        ([part("a"), part("b", **NC)], None, {"license": "cc-by-nc-4.0"}),
        (
            [part("a", licence="for research", use="research"), part("b", **NC)],
            None,
            {"license": "other", "license_name": "non-commercial", "license_link": "README.md"},
        ),
    ],
)
def test_the_strictest_licence_decides_and_what_is_not_known_is_said(
    parts: list[Part], chosen: str | None, head: dict[str, str]
) -> None:
    assert terms_of(parts, chosen).head == head


def test_what_is_known_of_licences_agrees_with_what_the_readers_say() -> None:
    known = known_licences()
    assert {*known["corpora"]} <= {*CORPORA.loaded()}
    for name, row in known["corpora"].items():
        where = CORPORA.loaded()[name].where
        assert any(f"({words}" in where for words in (row["licence"].split(",")[0], "CC0")) or row["licence"] in where, (
            name,
            where,
        )
    sources = {row.source for row in list_upstreams()} | {row.name for row in list_upstreams() if row.source == "built in"}
    assert {name for name in known["models"] if "/" not in name} <= sources
    assert len({*known["models"]} & sources) > 10
    for rows in known.values():
        for row in rows.values():
            assert row["use"] in {"open", "research", "unknown"}
            assert ("-nc-" in row.get("id", "")) <= (row["use"] == "research")


def test_hub_ids_and_corpora_stand_where_the_hub_looks_for_them(plain: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((plain / "config.yaml").read_text())
    config["upstream"]["name"], config["corpus"] = "mms_300m", {"name": "ravdess"}
    found = lineage(written(tmp_path / "named", config, plain))
    assert [(one.name, one.on_hub, one.use) for one in found] == [
        ("facebook/mms-300m", True, "research"),
        ("ravdess", False, "research"),
    ]
    assert terms_of(found, None).head["license"] == "other"  # two licences: neither stands for both


def test_a_demo_has_no_scores_for_the_hub(tmp_path: Path) -> None:
    corpus = {"name": "ravdess", "demo": True, "demo_scale": 0.2, "data": None}
    folder = tmp_path / "demo"
    run(resolve([recipe(Path("none"), corpus=corpus)]), folder, QUIET)
    head, text = shared(folder, tmp_path / "card")
    assert not {"model-index", "metrics", "datasets"} & {*head}
    assert "demo" in head["tags"]
    assert "**DEMO: not a result to quote.**" in text


def test_a_fold_has_its_own_scores_and_a_final_model_those_of_its_plan(tones: Path, tmp_path: Path) -> None:
    table = tmp_path / "unsplit.csv"
    rows = [line.rsplit(",", 1)[0] for line in tones.read_text().splitlines()]
    table.write_text("\n".join([rows[0], *(f"{tones.parent / row}" for row in rows[1:])]) + "\n")
    config = resolve([recipe(table)])
    run_plan(expand(config, [1, 2], [1], {}), tmp_path / "plan", QUIET)
    _, text = shared(tmp_path / "plan", tmp_path / "card", fold=2)
    assert "by this run (fold 2 of the protocol" in text
    final = resolve([recipe(table, split="all", steps_from=str(tmp_path / "plan"))])
    run(final, tmp_path / "final", QUIET)
    (tmp_path / "plan" / "audit.json").write_text(json.dumps({"about": "a plan", "findings": FINDINGS}))
    head, text = shared(tmp_path / "final", tmp_path / "card-of-all")
    pooled = json.loads((tmp_path / "plan" / "result.json").read_text())["pooled"]["test"]
    assert head["model-index"][0]["results"][0]["metrics"][0]["value"] == pytest.approx(pooled["scores"]["wa"], abs=1e-4)
    assert "by the plan 'plan' (2 folds), pooled; this model repeats its recipe on all of the data" in text
    assert "- **Careful:** duration alone gives 0.5" in text
    assert "ann" not in text.split("## Audit")[1]
    assert "Of 2 further checks (leaks, audio, labels, groups) 1 warns." in text
    assert "leakage: speakers" in text
    assert str(tmp_path) not in (tmp_path / "card-of-all" / "result.json").read_text()
    (tmp_path / "plan").rename(tmp_path / "gone")
    assert "Not known: nothing was held out" in shared(tmp_path / "final", tmp_path / "card-alone")[1]


FINDINGS = [
    {"section": "controls", "name": "duration", "line": "duration alone gives 0.5", "warns": True},
    {"section": "leakage", "name": "speakers", "line": "ann is in train and test", "warns": True},
    {"section": "audio", "name": "silence", "line": "none", "warns": False},
]


def test_no_estimate_where_nothing_was_scored() -> None:
    assert estimates_of({"split": "all"}) == []
    assert estimates_of({"metrics": {"ua": "higher"}, "scores": {"dev": {"ua": 1.0}}}) == []


def test_notes_are_published_without_names_and_folders() -> None:
    note = "9 of 9 test utterances are by speakers of train or dev (ann, bob, …) in '/home/ann/clips/list.csv': scores flatter"
    assert nameless(note) == "9 of 9 test utterances are by speakers of train or dev in 'list.csv': scores flatter"


def test_a_dry_run_says_the_licence_and_writes_nothing_half(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from headwater.__main__ import dispatch

    assert dispatch(["push", str(plain), NAME, "--dry-run", "--folder", str(tmp_path / "out")]) == 0
    notes = capsys.readouterr().err
    assert "licence   unknown: Not known, since that of a table of its user's own" in notes
    assert "--license ID names the card's licence" in notes
    for words, message in (
        (["--folder", str(tmp_path / "other")], "Expected --dry-run beside --folder, found none. Add it"),
        (["--dry-run", "--folder", str(tmp_path / "out")], "Expected a new folder to export to, found one that is not empty"),
        (["--dry-run", "--folder", str(plain / "in")], "Expected a folder outside the run"),
        (["--dry-run", "--fold", "3"], "found the single run"),
        (["--dry-run", "--task", "asr"], "Expected task 'emotion'"),
    ):
        with pytest.raises(UserError) as problem:
            dispatch(["push", str(plain), NAME, *words])
        assert message in str(problem.value)
    with pytest.raises(UserError, match="Expected OWNER/NAME, each of letters"):
        dispatch(["push", str(plain), "tones", "--dry-run"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
