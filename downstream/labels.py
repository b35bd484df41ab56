"""Class labels: merged, kept and ordered as the user says, the corpus' own otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import UserError, nearest
from ..core.options import option_text
from ..corpus.base import Corpus, Utterance
from ..corpus.overlap import alike

MOST_LISTED = 12  # classes in a message


@dataclass(frozen=True)
class LabelsConfig:
    """The `labels:` section: what a corpus' classes become."""

    merge: dict[str, str] | None = None  # {exc: hap}: exc counts as hap; {}: nothing is merged; null: as is usual for the corpus
    keep: list[str] | None = None  # classes in this order; null: the usual ones of the corpus
    column: str = ""  # a manifest's label column by its own name; "": the usual one


def refuse_classes(task: str, labels: LabelsConfig, what: str, allowed: Sequence[str] = ()) -> None:
    """Refuse the options of classes for a task that has none."""
    for name, value in vars(labels).items():
        if value not in (None, "") and name not in allowed:
            which = f"{task}, which has {what} and no classes"
            raise UserError(f"Expected no labels.{name} for {which}, found {value}. Leave it out.")


@dataclass(frozen=True)
class Classes:
    """The classes of a run, and how an utterance's label becomes one of them."""

    names: tuple[str, ...]
    merge: Mapping[str, str]
    key: str  # of Utterance.labels
    counts: Mapping[str, int] = field(default_factory=dict)  # of the training split

    def of(self, utterance: Utterance) -> str | None:
        """Return the utterance's class, or None where it has none of these."""
        label = utterance.labels.get(self.key)
        label = self.merge.get(str(label), label)
        return str(label) if label is not None and str(label) in self.names else None

    def vocabulary(self) -> dict[str, Any]:
        """Return what rebuilds this without a corpus."""
        return {"classes": list(self.names), "merge": dict(self.merge), "key": self.key, "counts": dict(self.counts)}

    @classmethod
    def from_vocabulary(cls, vocabulary: Mapping[str, Any]) -> Classes:
        """Return the classes of a run folder, or of class names alone."""
        merge, key, counts = vocabulary.get("merge", {}), vocabulary.get("key", "label"), vocabulary.get("counts", {})
        return cls(tuple(vocabulary["classes"]), merge, key, counts)


def classes_of(corpus: Corpus, key: str, config: LabelsConfig) -> Classes:
    """Return the classes that a corpus and the user's settings make."""
    key = config.column or label_key(corpus, key)
    utterances = [utterance for split in corpus.splits.values() for utterance in split]
    found = Counter(str(utterance.labels[key]) for utterance in utterances if utterance.labels.get(key) is not None)
    if not found:
        known = ", ".join(sorted(_label_keys(corpus))) or "none"
        raise UserError(f"Expected a label '{key}' in {corpus.name}, found none (labels there: {known}). Set labels.column.")
    own = corpus.label_defaults.get(key, {})
    order = list(config.keep or own.get("keep", ()))
    # a class that `labels.keep` names is not merged away
    usual = {name: into for name, into in own.get("merge", {}).items() if name not in order}
    merge = usual if config.merge is None else config.merge
    requested = [*(config.merge or ()), *(word for word in config.keep or () if word not in merge.values())]
    check_words(requested, found, corpus.name)
    if not order:
        known_order = corpus.label_order.get(key) or sorted(found)
        order = list(dict.fromkeys(merge.get(name, name) for name in known_order))
        present = {merge.get(name, name) for name in found}
        order = [name for name in order if name in present]
    classes = Classes(tuple(order), merge, key)
    counts = Counter(name for name in map(classes.of, corpus.splits.get("train", ())) if name is not None)
    return Classes(classes.names, merge, key, {name: counts[name] for name in order})


def label_key(corpus: Corpus, task_key: str) -> str:
    """Return where a corpus keeps a task's label: under the task's own key, or a manifest's `label`."""
    if task_key not in corpus.label_order and "label" in _label_keys(corpus):
        return "label"
    return task_key


def _label_keys(corpus: Corpus) -> set[str]:
    return {key for split in corpus.splits.values() for utterance in split for key in utterance.labels}


def check_words(words: Iterable[str], found: Mapping[str, int], corpus: str) -> None:
    """Refuse a word that no label of the corpus is."""
    for word in words:
        if word not in found:
            listed = ", ".join(f"{name} ({count})" for name, count in sorted(found.items()))
            raise UserError(f"Expected a label of {corpus}, found '{word}'.{nearest(word, found)} Labels there: {listed}.")


def require_trainable(classes: Classes, corpus: Corpus, splits: Sequence[str] = ("train", "dev")) -> None:
    """Refuse labels that cannot be trained: an empty split, one class only, a class never seen in training."""
    if len(classes.names) < 2:
        raise UserError(f"Expected at least two classes, found {list(classes.names)} in {corpus.name}. Check labels.keep.")
    for split in splits:
        if not any(classes.of(utterance) for utterance in corpus.splits.get(split, ())):
            found = ", ".join(f"{name} {len(rows)}" for name, rows in corpus.splits.items())
            known = "; ".join([f"splits: {found}", *corpus.notes])
            raise UserError(
                f"Expected labelled utterances in split '{split}' of {corpus.name}, found none ({known}). "
                "Check the corpus with `headwater corpus check`."
            )
    unseen = [name for name, count in classes.counts.items() if not count]
    if unseen:
        raise unseen_classes(unseen, [name for name in classes.names if name not in unseen], corpus.name)


def unseen_classes(unseen: Sequence[str], trained: Sequence[str], corpus: str) -> UserError:
    """Return the error about classes that the training split does not have, or has in another spelling."""
    listed = ", ".join(unseen[:MOST_LISTED]) + f" and {len(unseen) - MOST_LISTED} more" * (len(unseen) > MOST_LISTED)
    found = f"Expected every class in the training split of {corpus}, found no '{listed}'"
    spelled = {alike(name): name for name in trained}
    twins = {name: spelled[alike(name)] for name in unseen if alike(name) in spelled}
    if len(twins) == len(unseen):
        merge = option_text("labels.merge", dict([*twins.items()][:MOST_LISTED]))
        return UserError(f"{found}, there spelled '{', '.join([*twins.values()][:MOST_LISTED])}'. Make them one: -o {merge}")
    if len(trained) > MOST_LISTED:
        return UserError(f"{found}. Leave out these classes: -o labels.keep='[…]', with the {len(trained)} others.")
    return UserError(f"{found}. Leave it out: -o labels.keep='[{', '.join(trained)}]'")
