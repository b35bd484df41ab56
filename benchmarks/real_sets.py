"""The sets of real speech: which task each one serves, how it is split, and what it is trained with."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean

import soundfile
from real_orders import tagged_orders

HOME = Path(__file__).parents[1]
Row = dict[str, str]
STEPS = ("training.steps=3000", "training.eval_every=200", "training.patience=6")
# 92 sentences of 12 s: recurrent layers take seconds a step here, and write nothing but blanks for hundreds of steps
READ = (
    *("select_by=cer", "training.steps=400", "training.eval_every=50", "training.batch_size=16", "training.piece_seconds=240"),
    *("asr.layers=0", "asr.projector_dim=256", "optimizer.lr=2e-3"),
)
SPELT = (
    *("select_by=cer", "training.steps=800", "training.eval_every=100", "training.patience=6", "optimizer.lr=2e-3"),
    *("training.batch_size=32", "asr.projector_dim=128", "asr.hidden_dim=128"),
)
MEETINGS = (
    *("corpus.name=rttm", "corpus.options.chunk_seconds=10", "training.steps=600", "training.eval_every=50"),
    *("training.batch_size=8", "sd.hidden_dim=64"),
)
SLOTS = (
    *("training.steps=250", "training.eval_every=50", "training.batch_size=16", "training.piece_seconds=240"),
    *("sf.layers=0", "sf.projector_dim=256", "sf.spec_augment=false", "optimizer.lr=2e-3"),
)
VERIFY = (
    *("training.steps=100", "training.eval_every=20", "training.batch_size=16", "optimizer.lr=1e-3"),
    *("asv.dim=128", "asv.pooled_dim=256", "asv.crop_seconds=2.0"),
)


@dataclass(frozen=True)
class Set:
    """A set of real speech with a task that it serves."""

    name: str
    task: str
    folder: str  # below DATA
    rows: Callable[[Path], Iterator[Row]] | None  # of a manifest; None: a reader of ours knows the layout
    options: tuple[str, ...] = ()
    about: str = ""
    folds: bool = False  # all of them; False: the split that the rows or the folder have
    trained: bool = False  # by steps, on real models and fbank alone
    make: Callable[[Path, Path, Path], Path] | None = None  # (its folder, WORK, WEIGHTS) -> what a reader of ours knows
    real: tuple[str, ...] = ()  # options of real models alone
    shown: str = ""  # the metric in the table; "": the one that chooses the step


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write a manifest."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


# the words of the Lithuanian recordings, in the order in which all speakers say them
SAID = (
    *("nulis", "vienas", "du", "trys", "keturi", "penki", "taip", "ne", "ačiū", "stop", "įjunk", "išjunk"),
    *("į_viršų", "į_apačią", "į_dešinę", "į_kairę", "startas", "pauzė", "labas", "iki"),
)


def lt_words(folder: Path) -> Iterator[Row]:
    """Yield the words of Lithuanian commands: every fifth speaker is tested, the one before chooses."""
    files = sorted(path for path in folder.glob("dataset/*/*_nohash_*.wav") if not path.parent.name.startswith("_"))
    speakers = sorted({path.name.split("_")[0] for path in files})
    splits = {speaker: ("train", "train", "train", "dev", "test")[place % 5] for place, speaker in enumerate(speakers)}
    for path in files:
        speaker = path.name.split("_")[0]
        yield {"audio": str(path), "label": path.parent.name, "speaker": speaker, "split": splits[speaker]}


def digits(folder: Path, *, of_speakers: bool) -> Iterator[Row]:
    """Yield takes 0 to 19 of the digits; as official, takes 0 to 4 are tested. Labels are digits or their speakers."""
    for path in sorted(folder.glob("recordings/*.wav")):
        digit, speaker, take = path.stem.split("_")
        if int(take) < 20:
            split = "test" if int(take) < 5 else "dev" if int(take) < 10 else "train"
            yield {"audio": str(path), "label": speaker if of_speakers else digit, "speaker": speaker, "split": split}


def learners(folder: Path) -> Iterator[Row]:
    """Yield the sentences of learners of English, the speaker as label: of five in a row, three are for training."""
    places: dict[str, int] = {}
    for line in (folder / "train" / "wav.scp").read_text(encoding="utf-8").splitlines():
        name, path = line.split()
        speaker = Path(path).parent.name
        place = places[speaker] = places.get(speaker, -1) + 1
        split = ("train", "train", "train", "dev", "test")[place % 5]
        yield {"audio": str(folder / path), "label": speaker, "speaker": speaker, "split": split, "id": name}


def learners_apart(folder: Path) -> Iterator[Row]:
    """Yield the same sentences without a split."""
    for row in learners(folder):
        yield {"audio": row["audio"], "speaker": row["speaker"]}


def rated_learners(folder: Path) -> Iterator[Row]:
    """Yield the same sentences with the mean of their raters: accuracy, fluency and prosody under the names that avd has."""
    lines = (line.split("\t", 1) for line in (folder / "train" / "utt2score").read_text(encoding="utf-8").splitlines())
    scores = {name: json.loads(content) for name, content in lines}
    for row in learners(folder):
        found = scores[row["id"]]
        rated = {"arousal": "accuracy", "valence": "fluency", "dominance": "prosodic"}
        values = {name: f"{mean(found[of]):.3f}" for name, of in rated.items()}
        yield {"audio": row["audio"], "speaker": row["speaker"], **values}


def wake_words(folder: Path) -> Iterator[Row]:
    """Yield wake words said to a device, and other speech; nobody knows the speakers."""
    for path in sorted(folder.rglob("*.wav")):
        meant = "other" if "not-wake-words" in path.parts else "directed"
        yield {"audio": str(path), "label": meant}


def by_speakers(folder: Path, what: Callable[[str], str | None], column: str) -> Iterator[Row]:
    """Yield learners' sentences with what is said in a column: eight speakers for training, two for dev, two for the test."""
    found = [(row, what(row["id"])) for row in learners(folder)]
    speakers = sorted({row["speaker"] for row, _ in found})
    splits = {name: "test" if place % 6 == 5 else "dev" if place % 6 == 4 else "train" for place, name in enumerate(speakers)}
    for row, said in found:
        if said:
            yield {"audio": row["audio"], column: said, "speaker": row["speaker"], "split": splits[row["speaker"]]}


