"""Every task on real speech with real weights, and the heads beside each other: `docs/results.md` and `results/` come from here.

    python benchmarks/real_speech.py DATA WEIGHTS WORK

DATA holds the public sets in their own layouts (emodb_full, lt_speech_commands, fsdd, speechocean762, precise; what lacks is
passed over), WEIGHTS the folders whisper_tiny_en, whisper_base and minilm in the hub's format. Finished runs in WORK are kept.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

HOME = Path(__file__).parents[1]
BEGIN = "<!-- made by benchmarks/real_speech.py: do not edit below -->"
Row = dict[str, str]
VALID = "upstream.attend=valid"  # Whisper reads the clip alone, not 30 s of it and silence
UPSTREAMS = ("fbank", "whisper_random", "whisper_tiny_en", "whisper_base")
REAL = ("fbank", "whisper_tiny_en", "whisper_base")
EXACT, ADAM = "exact (the bare command)", "solver=adam"
HEADS: dict[str, tuple[str, ...]] = {
    EXACT: (),
    "the same, all layers mixed": ("exact.keep=mixture",),
    "the same, mean+std": ("{task}.pooling=mean+std",),
    ADAM: ("solver=adam", "training.steps=2000"),
    "solver=adam, layers normed": ("solver=adam", "training.steps=2000", "upstream.normalize_layers=true"),
}


STEPS = ("training.steps=3000", "training.eval_every=200", "training.patience=6")
SMALL = ("asr.projector_dim=128", "asr.hidden_dim=128", "optimizer.lr=1e-3", "training.batch_size=8")
MEETINGS = ("corpus.name=rttm", "training.steps=1500", "training.eval_every=100", "training.patience=6")


@dataclass(frozen=True)
class Set:
    """A set of real speech with a task that it serves."""

    name: str
    task: str
    folder: str  # below DATA
    rows: Callable[[Path], Iterator[Row]] | None  # of a manifest; None: a reader of ours knows the layout
    options: tuple[str, ...] = ()
    about: str = ""
    trained: bool = False  # by steps, on real models and fbank alone
    make: Callable[[Path, Path], Path] | None = None  # (its folder, where to work) -> a folder that a reader of ours knows


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


def meetings(folder: Path, work: Path) -> Path:
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
    Set("EmoDB, 4 emotions", "emotion", "emodb_full", None, ("corpus.name=emodb",), "339 clips, 10 folds by speaker"),
    Set("Lithuanian words", "ks", "lt_speech_commands", lt_words, (), "20 words, speakers apart"),
    Set(
        "digits", "ks", "fsdd", lambda folder: digits(folder, of_speakers=False), (), "10 digits of 6 speakers, takes 0-4 tested"
    ),
    Set("digits' speakers", "sid", "fsdd", lambda folder: digits(folder, of_speakers=True), (), "6 speakers"),
    Set("learners' voices", "sid", "speechocean762", learners, (), "12 speakers, 12 training sentences each"),
    Set(
        "learners' ratings",
        "avd",
        "speechocean762",
        rated_learners,
        ("avd.scale=[0, 10]",),
        "accuracy, fluency, prosody (0 to 10), 5 folds by speaker",
    ),
    Set("wake words", "dsd", "precise", wake_words, (), "88 wake words, 35 other clips, 5 folds"),
    Set("orders", "ic", "barista", orders, ("ic.slots=[size, roast]",), "80 orders, size and roast, 5 folds"),
    Set("learners' phones", "pr", "speechocean762", learners_phones, STEPS, "39 phones, 2 of 12 speakers tested", True),
    Set("EmoDB's phones", "pr", "emodb_full", emodb_phones, STEPS, "German, 2 of 10 speakers tested", True),
    Set(
        "readers' words",
        "asr",
        "LibriSpeech",
        readers,
        (*STEPS, *SMALL),
        "92 sentences to train on, same 3 readers tested",
        True,
    ),
    Set("digits spelt", "asr", "fsdd", spelt_digits, (*STEPS, *SMALL), "takes 0-4 of the same 6 speakers tested", True),
    Set("meetings", "sd", "diarization/ami", None, MEETINGS, "AMI, 5 clips and mixtures to train on, 3 tested", True, meetings),
)
SINGLE = {"Lithuanian words", "digits", "digits' speakers", "learners' voices"}  # with a split of their own


def main() -> None:
    """Train what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "weights", "work"):
        parser.add_argument(name, type=Path)
    flags = parser.parse_args()
    data, weights, work = (path.expanduser().absolute() for path in (flags.data, flags.weights, flags.work))
    work.mkdir(parents=True, exist_ok=True)
    folders = {name: weights / name for name in REAL[1:]} | {"whisper_random": work / "whisper_random"}
    make_random(folders["whisper_tiny_en"], folders["whisper_random"])
    sets = [one for one in SETS if (data / one.folder).is_dir()]
    path = HOME / "results" / "real_speech.json"
    path.parent.mkdir(exist_ok=True)
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    known = {key_of(row): row for row in before if row["set"] in {one.name for one in sets}}
    todo = [(one, upstream, EXACT) for one in sets for upstream in (REAL if one.trained else UPSTREAMS)]
    compared = [one for one in sets if one.task not in ("avd", "ic") and not one.trained]
    todo += [(one, "whisper_tiny_en", head) for one in compared for head in HEADS if head != EXACT]
    for one, upstream, head in todo:  # the page grows as rows come: those of an earlier run stand until theirs do
        row = measure(one, upstream, head, data, folders, work)
        known[key_of(row)] = row
        names = [other.name for other in sets]
        found = sorted(known.values(), key=lambda row: names.index(row["set"]))
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        page = HOME / "docs" / "results.md"
        page.write_text(page.read_text(encoding="utf-8").split(BEGIN)[0] + BEGIN + "\n" + tables(found), encoding="utf-8")


