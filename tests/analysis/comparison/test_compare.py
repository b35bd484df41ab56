"""Runs side by side: folds pooled, seeds paired, one verdict that the table and the sentence share."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater.analysis.comparison.compare import ALPHA, Compared, Comparison, compare
from headwater.analysis.comparison.paired import Difference
from headwater.analysis.comparison.text import as_json, chance, compared_text, digits_of, in_points, is_share, sentence
from headwater.core.errors import UserError
from headwater.downstream.metrics import metric_title

CLASSES = ["a", "b"]
CONFIG = "task: emotion\nupstream: {name: fbank}\ncorpus: {name: iemocap}\n"


def write_predictions(place: Path, right: Mapping[str, bool], speakers: int) -> None:
    """Write who was answered rightly."""
    lines = ["id,file,start,duration,speaker,reference,prediction"]
    for name, is_right in right.items():
        number = int(name[1:])
        truth = CLASSES[number % 2]
        voice = f"s{number % speakers}" if speakers else ""
        lines.append(f"{name},x.wav,0,1,{voice},{truth},{truth if is_right else CLASSES[1 - number % 2]}")
    place.mkdir(parents=True, exist_ok=True)
    (place / "predictions-test.csv").write_text("\n".join(lines) + "\n")


def run_of(folder: Path, right: Mapping[str, bool], *, speakers: int = 10, seed: int = 1, **message: Any) -> Path:
    """A finished run's files, as far as a comparison reads them."""
    write_predictions(folder, right, speakers)
    (folder / "config.yaml").write_text(CONFIG)
    vocabulary = {"emotion": {"classes": CLASSES, "merge": {}, "key": "emotion", "counts": {}}}
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary))
    result = {"task": "emotion", "corpus": "iemocap", "protocol": "superb", "seed": seed, "upstream": "fbank", "marks": []}
    scores = {"scores": {split: {"ua": 0.5} for split in ("dev", "test")}}
    (folder / "result.json").write_text(json.dumps({**result, **scores, **message}))
    return folder


def plan_of(folder: Path, parts: Mapping[tuple[int, int], Mapping[str, bool]], **message: Any) -> Path:
    """A finished plan: (seed, fold) -> who was answered rightly."""
    runs = []
    for (seed, fold), right in parts.items():
        run_of(folder / f"seed{seed}" / f"fold{fold}", right, seed=seed)
        runs.append({"name": f"seed{seed}/fold{fold}", "setting": "", "seed": seed, "fold": fold, "scores": {}})
    (folder / "result.json").write_text(json.dumps({"task": "emotion", "marks": [], "runs": runs, **message}))
    return folder


def predictions_with(share: float, draw: int = 0, count: int = 400) -> dict[str, bool]:
    draws = np.random.default_rng(draw).random(count)
    return {f"u{number}": bool(draw < share) for number, draw in enumerate(draws)}


def test_a_run_against_itself_is_0_with_p_1_and_is_not_better(tmp_path: Path) -> None:
    run = run_of(tmp_path / "one", predictions_with(0.7))
    compared = compare([run, run])
    (comparison,) = compared.comparisons
    for found in comparison.differences.values():
        assert (found.value, found.interval, found.p) == (0.0, (0.0, 0.0), 1.0)
    assert comparison.discordant is not None
    assert (comparison.discordant.first, comparison.discordant.second, comparison.discordant.p) == (0, 0, 1.0)
    text = compared_text(compared)
    assert "McNemar's exact p = 1.000" in text
    assert text.splitlines()[-1] == "one and one (2) cannot be told apart in UA: they score alike for every speaker"


