"""Audio SNIPS: orders to an assistant, spoken by sixteen synthetic voices, with their slots and intents."""

from __future__ import annotations

from pathlib import Path

from ...core.errors import UserError
from ..base import Corpus, Reader, Utterance, register_corpus
from ..demo.snips import make_demo
from ..folds import check_fold, compare_counts
from ..locate import find_inside, is_demo

PROTOCOLS = {"superb": 1}
TEXTS, SLOTS = "all.iob.snips.txt", "slots.txt"
# split -> folder, and the voices that SUPERB takes of it
FOLDERS = {"train": "train", "dev": "valid", "test": "test"}
VOICES = {
    "train": ("Ivy", "Joanna", "Joey", "Justin", "Kendra", "Kimberly", "Matthew", "Salli"),
    "dev": ("Aditi", "Amy", "Geraint", "Nicole"),
    "test": ("Brian", "Emma", "Raveena", "Russell"),
}
_EXPECTED = {"train": 104672, "dev": 2800, "test": 2800}
_FORM = "'Ivy-snips-train-0 BOS play queen EOS', a tab, and 'O O artist PlayMusic'"
_SOURCE = "https://github.com/aws-samples/aws-lex-noisy-spoken-language-understanding"
_NAMED = 3  # files that a note names


def read(root: str | Path, *, protocol: str = "superb", fold: int | None = None) -> Corpus:
    """Return the orders of SUPERB's voices: the words, a tag for each word (label `iob`) and the intent."""
    check_fold("snips", PROTOCOLS, protocol, fold)
    folder = find_inside(root, _has_texts, "Audio SNIPS", f"{TEXTS} beside folders train, valid and test")
    lines, notes = _read_texts(folder / TEXTS)
    splits, silent = {}, []
    for split, name in FOLDERS.items():
        files = sorted((folder / name).rglob("*.wav"), key=lambda path: path.stem) if (folder / name).is_dir() else []
        files = [path for path in files if path.stem.partition("-")[0] in VOICES[split]]
        if not files:
            raise UserError(
                f"Expected files such as {VOICES[split][0]}-snips-{name}-0.wav in {folder / name}, found none of the voices "
                f"{', '.join(VOICES[split])}. Unpack the archive again ({_SOURCE})."
            )
        silent += [path.stem for path in files if path.stem not in lines]
        splits[split] = tuple(_utterance(path, *lines[path.stem]) for path in files if path.stem in lines)
    if silent:
        notes.append(f"{len(silent)} files without a line in {TEXTS}, left out ({_some(silent)})")
    if not is_demo(folder):
        notes += compare_counts("Audio SNIPS", {split: len(rows) for split, rows in splits.items()}, _EXPECTED)
    return Corpus("snips", protocol, None, splits, notes=tuple(notes), tables=_read_slots(folder / SLOTS))


def _has_texts(folder: Path) -> bool:
    return (folder / TEXTS).is_file()


def _utterance(path: Path, words: str, tags: str, intent: str) -> Utterance:
    return Utterance(
        path.stem, str(path), text=words, speaker=path.stem.partition("-")[0], labels={"iob": tags, "intent": intent}
    )


def _read_texts(path: Path) -> tuple[dict[str, tuple[str, str, str]], list[str]]:
    """Return words, tags and intent by utterance, and a note on lines that have not as many tags as words."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError(f"Expected lines such as {_FORM} in {path}, found: {problem}. Fetch it from {_SOURCE}") from None
    found, uneven = {}, []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        said, tab, tagged = line.strip().partition("\t")
        (name, *words), tags = said.split(), tagged.split()
        if not tab or len(words) < 2 or len(tags) < 2:
            raise UserError(
                f"Expected lines such as {_FORM} in {path}, found '{line[:80]}' in line {number}. Fetch it from {_SOURCE}"
            )
        if len(words) != len(tags):
            uneven.append(name)
            continue
        found[name] = (" ".join(words[1:-1]), " ".join(tags[1:-1]), tags[-1])  # BOS and EOS; the intent is the tag of EOS
    return found, [f"{len(uneven)} lines of {TEXTS} have not as many tags as words ({_some(uneven)})"] if uneven else []


def _read_slots(path: Path) -> dict[str, list[str]]:
    """Return the table of the names of slots, if there is a file of them: its first line is a word in none, `O`."""
    names = path.read_text(encoding="utf-8").split() if path.is_file() else []
    return {"slots": [name for name in names if name != "O"]} if names else {}


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + " …" * (len(names) > _NAMED)


register_corpus(
    Reader(
        name="snips",
        read=read,
        has_layout=_has_texts,
        tasks=("sf", "asr"),
        default_for=("sf",),
        protocols=PROTOCOLS,
        make_demo=make_demo,
        description="Audio SNIPS: English orders to an assistant by 16 synthetic voices (8 train, 4 dev, 4 test), with slots",
        where=f"{_SOURCE}: folders train, valid and test, and beside them {TEXTS} and {SLOTS}",
    )
)