def learners_phones(folder: Path) -> Iterator[Row]:
    """Yield the phones that the sentences should have, without stress and place in the word."""
    phones: dict[str, list[str]] = {}
    for line in (folder / "resource" / "text-phone").read_text(encoding="utf-8").splitlines():
        word, _, said = line.partition("\t") if "\t" in line else line.partition(" ")
        phones.setdefault(word.split(".")[0], []).extend(phone.split("_")[0].rstrip("012") for phone in said.split())
    yield from by_speakers(folder, lambda name: " ".join(phones.get(name, ())), "phones")


def emodb_phones(folder: Path) -> Iterator[Row]:
    """Yield the phones of EmoDB's labels, a stop and its release as one: speakers 15 and 16 are tested, 13 and 14 choose."""
    for path in sorted(folder.glob("lablaut/*.lablaut")):
        audio, lines = folder / "wav" / f"{path.stem[:7]}.wav", path.read_text(encoding="latin-1").splitlines()
        said: list[str] = []
        for cells in (line.split() for line in lines[lines.index("#") + 1 :]):
            # behind +, - and ( stands how something is said; _t is a closure, tasp a breath behind a stop, . a pause
            if len(cells) < 3 or cells[2][0] in "+-(._" or cells[2].endswith("asp") or cells[2] == "!":
                continue
            phone = cells[2].lstrip("!").split("+")[0]
            if not (cells[2].startswith("!") and said[-1:] == [phone]):
                said.append(phone)
        split = {"15": "test", "16": "test", "13": "dev", "14": "dev"}.get(path.stem[:2], "train")
        if audio.is_file() and said:
            yield {"audio": str(audio), "phones": " ".join(said), "speaker": path.stem[:2], "split": split}


