"""MSP-Podcast: turns of real podcasts, rated for arousal, valence and dominance, in releases that differ in their spelling."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import UserError
from ..base import Corpus, Reader, Utterance, register_corpus
from ..demo.msp_podcast import make_demo
from ..folds import Splits, check_fold, compare_counts
from ..locate import find_inside, is_demo
from ..tables import Row, read_table

PROTOCOLS = {"official": 1}
SCALE = (1.0, 7.0)
LETTERS = {
    "neutral": "N",
    "happy": "H",
    "angry": "A",
    "sad": "S",
    "surprise": "U",
    "fear": "F",
    "disgust": "D",
    "contempt": "C",
    "other": "O",
    "no_agreement": "X",
}  # class -> how the release writes it
EIGHT_CLASSES = tuple(LETTERS)[:8]  # of the challenge; attributes are rated for the other two as well
_CLASSES = {letter: name for name, letter in LETTERS.items()}
RATINGS = {"arousal": "EmoAct", "valence": "EmoVal", "dominance": "EmoDom"}  # dimension -> column
_NEEDED = ("FileName", "EmoClass", *RATINGS.values())
_SPLITS = {
    "train": "train",
    "validation": "dev",
    "development": "dev",
    "test": "test1",  # up to release 1.6
    "test1": "test1",
    "test2": "test2",
    "test3": "test3",
}
# what the folders and files were called over the years, in small letters
_AUDIO = ("audios", "audio")
_LABELS = ("labels", "label")
_TABLES = ("labels_consensus.csv", "labels_concensus.csv")
_PARTITIONS = ("partitions.txt", "partition.txt")
_TRANSCRIPTS = ("transcripts", "transcript", "transcription", "transcriptions")
_AT_ONCE = 500  # transcripts
_NOTHING = {"", "nan", "na", "n/a", "none", "null", "-"}
_LAYOUT = "the folders Audios and Labels (with labels_consensus.csv)"
_RELEASES = {
    "1.10": {"train": 63076, "dev": 10999, "test1": 16903, "test2": 13289},
    "1.11": {"train": 84030, "dev": 19815, "test1": 30647, "test2": 14815, "test3": 2347},
}
_NAME = re.compile(r"MSP-PODCAST_(?P<podcast>[^_]+)_.+")


def read(root: str | Path, *, protocol: str = "official", fold: int | None = None) -> Corpus:
    """Return the release's own partitions; what has no labels (test3) is read without, so that it can be predicted."""
    check_fold("msp_podcast", PROTOCOLS, protocol, fold)
    folder = find_inside(root, _has_layout, "MSP-Podcast", _LAYOUT)
    audio = _audio_files(folder)
    path = _table_of(folder)
    table = _read_labels(path)
    words, differing = _partitions(folder, table, path)
    names = [name for name in words if name in table or name in audio]
    texts = _read_texts(folder, {_stem(name) for name in names})
    home = str(_only(folder, _AUDIO) or folder)
    splits: dict[str, list[Utterance]] = {name: [] for name in dict.fromkeys(_SPLITS.values())}
    for name in names:
        utterance = _utterance(name, home, table.get(name), texts.get(_stem(name)))
        splits.setdefault(_split_of(words[name]), []).append(utterance)
    frozen: Splits = {name: tuple(rows) for name, rows in splits.items() if rows}
    return Corpus(
        name="msp_podcast",
        protocol=protocol,
        fold=None,
        splits=frozen,
        label_order={"emotion": tuple(LETTERS)},
        label_defaults={"emotion": {"keep": list(EIGHT_CLASSES)}},
        notes=(*differing, *_notes(frozen, words, names, audio)),
        release="" if is_demo(folder) else release_of({split: len(rows) for split, rows in frozen.items()}),
        scale=SCALE,
    )


def _only(folder: Path, names: Sequence[str], fits: Callable[[Path], bool] = Path.is_dir) -> Path | None:
    """Return what lies in a folder under one of these names, whatever its capitals."""
    found = {child.name.lower(): child for child in sorted(folder.iterdir()) if child.name.lower() in names and fits(child)}
    return next((found[name] for name in names if name in found), None)


def _has_layout(folder: Path) -> bool:
    return _only(folder, _LABELS) is not None


