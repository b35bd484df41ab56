"""Beam search: exact against all alignments, with and without an n-gram model; what cannot be searched with is refused."""

from __future__ import annotations

import gzip
import itertools
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from headwater.core.errors import UserError
from headwater.corpus.base import Corpus, Utterance
from headwater.downstream.answer import Text
from headwater.downstream.asr import beam
from headwater.downstream.asr.answer import Transcript, Transcripts
from headwater.downstream.asr.beam import BeamConfig, Search, check, choose, weights_of
from headwater.downstream.asr.expert import TASK, AsrConfig
from headwater.downstream.asr.question import QUESTION, question_of
from headwater.downstream.base import Outcome, Output
from headwater.downstream.labels import LabelsConfig
from headwater.downstream.spelling import error_rates, joined, read_greedily
from headwater.upstream.base import UpstreamSpec

pytest.importorskip("ctc_beam_decoder", reason="the extra 'decode' is not installed")

CHARACTERS = (" ", "A", "B")
EVERYTHING = {"size": 10**4, "threshold": 1e9}  # nothing is dropped
# log10 of each word's probability after another, or alone with its back-off
BIGRAMS = {("<s>", "A"): -0.2, ("<s>", "B"): -1.3, ("A", "B"): -0.9, ("A", "</s>"): -0.4, ("B", "A"): -1.1, ("AB", "</s>"): -0.1}
UNIGRAMS = {"A": (-0.8, -0.3), "B": (-1.0, -0.2), "AB": (-1.6, -0.4), "BA": (-1.9, -0.1)}
START, END, UNKNOWN = -0.5, -1.2, -2.5  # back-off of <s>, and log10 of </s> and <unk>


def arpa(words: dict[str, tuple[float, float]], pairs: dict[tuple[str, str], float]) -> str:
    lines = ["\\data\\", f"ngram 1={len(words) + 3}", f"ngram 2={len(pairs)}", "", "\\1-grams:"]
    lines += [f"{UNKNOWN}\t<unk>", f"-99\t<s>\t{START}", f"{END}\t</s>"]
    lines += [f"{chance}\t{word}\t{back_off}" for word, (chance, back_off) in words.items()]
    lines += ["", "\\2-grams:", *(f"{chance}\t{one} {other}" for (one, other), chance in pairs.items()), "", "\\end\\", ""]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lm") / "two.arpa"
    path.write_text(arpa(UNIGRAMS, BIGRAMS))
    return path


def language_score(text: str) -> float:
    """The natural logarithm of a text's probability by the bigrams above."""
    total, before = 0.0, "<s>"
    for word in [*text.split(), "</s>"]:
        alone = END if word == "</s>" else UNIGRAMS.get(word, (UNKNOWN, 0.0))[0]
        back_off = START if before == "<s>" else UNIGRAMS.get(before, (0.0, 0.0))[1]
        total += BIGRAMS.get((before, word), back_off + alone)
        before = word
    return total * math.log(10)


def random_logs(frames: int, tokens: int = 4, seed: int = 0) -> NDArray:
    values = torch.randn(frames, tokens, generator=torch.Generator().manual_seed(seed)) * 2
    return values.log_softmax(dim=1).numpy()


def sums(logs: NDArray, characters: tuple[str, ...] = CHARACTERS) -> dict[str, float]:
    """The log probability of every text: the sum over its alignments."""
    found: dict[str, float] = {}
    for path in itertools.product(range(logs.shape[1]), repeat=len(logs)):
        text = joined(read_greedily(characters, path))
        found[text] = float(np.logaddexp(found.get(text, -np.inf), sum(logs[frame, place] for frame, place in enumerate(path))))
    return found


def greedy(logs: NDArray, characters: tuple[str, ...] = CHARACTERS) -> str:
    return joined(read_greedily(characters, logs.argmax(axis=1).tolist()))


# exactness


@pytest.mark.parametrize("seed", range(30))
def test_a_beam_that_drops_nothing_finds_the_text_whose_alignments_have_the_highest_sum(seed: int) -> None:
    logs = random_logs(5, seed=seed)
    every = sums(logs)
    assert Search(CHARACTERS, BeamConfig(**EVERYTHING)).find(logs) == max(every, key=lambda text: every[text])


def test_the_best_path_is_not_always_the_best_text() -> None:
    found = [(Search(CHARACTERS, BeamConfig()).find(logs), greedy(logs)) for logs in (random_logs(5, seed=s) for s in range(30))]
    assert 0 < sum(one != other for one, other in found) < 30


