"""The audio of an audit, and what it and the labels say about the corpus: leaks, duplicates, silence, doubtful labels."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ...core.files import cache_folder
from ...core.text import last_part
from ...corpus.audio import read_audio
from ...corpus.base import Utterance
from ...corpus.batch import Example
from ...corpus.fingerprints import row_keys
from ...runs.results import group_of
from .duplicates import Pair, groups_of, near_identical
from .finding import Finding
from .fold import Fold
from .leakage import NAMES, Leak, leak, words_of
from .noise import Noise, label_noise
from .probes import held_out_outputs, joined, parts_for_noise
from .sound import QUIET, RATE, Sound, sound_of

Sharing = Mapping[str, list[tuple[str, str | int | None]]]  # split -> (id, value)
SHOWN = 3  # examples in a line


def read_sounds(examples: Sequence[Example]) -> dict[str, Sound]:
    """Return what is known of each utterance's sound, by id."""
    from tqdm import tqdm

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        found = pool.map(lambda example: sound_of(waveform_of(example.utterance)), examples)
        shown = tqdm(found, total=len(examples), desc="listening", unit="file", disable=None, leave=False)
        return {example.utterance.id: sound for example, sound in zip(examples, shown, strict=True)}


def waveform_of(utterance: Utterance) -> NDArray[np.float32]:
    """Return an utterance at the sample rate of fingerprints."""
    return read_audio(utterance.audio, utterance.start, utterance.duration, RATE)


def find_pairs(examples: Sequence[Example], sounds: Mapping[str, Sound]) -> list[Pair]:
    """Return the pairs of utterances that are one recording."""
    read = lru_cache(maxsize=512)(lambda row: waveform_of(examples[row].utterance))
    return near_identical([sounds[example.utterance.id] for example in examples], read)


def leaks_of(folds: Sequence[Mapping[str, Sequence[Example]]], tested: str, recordings: Mapping[str, int]) -> list[Leak]:
    """Return what the tested utterances of some folds share with their other splits; `recordings` groups ids by audio."""
    everything = {row.utterance.id: row.utterance for fold in folds for rows in fold.values() for row in rows}
    keys = row_keys(everything.values(), cache_folder(), RATE) if recordings else {}
    values: dict[str, dict[str, str | int | None]] = {
        "audio": {name: keys.get(name) for name in everything},
        "near": {name: recordings.get(name) for name in everything},
        "file": {name: os.path.realpath(row.audio) if recordings else None for name, row in everything.items()},
        "speaker": {name: row.speaker or None for name, row in everything.items()},
        "session": {name: row.session or None for name, row in everything.items()},
        "text": {name: words_of(row.text) for name, row in everything.items()},
    }
    sharing: dict[str, list[Sharing]] = {
        kind: [
            {split: [(row.utterance.id, of_kind[row.utterance.id]) for row in rows] for split, rows in fold.items()}
            for fold in folds
        ]
        for kind, of_kind in values.items()
    }
    return [leak(kind, of_folds, tested) for kind, of_folds in sharing.items()]


def leak_findings(leaks: Sequence[Leak], *, reads_text: bool, labels_are_speakers: bool) -> list[Finding]:
    """Return a line for each kind of thing that splits may share."""
    found = []
    for one in leaks:
        if not one.of or (one.kind == "speaker" and labels_are_speakers):
            why = "they are what the task predicts" if one.of else "not known"
            found.append(Finding("leakage", one.kind, f"{NAMES[one.kind]}: {why}"))
            continue
        if not one.rows:
            line = f"{NAMES[one.kind]}: none shared"
        else:
            line = (
                f"{NAMES[one.kind]}: {one.rows} of {one.of} tested utterances share theirs with another split "
                f"({one.values} of {one.of_values} different ones; {listed_ids(one.examples)})"
            )
        harmless = (one.kind == "text" and not reads_text) or one.kind == "session"
        line += ", which only a model that reads the words could use" * bool(one.rows and one.kind == "text" and not reads_text)
        facts = {"rows": one.rows, "of": one.of, "values": one.values, "of_values": one.of_values, "examples": one.examples}
        found.append(Finding("leakage", one.kind, line, bool(one.rows) and not harmless, facts))
    return found