def test_a_planted_difference_is_found_in_either_order(tmp_path: Path) -> None:
    worse, better = run_of(tmp_path / "worse", predictions_with(0.6)), run_of(tmp_path / "better", predictions_with(0.8, draw=1))
    message = [compared_text(compare(runs)).splitlines()[-1] for runs in ([worse, better], [better, worse])]
    assert message[0].startswith("better is better than worse by ")
    assert message[0] == message[1]
    points, low, high = map(float, re.findall(r"[\d.]+", message[0]))
    shares = [sum(predictions_with(share, draw).values()) / 400 for share, draw in ((0.6, 0), (0.8, 1))]
    assert points == pytest.approx(100 * (shares[1] - shares[0]), abs=1)  # UA of even classes is nearly WA
    assert 0 < low < points < high


def test_a_small_difference_says_what_the_speakers_resolve(tmp_path: Path) -> None:
    one, other = run_of(tmp_path / "one", predictions_with(0.70)), run_of(tmp_path / "other", predictions_with(0.70, draw=2))
    compared = compare([one, other], metric="wa")
    (low, high) = compared.comparisons[0].differences["wa"].interval or (0, 0)
    about = f"{100 * (high - low) / 2:.0f}"
    assert sentence(compared, compared.comparisons[0]) == (
        f"one and other cannot be told apart in WA: 10 speakers resolve about {about} points"
    )


def test_folds_are_pooled_in_whatever_order_they_come(tmp_path: Path) -> None:
    right = predictions_with(0.7)
    halves = [dict(list(right.items())[:150]), dict(list(right.items())[150:])]
    whole = run_of(tmp_path / "whole", right)
    folds = plan_of(tmp_path / "folds", {(1, 1): halves[1], (1, 2): halves[0]})
    (comparison,) = compare([whole, folds]).comparisons
    assert comparison.differences["ua"].value == 0.0
    assert comparison.discordant is not None
    assert (comparison.discordant.first, comparison.discordant.second) == (0, 0)  # each utterance against itself
    assert "2 folds, pooled" in compared_text(compare([folds, whole]))


def test_seeds_are_paired_in_order_and_averaged(tmp_path: Path) -> None:
    seeds = {seed: (predictions_with(0.6, draw=seed), predictions_with(0.65, draw=10 + seed)) for seed in (1, 2, 3)}
    one, other = (
        plan_of(tmp_path / name, {(seed, 1): pair[place] for seed, pair in seeds.items()})
        for place, name in enumerate(("one", "other"))
    )
    compared = compare([one, other])
    found = compared.comparisons[0].differences["wa"]
    gaps = [(sum(after.values()) - sum(before.values())) / 400 for before, after in seeds.values()]
    assert found.value == pytest.approx(np.mean(gaps))
    assert found.spread == pytest.approx(np.std(gaps, ddof=1))
    text = compared_text(compared)
    assert "3 seeds, paired in order" in text
    assert "spread over 3 seeds" in text
    assert "McNemar" not in text  # an utterance answered three times is no three utterances


def test_a_row_of_joint_runs_is_compared_in_one_task(tmp_path: Path) -> None:
    folders = []
    for name, share in (("all", 0.8), ("without-ks", 0.6)):
        for seed in (1, 2):
            place = run_of(tmp_path / name / f"seed{seed}", predictions_with(share, draw=seed))
            (place / "config.yaml").write_text(
                "upstream: {name: fbank}\ntasks:\n  mood: {task: emotion, corpus: {name: iemocap}}\n  sid: {}\n"
            )
            (place / "vocabulary.json").write_text(json.dumps({"mood": {"classes": CLASSES}}))
            for kept in ("best", "last", "own"):
                write_predictions(place / "tasks" / kept / "mood", predictions_with(share - 0.3 * (kept == "own"), draw=seed), 10)
            scored = {"scores": {"test": {}}}
            mood = {"task": "emotion", "corpus": "iemocap", "protocol": "superb", "best": scored, "last": scored, "own": scored}
            (place / "result.json").write_text(
                json.dumps({"upstream": "fbank", "seed": seed, "marks": [], "tasks": {"mood": mood, "sid": {}}})
            )
        folders.append(tmp_path / name)
    best, own = (compare(folders, task="mood", weights=weights).comparisons[0].differences["wa"] for weights in (None, "own"))
    expected = np.mean([sum(predictions_with(0.8, draw=seed).values()) / 400 for seed in (1, 2)])
    assert best.first == pytest.approx(expected)
    assert own.first < best.first - 0.2
    assert best.spread is not None
    with pytest.raises(UserError, match=r"Expected one task of the run .* Add --task mood or sid"):
        compare(folders)