def readers(folder: Path) -> Iterator[Row]:
    """Yield three readers' sentences: of ten in a row, one is dev and two are for the test."""
    texts = [line.split(" ", 1) for path in sorted(folder.rglob("*.trans.txt")) for line in path.read_text().splitlines()]
    audio = {path.stem: path for path in folder.rglob("*.flac")}
    for place, (name, text) in enumerate(texts):
        split = {0: "test", 5: "test", 7: "dev"}.get(place % 10, "train")
        yield {"audio": str(audio[name]), "text": text, "speaker": name.split("-")[0], "split": split}


def spelt_digits(folder: Path) -> Iterator[Row]:
    """Yield digits with the word that is said."""
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    for row in digits(folder, of_speakers=False):
        yield {key: value for key, value in row.items() if key != "label"} | {"text": words[int(row["label"])]}


def orders(folder: Path) -> Iterator[Row]:
    """Yield spoken orders of coffee with two of their slots; nobody knows the speakers."""
    for name, content in json.loads((folder / "label.json").read_text(encoding="utf-8")).items():
        slots = {slot: content["slots"].get(slot, "").strip() for slot in ("size", "roast")}
        yield {"audio": str(folder / "speech" / name), **slots}


def recordings(folder: Path, work: Path, _: Path) -> Path:
    """Make tables of spoken words and of stretches of two words each, cut in pauses, in which speakers 01 to 10 are searched."""
    made = work / "recordings"
    if made.is_dir():
        return made
    documents: list[Row] = []
    for path in sorted(folder.glob("raw/*.wav")):
        cells = [line.split() for line in path.with_suffix(".txt").read_text(encoding="utf-8").splitlines() if line.strip()]
        turns = [(float(start), float(end)) for start, end, *_ in cells]
        pauses = [(turns[place - 1][1] + turns[place][0]) / 2 for place in range(2, len(turns), 2)]
        ends = zip([0.0, *pauses], [*pauses, soundfile.info(path).duration - 0.01], strict=True)
        for place, (start, end) in enumerate(ends):
            said = ";".join(SAID[2 * place : 2 * place + 2])
            stretch = {"id": f"{path.stem}-{2 * place:02d}", "audio": str(path), "start": f"{start:.3f}", "end": f"{end:.3f}"}
            documents.append({**stretch, "terms": said, "speaker": path.stem})
    words = sorted(path for path in folder.glob("dataset/*") if not path.name.startswith("_"))
    queries = [
        {"audio": str(path), "term": word.name, "speaker": path.name[:2], "split": ("test", "dev")[number % 2]}
        for number, word in enumerate(words)
        for path in sorted(word.glob("*_nohash_0.wav"))
        if path.name[:2] > "10"
    ]
    made.mkdir()
    write_table(made / "documents.csv", documents)
    write_table(made / "queries.csv", queries)
    return made


def spoken_slots(folder: Path, work: Path, weights: Path) -> Path:
    """Make a table of spoken orders with all of their slots, in the order in which a machine understands them."""
    table = work / "orders-tagged.csv"
    if not table.is_file():
        write_table(table, list(tagged_orders(folder, work, weights)))
    return table