def key_of(row: dict[str, Any]) -> tuple[str, str, str]:
    """Return what a row is of."""
    return row["set"], row["upstream"], row["head"]


def make_random(like: Path, folder: Path) -> None:
    """Make a model of the same architecture that has learned nothing."""
    if folder.is_dir():
        return
    import torch
    from transformers import AutoConfig, WhisperModel

    torch.manual_seed(0)
    WhisperModel(AutoConfig.from_pretrained(like)).save_pretrained(folder)
    for path in like.iterdir():
        if path.suffix == ".json" and not (folder / path.name).exists():
            shutil.copy(path, folder / path.name)


def run_folder(one: Set, upstream: str, head: str, work: Path) -> Path:
    """Return where a run (or a plan of folds) is kept."""
    return work / "".join(letter if letter.isalnum() else "-" for letter in f"{one.name}-{upstream}-{head}")


def measure(one: Set, upstream: str, head: str, data: Path, folders: Mapping[str, Path], work: Path) -> dict[str, Any]:
    """Return what one run (or plan of folds) says; one that is finished is read. `folders` of upstreams that have one."""
    folder, place = run_folder(one, upstream, head, work), data / one.folder
    if one.make is not None:
        place = one.make(place, work)
    if one.rows is not None:
        table = work / f"{''.join(letter for letter in one.name if letter.isalnum())}.csv"
        write_table(table, list(one.rows(place)))
        place = table
    name = str(folders.get(upstream, upstream))
    options = [*one.options, *(option.format(task=one.task) for option in HEADS[head])]
    options += [VALID] if upstream.startswith("whisper") else []
    folds = [] if one.name in SINGLE or one.trained else ["--folds", "all"]
    words = [sys.executable, str(HOME / "run_downstream.py"), "-u", name, "-d", one.task, "--data", str(place), *folds]
    words += ["-p", str(folder), "-o", *options, "--quiet"] if options else ["-p", str(folder), "--quiet"]
    if not (folder / "result.json").is_file():
        print(f"{one.name} · {upstream} · {head}", flush=True)
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    metric = result["select_by"]
    pooled = result["pooled"]["test"] if "pooled" in result else {}
    scores = pooled.get("scores") or result["scores"]["test"]
    intervals = pooled.get("intervals") or result["intervals"]["test"]
    runs = [folder / run["name"] for run in result.get("runs", [])] or [folder]
    seconds = sum(json.loads((run / "result.json").read_text())["environment"]["seconds"] for run in runs)
    shown = f"-u {upstream} -d {one.task} --data {one.folder}{'.csv' if one.rows else ''} {' '.join(folds)}"
    return {
        "set": one.name,
        "about": one.about,
        "task": one.task,
        "upstream": upstream,
        "head": "trained (the bare command)" if one.trained else head,
        "metric": metric,
        "value": scores[metric],
        "interval": intervals[metric],
        "seconds": round(seconds, 1),
        "command": " ".join(f"{shown} {'-o ' + ' '.join(options) if options else ''}".split()),
    }


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write a manifest."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def tables(found: Sequence[dict[str, Any]]) -> str:
    """Return the two tables, and the command of each row."""
    trained = [row for row in found if row["head"].startswith("trained")]
    names = list(dict.fromkeys(row["set"] for row in found if row not in trained))
    by_upstream = {(row["set"], row["upstream"]): row for row in found if row["head"] == EXACT}
    lines = [
        "",
        "## Tasks and upstreams",
        "",
        "Heads are the bare command's. In brackets the 95 % interval; seconds of the head alone.",
        "",
    ]
    lines += [f"| set | metric | {' | '.join(UPSTREAMS)} |", f"|---|---|{'---|' * len(UPSTREAMS)}"]
    for name in names:
        rows = [by_upstream.get((name, upstream)) for upstream in UPSTREAMS]
        first = next(row for row in found if row["set"] == name)
        lines.append(f"| {name}: {first['about']} | {first['metric']} | {' | '.join(map(cell, rows))} |")
    lines += [
        "",
        "## Tasks that are trained by steps",
        "",
        "Few utterances, small heads: the order of upstreams counts, not the score.",
        "",
    ]
    lines += [f"| set | metric | {' | '.join(REAL)} |", f"|---|---|{'---|' * len(REAL)}"]
    for name in dict.fromkeys(row["set"] for row in trained):
        of_set = {row["upstream"]: row for row in trained if row["set"] == name}
        first, rows = next(iter(of_set.values())), [of_set.get(upstream) for upstream in REAL]
        lines.append(f"| {name}: {first['about']} | {first['metric']} | {' | '.join(map(cell, rows))} |")
    lines += ["", "## Heads on the same features", "", "Upstream: Whisper tiny.en. `solver=adam` takes 2,000 steps.", ""]
    with_heads = [name for name in names if any(row["set"] == name and row["head"] == ADAM for row in found)]
    lines += [f"| head | {' | '.join(with_heads)} |", f"|---|{'---|' * len(with_heads)}"]
    for head in HEADS:
        of_head = {row["set"]: row for row in found if (row["head"], row["upstream"]) == (head, "whisper_tiny_en")}
        lines.append(f"| {head} | {' | '.join(cell(of_head.get(name)) for name in with_heads)} |")
    lines += ["", "## Commands", "", "After `python run_downstream.py`:", "", "```"]
    return "\n".join([*lines, *(row["command"] for row in found), "```", ""])


def cell(row: dict[str, Any] | None) -> str:
    """Return a score with its interval and its time; a dash where it was not measured."""
    if row is None:
        return "–"
    ends = row["interval"]
    interval = f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else ""
    return f"{row['value']:.3f}{interval}, {row['seconds']:.0f} s"


if __name__ == "__main__":
    main()
