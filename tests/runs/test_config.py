"""What a run is told is read strictly, and all mistakes come together."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from headwater.core.errors import UserError
from headwater.core.options import merge, parse_override, read_yaml
from headwater.plans.grid import expand
from headwater.plans.paper import plan_recipe
from headwater.plans.recipe import is_paper, read_recipe
from headwater.plans.scenario import plan_scenario
from headwater.runs.config.identity import identity_of
from headwater.runs.config.recipes import RECIPES, find_recipe
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import to_mapping
from headwater.runs.run import references

TASK = {"task": "emotion", "upstream": {"name": "fbank"}}


def override(*texts: str) -> dict:
    """A config of the bare task with overrides."""
    return to_mapping(resolve([TASK, *map(parse_override, texts)]))


def test_yaml_numbers_without_a_dot_become_floats() -> None:
    assert override("optimizer.lr=1e-4")["optimizer"]["lr"] == pytest.approx(1e-4)


def test_later_layers_win_leaf_by_leaf() -> None:
    assert merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}


def test_a_resolved_config_is_a_recipe_for_itself() -> None:
    config = resolve([TASK, parse_override("labels.merge={exc: hap}"), parse_override("emotion.dropout=0.1")])
    assert resolve([to_mapping(config)]) == config


def test_a_schedule_that_ends_before_the_last_step_is_refused() -> None:
    with pytest.raises(UserError, match=r"optimizer\.schedule_steps of at least training\.steps \(20\), found 10\. Raise it"):
        override("training.steps=20", "optimizer.schedule=linear", "optimizer.schedule_steps=10")


def test_a_schedule_that_ends_with_the_run_is_no_part_of_what_the_run_is() -> None:
    ends = [resolve([TASK, {"optimizer": {"schedule_steps": end}}]) for end in (None, 20_000)]
    assert ["schedule_steps" in identity_of(config)["optimizer"] for config in ends] == [False, True]


def test_all_mistakes_are_reported_together() -> None:
    with pytest.raises(UserError) as caught:
        override("optimzer.lr=1", "training.steps=many", "emotion.projector=3", "corpus.fold=9", "select_by=f1")
    message = str(caught.value)
    for part in (
        "Unknown option 'optimzer'. Did you mean 'optimizer'?",
        "Expected 'training.steps' to be a whole number, found 'many'",
        "Unknown option 'emotion.projector'. Did you mean 'projector_dim'?",
        "Expected 'corpus.fold' between 1 and 5",
        "Expected 'select_by' to be one of wa, ua, macro_f1, found 'f1'",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training.steps", "Expected `-o key=value`"),
        ("training.steps=1.5", "a whole number, found 1.5"),
        ("training.steps=0", "'training.steps' above 0"),
        ("training.sort_pieces=1", "true or false"),
        ("optimizer.schedule=step", "one of constant, linear, cosine"),
        ("labels.keep=hap", "Expected a list at 'labels.keep'"),
        ("labels.merge=exc", "Expected a mapping at 'labels.merge'"),
        ("corpus.options.improvised=true", "Unknown option 'corpus.options.improvised'"),
        ("corpus.options.columns={label: x}", "iemocap has: improvised_only, strip_tags. --corpus manifest has it."),
        ("corpus.protocol=superbb", "session5, speaker10, random10, superb"),
        ("corpus.name=iemocop", "Did you mean 'iemocap'?"),
        ("task=emotoin", "Did you mean 'emotion'?"),
        ("expert.dropout=1", "The task's own section is called 'emotion'"),
    ],
)
def test_a_wrong_option_says_what_is_right(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        override(text)
    assert message in str(caught.value)


def test_paths_and_published_values_are_not_identity(tmp_path: Path) -> None:
    here, there = (resolve([TASK, {"corpus": {"data": str(tmp_path / name)}}]) for name in ("here", "there"))
    assert identity_of(here) == identity_of(there)
    assert identity_of(here) != identity_of(resolve([TASK, {"seed": 2}]))


def test_every_recipe_binds_to_the_real_dataclasses() -> None:
    recipes = {path: read_yaml(path) for path in sorted(RECIPES.rglob("*.yaml"))}
    papers = [path for path, mapping in recipes.items() if is_paper(mapping)]
    joint = [path for path, mapping in recipes.items() if "tasks" in mapping]
    runs = [path for path in recipes if path not in (*papers, *joint)]
    assert {"superb", "demo"} <= {path.parent.name for path in runs}
    assert {"avd", "turbo"} <= {path.parent.name for path in papers}
    for path in runs:
        config = resolve([{"upstream": {"name": "fbank"}}, read_yaml(path)])
        assert expand(config, [1], [1], [])  # its stages too
    assert {"mtl"} <= {path.parent.name for path in joint}
    for path in joint:
        assert plan_scenario(merge({"upstream": {"name": "hubert"}}, recipes[path]), "paper", [1]).parts
    for path in papers:
        plan = plan_recipe(read_recipe(path))
        assert plan.recipe.paper
        assert plan.recipe.tables


def test_a_recipe_is_found_by_its_name() -> None:
    assert (
        find_recipe("superb/emotion")
        == find_recipe("recipes/superb/emotion.yaml").resolve()
        == RECIPES / "superb" / "emotion.yaml"
    )


def test_the_superb_recipe_is_s3prls_experiment() -> None:
    config = resolve([read_yaml(find_recipe("superb/emotion")), {"upstream": {"name": "hubert"}}])
    training = config.training
    assert (training.steps, training.batch_size, training.piece_size, training.sort_pieces) == (30_000, 32, 4, False)
    assert (config.optimizer.lr, config.only.expert.projector_dim, config.only.expert.activation) == (1e-4, 256, "none")
    assert (config.only.corpus.protocol, config.upstream.padding, config.only.select_by) == ("superb", "s3prl", "wa")
    assert config.folds == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("content", "message"),
    [("a: [", "Expected yaml in"), ("- a", "Expected a mapping of options")],
)
def test_a_broken_recipe_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "r.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        read_yaml(tmp_path / "r.yaml")


def test_published_values_stand_beside_their_own_experiment_only() -> None:
    recipe = read_yaml(find_recipe("superb/emotion"))
    same = resolve([recipe, {"upstream": {"name": "hubert"}}])
    assert [row["value"] for row in references(same, [])] == [0.6492]
    assert references(same, ["DEMO"]) == []
    assert references(resolve([recipe, {"upstream": {"name": "hubert"}, "corpus": {"protocol": "session5"}}]), []) == []
    assert references(resolve([recipe, {"upstream": {"name": "whisper_tiny"}}]), []) == []


@pytest.mark.parametrize("option", ["layer: 1", "normalize_layers: true", "path: /nowhere", "trainable: true"])
def test_an_option_of_an_upstream_that_is_not_there_is_refused(option: str) -> None:
    key, _, value = option.partition(": ")
    report = {"upstream": {key: yaml.safe_load(value)}, "text_upstream": {"name": "hashed_words"}}
    with pytest.raises(UserError) as caught:
        resolve([{**TASK, "upstream": {}}, report])
    assert f"Expected -u beside 'upstream.{key}'" in str(caught.value)
    assert f"-o text_upstream.{key}=" in str(caught.value)


def test_masks_and_a_reporting_metric_leave_the_identity_of_earlier_runs() -> None:
    before = identity_of(resolve([TASK]))
    assert "masks" not in before
    assert identity_of(resolve([TASK, {"report_by": "wa"}])) == before  # it chooses what a table shows
    assert identity_of(resolve([TASK, {"masks": {"time_masks": 2}}]))["masks"] == {"time_masks": 2}


def test_a_metric_to_report_by_is_one_of_the_task() -> None:
    with pytest.raises(UserError, match="'report_by' to be one of wa, ua, macro_f1, found 'wer'"):
        override("report_by=wer")


def test_masks_without_audio_are_refused() -> None:
    texts = {"upstream": {}, "text_upstream": {"name": "hashed_words"}, "masks": {"dim_masks": 1}}
    with pytest.raises(UserError, match="Expected -u beside 'masks', which are over the frames of audio"):
        resolve([{**TASK, **texts}])


def test_a_pooling_of_tokens_needs_a_text_and_counts_only_where_it_is_used() -> None:
    with pytest.raises(UserError, match=r"Expected --text-upstream beside 'emotion\.text_pooling', .* Leave it out\."):
        resolve([{**TASK, "emotion": {"text_pooling": "cls"}}])
    both = {**TASK, "text_upstream": {"name": "hashed_words"}}
    plain, chosen = resolve([both]), resolve([{**both, "emotion": {"text_pooling": "cls"}}])
    assert "text_pooling" not in str(identity_of(plain))
    assert identity_of(chosen) != identity_of(plain)
    assert chosen.solver == "adam"
