"""Speaker diarization: error rates equal to pyannote's, the best order of speakers, turns, and runs over RTTM folders."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.nn import functional as F

import headwater
from headwater.__main__ import dispatch
from headwater.analysis.table import result_table
from headwater.core.errors import UserError
from headwater.core.files import read_json
from headwater.corpus.base import Corpus, Utterance
from headwater.corpus.batch import Batch
from headwater.corpus.rttm import LABEL, Turn, read_rttm
from headwater.downstream.base import Outcome, Output
from headwater.downstream.labels import LabelsConfig
from headwater.downstream.sd import question
from headwater.downstream.sd.answer import Spoken, Turns, turns_of
from headwater.downstream.sd.errors import count_errors, error_rate
from headwater.downstream.sd.expert import TASK, SdConfig, best_order_loss
from headwater.runs.config.recipes import task_default
from headwater.runs.config.resolve import resolve
from headwater.runs.run import run
from headwater.runs.runtime import Runtime
from headwater.upstream.base import Frames, UpstreamSpec

SPEC = UpstreamSpec("audio", 1, 5, 16_000, lambda samples: samples // 320)
SETTINGS = [{}, {"collar": 0.25}, {"skip_overlap": True}, {"collar": 0.25, "skip_overlap": True}]


def drawn(generator: np.random.Generator, speakers: int) -> tuple[Turn, ...]:
    """Return turns of some speakers, who overlap each other and themselves."""
    count = int(generator.integers(0, 12))
    starts, seconds = generator.uniform(0, 20, count).round(2), generator.uniform(0.05, 4, count).round(2)
    names = generator.integers(speakers, size=count)
    return tuple((f"s{name}", float(a), float(a + b)) for name, a, b in zip(names, starts, seconds, strict=True))


@pytest.mark.parametrize("settings", SETTINGS)
def test_errors_equal_pyannotes(settings: dict[str, float]) -> None:
    pytest.importorskip("pyannote.metrics", reason="pyannote.metrics is in the extra 'test'")
    from pyannote.core import Annotation, Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate

    generator = np.random.default_rng(0)
    theirs = DiarizationErrorRate(collar=2 * settings.get("collar", 0.0), skip_overlap=bool(settings.get("skip_overlap", False)))
    for _ in range(60):
        pair = drawn(generator, 3), drawn(generator, int(generator.integers(1, 5)))
        annotations = []
        for turns in pair:
            annotation = Annotation()
            for place, (name, start, end) in enumerate(turns):
                annotation[Segment(start, end), place] = name
            annotations.append(annotation.support())
        found = theirs.compute_components(*annotations, uem=Timeline([Segment(0, 30)]))
        ours = count_errors(*pair, **settings)  # type: ignore[arg-type]
        expected = [found[name] for name in ("missed detection", "false alarm", "confusion", "total")]
        assert [ours.missed, ours.alarms, ours.confused, ours.speech] == pytest.approx(expected, abs=1e-6)


def test_errors_by_hand() -> None:
    truth = (("a", 0.0, 4.0), ("b", 3.0, 6.0))
    guess = (("x", 0.0, 3.0), ("y", 3.0, 5.0), ("x", 7.0, 8.0))
    errors = count_errors(truth, guess)
    # x is a, y is b: from 3 to 4 a is missed, from 5 to 6 b; from 7 to 8 nobody speaks
    assert (errors.missed, errors.alarms, errors.confused, errors.speech) == pytest.approx((2, 1, 0, 7))
    assert error_rate([errors, errors]) == pytest.approx(3 / 7)
    assert np.isnan(error_rate([count_errors((), guess)]))
    assert count_errors(truth, truth, 0.25) == count_errors(truth, truth, 0.25)
    assert count_errors(truth, (), skip_overlap=True).speech == pytest.approx(5)


def test_the_loss_is_that_of_the_best_order() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, active = torch.randn(50, 3, generator=generator), torch.randint(2, (50, 3), generator=generator).float()
    orders = [F.binary_cross_entropy_with_logits(logits, active[:, list(order)]) for order in permutations(range(3))]
    assert best_order_loss(logits, active).item() == pytest.approx(min(map(float, orders)), abs=1e-6)
    assert best_order_loss(logits, active[:, [2, 0, 1]]).item() == pytest.approx(best_order_loss(logits, active).item(), abs=1e-6)


def test_the_head_is_s3prls_and_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    expert = TASK.build(SdConfig(speakers=2, hidden_dim=8), {"speakers": 2}, {"audio": SPEC})
    reference = torch.nn.LSTM(5, 8, num_layers=1, batch_first=True)  # as s3prl's model.py has it, with one linear layer behind
    reference.load_state_dict({name.removeprefix("layers.0."): value for name, value in expert.recurrent.state_dict().items()})
    values = torch.randn(2, 30, 5)
    output = expert({"audio": Frames(values, (30, 12))})
    for row, length in enumerate((30, 12)):
        alone = expert.classifier(reference(values[row : row + 1, :length])[0])[0]
        assert torch.allclose(output.values[row, :length], alone, atol=1e-6)
    both = expert.decode(output)
    assert [len(one.activity) for one in both] == [30, 12]


def test_frames_are_labelled_by_their_middles_and_the_talkative_come_first() -> None:
    expert = TASK.build(SdConfig(hidden_dim=4), {"speakers": 2}, {"audio": SPEC})
    assert expert.frame_seconds == pytest.approx(0.02)
    turns = (("short", 0.0, 0.02), ("long", 0.035, 0.1), ("never", 0.0, 0.01))
    found = expert.active(Spoken(turns), 5)
    assert found.tolist() == [[0, 1], [0, 0], [1, 0], [1, 0], [1, 0]]
    batch = Batch(None, (), ("a",), targets=(Spoken(turns),))
    loss = expert.loss(Output(torch.zeros(1, 5, 2), (5,)), batch)
    assert loss.item() == pytest.approx(np.log(2), abs=1e-6)


def test_turns_are_frames_above_the_threshold_smoothed_by_a_median() -> None:
    activity = np.zeros((20, 2))
    activity[2:10, 0] = activity[5, 1] = 0.6
    assert turns_of(activity, 0.02, 0.5, 1) == (("speaker1", 0.04, 0.2), ("speaker2", 0.1, 0.12))
    assert turns_of(activity, 0.02, 0.5, 3) == (("speaker1", 0.04, 0.2),)
    assert turns_of(activity, 0.02, 0.7, 1) == ()
    spoken = Spoken((("speaker1", 0.04, 0.2), ("two words", 1.0, 1.5)))
    assert Spoken.parsed(str(spoken)) == spoken
    assert Spoken.parsed("") == Spoken.parsed(str(Spoken(()))) == Spoken(())
    assert str(Spoken(())) == "nobody speaks"


def test_windows_of_a_long_file_are_matched_where_it_was_cut() -> None:
    first, second = np.zeros((100, 2)), np.zeros((100, 2))
    first[50:, 0] = second[:30, 1] = 1.0
    found, _ = Turns(2).joined([(2.0, Spoken((), first, 0.02)), (2.0, Spoken((), second, 0.02))])
    assert found.turns == (("speaker1", 1.0, 2.6),)


def test_dev_chooses_threshold_and_median() -> None:
    activity = np.full((100, 1), 0.1)
    activity[20:60, 0] = 0.45
    activity[[30, 80], 0] = 0.05, 0.45  # a gap, and a flicker
    outcome = Outcome(("a",), (Spoken((), activity, 0.02),), (Spoken((("x", 0.4, 1.2),)),))
    chosen = question.calibrate({"speakers": 1, "threshold": 0.5, "median": 1, "frame_seconds": 0.02}, outcome, {})
    assert (chosen["threshold"], chosen["median"]) == (0.4, 11)
    decided = question.answer(chosen).decide(outcome.predictions)
    assert question.score(chosen, Outcome(("a",), decided, outcome.references), {})["der"] < 0.06


def corpus_of(*turns: list[Turn]) -> Corpus:
    rows = tuple(Utterance(f"r{place}", "x.wav", labels={LABEL: one}) for place, one in enumerate(turns))
    return Corpus("mine", "split", None, {"train": rows, "dev": rows})


def test_a_recording_has_as_many_speakers_as_training_shows_up_to_six() -> None:
    three = [(name, 0.0, 1.0) for name in "abc"]
    assert question.make_vocabulary(SdConfig(), LabelsConfig(), corpus_of(three, three[:1]))["speakers"] == 3
    assert question.make_vocabulary(SdConfig(speakers=2), LabelsConfig(), corpus_of(three))["speakers"] == 2
    many = [(name, 0.0, 1.0) for name in "abcdefg"]
    with pytest.raises(UserError, match=r"Expected at most 6 speakers in a recording, .*, found 7\. Cut recordings shorter"):
        question.make_vocabulary(SdConfig(), LabelsConfig(), corpus_of(many))
    with pytest.raises(
        UserError, match=r"Expected recordings with turns in split 'train' of mine, found none \(with turns: train 0"
    ):
        question.make_vocabulary(SdConfig(), LabelsConfig(), Corpus("mine", "split", None, {"train": (), "dev": ()}))


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of speakers who are tones of their own."""
    folder, generator = tmp_path_factory.mktemp("voices"), np.random.default_rng(0)
    rows = ["audio,label,speaker,split"]
    for number in range(24):
        speaker, split = f"{'hl'[number % 2]}{number // 8}", ("train", "dev", "test")[number // 8]
        time = np.arange(8000) / 16_000
        tone = 0.3 * np.sin(2 * np.pi * (300 if speaker[0] == "l" else 2500) * time)
        soundfile.write(folder / f"{number}.wav", tone + 0.01 * generator.standard_normal(8000), 16_000)
        rows.append(f"{number}.wav,{speaker},{speaker},{split}")
    (folder / "voices.csv").write_text("\n".join(rows) + "\n")
    return folder / "voices.csv"


@pytest.fixture(scope="module")
def mixtures(voices: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conversations of these speakers."""
    out = tmp_path_factory.mktemp("mixtures") / "made"
    assert dispatch(["corpus", "mix", str(voices), "--out", str(out), "--hours", "0.03", "--seconds", "4"]) == 0
    return out


def test_conversations_are_made_with_their_turns_and_the_same_each_time(voices: Path, mixtures: Path, tmp_path: Path) -> None:
    assert dispatch(["corpus", "mix", str(voices), "--out", str(tmp_path / "m"), "--hours", "0.03", "--seconds", "4"]) == 0
    assert {path.name for path in mixtures.iterdir()} == {"train", "dev", "test", "mixing.json"}
    assert len([*(mixtures / "train").glob("*.wav")]) == 27
    for path in (mixtures / "test").iterdir():
        assert path.read_bytes() == (tmp_path / "m" / "test" / path.name).read_bytes()
    found = read_rttm(mixtures / "train" / "turns.rttm")
    assert sum({name for name, _, _ in turns} == {"h0", "l0"} for turns in found.values()) > 0.8 * len(found)
    turns = found["train00000"]
    wave, _ = soundfile.read(mixtures / "train" / "train00000.wav")
    inside = np.zeros(len(wave), bool)
    for _, start, end in turns:
        inside[round(start * 16_000) : round(end * 16_000)] = True
    assert np.square(wave[inside]).mean() > 1e3 * np.square(wave[~inside]).mean()
    assert read_json(mixtures / "mixing.json")["seed"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Expected --out FOLDER for the conversations"),
        (["--out", "{made}"], "Expected a folder that is not there yet, found"),
        (["--out", "new", "--speakers", "9"], "Expected at least 9 speakers in split 'train' of manifest, found 2"),
        (["--out", "new", "--seconds", "0"], "Expected at least 2 after --seconds, found 0"),
        (["--out", "new", "--hours", "nan"], r"Expected at least 0\.001 after --hours, found nan"),
        (["--out", "new", "--hours", "inf"], r"Expected at least 0\.001 after --hours, found inf"),
        (["--out", "new", "--pause", "-1"], "Expected seconds after --pause, found -1"),
        (["--out", "new", "--seed", "-1"], "Expected a seed of 0 or more after --seed, found -1"),
    ],
)
def test_conversations_that_cannot_be_made_are_refused(voices: Path, mixtures: Path, words: list[str], message: str) -> None:
    typed = [word.format(made=mixtures) for word in words]
    with pytest.raises(UserError, match=message):
        dispatch(["corpus", "mix", str(voices), *typed])


def test_a_run_tells_speakers_apart_and_writes_rttm(mixtures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {
        "task": "sd",
        "upstream": {"name": "fbank"},
        "corpus": {"name": "rttm", "data": str(mixtures)},
        "store": {"mode": "off"},
    }
    settings = {"sd": {"hidden_dim": 16}, "optimizer": {"lr": 0.02}, "training": {"steps": 60, "eval_every": 30}}
    run(resolve([task_default("sd"), given, settings]), tmp_path / "run", Runtime("cpu", quiet=True))
    scores = read_json(tmp_path / "run" / "result.json")["scores"]["test"]
    assert scores["der"] < 0.3
    assert {"der", "der_collar", "der_single", "loss"} == {*scores}
    path = mixtures / "test" / "test00000.wav"
    spoken = headwater.load_run(tmp_path / "run").predict(path).label
    assert count_errors(tuple(read_rttm(mixtures / "test" / "turns.rttm")["test00000"]), spoken.turns).speech > 0
    capsys.readouterr()
    assert dispatch(["predict", str(tmp_path / "run"), str(path), "--format", "rttm"]) == 0
    (tmp_path / "out.rttm").write_text(capsys.readouterr().out)
    again = Spoken(tuple(read_rttm(tmp_path / "out.rttm")["test00000"]))
    assert str(again) == str(Spoken(spoken.turns))
    pieces = ["--corpus", "rttm", "--data", str(mixtures), "-o", "corpus.options.chunk_seconds=2"]  # of 4 s each
    dispatch(["predict", str(tmp_path / "run"), *pieces, "--format", "rttm"])  # in a piece that is digital silence nobody speaks
    (tmp_path / "pieces.rttm").write_text(capsys.readouterr().out)
    assert max(end for turns in read_rttm(tmp_path / "pieces.rttm").values() for _, _, end in turns) > 2.0
    capsys.readouterr()
    assert dispatch(["compare", str(tmp_path / "run"), str(tmp_path / "run")]) == 0
    assert " recordings" in capsys.readouterr().out.splitlines()[0]
    result = read_json(tmp_path / "run" / "result.json")
    assert result["resampled"] == {"dev": "recording", "test": "recording"}
    assert f", {result['num_speakers']['test']} recording" in result_table(result)
    assert "speaker" not in result_table(result)
    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000 * 3), 16_000)
    silent = headwater.load_run(tmp_path / "run").predict(tmp_path / "silent.wav")
    assert (silent.label, silent.seconds, silent.error) == (Spoken(()), 3.0, "")
    assert dispatch(["predict", str(tmp_path / "run"), str(tmp_path / "silent.wav")]) == 0
    assert "silent.wav,0.000,3.000,nobody speaks," in capsys.readouterr().out
    assert dispatch(["predict", str(tmp_path / "run"), str(tmp_path / "silent.wav"), "--format", "rttm"]) == 0
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="Expected no --out beside --format rttm"):
        dispatch(["predict", str(tmp_path / "run"), str(path), "--format", "rttm", "--out", "x.csv"])


def test_turns_of_a_long_file_stand_at_their_own_time() -> None:
    windows = []
    for _ in range(15):  # of 20 s, each with one frame less than its seconds would hold
        activity = np.zeros((999, 2), np.float32)
        activity[500:550, 0] = 1  # from 10 s to 11 s of each
        windows.append((20.0, Spoken((), activity, 0.02)))
    kind = Turns(2)
    (found,) = kind.decide([kind.average(windows)])
    assert found.turns == tuple(("speaker1", 20.0 * window + 10.0, 20.0 * window + 11.0) for window in range(15))
