"""The dev lists of protocol `superb` on IEMOCAP's own names are s3prl's."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from headwater.corpus.readers import iemocap
from headwater.corpus.readers.superb_order import DEV_HASHES, dev_hash, dialogs

FOUR = ("neu", "hap", "exc", "ang", "sad")  # which of them a name has decides nothing about dev
# a text file with the 5,531 names, one a line, as whoever has the corpus can list them: they are not ours to ship
LISTED = os.environ.get("HEADWATER_IEMOCAP_NAMES")
NAMES: list[str] = Path(LISTED).read_text(encoding="utf-8").split() if LISTED else []
pytestmark = pytest.mark.skipif(not NAMES, reason="needs HEADWATER_IEMOCAP_NAMES")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """IEMOCAP's names in the official layout, a turn of no class more in each dialog; without its audio."""
    root = tmp_path_factory.mktemp("release")
    blocks = defaultdict(list)
    for number, name in enumerate(NAMES):
        blocks[name[:-5]].append((name, FOUR[number % len(FOUR)]))
    for dialog, turns in blocks.items():
        folder = root / f"Session{dialog[4]}"
        (folder / "sentences" / "wav").mkdir(parents=True, exist_ok=True)
        (folder / "dialog" / "EmoEvaluation").mkdir(parents=True, exist_ok=True)
        lines = [f"[0.0000 - 1.0000]\t{name}\t{code}\t[3.0, 3.0, 3.0]\n" for name, code in [(f"{dialog}_F900", "fru"), *turns]]
        (folder / "dialog" / "EmoEvaluation" / f"{dialog}.txt").write_text("\n".join(lines))
    return root


def test_the_names_are_the_5531_of_the_151_dialogs() -> None:
    assert len(set(NAMES)) == len(NAMES) == 5531
    assert sorted(NAMES) == NAMES
    assert {name[:-5] for name in NAMES} == {dialog for session in range(1, 6) for dialog in dialogs(session)}
    counts = Counter(name[:5] + name[-4] for name in NAMES)  # F and M of sessions 1 to 5, as counted in the release
    assert [counts[speaker] for speaker in iemocap.SPEAKERS] == [528, 557, 481, 542, 522, 629, 528, 503, 590, 651]


@pytest.mark.parametrize("fold", range(1, 6))
def test_superb_gives_the_very_dev_utterances_of_s3prl(release: Path, fold: int) -> None:
    corpus = iemocap.read(release, protocol="superb", fold=fold)
    assert dev_hash([row.id for row in corpus.splits["dev"]]) == DEV_HASHES[fold - 1]
    assert not any("s3prl" in note for note in corpus.notes)
    assert {row.session for row in corpus.splits["test"]} == {f"Ses0{fold}"}
    assert sum(row.labels["emotion"] != "fru" for row in corpus.splits["test"]) == sum(name[4] == str(fold) for name in NAMES)
