"""Slot filling: texts with slots, their tokens, what becomes of malformed predictions, and SUPERB's two metrics."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from of_s3prl import distance, of_s3prl

from headwater.core.errors import UserError
from headwater.core.options import read_yaml
from headwater.corpus.base import Corpus, Utterance
from headwater.downstream.base import Outcome, Output
from headwater.downstream.ctc import Ctc
from headwater.downstream.labels import LabelsConfig
from headwater.downstream.sf import question
from headwater.downstream.sf.expert import TASK, SfConfig
from headwater.downstream.sf.slots import pieces_of_tags, read, text_of, tokens_of, type_f1, value_errors, written
from headwater.runs.config.recipes import find_recipe
from headwater.runs.config.resolve import resolve
from headwater.upstream.base import Frames, UpstreamSpec

SPECS = {"audio": UpstreamSpec("audio", 1, 5, 16_000, lambda samples: samples // 320)}


def table_of(*rows: dict[str, Any], tables: dict[str, Any] | None = None) -> Corpus:
    """A corpus whose last row is dev."""
    made = tuple(
        Utterance(f"u{number}", f"u{number}.wav", text=row.get("text"), labels={k: v for k, v in row.items() if k != "text"})
        for number, row in enumerate(rows)
    )
    return Corpus("mine", "split", None, {"train": made[:-1], "dev": made[-1:]}, tables=tables or {})


def vocabulary_of(corpus: Corpus, labels: LabelsConfig | None = None, **options: Any) -> dict[str, Any]:
    return question.make_vocabulary(SfConfig(**options), labels or LabelsConfig(), corpus)


def outcome_of(*pairs: tuple[str, str]) -> Outcome:
    references, predictions = zip(*pairs, strict=True)
    return Outcome(tuple(f"u{index}" for index in range(len(pairs))), predictions, references)


# texts with slots


@pytest.mark.parametrize(
    "text",
    ["PLAY [artist: THE BEATLES] ON [service: SPOTIFY]", "[a.b-c: X]", "NO SLOT", "", "[a: X] [a: Y]", "[zeit: 9:30; früh]"],
)
def test_a_text_with_slots_is_the_same_after_reading_and_after_its_tokens(text: str) -> None:
    assert written(read(text, "u")) == text
    assert text_of(tokens_of(text)) == text


def test_brackets_need_no_spaces_around_them() -> None:
    assert read("play[artist:queen]now [ city :  new york ]", "u") == [
        ("", "play"),
        ("artist", "queen"),
        ("", "now"),
        ("city", "new york"),
    ]


@pytest.mark.parametrize("text", ["play [artist: queen", "play ] now", "[two words: x]", "[a: [b: c]]", "[: x]", "[x]", "a [] b"])
def test_brackets_that_are_no_slot_are_refused_with_the_utterance(text: str) -> None:
    with pytest.raises(UserError, match=r"Expected slots such as `play \[artist: the beatles\] now`, found .* in 'u7'"):
        read(text, "u7")


def test_tags_of_both_kinds_make_slots() -> None:
    words = ["play", "abba", "then", "abba"]
    assert pieces_of_tags(words, ["O", "artist", "O", "artist"], "u") == [
        ("", "play"),
        ("artist", "abba"),
        ("", "then"),
        ("artist", "abba"),
    ]
    assert pieces_of_tags(words, ["B-a", "I-a", "B-a", "B-b"], "u") == [("a", "play abba"), ("a", "then"), ("b", "abba")]
    with pytest.raises(UserError, match=r"a tag for each of the 4 words of 'u' \(O O artist artist\), found 1"):
        pieces_of_tags(words, ["O"], "u")


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["B-x", "A"], "A"),  # no end
        (["A", "E-x", "B"], "AB"),  # no beginning
        (["B-x", "E-x", "A"], "A"),  # nothing in it
        (["B-x", " ", "E-x", "A"], "A"),
        (["B-x", "A", "E-y", "B", "E-x"], "[x: AB]"),
        (["B-x", "A", " ", "B-y", "B", "E-y", " ", "C", "E-x"], "[x: A B C]"),  # the outer one
        (["B-x", "B-x", "A", "E-x", "E-x"], "[x: A]"),
        (["B-x", "A", "E-xy", "E-x"], "[x: A]"),  # another name that begins alike
        ([" ", "A", " ", " ", "B", " "], "A B"),
        ([], ""),
    ],
)
def test_a_prediction_is_always_a_text_with_slots(tokens: list[str], expected: str) -> None:
    assert text_of(tokens) == expected
    assert written(read(expected, "u")) == expected


def test_any_tokens_at_all_spell_a_text_that_can_be_read() -> None:
    generator = np.random.default_rng(0)
    known = ["A", "B", " ", "'", ":", ";", "B-x", "E-x", "B-y", "E-y"]
    for _ in range(500):
        text = text_of(list(generator.choice(known, generator.integers(0, 15))))
        assert written(read(text, "u")) == text


# targets


def test_words_are_trained_in_one_form_and_slots_by_their_names() -> None:
    corpus = table_of({"tagged": 'play [artist: "AC;DC": live!] now'}, {"tagged": "[city: New-York] …"}, {"tagged": "bon jour"})
    vocabulary = vocabulary_of(corpus)
    assert [question.target(vocabulary, row) for row in corpus.splits["train"]] == [
        "PLAY [artist: AC DC LIVE] NOW",
        "[city: NEW YORK]",
    ]
    assert vocabulary["slots"] == ["artist", "city"]
    assert "".join(vocabulary["characters"]) == " ACDEIKLNOPRVWY"
    assert question.tokens(vocabulary)[-4:] == ("B-artist", "E-artist", "B-city", "E-city")


def test_words_may_stay_as_they_are() -> None:
    corpus = table_of({"tagged": "play [time: 9:30; or so] 'now'"}, {"tagged": "x"})
    vocabulary = vocabulary_of(corpus, normalize="none")
    assert question.target(vocabulary, corpus.splits["train"][0]) == "play [time: 9:30; or so] 'now'"


def test_words_and_tags_in_columns_of_their_own_are_slots_too() -> None:
    row = {"text": "play ac:dc [ now !", "iob": "O artist artist O O"}
    corpus = table_of(row, row, {"text": "no tags"}, row, tables={"slots": ["artist", "city"]})
    vocabulary = vocabulary_of(corpus)
    assert question.target(vocabulary, corpus.splits["train"][0]) == "PLAY [artist: AC DC] NOW"
    assert vocabulary["slots"] == ["artist", "city"]  # those of the corpus' list
    assert len(question.select(vocabulary, corpus.splits["train"])) == 2
    assert question.notes(vocabulary, corpus.splits) == ("left out, nothing in column 'iob': 1 of 3 in train (the first: u2)",)


@pytest.mark.parametrize(
    ("rows", "labels", "expected"),
    [
        (
            [{"text": "a"}, {"text": "b"}],
            {},
            r"Expected texts with slots in split 'train' of mine, found none in column 'tagged' \(col",
        ),
        ([{"slots": "a"}, {"slots": "b"}], {}, r"columns there: slots\).*-o labels\.column=HEADER"),
        ([{"tagged": "a"}, {"tagged": "…"}], {}, r"texts with slots in split 'dev'"),
        ([{"tagged": "a [b"}, {"tagged": "a"}], {}, r"found 'a \[b' in 'u0'"),
        ([{"tagged": "a"}, {"tagged": "b"}], {"keep": ["a"]}, r"no labels\.keep for sf, which has slots and no classes"),
    ],
)
def test_a_corpus_without_slots_is_refused(rows: list[dict[str, Any]], labels: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        vocabulary_of(table_of(*rows), LabelsConfig(**labels))


def test_a_finished_run_is_tested_on_the_slots_of_another_table() -> None:
    vocabulary = vocabulary_of(table_of({"tagged": "a [x: b]"}, {"tagged": "a"}))
    other = table_of({"mine": "c [y: d]"}, {"mine": "c"})
    adapted, note = question.adapt(vocabulary, LabelsConfig(column="mine"), other)
    assert note == "slots of column 'mine'"
    target = question.target(adapted, other.splits["train"][0])
    assert target == "C [y: D]"
    found = question.details(adapted, outcome_of((target, "")))
    assert found == {"characters and slots unseen in training": "C (1) B-y (1) D (1) E-y (1)"}


# head


def expert_of(**options: Any) -> Ctc:
    torch.manual_seed(0)
    vocabulary = {"characters": [" ", "A", "B"], "slots": ["x"], "column": "tagged", "normalize": "upper"}
    expert = TASK.build(SfConfig(**{"projector_dim": 6, "hidden_dim": 4, "dropout": 0.0, **options}), vocabulary, SPECS)
    assert isinstance(expert, Ctc)
    return expert


def test_slots_begin_and_end_with_a_token_of_their_own() -> None:
    expert = expert_of()
    assert expert.encoded("A [x: B]") == [2, 1, 4, 3, 5]
    assert expert.classifier.out_features == 6
    logits = torch.zeros(1, 7, 6)
    for frame, place in enumerate([2, 2, 1, 4, 0, 3, 5]):
        logits[0, frame, place] = 1.0
    assert expert.decode(Output(logits, (7,))) == ("A [x: B]",)


def test_the_head_is_thatof_s3prl() -> None:
    """Its LSTMs, whose options are those of SUPERB, get our weights."""
    theirs = of_s3prl("downstream/asr/model.py").RNNs(
        6, 6, 320, module="LSTM", bidirection=True, dim=[4, 4], dropout=[0.0, 0.0], layer_norm=[False, False],
        proj=[False, False], sample_rate=[1, 1], sample_style="concat", total_rate=-1,
    ).eval()  # fmt: skip
    expert = expert_of().eval()
    own = [parameter.data for parameter in expert.recurrent.parameters()] + [p.data for p in expert.classifier.parameters()]
    parameters = [*theirs.parameters()]
    assert [tuple(one.shape) for one in parameters] == [tuple(one.shape) for one in own]
    for one, other in zip(parameters, own, strict=True):
        one.data.copy_(other)
    values = torch.randn(2, 9, 5)
    lengths = (9, 9)
    expected, _ = theirs(expert.projector(values), torch.tensor(lengths))
    torch.testing.assert_close(expert({"audio": Frames(values, lengths)}).values, expected, rtol=0, atol=1e-5)


# score


def test_names_count_once_for_each_utterance_and_then_as_a_mean() -> None:
    assert type_f1("[a: X] [b: Y]", "[a: Z]") == pytest.approx(2 / 3)
    assert type_f1("[a: X] [a: Y]", "[a: Z]") == 1.0
    assert type_f1("X", "Y") == 1.0
    assert type_f1("X", "[a: Y]") == type_f1("[a: X]", "X") == 0.0
    found = question.score({}, outcome_of(("[a: X] [b: Y]", "[a: X]"), ("X", "Y")), {})
    assert found["slot_type_f1"] == pytest.approx((2 / 3 + 1) / 2)


def test_words_of_a_slot_stand_beside_the_nearest_of_its_name() -> None:
    assert value_errors("[a: ABCD]", "[a: X] [a: ABCE] [b: ABCD]") == (1, 4)
    assert value_errors("[a: ABCD] [b: XY]", "[a: ABCD]") == (2, 6)
    assert value_errors("NONE", "[a: ABCD]") == (0, 0)
    found = question.score({}, outcome_of(("[a: ABCD]", "[a: ABCE]"), ("[a: XY]", "XY")), {})
    assert found["slot_value_cer"] == pytest.approx(3 / 6)
    assert np.isnan(question.score({}, outcome_of(("X", "X")), {})["slot_value_cer"])


@pytest.mark.parametrize("value", ["a;b", "a:b", 'say "x"', "it's", "B-a x E-a", "%s {0} \\n"])
def test_no_value_stops_the_score(value: str) -> None:
    assert question.score({}, outcome_of((f"[a: {value}]", f"x [a: {value}]")), {}) == {
        "slot_type_f1": 1.0,
        "slot_value_cer": 0.0,
    }


def test_both_metrics_are_those_of_s3prl_on_texts_that_it_can_score(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = ModuleType("editdistance")
    stub.eval = distance  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "editdistance", stub)
    theirs = of_s3prl("downstream/ctc/metric.py")
    generator = np.random.default_rng(1)

    def text() -> list[tuple[str, str]]:
        names = generator.choice(["", "x", "y", "z"], generator.integers(1, 6))
        return [(str(name), " ".join(generator.choice(["A", "BC", "CAB"], generator.integers(1, 4)))) for name in names]

    pairs = [(text(), text()) for _ in range(200)]
    ours = question.score({}, outcome_of(*((written(one), written(other)) for one, other in pairs)), {})
    references, hypotheses = zip(*((_marked(one), _marked(other)) for one, other in pairs), strict=True)
    assert ours["slot_type_f1"] == pytest.approx(theirs.slot_type_f1(hypotheses, references))
    assert ours["slot_value_cer"] == pytest.approx(theirs.slot_value_cer(hypotheses, references))


def _marked(pieces: list[tuple[str, str]]) -> str:
    """Return pieces as s3prl writes them."""
    return " ".join(f"B-{name} {words} E-{name}" if name else words for name, words in pieces)


def test_the_recipe_is_that_of_superb() -> None:
    config = resolve([read_yaml(find_recipe("superb/sf")), {"upstream": {"name": "hubert"}}])
    assert (config.optimizer.lr, config.training.steps, config.training.batch_size) == (1e-4, 200_000, 32)
    assert (config.only.corpus.name, config.only.select_by) == ("snips", "slot_type_f1")
    options = config.only.expert
    assert (options.projector_dim, options.hidden_dim, options.layers, options.zero_infinity) == (1024, 1024, 2, True)