def meetings(folder: Path, work: Path, _: Path) -> Path:
    """Make a folder of AMI's clips, three for the test, and of conversations that learners' sentences are mixed into."""
    made, mixed, table = work / "meetings", work / "mixed", work / "learners-by-speaker.csv"
    if made.is_dir():
        return made
    rows = list(learners(folder.parent.parent / "speechocean762"))
    speakers = sorted({row["speaker"] for row in rows})
    splits = {name: ("train", "train", "dev", "test")[place % 4] for place, name in enumerate(speakers)}
    write_table(table, [{**row, "split": splits[row["speaker"]]} for row in rows])
    words = [
        "corpus",
        "mix",
        str(table),
        "--out",
        str(mixed),
        "--hours",
        "0.6",
        "--seconds",
        "20",
        "--speakers",
        "3",
        "--pause",
        "2",
    ]
    subprocess.run([sys.executable, "-m", "headwater", *words], check=True, stdout=subprocess.DEVNULL)
    aside = work / "meetings.part"
    shutil.copytree(mixed / "train", aside / "train")
    lines = (folder / "train.rttm").read_text(encoding="utf-8").splitlines()
    for split, numbers in {"train": range(5), "dev": range(5, 7), "test": range(7, 10)}.items():
        names = [f"trn{number:02d}" for number in numbers]
        (aside / split).mkdir(exist_ok=True)
        for name in names:
            shutil.copy(folder / f"{name}.wav", aside / split)
        text = "\n".join(line for line in lines if line.split()[1] in names)
        (aside / split / "ami.rttm").write_text(text + "\n", encoding="utf-8")
    aside.rename(made)
    return made


SETS = (
    Set("EmoDB, 4 emotions", "emotion", "emodb_full", None, ("corpus.name=emodb",), "339 clips, 10 folds by speaker", folds=True),
    Set("Lithuanian words", "ks", "lt_speech_commands", lt_words, about="20 words, speakers apart"),
    Set("digits", "ks", "fsdd", partial(digits, of_speakers=False), about="10 digits of 6 speakers, takes 0-4 tested"),
    Set("digits' speakers", "sid", "fsdd", partial(digits, of_speakers=True), about="6 speakers"),
    Set("learners' voices", "sid", "speechocean762", learners, about="12 speakers, 12 training sentences each"),
    Set(
        "learners' ratings",
        "avd",
        "speechocean762",
        rated_learners,
        ("avd.scale=[0, 10]",),
        "accuracy, fluency, prosody (0 to 10), 5 folds by speaker",
        folds=True,
    ),
    Set("wake words", "dsd", "precise", wake_words, about="88 wake words, 35 other clips, 5 folds", folds=True),
    Set("orders", "ic", "barista", orders, ("ic.slots=[size, roast]",), "80 orders, size and roast, 5 folds", folds=True),
    Set("learners' phones", "pr", "speechocean762", learners_phones, STEPS, "39 phones, 2 of 12 speakers tested", trained=True),
    Set("EmoDB's phones", "pr", "emodb_full", emodb_phones, STEPS, "German, 2 of 10 speakers tested", trained=True),
    Set(
        "readers' words",
        "asr",
        "LibriSpeech",
        readers,
        READ,
        "92 sentences to train on, same 3 readers",
        trained=True,
        shown="wer",
    ),
    Set("digits spelt", "asr", "fsdd", spelt_digits, SPELT, "takes 0-4 of the same 6 speakers tested", trained=True, shown="wer"),
    Set(
        "meetings",
        "sd",
        "diarization/ami",
        None,
        MEETINGS,
        "AMI, 5 clips and mixtures to train on, 3 tested",
        trained=True,
        make=meetings,
    ),
    Set(
        "orders' slots",
        "sf",
        "barista",
        None,
        SLOTS,
        "80 orders, six slots, 16 tested",
        trained=True,
        make=spoken_slots,
    ),
    Set(
        "pairs of learners",
        "asv",
        "speechocean762",
        learners_apart,
        VERIFY,
        "12 speakers, 5 folds by speaker",
        folds=True,
        trained=True,
        real=("upstream.layer=1", "upstream.normalize_layers=true"),
    ),
    Set(
        "words in recordings",
        "qbe",
        "lt_speech_commands",
        None,
        about="316 clips searched in 100 stretches of other speakers' recordings",
        trained=True,
        make=recordings,
        shown="mtwv",
    ),
)
