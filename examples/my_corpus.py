"""A corpus of one's own: a folder for each class, files called SPEAKER_NUMBER.wav in it."""

from pathlib import Path

from headwater import UserError
from headwater.corpus import Corpus, Reader, Utterance, check_fold, deal, in_drawn_order, register_corpus, split_by_speaker

PROTOCOLS = {"speaker4": 4}  # name -> number of folds; the first one is the default


def read(root: str | Path, *, protocol: str = "speaker4", fold: int | None = None) -> Corpus:
    """Return the utterances; test is a quarter of the speakers, dev the next one, train the others."""
    number = check_fold("my_corpus", PROTOCOLS, protocol, fold)
    files = sorted(Path(root).glob("*/*_*.wav"))
    if not files:
        raise UserError(f"Expected files such as happy/anna_01.wav in '{root}', found none. Name the folder with --data.")
    utterances = [utterance_of(file) for file in files]
    speakers = deal(in_drawn_order([row.speaker or "" for row in utterances]), 4)
    splits = split_by_speaker(utterances, speakers, number or 1)
    classes = tuple(sorted({file.parent.name for file in files}))
    return Corpus("my_corpus", protocol, number, splits, label_order={"emotion": classes})


def utterance_of(file: Path) -> Utterance:
    """Return what a file's name and folder say of it."""
    label, speaker = file.parent.name, file.stem.split("_")[0]
    return Utterance(f"{label}/{file.stem}", str(file), speaker=speaker, labels={"emotion": label})


register_corpus(
    Reader(
        name="my_corpus",
        read=read,
        tasks=("emotion", "my_task"),
        protocols=PROTOCOLS,
        description="a folder for each class",
        where="record it yourself",
    )
)