def audio_findings(
    examples: Sequence[Example], sounds: Mapping[str, Sound], pairs: Sequence[Pair], labels: Mapping[str, str]
) -> list[Finding]:
    """Return lines about recordings that occur twice, with one label or two, and about silence."""
    ids = [example.utterance.id for example in examples]
    groups = groups_of(len(ids), pairs)
    sizes = Counter(groups)
    copies = sum(size - 1 for size in sizes.values())
    listed = [(ids[pair.first], ids[pair.second], round(pair.correlation, 3)) for pair in pairs]
    shown = f" ({', '.join(f'{last_part(a)} = {last_part(b)}' for a, b, _ in listed[:SHOWN])})" if listed else ""
    line = f"{copies or 'none'} of {len(ids)} utterances {'repeats' if copies <= 1 else 'repeat'} a recording of another{shown}"
    found = [Finding("audio", "duplicates", line, bool(copies), {"pairs": [list(pair) for pair in listed]})]
    torn = [[a, b, labels[a], labels[b]] for a, b, _ in listed if a in labels and b in labels and labels[a] != labels[b]]
    if torn:
        a, b, one, other = torn[0]
        pairs_have = "pair of one recording has" if len(torn) == 1 else "pairs of one recording have"
        words = f"{len(torn)} {pairs_have} two labels ({last_part(a)}: {one}, {last_part(b)}: {other})"
        found.append(Finding("audio", "torn", words, True, {"pairs": torn}))
    quiet = [name for name, sound in sounds.items() if sound.rms < QUIET]
    words = f"{len(quiet) or 'none'} of {len(ids)} utterances {'is' if len(quiet) <= 1 else 'are'} next to silent (below -60 dB)"
    words += f": {listed_ids(quiet)}" if quiet else ""
    found.append(Finding("audio", "silence", words, bool(quiet), {"ids": quiet}))
    return found


def listed_ids(names: Sequence[str]) -> str:
    """Return a few ids for a line; of those that are paths, as a table's are, the last part."""
    return ", ".join(last_part(name) for name in names[:SHOWN])


def noise_of(fold: Fold) -> tuple[Noise, list[Example]] | None:
    """Return the labels of a fold's corpus that may be wrong, and the utterances in the order of its rows; None of ratings."""
    examples = fold.examples
    if not examples or not isinstance(examples[0].target, int) or not fold.task.answer.classes:
        return None
    assert fold.chosen.penalty is not None, "a finished run has chosen its penalty"
    parts = parts_for_noise([row.target for row in examples], [group_of(row.utterance) for row in examples])
    outputs = held_out_outputs(joined([*fold.mixed().values()]), parts, fold.chosen.penalty)
    return label_noise(outputs, [row.target for row in examples]), examples


def noise_finding(noise: Noise, rows: Sequence[Example], classes: Sequence[str]) -> Finding:
    """Return how many labels may be wrong, with each of them."""
    listed = [
        {
            "id": rows[one.row].utterance.id,
            "file": rows[one.row].utterance.audio,
            "label": classes[rows[one.row].target],
            "prediction": classes[one.predicted],
            "confidence": round(one.confidence, 4),
        }
        for one in noise.suspects
    ]
    facts = {"share": noise.share, "evidence": noise.evidence, "suspects": listed}
    if not noise.share:
        line = f"no label of {len(rows)} is doubted: the heads' own uncertainty explains where they disagree"
        return Finding("labels", "noise", line, facts=facts)
    first = "".join(f"; {last_part(one['id'])}: {one['label']}, predicted {one['prediction']}" for one in listed[:SHOWN])
    line = f"about {100 * noise.share:.1f} % of {len(rows)} labels may be wrong, {len(listed)} are listed{first}"
    return Finding("labels", "noise", line, True, facts)


def suspects_csv(finding: Finding) -> str:
    """Return the doubtful labels as a table."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ["id", "file", "label", "prediction", "confidence"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(finding.facts["suspects"])
    return buffer.getvalue()