def _table_of(folder: Path) -> Path:
    labels = _only(folder, _LABELS) or folder
    table = _only(labels, _TABLES, Path.is_file)
    if table is None:
        raise UserError(f"Expected {_TABLES[0]} in {labels}, found none. Unpack the labels of the release into it.")
    return table


def _audio_files(folder: Path) -> set[str]:
    """Return the names of the WAV files; they lie in one flat folder."""
    home = _only(folder, _AUDIO)
    names = set() if home is None else {name for name in os.listdir(home) if name.lower().endswith(".wav") and name[0] != "."}
    if not names:
        place = folder / "Audios" if home is None else home
        raise UserError(f"Expected files such as MSP-PODCAST_0001_0008.wav in {place}, found none. Unpack Audios.tar.gz there.")
    return names


@dataclass(frozen=True)
class _Line:
    """One row of the table."""

    labels: Mapping[str, object]
    speaker: str | None
    partition: str | None


def _read_labels(path: Path) -> dict[str, _Line]:
    """Return the table by file name; its columns are known by name, in any order."""
    headers, rows = read_table(path)
    known = {header.lower(): header for header in headers}
    missing = [name for name in _NEEDED if name.lower() not in known]
    if missing:
        raise UserError(
            f"Expected the columns {', '.join(_NEEDED)} in {path}, found {', '.join(headers)}. "
            f"Without {' and '.join(missing)} this is another table: take the release's own."
        )
    lines: dict[str, _Line] = {}
    for row in rows:
        cells = {name: str(row.values[header]).strip() for name, header in known.items()}
        name = cells["filename"]
        if not name or name in lines:
            found = f"'{name}' again" if name else "nothing"
            raise UserError(f"Expected another file in each row of {path}, found {found} in row {row.number}. Remove the row.")
        lines[name] = _Line(_labels(cells, row, path), _known(cells.get("spkrid", "")), _known(cells.get("split_set", "")))
    return lines


def _known(word: str) -> str | None:
    return None if word.lower() in {*_NOTHING, "unknown"} else word


def _labels(cells: Mapping[str, str], row: Row, path: Path) -> dict[str, object]:
    """Return a row's labels; what is hidden or unknown has no key."""
    labels: dict[str, object] = {}
    letter = cells["emoclass"].upper()
    if letter.lower() not in _NOTHING:
        if letter not in _CLASSES:
            found = f"found '{cells['emoclass']}' in row {row.number} of {path}"
            raise UserError(f"Expected EmoClass to be one of {', '.join(_CLASSES)}, {found}. Mend the row.")
        labels["emotion"] = _CLASSES[letter]
    for name, header in RATINGS.items():
        if cells[header.lower()].lower() not in _NOTHING:
            labels[name] = _rating(cells[header.lower()], header, row, path)
    gender = _known(cells.get("gender", ""))
    return labels if gender is None else {**labels, "gender": gender}


def _rating(word: str, header: str, row: Row, path: Path) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not SCALE[0] <= value <= SCALE[1]:
        raise UserError(
            f"Expected {header} between {SCALE[0]:g} and {SCALE[1]:g}, found '{word}' in row {row.number} of {path}. "
            "Mend the row, or empty the cell where there is no rating."
        )
    return value