@pytest.mark.parametrize("seed", range(20))
def test_a_beam_of_one_text_is_greedy(seed: int) -> None:
    logs = random_logs(60, seed=seed)
    assert Search(CHARACTERS, BeamConfig(size=1)).find(logs) == greedy(logs)


@pytest.mark.parametrize("characters", [("A", "|"), ("▁", "A"), ("É", "日"), ("_", "'"), ("A",)], ids="".join)
def test_any_character_can_be_written(characters: tuple[str, ...]) -> None:
    logs = random_logs(5, tokens=len(characters) + 1, seed=3)
    every = sums(logs, characters)
    assert Search(characters, BeamConfig(**EVERYTHING)).find(logs) == max(every, key=lambda text: every[text])


def test_no_frames_are_no_text() -> None:
    assert Search(CHARACTERS, BeamConfig()).find(np.zeros((0, 4), np.float32)) == ""


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize(("weight", "bonus"), [(1.0, 0.0), (0.4, 1.5), (0.8686, -1.0)])
def test_an_n_gram_model_counts_by_its_natural_logarithm_and_each_word_by_its_bonus(
    seed: int, weight: float, bonus: float, model: Path
) -> None:
    logs = random_logs(4, seed=seed)
    totals = dict[str, float]()
    for text, chance in sums(logs).items():
        words = text.split()
        unknown = 10 * math.log(10) * sum(word not in UNIGRAMS for word in words)  # ten decimal orders each
        totals[text] = chance + weight * (language_score(text) - unknown) + bonus * len(words)
    search = Search(CHARACTERS, BeamConfig(**EVERYTHING, lm=str(model)), weight, bonus)
    assert search.find(logs) == max(totals, key=lambda text: totals[text])


def test_a_space_behind_the_last_word_costs_nothing(model: Path) -> None:
    """The package alone takes it for an unknown word, which costs ten orders."""
    logs = np.full((3, 4), -20.0, np.float32)
    logs[0, 2], logs[1, 1], logs[2, 1] = 0.0, -0.1, -0.1  # A and a space
    logs[0, 3] = -3.0  # or B
    assert Search(CHARACTERS, BeamConfig(lm=str(model)), 1.0, 0.0).find(logs) == "A"


def test_a_model_turns_an_ambiguous_word(tmp_path: Path) -> None:
    """HE IS or HE AS: the sound is for the second, the model for the first."""
    characters = tuple(" AEHIS")
    logs = np.full((7, 7), -9.0)
    for frame, character in enumerate("HE AS"):
        logs[frame, 1 + characters.index(character)] = -0.1
    logs[3, 1 + characters.index("I")] = -0.6
    logs[5:, 0] = -0.1
    words = dict.fromkeys(("HE", "IS", "AS"), (-0.7, -0.2))
    path = tmp_path / "lm.arpa.gz"
    path.write_bytes(gzip.compress(arpa(words, {("HE", "IS"): -0.1, ("HE", "AS"): -1.5}).encode()))
    assert Search(characters, BeamConfig()).find(logs) == greedy(logs, characters) == "HE AS"
    assert Search(characters, BeamConfig(lm=str(path)), 0.5, 0.0).find(logs) == "HE IS"
    assert Search(characters, BeamConfig(lm=str(path)), 0.1, 0.0).find(logs) == "HE AS"


def test_a_vocabulary_without_a_space_writes_one_word(model: Path) -> None:
    logs = random_logs(4, tokens=3, seed=1)
    assert Search(("A", "B"), BeamConfig(lm=str(model)), 1.0, 0.0).find(logs) in {"A", "B", "AB", "BA"}


def test_a_lexicon_says_which_words_are_known(model: Path, tmp_path: Path) -> None:
    logs = np.log(np.array([[0.02, 0.01, 0.57, 0.4], [0.9, 0.02, 0.04, 0.04]], np.float32))
    assert Search(CHARACTERS, BeamConfig(lm=str(model)), 0.5, 0.0).find(logs) == "A"
    (tmp_path / "words.txt").write_text("B  B IY\nBA  B AA\n")
    only_b = BeamConfig(lm=str(model), lexicon=str(tmp_path / "words.txt"))
    assert Search(CHARACTERS, only_b, 0.5, 0.0).find(logs) == "B"


