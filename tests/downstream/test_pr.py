"""Phone recognition: lexicons, where an utterance's phones come from, the head and the error rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from of_s3prl import distance, of_s3prl

from headwater.core.errors import UserError
from headwater.core.options import read_yaml
from headwater.corpus.base import Corpus, Utterance
from headwater.corpus.batch import Batch
from headwater.downstream.base import Outcome, Output
from headwater.downstream.ctc import Ctc
from headwater.downstream.labels import LabelsConfig
from headwater.downstream.pr import question
from headwater.downstream.pr.expert import TASK, PrConfig
from headwater.downstream.pr.lexicon import read_lexicon
from headwater.downstream.pr.phones import arpabet
from headwater.runs.config.recipes import find_recipe
from headwater.runs.config.resolve import resolve
from headwater.upstream.base import Frames, UpstreamSpec

SPECS = {"audio": UpstreamSpec("audio", 1, 5, 16_000, lambda samples: samples // 320)}
G2P = "A\tAH0\nA\tEY1\nCAB\tK AE1 B\nBAD\tB AE1 D\n"


@pytest.fixture
def lexicon(tmp_path: Path) -> str:
    """A lexicon of three words."""
    path = tmp_path / "librispeech-lexicon-200k-g2p.txt"
    path.write_text(G2P)
    return str(path)


def corpus_of(*texts: str | None, tables: dict[str, Any] | None = None) -> Corpus:
    rows = tuple(Utterance(f"u{index}", f"u{index}.wav", text=text) for index, text in enumerate(texts))
    return Corpus("mine", "split", None, {"train": rows[:-1], "dev": rows[-1:]}, tables=tables or {})


def table_of(*cells: Any, column: str = "phones") -> Corpus:
    rows = tuple(Utterance(f"u{i}", f"u{i}.wav", labels={} if cell is None else {column: cell}) for i, cell in enumerate(cells))
    return Corpus("mine", "split", None, {"train": rows[:-1], "dev": rows[-1:]})


def vocabulary_of(corpus: Corpus, labels: LabelsConfig | None = None, **options: Any) -> dict[str, Any]:
    return question.make_vocabulary(PrConfig(**options), labels or LabelsConfig(), corpus)


# lexicons


def test_the_first_pronunciation_of_the_first_file_wins(tmp_path: Path, lexicon: str) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("CAB  K AA B\nNEW  N UW1\n")
    assert read_lexicon([lexicon]) == {"A": "AH0", "CAB": "K AE1 B", "BAD": "B AE1 D"}
    assert read_lexicon([lexicon, mine])["CAB"] == "K AE1 B"
    assert read_lexicon([mine, lexicon])["CAB"] == "K AA B"
    assert read_lexicon([lexicon, mine])["NEW"] == "N UW1"


def test_the_dictionary_of_carnegie_mellon_is_read_in_both_of_its_forms(tmp_path: Path) -> None:
    """Comments, variants, letters of latin-1 (0.7b), small letters and comments behind an entry (the later ones)."""
    old, new = tmp_path / "cmudict-0.7b", tmp_path / "cmudict.dict"
    old.write_bytes(
        ";;; # CMUdict\nHELLO  HH AH0 L OW1\nHELLO(1)  HH EH0 L OW1\nD\u00c9J\u00c0  D EY1 ZH AA2\n".encode("latin-1")
    )
    new.write_text("'bout B AW1 T\nread R EH1 D\nread(2) R IY1 D\nd'or D AO1 R # foreign french\n\n")
    assert read_lexicon([old]) == {"HELLO": "HH AH0 L OW1", "DÉJÀ": "D EY1 ZH AA2"}
    assert read_lexicon([new]) == {"'BOUT": "B AW1 T", "READ": "R EH1 D", "D'OR": "D AO1 R"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("A\tAH0\nCAB\n", r"Expected a word and its phones.*found 'CAB' in line 2 of"),
        ("CAB 0.5 K AE1 B\n", r"found 'CAB 0.5 K AE1 B' in line 1 of"),
        (";;; nothing\n", r"found none. Name another lexicon"),
        ("", r"Expected a lexicon that can be read at .*found an empty file"),
        (None, r"Expected a lexicon that can be read at .*found no such file"),
    ],
)
def test_a_file_that_is_no_lexicon_is_refused_with_its_line(tmp_path: Path, content: str | None, expected: str) -> None:
    path = tmp_path / "lexicon.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=expected):
        read_lexicon([path])


# targets


def test_words_are_looked_up_as_a_lexicon_spells_them(lexicon: str) -> None:
    vocabulary = vocabulary_of(corpus_of("A cab!", "bad-cab", "bad"), lexicon=lexicon)
    assert vocabulary == {
        "phones": ["AE1", "AH0", "B", "D", "K"],
        "column": None,
        "lexicon": {"A": "AH0", "BAD": "B AE1 D", "CAB": "K AE1 B"},
        "stress": True,
    }
    target = question.target(vocabulary, Utterance("u", "u.wav", text="a “bad” cab"))
    assert target == "AH0 B AE1 D K AE1 B"


def test_a_corpus_may_bring_its_lexicons_and_an_option_stands_above_them(tmp_path: Path, lexicon: str) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("CAB X Y\n")
    corpus = corpus_of("cab", "cab", tables={"lexicon": [lexicon]})
    assert vocabulary_of(corpus)["lexicon"] == {"CAB": "K AE1 B"}
    assert vocabulary_of(corpus, lexicon=[str(mine)])["lexicon"] == {"CAB": "X Y"}


def test_an_utterance_with_a_word_of_no_lexicon_is_left_out_and_counted(lexicon: str) -> None:
    corpus = corpus_of("a cab", "a zebra", "zebra gnu", None, "bad")
    vocabulary = vocabulary_of(corpus, lexicon=lexicon)
    assert [row.id for row in question.select(vocabulary, corpus.splits["train"])] == ["u0"]
    (note,) = question.notes(vocabulary, corpus.splits)
    assert note == (
        "left out, since a word is not in the lexicon: 3 of 4 in train. 2 words: ZEBRA, GNU. Write them into a lexicon of your "
        "own and name both: -o pr.lexicon='[LEXICON, MINE]'"
    )
    assert question.notes(vocabulary, {"dev": corpus.splits["dev"]}) == ()


def test_a_column_of_phones_needs_neither_lexicon_nor_text() -> None:
    corpus = table_of("h a l  oː", ["a", "l"], None, "l a")
    vocabulary = vocabulary_of(corpus)
    assert vocabulary["phones"] == ["a", "h", "l", "oː"]
    assert [question.target(vocabulary, row) for row in question.select(vocabulary, corpus.splits["train"])] == [
        "h a l oː",
        "a l",
    ]
    assert question.notes(vocabulary, corpus.splits) == ("left out, nothing in column 'phones': 1 of 3 in train (the first: u2)",)
    other = table_of("h a", "l", column="laute")
    assert vocabulary_of(other, LabelsConfig(column="laute"))["phones"] == ["a", "h"]


def test_a_column_is_taken_before_the_corpus_lexicon_and_after_one_that_is_named(lexicon: str) -> None:
    row = Utterance("u", "u.wav", text="a cab", labels={"phones": "x y"})
    corpus = Corpus("mine", "split", None, {"train": (row,), "dev": (row,)}, tables={"lexicon": [lexicon]})
    assert vocabulary_of(corpus)["phones"] == ["x", "y"]
    assert vocabulary_of(corpus, lexicon=lexicon)["phones"] == ["AE1", "AH0", "B", "K"]


def test_stress_and_the_whole_of_arpabet_are_options(lexicon: str) -> None:
    corpus = corpus_of("a cab", "a bad")
    assert vocabulary_of(corpus, lexicon=lexicon, stress=False)["phones"] == ["AE", "AH", "B", "K"]
    whole = vocabulary_of(corpus, lexicon=lexicon, phones="arpabet")["phones"]
    assert whole == arpabet(stress=True)
    assert len(whole) == 71
    assert {"SIL", "SPN", "AH0", "ZH"} < {*whole}
    with pytest.raises(UserError, match=r"Expected phones of ARPAbet in mine \(pr.phones=arpabet\), found 'oː' and 1 more"):
        vocabulary_of(table_of("AH0 oː ʃ", "AH0"), phones="arpabet")


@pytest.mark.parametrize(
    ("corpus", "options", "expected"),
    [
        (corpus_of("a", "a"), {}, r"Expected phones of mine, found neither a column 'phones'.*-o pr.lexicon=FILE"),
        (table_of("a", "a", column="ipa"), {}, r"-o labels.column=HEADER"),
        (
            corpus_of("gnu", "a"),
            {"lexicon": ""},
            r"split 'train' of mine, found none whose words are all in the lexicon \(not in it: 1 word: GNU\)",
        ),
        (corpus_of(None, "a"), {"lexicon": ""}, r"found no transcripts to look up in the lexicon"),
        (corpus_of("a", ""), {"lexicon": ""}, r"phones of utterances in split 'dev' of mine, found none\."),
    ],
)
def test_a_corpus_without_phones_is_refused(corpus: Corpus, options: dict[str, Any], expected: str, lexicon: str) -> None:
    if "lexicon" in options:
        options = {"lexicon": lexicon}
    with pytest.raises(UserError, match=expected):
        vocabulary_of(corpus, **options)


def test_a_column_that_is_not_there_and_classes_are_refused() -> None:
    with pytest.raises(UserError, match=r"found none in column 'phone' \(columns there: phones\)"):
        vocabulary_of(table_of("a", "b"), LabelsConfig(column="phone"))
    with pytest.raises(UserError, match=r"no labels\.merge for pr, which has phones and no classes"):
        vocabulary_of(table_of("a", "b"), LabelsConfig(merge={"a": "b"}))


def test_a_column_beside_a_lexicon_and_a_cell_that_is_no_text_are_refused(lexicon: str) -> None:
    with pytest.raises(UserError, match=r"from a column or from a lexicon, found labels\.column=phones beside pr\.lexicon"):
        vocabulary_of(table_of("a", "b"), LabelsConfig(column="phones"), lexicon=lexicon)
    for cell in (1.5, {"a": 1}):
        with pytest.raises(UserError, match=r"Expected phones with a space between them in column 'phones' of 'u1', found"):
            vocabulary_of(table_of("a", cell, "b"))


def test_a_finished_run_is_tested_on_another_corpus_by_its_column_or_by_the_words_that_it_keeps(lexicon: str) -> None:
    vocabulary = vocabulary_of(corpus_of("a cab", "bad"), lexicon=lexicon)
    other = corpus_of("cab gnu", "cab", "cab")
    adapted, note = question.adapt(vocabulary, LabelsConfig(), other)
    assert (adapted["lexicon"], note) == (vocabulary["lexicon"], "phones of the transcripts' words")
    assert "1 word: GNU." in question.notes(adapted, other.splits)[0]
    adapted, note = question.adapt(vocabulary, LabelsConfig(), table_of("K B", "B"))
    assert question.target(adapted, table_of("K B", "B").splits["train"][0]) == "K B"
    assert note == "phones of column 'phones'"
    with pytest.raises(UserError, match="found none whose words are all in the lexicon"):
        question.adapt(vocabulary, LabelsConfig(), corpus_of("gnu", "gnu"))


# head and score


def expert_of(**options: Any) -> Ctc:
    torch.manual_seed(0)
    vocabulary = {"phones": ["a", "b", "oː"], "column": "phones", "lexicon": {}, "stress": True}
    expert = TASK.build(PrConfig(projector_dim=6, **options), vocabulary, SPECS)
    assert isinstance(expert, Ctc)
    return expert


def test_the_head_is_two_linear_layers_of_each_frame() -> None:
    expert = expert_of()
    assert {name: tuple(weight.shape) for name, weight in expert.named_parameters()} == {
        "projector.weight": (6, 5),
        "projector.bias": (6,),
        "classifier.weight": (4, 6),
        "classifier.bias": (4,),
    }
    values = torch.randn(2, 7, 5)
    found = expert({"audio": Frames(values, (7, 4))}).values
    expected = values @ expert.projector.weight.T + expert.projector.bias
    torch.testing.assert_close(found, expected @ expert.classifier.weight.T + expert.classifier.bias)


def test_the_head_is_that_of_s3prl() -> None:
    expert, theirs = expert_of(), of_s3prl("downstream/model.py").FrameLevel(6, 4)
    theirs.linear.load_state_dict(expert.classifier.state_dict())
    values = torch.randn(2, 7, 5)
    expected, _ = theirs(expert.projector(values))
    torch.testing.assert_close(expert({"audio": Frames(values, (7, 4))}).values, expected, rtol=0, atol=1e-5)


def test_phones_of_several_letters_are_trained_and_read_as_one_token() -> None:
    expert = expert_of()
    assert expert.encoded("oː a a x") == [3, 1, 1]
    logits = torch.zeros(1, 6, 4)
    for frame, place in enumerate([3, 3, 0, 1, 2, 2]):
        logits[0, frame, place] = 1.0
    assert expert.decode(Output(logits, (6,))) == ("oː a b",)
    assert expert.decode(Output(logits, (3,))) == ("oː",)
    with pytest.raises(UserError, match=r"at least 3 frames for the 2 phones of 'u', found 2.*-o pr\.zero_infinity=true"):
        expert.loss(expert({"audio": Frames(torch.randn(1, 2, 5), (2,))}), Batch(None, (), ids=("u",), targets=("a a",)))


def test_the_error_rate_is_edits_over_the_phones_of_a_split() -> None:
    pairs = [("a b oː", "a oː"), ("a a", "a a b b"), ("b", "")]  # one, two, one of six
    references, predictions = zip(*pairs, strict=True)
    assert question.score({}, Outcome(("1", "2", "3"), predictions, references), {}) == {"per": pytest.approx(4 / 6)}


def test_the_error_rate_is_the_edit_distance_of_random_sequences() -> None:
    generator = np.random.default_rng(0)
    phones = np.array(["AA0", "B", "AA", "oː"])
    pairs = [tuple(generator.choice(phones, generator.integers(1, 9)) for _ in range(2)) for _ in range(40)]
    wrong = sum(distance(one, other) for one, other in pairs)
    outcome = Outcome(
        tuple(map(str, range(40))), tuple(" ".join(other) for _, other in pairs), tuple(" ".join(one) for one, _ in pairs)
    )
    assert question.score({}, outcome, {})["per"] == pytest.approx(wrong / sum(len(one) for one, _ in pairs))


def test_a_phone_unseen_in_training_is_named() -> None:
    outcome = Outcome(("1",), ("a",), ("a x x",))
    assert question.details({"phones": ["a"]}, outcome) == {"phones unseen in training": "x (2)"}


def test_the_recipe_is_that_of_superb() -> None:
    config = resolve([read_yaml(find_recipe("superb/pr")), {"upstream": {"name": "hubert"}}])
    assert (config.optimizer.lr, config.training.steps, config.training.batch_size) == (1e-2, 100_000, 32)
    assert (config.training.piece_size, config.training.eval_every) == (16, 1000)
    options = config.only.expert
    assert (options.projector_dim, options.layers, options.phones, options.zero_infinity) == (256, 0, "arpabet", True)
    assert config.only.corpus.name == "librispeech"