def _partitions(folder: Path, table: Mapping[str, _Line], source: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return each file's partition: the table's own, else that of Partitions.txt, and a note where the two differ."""
    path = _only(folder, _PARTITIONS, Path.is_file) or _only(source.parent, _PARTITIONS, Path.is_file)
    listed = {} if path is None else dict(_read_partitions(path))
    own = {name: line.partition for name, line in table.items() if line.partition is not None}
    without = [name for name in table if name not in own and name not in listed]
    if without:
        raise UserError(
            f"Expected a partition for every file (Split_Set in {source}, or Partitions.txt beside it), "
            f"found none for {len(without)}, {without[0]} first. Add the file Partitions.txt of the release."
        )
    differing = sum(_split_of(listed[name]) != _split_of(word) for name, word in own.items() if name in listed)
    notes = (f"Split_Set and {path.name} differ in {differing} files: Split_Set counts",) if path and differing else ()
    merged = {**listed, **own}
    return {name: merged[name] for name in (*table, *(name for name in listed if name not in table))}, notes


def _read_partitions(path: Path) -> Iterator[tuple[str, str]]:
    """Yield file and partition of lines such as `Train; MSP-PODCAST_0001_0008.wav`."""
    for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        word, _, name = (part.strip() for part in line.partition(";"))
        if word and name:  # else a blank line, or a heading
            yield name.rstrip("; "), word


def _split_of(word: str) -> str:
    return _SPLITS.get(word.lower(), word.lower())


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _utterance(name: str, home: str, line: _Line | None, text: str | None) -> Utterance:
    parts = _NAME.fullmatch(_stem(name))
    return Utterance(
        id=_stem(name),
        audio=os.path.join(home, name),
        text=text,
        speaker=None if line is None else line.speaker,
        session=None if parts is None else parts["podcast"],
        labels={} if line is None else line.labels,
    )


def _read_texts(folder: Path, stems: set[str]) -> dict[str, str]:
    """Return the transcripts by the stem of the file; a few hundred thousand small files are read side by side."""
    home = _only(folder, _TRANSCRIPTS)
    paths = [] if home is None else list(_find_texts(home, stems).items())
    with ThreadPoolExecutor(8) as pool:  # a network's disk is slow
        parts = pool.map(_read_some, (paths[first : first + _AT_ONCE] for first in range(0, len(paths), _AT_ONCE)))
        return {stem: text for part in parts for stem, text in part}


def _find_texts(home: Path, stems: set[str]) -> dict[str, str]:
    paths: dict[str, str] = {}
    for place, folders, names in os.walk(home):
        folders[:] = sorted(name for name in folders if not name.lower().startswith(("forcealigned", "force_aligned", ".")))
        for name in names:
            stem, ending = os.path.splitext(name)
            if ending.lower() == ".txt" and stem in stems:
                paths.setdefault(stem, os.path.join(place, name))
    return paths


def _read_some(paths: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    texts = []
    for stem, path in paths:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            texts.append((stem, " ".join(file.read().split())))
    return texts


def _notes(splits: Splits, words: Mapping[str, str], names: Sequence[str], audio: set[str]) -> Iterator[str]:
    unknown = Counter(word for name, word in words.items() if word.lower() not in _SPLITS)
    for word, count in unknown.items():
        yield f"partition '{word}' is none that is known ({', '.join(_SPLITS)}): read as split '{word.lower()}', {count} files"
    rows = [(split, row) for split, found in splits.items() for row in found]
    yield from _counted("no transcript", (split for split, row in rows if row.text is None), len(rows))
    yield from _counted("no ratings", (split for split, row in rows if not row.labels.keys() & RATINGS.keys()), len(rows))
    yield from _counted("speaker not known", (split for split, row in rows if row.speaker is None), len(rows))
    if len(names) < len(words):
        yield f"{len(words) - len(names)} files of the list of partitions are neither in the table nor on the disk: passed over"
    spare = len(audio.difference(names))
    if spare:
        yield f"{spare} audio files belong to no partition: passed over"
    yield from _release(Counter(split for split, _ in rows))


def _counted(what: str, splits: Iterable[str], total: int) -> Iterator[str]:
    counts = Counter(splits)
    if counts:
        listed = ", ".join(f"{split} {count}" for split, count in counts.items())
        yield f"{what}: {counts.total()} of {total} utterances ({listed})"


def release_of(counts: Mapping[str, int]) -> str:
    """Return the release that has these very counts, or `unknown`."""
    found = [
        name
        for name, expected in _RELEASES.items()
        if counts == {split: count for split, count in expected.items() if split in counts or split != "test3"}
    ]
    return found[0] if found else "unknown"


def _release(counts: Mapping[str, int]) -> Iterator[str]:
    """Name the release whose total this is, and what differs in it."""
    for release, expected in _RELEASES.items():
        shown = {split: count for split, count in expected.items() if split in counts}
        if sum(counts.values()) == sum(shown.values()):
            yield from compare_counts(f"MSP-Podcast {release}", counts, shown) or (f"counts of release {release}",)


register_corpus(
    Reader(
        name="msp_podcast",
        read=read,
        has_layout=_has_layout,
        tasks=("avd", "emotion"),
        default_for=("avd",),
        protocols=PROTOCOLS,
        select_by={"emotion": "macro_f1"},
        test="test1",
        make_demo=make_demo,
        description="English podcasts; arousal, valence, dominance on 1..7, 8 emotions; test2: unseen podcasts, test3: no labels",
        where="ask for it at https://ecs.utdallas.edu/research/researchlabs/msp-lab/MSP-Podcast.html; name the folder of Audios",
    )
)