def test_a_sweep_counts_by_the_setting_that_dev_chose(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "plan", {(1, 1): predictions_with(0.5), (2, 1): predictions_with(0.9)})
    summary = json.loads((plan / "result.json").read_text())
    for run, setting in zip(summary["runs"], ("lr=1", "lr=2"), strict=True):
        run["setting"] = setting
    (plan / "result.json").write_text(json.dumps({**summary, "chosen": "lr=2"}))
    run = run_of(tmp_path / "run", predictions_with(0.9))
    assert compare([run, plan]).comparisons[0].differences["wa"].value == 0.0
    (plan / "result.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match=r"Expected one setting of the sweep .* found 2, none chosen \(lr=1, lr=2\)"):
        compare([run, plan])


def test_an_evaluation_on_another_corpus_is_compared_by_its_own_folder(tmp_path: Path) -> None:
    places = []
    for name, below in (("one", "emodb-test"), ("other", "emodb-test"), ("one", "emodb-test-9f")):
        run = tmp_path / name if (tmp_path / name).is_dir() else run_of(tmp_path / name, predictions_with(0.9))
        place = run_of(run / "evaluations" / below, predictions_with(0.6), corpus="emodb", trained_on="iemocap")
        for path in ("config.yaml", "vocabulary.json"):
            (place / path).unlink()
        places.append(place)
    compared = compare(places[:2])
    assert compared.names == ("one", "other")
    assert compare(places[1:]).names == ("other", "one")
    assert compare(places).names == ("one/emodb-test", "other", "one/emodb-test-9f")
    assert compare([places[0], places[0]]).names == ("one", "one (2)")
    assert compared.sides[0].corpus == "emodb"
    assert compared.comparisons[0].differences["wa"].first == pytest.approx(sum(predictions_with(0.6).values()) / 400)


def test_several_runs_stand_against_the_first_with_holms_correction(tmp_path: Path) -> None:
    runs = [
        run_of(tmp_path / name, predictions_with(share, draw))
        for draw, (name, share) in enumerate(zip("abc", (0.6, 0.68, 0.8), strict=True))
    ]
    compared = compare(runs)
    plain = [compare([runs[0], other]).comparisons[0].differences["ua"].p or 0 for other in runs[1:]]
    corrected = [comparison.corrected["ua"] for comparison in compared.comparisons]
    assert corrected == [max(plain[0], 2 * plain[1]), 2 * plain[1]]
    text = compared_text(compared)
    assert [line.split()[0] for line in text.splitlines()[2:5]] == ["a", "b", "c"]
    assert "p (Holm)" in text
    assert "p, by Holm's correction, is below 0.05" in text
    assert len(text.split("\n\n")[-1].splitlines()) == 2  # a sentence each


def test_two_speakers_have_no_interval_and_nothing_is_better(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / name, predictions_with(share), speakers=2) for name, share in (("one", 0.1), ("other", 0.95))]
    text = compared_text(compare(runs))
    assert "interval: none, it takes 8 speakers; p: sides swapped speaker by speaker in all 4 ways" in text
    assert text.splitlines()[-1] == ("one and other cannot be told apart in UA: 2 speakers say too little, an interval takes 8")


