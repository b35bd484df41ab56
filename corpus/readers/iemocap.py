"""IEMOCAP: five dyadic sessions of acted and improvised emotion, ten speakers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...core.errors import UserError
from ..base import Corpus, Reader, Utterance, register_corpus
from ..demo.iemocap import make_demo
from ..folds import Splits, check_fold, compare_counts, random_folds, split_by
from ..locate import find_inside, is_demo
from .superb_order import DEV_HASHES, dev_hash, dev_ids, in_order

PROTOCOLS = {"session5": 5, "speaker10": 10, "random10": 10, "superb": 5}
SCALE = (1.0, 5.0)
SPEAKERS = tuple(f"Ses{session:02d}{sex}" for session in range(1, 6) for sex in "FM")
CODES = ("neu", "hap", "ang", "sad", "exc", "fru", "fea", "sur", "dis", "oth", "xxx")  # xxx: the raters did not agree
_MERGE, _KEEP = {"exc": "hap"}, ("neu", "hap", "ang", "sad")
FOUR_CLASSES = {"merge": _MERGE, "keep": list(_KEEP)}
# of the four classes in each session, as the release has them
_EXPECTED = {
    1: {"neu": 384, "hap": 278, "ang": 229, "sad": 194},
    2: {"neu": 362, "hap": 327, "ang": 137, "sad": 197},
    3: {"neu": 320, "hap": 286, "ang": 240, "sad": 305},
    4: {"neu": 258, "hap": 303, "ang": 327, "sad": 143},
    5: {"neu": 384, "hap": 442, "ang": 170, "sad": 245},
}
_SUMMARY = re.compile(r"\[[^\]]*\]\t(?P<id>\S+)\t(?P<code>\w+)\t\[(?P<ratings>[^\]]*)\]")
_LINE = re.compile(r"(?P<id>\S+) +\[[\d.]+ *- *[\d.]+\]: ?(?P<text>.*)")
_TAG = re.compile(r"\[[^\]]*\]")
_UTTERANCE = re.compile(r"Ses0(?P<session>[1-5])[FM]_(?P<act>impro|script)\w+_(?P<sex>[FM])\d{3}")


def read(
    root: str | Path,
    *,
    protocol: str = "session5",
    fold: int | None = None,
    improvised_only: bool = False,
    strip_tags: bool = False,
) -> Corpus:
    """Return every turn of the release with its own code; merging to four classes is the task's business.

    `session5`: test is one session, dev the next one. `speaker10`: test is one speaker, dev the other one of
    that session. `random10`: utterances drawn, speakers in all splits. `superb`: s3prl's very dev utterances.
    """
    number = check_fold("iemocap", PROTOCOLS, protocol, fold)
    folder = find_inside(root, _has_sessions, "IEMOCAP", "Session1 to Session5")
    turns = [turn for session in range(1, 6) for turn in _read_session(folder, session, strip_tags)]
    splits = _split(turns, protocol, number or 1)
    notes: tuple[str, ...] = ("speakers are in all splits: results flatter",) if protocol == "random10" else ()
    notes += _stray(turns)
    if not is_demo(folder):
        notes += _compare(turns) + (_compare_dev(splits["dev"], number or 1) if protocol == "superb" else ())
    if improvised_only:  # after the split: the option takes turns away and moves none
        splits = {name: tuple(turn for turn in rows if turn.labels["improvised"]) for name, rows in splits.items()}
    return Corpus(
        name="iemocap",
        protocol=protocol,
        fold=number,
        splits=splits,
        label_order={"emotion": CODES},
        label_defaults={"emotion": FOUR_CLASSES},
        notes=notes,
        scale=SCALE,
    )


def _has_sessions(folder: Path) -> bool:
    return any((folder / f"Session{session}" / "dialog" / "EmoEvaluation").is_dir() for session in range(1, 6))


def _read_session(root: Path, session: int, strip_tags: bool) -> Iterator[Utterance]:
    folder = root / f"Session{session}"
    for part in ("dialog/EmoEvaluation", "sentences/wav"):
        if not (folder / part).is_dir():
            raise UserError(f"Expected all five sessions of IEMOCAP, found no {folder / part}. Unpack the whole release.")
    evaluations = [path for path in sorted((folder / "dialog/EmoEvaluation").glob("*.txt")) if not path.name.startswith(".")]
    if not evaluations:
        raise UserError(
            f"Expected a .txt for each dialog in {folder / 'dialog/EmoEvaluation'}, found none. Unpack the release again."
        )
    for path in evaluations:
        texts = _read_texts(folder / "dialog" / "transcriptions" / path.name)
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            summary = _SUMMARY.match(line)
            name = None if summary is None else _UTTERANCE.fullmatch(summary["id"])
            if summary is None or name is None:
                continue  # raters' lines, blank lines, the heading
            text = texts.get(summary["id"])
            text = " ".join(_TAG.sub(" ", text).split()) if text is not None and strip_tags else text
            wav = folder / "sentences" / "wav" / summary["id"][:-5] / f"{summary['id']}.wav"
            yield Utterance(
                id=summary["id"],
                audio=str(wav),
                text=text,
                speaker=f"Ses0{session}{name['sex']}",  # not the id's first letter: that one wears the markers
                session=f"Ses0{session}",
                labels=_labels(summary, name),
            )


def _labels(summary: re.Match[str], name: re.Match[str]) -> dict[str, object]:
    labels: dict[str, object] = {"emotion": summary["code"], "sex": name["sex"], "improvised": name["act"] == "impro"}
    ratings = [float(rating) for rating in summary["ratings"].split(",")]
    rated = dict(zip(("valence", "arousal", "dominance"), ratings, strict=True))
    return {**labels, **{name: rating for name, rating in rated.items() if SCALE[0] <= rating <= SCALE[1]}}


def _stray(turns: Sequence[Utterance]) -> tuple[str, ...]:
    """Return a note that counts the turns with a rating off the scale, which have no such rating."""
    stray = [turn.id for turn in turns if not {"valence", "arousal", "dominance"} <= turn.labels.keys()]
    if not stray:
        return ()
    scale = f"{SCALE[0]:g} to {SCALE[1]:g}"
    return (f"{len(stray)} turns have a rating outside of {scale}, which is left out (the first: {stray[0]})",)


def _read_texts(path: Path) -> dict[str, str]:
    """Return the transcripts by utterance id; lines of other kinds have ids that no turn has."""
    if not path.is_file():
        return {}
    matches = (_LINE.match(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return {match["id"]: match["text"].strip() for match in matches if match is not None}


def _split(turns: Sequence[Utterance], protocol: str, fold: int) -> Splits:
    if protocol == "session5":
        sessions = [turn.session or "" for turn in turns]
        return split_by(turns, sessions, dev={f"Ses0{fold % 5 + 1}"}, test={f"Ses0{fold}"})
    if protocol == "speaker10":
        test = SPEAKERS[fold - 1]
        other = test[:-1] + ("M" if test.endswith("F") else "F")
        return split_by(turns, [turn.speaker or "" for turn in turns], dev={other}, test={test})
    if protocol == "random10":
        return random_folds(turns, fold)
    four = {*_MERGE, *_KEEP}  # s3prl draws over these; the other turns of its sessions stay in train
    dev = dev_ids([turn.id for turn in turns if turn.labels["emotion"] in four], fold)
    drawn = {*dev}
    keys = ["dev" if turn.id in drawn else turn.session or "" for turn in turns]
    splits = split_by(turns, keys, dev={"dev"}, test={f"Ses0{fold}"})
    # evaluated in fours that are padded together: the score depends on who stands beside whom
    orders = {"dev": dev, "test": in_order(turn.id for turn in splits["test"])}
    ranks = {split: {name: rank for rank, name in enumerate(names)} for split, names in orders.items()}
    return splits | {split: tuple(sorted(splits[split], key=lambda turn: rank[turn.id])) for split, rank in ranks.items()}


def _compare_dev(dev: Sequence[Utterance], fold: int) -> tuple[str, ...]:
    digest, known = dev_hash([turn.id for turn in dev]), DEV_HASHES[fold - 1]
    return () if digest == known else (f"dev of fold {fold} differs from s3prl's: its ids hash to {digest}, s3prl's to {known}",)


def _compare(turns: Sequence[Utterance]) -> tuple[str, ...]:
    notes: tuple[str, ...] = ()
    for session, expected in _EXPECTED.items():
        codes = (str(turn.labels["emotion"]) for turn in turns if turn.session == f"Ses0{session}")
        merged = Counter(_MERGE.get(code, code) for code in codes)
        notes += compare_counts(f"Session{session}", {code: merged[code] for code in expected}, expected)
    return notes


register_corpus(
    Reader(
        name="iemocap",
        read=read,
        has_layout=_has_sessions,
        tasks=("emotion", "avd"),
        default_for=("emotion",),
        protocols=PROTOCOLS,
        select_by={"emotion": "ua"},
        make_demo=make_demo,
        description="English, 10 speakers in 5 sessions, 10,039 turns, 5,531 of the four usual classes; ratings 1..5",
        where="ask for it at https://sail.usc.edu/iemocap/ (free for research); unpack IEMOCAP_full_release.tar.gz",
    )
)