def test_nothing_is_printed_where_a_model_is_read(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Search(CHARACTERS, BeamConfig(lm=str(model)), 0.3, 0.1).decoder()
    assert capfd.readouterr() == ("", "")


# the weights


def test_dev_chooses_the_weights_that_nobody_typed(model: Path) -> None:
    logs = [random_logs(6, seed=seed) for seed in range(12)]
    truth = [Search(CHARACTERS, BeamConfig(lm=str(model)), 1.5, -1.0).find(rows) for rows in logs]
    chosen = choose(BeamConfig(lm=str(model)), CHARACTERS, truth, logs)
    rates = {}
    for weight in beam.LM_WEIGHTS:
        guesses = [Search(CHARACTERS, BeamConfig(lm=str(model)), weight, 0.0).find(rows) for rows in logs]
        rates[weight] = error_rates(truth, guesses)["wer"]
    assert rates[chosen["lm_weight"]] == min(rates.values())
    typed = choose(BeamConfig(lm=str(model), lm_weight=0.7), CHARACTERS, truth, logs)
    assert typed["lm_weight"] == 0.7
    assert typed["word_bonus"] in beam.WORD_BONUSES
    assert choose(BeamConfig(), CHARACTERS, truth, logs) == {}


def test_typed_weights_are_not_searched_for(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Search, "find", lambda *_: pytest.fail("dev was searched"))
    chosen = choose(BeamConfig(lm=str(model), lm_weight=0.7, word_bonus=0.0), CHARACTERS, ["A"], [random_logs(3)])
    assert (chosen["lm_weight"], chosen["word_bonus"]) == (0.7, 0.0)


def test_weights_belong_to_the_model_that_they_were_chosen_for(model: Path, tmp_path: Path) -> None:
    chosen = choose(BeamConfig(lm=str(model), lm_weight=0.7, word_bonus=0.5), CHARACTERS, ["A"], [random_logs(3)])
    assert weights_of(BeamConfig(lm=str(model)), chosen) == chosen
    assert weights_of(BeamConfig(lm=str(model), word_bonus=2.0), chosen) == {**chosen, "word_bonus": 2.0}
    other = tmp_path / "other.arpa"
    other.write_text(arpa(UNIGRAMS, {}))
    with pytest.raises(UserError, match=r"Expected asr\.beam\.lm_weight and asr\.beam\.word_bonus for '.*other\.arpa'"):
        weights_of(BeamConfig(lm=str(other)), chosen)


# mistakes


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (None, ["an n-gram model that can be read", "no such file", "-o asr.beam.lm=FILE", "-o asr.beam=null"]),
        (b"", ["an empty file"]),
        (b"hello\n", ["no line \\data\\ at its beginning"]),
        (b"\\data\\\nngram 1=3\n\\1-grams:\n-1\tA\n", ["no end of its words"]),
        (arpa(UNIGRAMS, BIGRAMS).encode()[:-60], ["in the 2-gram at byte"]),
        (gzip.compress(arpa(UNIGRAMS, BIGRAMS).encode())[:-30], ["zlib encountered an error"]),
        (gzip.compress(b"hello"), ["no line \\data\\ at its beginning"]),
        (b"\xff\xfe\x00\x01" * 20, ["can't decode"]),
        (arpa({"a": (-1.0, 0.0), "b": (-1.0, 0.0)}, {}).encode(), ["spelt with the characters of training (AB)", "is 'a'"]),
        (beam._BINARY + b"\n\0" * 90, ["a lexicon beside KenLM's binary", "-o asr.beam.lexicon=FILE"]),
    ],
    ids=["absent", "empty", "text", "no end", "cut", "cut gzip", "gzip of text", "binary", "small letters", "kenlm"],
)
def test_a_model_that_cannot_be_searched_with_is_refused_in_one_line(
    content: bytes | None, parts: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "my.arpa"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as found:
        check(BeamConfig(lm=str(path)), CHARACTERS)
    message = str(found.value)
    assert all(part in message for part in [*parts, str(path)]), message
    assert "\n" not in message


def test_a_lexicon_of_other_letters_is_refused(model: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("a\nb\n")
    with pytest.raises(UserError, match=r"spelt with the characters of training \(AB\) in '.*words.txt', found none"):
        check(BeamConfig(lm=str(model), lexicon=str(words)), CHARACTERS)
    with pytest.raises(UserError, match=r"a lexicon that can be read at '.*absent', found no such file"):
        check(BeamConfig(lm=str(model), lexicon=str(tmp_path / "absent")), CHARACTERS)


@pytest.mark.parametrize("option", ["lexicon", "lm_weight", "word_bonus"])
def test_an_option_of_a_model_that_is_not_there_is_refused(option: str) -> None:
    config = BeamConfig(**{option: "words.txt" if option == "lexicon" else 1.0})
    with pytest.raises(UserError, match=rf"an n-gram model \(-o asr\.beam\.lm=FILE\) beside asr\.beam\.{option}"):
        check(config, CHARACTERS)


def test_a_package_that_is_not_there_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    beam._decoder.cache_clear()
    monkeypatch.setitem(sys.modules, "ctc_beam_decoder", None)
    with pytest.raises(UserError, match=r"the package ctc-beam-decoder for asr\.beam, found none\. Run `pip install .*decode"):
        check(BeamConfig(), CHARACTERS)


# the question


def transcripts(*texts: tuple[str, str | None]) -> Outcome:
    guesses = tuple(Transcript(greedy, found) for greedy, found in texts)
    return Outcome(tuple(map(str, range(len(texts)))), guesses, ("A B",) * len(texts))


def test_greedy_and_searched_rates_stand_side_by_side_and_only_the_greedy_one_chooses() -> None:
    question = question_of(AsrConfig(beam=BeamConfig()))
    assert [*question.metrics] == ["wer", "wer_beam", "cer", "cer_beam"]
    assert question.primary_metric == "wer"
    assert question.final == ("wer_beam", "cer_beam")
    found = question.score({}, transcripts(("A A", "A B"), ("B B", "B")), {})
    assert (found["wer"], found["wer_beam"]) == (0.5, 0.25)
    before = question.score({}, transcripts(("A A", None), ("B B", None)), {})
    assert before["wer"] == 0.5
    assert math.isnan(before["wer_beam"])
    assert QUESTION.score({}, transcripts(("A A", "A B"), ("B B", "B")), {}) == {"wer": 0.5, "cer": pytest.approx(1 / 3)}
    assert question_of(AsrConfig()) is QUESTION


def expert_of(**options: Any) -> Any:
    spec = UpstreamSpec("audio", 1, 5, 16_000, lambda samples: samples // 320)
    vocabulary = {"characters": [*CHARACTERS], "normalize": "upper"}
    return TASK.build(AsrConfig(projector_dim=4, hidden_dim=4, layers=0, **options), vocabulary, {"audio": spec})


def test_what_is_searched_is_what_is_read_greedily() -> None:
    logits = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(0))
    output = Output(logits, (9, 6))
    texts, plain = expert_of(beam=BeamConfig(), downsample=2).decode(output), expert_of().decode(output)
    assert tuple(text.greedy for text in texts) == plain
    assert [(len(text.logs), text.seconds) for text in texts] == [(9, pytest.approx(0.36)), (6, pytest.approx(0.24))]
    np.testing.assert_allclose(np.exp(texts[1].logs).sum(axis=1), 1, rtol=1e-5)


def test_transcripts_are_searched_once_weights_are_known_and_are_read_back_as_written() -> None:
    text, rows = Text(CHARACTERS), [Transcript("A", logs=random_logs(5, seed=seed)) for seed in range(3)]
    assert Transcripts(text).decide(rows) == tuple(rows)
    answer = Transcripts(text, Search(CHARACTERS, BeamConfig()))
    found = answer.decide(rows)
    assert all(row.beam is not None and row.logs is None and row.searched > 0 for row in found)
    assert answer.decide(found) == found
    for row in found:
        cells = dict(zip(answer.columns("prediction"), answer.write(row), strict=True))
        assert answer.read(cells, "prediction") == row
    assert answer.write("A B") == ["A B"]
    assert answer.read({"prediction": "A"}, "prediction") == Transcript("A")
    value, _ = answer.joined([(1.0, rows[0]), (1.0, Transcript("", logs=random_logs(5, seed=1)))])
    assert value == " ".join(str(row) for row in found[:2])


def test_wrong_options_are_found_before_anything_is_trained(tmp_path: Path) -> None:
    rows = (Utterance("u", "u.wav", text="a b"),)
    corpus = Corpus("mine", "split", None, {"train": rows, "dev": rows})
    options = AsrConfig(beam=BeamConfig(lm=str(tmp_path / "absent.arpa")))
    with pytest.raises(UserError, match="an n-gram model that can be read"):
        question_of(options).make_vocabulary(options, LabelsConfig(), corpus)