def test_without_speakers_utterances_are_swapped_and_it_is_reported(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / name, predictions_with(share), speakers=0) for name, share in (("one", 0.1), ("other", 0.95))]
    text = compared_text(compare(runs))
    assert "interval: none, speakers are not known; p: sides swapped utterance by utterance in 10,000 random ways" in text
    assert "bootstrap" not in text
    assert text.endswith("cannot be told apart in UA: the speakers are not known, so that there is no interval")


def test_marks_stand_in_every_output(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / name, predictions_with(share), marks=["DEMO"]) for name, share in (("one", 0.6), ("other", 0.95))]
    compared = compare(runs)
    text = compared_text(compared)
    assert text.splitlines()[0] == "DEMO"
    assert text.splitlines()[-1].startswith("DEMO: other is better")
    written = as_json(compared)
    assert written["marks"] == ["DEMO"]
    assert written["comparisons"][0]["sentence"].startswith("DEMO: ")


def test_random_weights_stand_beside_trained_ones_and_every_output_says_so(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / "trained", predictions_with(0.95), marks=["DEMO"])]
    runs.append(run_of(tmp_path / "random", predictions_with(0.6), marks=["DEMO", "UNTRAINED"]))
    for order in (runs, runs[::-1]):
        compared = compare(order)
        text, written = compared_text(compared), as_json(compared)
        assert {*text.splitlines()[0].split()} == {*written["marks"]} == {"DEMO", "UNTRAINED"}
        assert text.splitlines()[-1].startswith("DEMO UNTRAINED: trained is better than random")
        assert "note: UNTRAINED is said of random: random weights, never trained" in text
        assert {run["name"]: "UNTRAINED" in run["marks"] for run in written["runs"]} == {"trained": False, "random": True}


def test_json_holds_every_metric_unrounded_and_who_is_better(tmp_path: Path) -> None:
    runs = [
        run_of(tmp_path / name, predictions_with(share, draw))
        for draw, (name, share) in enumerate((("one", 0.6), ("other", 0.9)))
    ]
    written = json.loads(json.dumps(as_json(compare(runs))))
    found = written["comparisons"][0]["metrics"]
    assert [*found] == ["wa", "ua", "macro_f1"]
    scores = [run["scores"]["wa"] for run in written["runs"]]
    assert scores == [sum(predictions_with(share, draw).values()) / 400 for draw, share in enumerate((0.6, 0.9))]
    assert found["wa"]["difference"] == pytest.approx(scores[1] - scores[0])
    assert {entry["better"] for entry in found.values()} == {"other"}
    assert written["comparisons"][0]["mcnemar"]["p"] < 1e-6


def test_mcnemar_names_the_metric_that_counts_the_same_predictions(tmp_path: Path) -> None:
    compared = compare([run_of(tmp_path / name, predictions_with(share)) for name, share in (("one", 0.6), ("other", 0.8))])
    assert " for wa: " in compared_text(compared)
    assert as_json(compared)["comparisons"][0]["mcnemar"]["metric"] == "wa"


def test_a_note_says_where_the_training_differs(tmp_path: Path) -> None:
    one, other = (
        run_of(tmp_path / "one", predictions_with(0.6)),
        run_of(tmp_path / "other", predictions_with(0.6), protocol="default"),
    )
    assert "note: protocols superb, default: the same test, but other training data" in compared_text(compare([one, other]))


def test_runs_of_the_same_name_are_distinguished(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / name / "fold1", predictions_with(0.6)) for name in ("one", "other")]
    assert compare([*runs, runs[0]]).names == ("one/fold1", "other/fold1", "one/fold1 (2)")


GRID = [-0.03, -1e-5, 0.0, 1e-12, 1e-5, 0.003, 0.2]


def compared_by(metric: str, direction: str, found: Difference, p: float, speakers: int, several: bool) -> Compared:
    """A comparison that found this."""
    one = Comparison("new", {metric: found}, {metric: p}, None)
    return Compared((), ("old", "new"), "test", metric, {metric: direction}, 99, speakers, 1, (one,) * (1 + several), ())


