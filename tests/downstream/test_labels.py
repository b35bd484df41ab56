"""What a corpus' labels become."""

from __future__ import annotations

import pytest

from headwater.core.errors import UserError
from headwater.corpus.base import Corpus, Utterance
from headwater.downstream.emotion.question import QUESTION
from headwater.downstream.labels import Classes, LabelsConfig, classes_of, require_trainable


def corpus(*labels: str, test: tuple[str, ...] = ("neu", "hap"), name: str = "iemocap") -> Corpus:
    """A corpus of these labels in train and dev, with IEMOCAP's habits."""
    train = tuple(Utterance(str(row), "a.wav", labels={"emotion": label}) for row, label in enumerate(labels))
    tested = tuple(Utterance(f"t{row}", "a.wav", labels={"emotion": label}) for row, label in enumerate(test))
    return Corpus(
        name,
        "session5",
        1,
        {"train": train, "dev": train, "test": tested},
        label_order={"emotion": ("neu", "hap", "exc", "ang", "sad", "fru")},
        label_defaults={"emotion": {"merge": {"exc": "hap"}, "keep": ["neu", "hap", "ang", "sad"]}},
    )


ALL = ("neu", "hap", "exc", "ang", "sad", "fru")


def test_the_usual_classes_come_in_the_protocols_order() -> None:
    classes = classes_of(corpus(*ALL), "emotion", LabelsConfig())
    assert classes.names == ("neu", "hap", "ang", "sad")
    assert classes.counts == {"neu": 1, "hap": 2, "ang": 1, "sad": 1}


def test_a_class_requested_by_name_is_not_merged_away() -> None:
    classes = classes_of(corpus(*ALL), "emotion", LabelsConfig(keep=["exc", "neu", "hap"]))
    assert classes.names == ("exc", "neu", "hap")
    assert classes.counts == {"exc": 1, "neu": 1, "hap": 1}


def test_an_empty_merge_undoes_the_usual_one() -> None:
    assert classes_of(corpus(*ALL), "emotion", LabelsConfig(merge={})).counts["hap"] == 1


def test_the_users_merge_replaces_the_usual_one() -> None:
    classes = classes_of(corpus(*ALL), "emotion", LabelsConfig(merge={"fru": "ang"}))
    assert classes.counts == {"neu": 1, "hap": 1, "ang": 2, "sad": 1}


def test_a_misspelt_label_is_named_with_its_neighbour_and_the_labels_there() -> None:
    with pytest.raises(UserError, match=r"found 'hapy'\. Did you mean 'hap'\? Labels there: ang \(2\), exc \(2\)"):
        classes_of(corpus(*ALL), "emotion", LabelsConfig(keep=["hapy", "neu"]))


def test_one_class_only_is_refused() -> None:
    with pytest.raises(UserError, match="at least two classes"):
        require_trainable(classes_of(corpus(*ALL), "emotion", LabelsConfig(keep=["neu"])), corpus(*ALL))


def test_a_class_never_seen_in_training_is_refused_with_the_option_that_leaves_it_out() -> None:
    there = corpus("neu", "ang", "sad")
    with pytest.raises(UserError, match=r"found no 'hap'.*labels.keep='\[neu, ang, sad\]'"):
        require_trainable(classes_of(there, "emotion", LabelsConfig()), there)


def test_classes_survive_the_run_folder() -> None:
    classes = classes_of(corpus(*ALL), "emotion", LabelsConfig())
    assert Classes.from_vocabulary(classes.vocabulary()) == classes


def test_another_corpus_labels_are_matched_by_meaning_and_a_note_lists_the_rest() -> None:
    vocabulary = classes_of(corpus(*ALL), "emotion", LabelsConfig()).vocabulary()
    other = corpus("ANG", "HAP", "DIS", test=("SAD", "NEU", "DIS"), name="cremad")
    adapted, message = QUESTION.adapt(vocabulary, LabelsConfig(), other)
    classes = Classes.from_vocabulary(adapted)
    assert [classes.of(row) for row in other.splits["test"]] == ["sad", "neu", None]
    assert "ANG=ang" in message
    assert "left out DIS (3)" in message


def test_another_corpus_without_a_common_label_is_refused() -> None:
    vocabulary = classes_of(corpus(*ALL), "emotion", LabelsConfig()).vocabulary()
    with pytest.raises(UserError, match=r"among neu, hap, ang, sad, found big, small.*labels.merge"):
        QUESTION.adapt(vocabulary, LabelsConfig(), corpus("big", "small", test=(), name="manifest"))
