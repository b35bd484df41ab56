"""Speech recognition as a question: texts in one form, and the share of words and characters that is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ...core.errors import UserError
from ...corpus.base import Corpus, Utterance
from ..answer import Text
from ..base import Outcome, Question, Tables
from ..labels import LabelsConfig, refuse_classes
from ..spelling import error_rates, plain_text, unseen_tokens
from .answer import Transcripts, greedy_text
from .beam import BeamConfig, Search, check, choose, weights_of


def make_vocabulary(options: Any, labels: LabelsConfig, corpus: Corpus) -> dict[str, Any]:
    """Return the characters of the training split's texts, in order."""
    refuse_classes("asr", labels, "texts")
    vocabulary = {"characters": [], "normalize": options.normalize}
    require_texts(vocabulary, corpus)
    characters = sorted({sign for row in corpus.splits["train"] for sign in reference_of(vocabulary, row)})
    if options.beam is not None:
        check(options.beam, characters)
    return {**vocabulary, "characters": characters}


def require_texts(vocabulary: Mapping[str, Any], corpus: Corpus, splits: Sequence[str] = ("train", "dev")) -> None:
    """Refuse a corpus without transcripts, and a split without speech."""
    rows = [row for split in corpus.splits.values() for row in split]
    if all(row.text is None for row in rows):
        hint = " ".join(note for note in corpus.notes if "corpus.options.columns" in note)
        raise UserError(
            f"Expected transcripts in {corpus.name}, since asr is trained on them, found none. In your own table they stand "
            "in a column 'text' (or -o corpus.options.columns.text=HEADER); --transcripts takes them from elsewhere."
            f"{' Note: ' * bool(hint)}{hint}"
        )
    for split in splits:
        if not any(reference_of(vocabulary, row) for row in corpus.splits.get(split, ())):
            found = ", ".join(f"{name} {len(rows)}" for name, rows in corpus.splits.items())
            raise UserError(
                f"Expected utterances with speech in split '{split}' of {corpus.name}, found none "
                f"(splits: {found}). Check the corpus with `headwater corpus check`."
            )


def reference_of(vocabulary: Mapping[str, Any], utterance: Utterance) -> str:
    """Return the transcript of an utterance, in the form that is trained and scored."""
    return plain_text(utterance.text or "", vocabulary["normalize"])


def select(_: Mapping[str, Any], utterances: Sequence[Utterance]) -> list[Utterance]:
    """Return all utterances: what becomes of those without a transcript is the run's to say (corpus.missing_text)."""
    return list(utterances)


def answer(vocabulary: Mapping[str, Any]) -> Text:
    """Return a text of the training split's characters as the kind of answer."""
    return Text(tuple(vocabulary["characters"]))


def score(_: Mapping[str, Any], outcome: Outcome, __: Tables) -> dict[str, float]:
    """Return the word and the character error rate of a whole split, read greedily."""
    return dict(error_rates(outcome.references, [*map(greedy_text, outcome.predictions)]))


def details(vocabulary: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    """Return which characters of a split no prediction can have."""
    return unseen_tokens("characters", vocabulary["characters"], "".join(outcome.references))


def adapt(vocabulary: Mapping[str, Any], labels: LabelsConfig, corpus: Corpus) -> tuple[dict[str, Any], str]:  # noqa: ARG001
    """Return the run's own vocabulary, once another corpus is found to have transcripts."""
    require_texts(vocabulary, corpus, splits=[*corpus.splits])
    form = "as they are" if vocabulary["normalize"] == "none" else "in capital letters without punctuation"
    return dict(vocabulary), f"texts are compared {form}"


QUESTION = Question(
    name="asr",
    metrics={"wer": "lower", "cer": "lower"},
    primary_metric="wer",
    make_vocabulary=make_vocabulary,
    select=select,
    target=reference_of,  # its characters get their numbers in the loss
    answer=answer,
    score=score,
    adapt=adapt,
    details=details,
    label=False,
    writes=True,
)


# of a run that searches


def question_of(options: Any) -> Question:
    """Return the question of a run: with `beam`, both ways to read count, and steps are chosen by the greedy one."""
    if options.beam is None:
        return QUESTION
    return replace(
        QUESTION,
        metrics={"wer": "lower", "wer_beam": "lower", "cer": "lower", "cer_beam": "lower"},
        final=("wer_beam", "cer_beam"),
        answer=partial(searched_answer, options.beam),
        score=score_both,
        calibrate=partial(choose_weights, options.beam),
        finished=lambda vocabulary: {**vocabulary, "beam": weights_of(options.beam, vocabulary.get("beam"))},
        details=search_details,
    )


def searched_answer(config: BeamConfig, vocabulary: Mapping[str, Any]) -> Transcripts:
    """Return transcripts as the kind of answer; they are searched once the weights of the n-gram model are known."""
    text, weights = answer(vocabulary), vocabulary.get("beam")
    if weights is None:
        return Transcripts(text)
    return Transcripts(text, Search(text.tokens, config, weights.get("lm_weight", 0.0), weights.get("word_bonus", 0.0)))


def score_both(vocabulary: Mapping[str, Any], outcome: Outcome, tables: Tables) -> dict[str, float]:
    """Return the error rates of a whole split read greedily, and searched; before there is a search, no number."""
    greedy = score(vocabulary, outcome, tables)
    whole = all(getattr(guess, "beam", None) is not None for guess in outcome.predictions)
    beam = error_rates(outcome.references, [str(guess) for guess in outcome.predictions]) if whole else {}
    both = {name: (rate, beam.get(name, float("nan"))) for name, rate in greedy.items()}
    return {key: rate for name, rates in both.items() for key, rate in zip((name, f"{name}_beam"), rates, strict=True)}


def choose_weights(config: BeamConfig, vocabulary: Mapping[str, Any], outcome: Outcome, _: Tables) -> dict[str, Any]:
    """Return the vocabulary with the weights of the n-gram model that dev chose."""
    logs = [guess.logs for guess in outcome.predictions]
    return {**vocabulary, "beam": choose(config, tuple(vocabulary["characters"]), outcome.references, logs)}


def search_details(vocabulary: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    """Return which characters no prediction can have, the weights of the search, and how fast it was."""
    weights = {name: f"{value:g}" for name, value in (vocabulary.get("beam") or {}).items() if name != "lm"}
    speech, spent = (sum(getattr(guess, name) for guess in outcome.predictions) for name in ("seconds", "searched"))
    speed = {"seconds": f"{spent:.1f} for {speech:.1f} of speech"} if spent else {}
    return {**details(vocabulary, outcome), **({"beam search": {**weights, **speed}} if weights or speed else {})}