def test_the_sentence_the_winner_and_the_numbers_shown_never_contradict_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a grid of intervals, p-values and directions."""
    monkeypatch.setattr(Compared, "marks", ())
    ends = [(low, high) for low, high in itertools.product(GRID, repeat=2) if low <= high]
    checked = 0
    for (low, high), p, direction, metric in itertools.product(
        ends, (0.0001, 0.04999, 0.05, 0.06, 1.0), ("higher", "lower"), ("ua", "wer", "ccc_valence")
    ):
        found = Difference(0.5, 0.5 + (low + high) / 2, None, (low, high), p)
        compared = compared_by(metric, direction, found, p, 10, several=False)
        message = sentence(compared, compared.comparisons[0])
        leaves_out_0 = low > 1e-9 or high < -1e-9
        assert (" is better than " in message) == (leaves_out_0 and p < ALPHA), message
        if leaves_out_0 and p < ALPHA:
            new_wins = (low > 0) == (direction == "higher")
            assert message.startswith("new is better than old" if new_wins else "old is better than new")
            numbers = [float(text) for text in re.findall(r"(?<![\w])\d+\.\d+", message)]
            assert len(numbers) == 3
            assert all(numbers), message  # no end is rounded to 0
            assert numbers[1] <= numbers[0] <= numbers[2]
        else:
            assert message.startswith("old and new cannot be told apart")
            assert (f"p is {chance(p)}" in message) == (high - low > 2e-9 and leaves_out_0 != (p < ALPHA)), message
        checked += 1
    assert checked > 500


def test_numbers_keep_enough_digits_for_their_side_of_the_line() -> None:
    assert [chance(p) for p in (0.0499, 0.05, 0.0501, 0.049996)] == ["0.0499", "0.050", "0.050", "0.049996"]
    assert digits_of(0.0, 0.02) == 3
    assert in_points("ua", 0.021, 0.0003, 0.039) == ["2.10", "0.03", "3.90"]
    assert in_points("ccc", 0.021, 0.003) == ["0.021", "0.003"]
    assert metric_title("wer") == "WER"


def test_every_share_of_a_task_is_reported_in_points() -> None:
    from headwater.downstream.load import list_tasks, load_question

    report = {name for task in list_tasks() if task != "turbo" for name in load_question(task).metrics}
    own_unit = {
        name for name in report if name.startswith(("ccc", "pearson", "rmse", "min_dcf", "nats", "distance", "l1", "cosine"))
    }
    assert all(is_share(name) for name in report - own_unit)


def test_the_command_prints_a_table_or_json_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from headwater.commands import compare as command

    runs = [str(run_of(tmp_path / name, predictions_with(0.6))) for name in ("one", "other")]
    assert command.main([*runs, "--json", str(tmp_path / "out.json"), "--markdown"]) == 0
    message = capsys.readouterr()
    assert "| ua ↑" in message.out
    assert message.err == f"written to {tmp_path / 'out.json'}\n"
    assert command.main([*runs, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "out.json").read_text())


def test_a_real_run_is_compared_with_a_copy_of_itself(finished: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(finished, tmp_path / "copy")
    assert "an interval takes 8" in compared_text(compare([finished, copy]))


def shares_called(sequence: Sequence[tuple[bool, bool]]) -> float:
    return float(np.mean([all(pair) for pair in sequence]))


def test_equal_systems_are_rarely_called_different_and_a_planted_difference_often() -> None:
    """The twin of benchmarks/compare_level.py, which has the figures."""
    import runpy

    level = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "compare_level.py"))
    equal = [level["called"](level["simulate"](10, seed)) for seed in range(40)]
    better = [level["called"](level["simulate"](20, seed, better=0.6)) for seed in range(10)]
    assert shares_called(equal) <= 0.15  # of 40: at 5 %, seven or more come in less than one of a hundred tries
    assert shares_called(better) >= 0.9
