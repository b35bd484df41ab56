"""A corpus with a table beside its utterances: folders train, dev and test of .wav files, and `SPLIT.rttm` for each of them."""

from pathlib import Path

from headwater import UserError
from headwater.corpus import Corpus, Reader, Utterance, register_corpus

Stretches = list[tuple[float, float]]


def read(root: str | Path, *, protocol: str = "folders", fold: int | None = None) -> Corpus:  # noqa: ARG001
    """Return the utterances with the stretches in which they sound, and each split's table of them."""
    splits, tables = {}, {}
    for split in ("train", "dev", "test"):
        table = Path(root) / f"{split}.rttm"
        if not table.is_file():
            raise UserError(f"Expected '{table.name}' in '{root}', found none. Name the folder with --data.")
        tables[split] = {"rttm": stretches_in(table)}
        files = sorted((Path(root) / split).glob("*.wav"))
        splits[split] = tuple(utterance_of(file, tables[split]["rttm"].get(file.stem, [])) for file in files)
    return Corpus("my_segments_corpus", protocol, None, splits, split_tables=tables)


def stretches_in(table: Path) -> dict[str, Stretches]:
    """Return the stretches of each file: a line is `SPEAKER NAME 1 START SECONDS`, as in an rttm."""
    found: dict[str, Stretches] = {}
    for line in table.read_text().splitlines():
        _, name, _, start, seconds = line.split()[:5]
        found.setdefault(name, []).append((float(start), round(float(start) + float(seconds), 2)))
    return found


def utterance_of(file: Path, stretches: Stretches) -> Utterance:
    """Return what a file's name and its lines say of it; files are called SPEAKER_NUMBER.wav."""
    speaker = file.stem.split("_")[0]
    return Utterance(file.stem, str(file), speaker=speaker, labels={"segments": tuple(stretches)})


register_corpus(
    Reader(
        name="my_segments_corpus",
        read=read,
        tasks=("my_segments",),
        protocols={"folders": 1},
        description="folders of files, and when they sound",
        default_for=("my_segments",),
        where="record it yourself",
    )
)
