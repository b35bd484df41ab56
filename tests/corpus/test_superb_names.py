"""The dev lists of protocol `superb` on IEMOCAP's own names, where s3prl's lists of them are at hand."""

from __future__ import annotations

import importlib.util
import json
import os
from collections import defaultdict
from pathlib import Path

import pytest

from headwater.corpus import iemocap
from headwater.corpus.superb_order import DEV_HASHES, dev_hash

# s3prl's releases on PyPI leave these files out; its git repository has them: s3prl/downstream/emotion/meta_data
WHERE = "HEADWATER_S3PRL_METADATA"


def metadata_folder() -> Path | None:
    if os.environ.get(WHERE):
        return Path(os.environ[WHERE])
    found = importlib.util.find_spec("s3prl")
    folders = (
        [Path(place) / "downstream" / "emotion" / "meta_data" for place in (found.submodule_search_locations or [])]
        if found
        else []
    )
    return next((folder for folder in folders if (folder / "Session1" / "test_meta_data.json").is_file()), None)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """IEMOCAP's names and labels in the official layout, without its audio."""
    folder = metadata_folder()
    if folder is None:
        pytest.skip(f"needs s3prl's lists of names: set {WHERE} to s3prl/downstream/emotion/meta_data of a git clone")
    root = tmp_path_factory.mktemp("release")
    for session in range(1, 6):
        blocks = defaultdict(list)
        for entry in json.loads((folder / f"Session{session}" / "test_meta_data.json").read_text())["meta_data"]:
            name = Path(entry["path"]).stem
            blocks[name[:-5]].append(f"[0.0000 - 1.0000]\t{name}\t{entry['label']}\t[3.0000, 3.0000, 3.0000]\n")
        evaluations = root / f"Session{session}" / "dialog" / "EmoEvaluation"
        evaluations.mkdir(parents=True)
        (root / f"Session{session}" / "sentences" / "wav").mkdir(parents=True)
        for dialog, lines in blocks.items():
            (evaluations / f"{dialog}.txt").write_text("\n".join(lines))
    return root


@pytest.mark.parametrize("fold", range(1, 6))
def test_superb_gives_the_very_dev_utterances_of_s3prl(release: Path, fold: int) -> None:
    corpus = iemocap.read(release, protocol="superb", fold=fold)
    assert dev_hash([row.id for row in corpus.splits["dev"]]) == DEV_HASHES[fold - 1]
    assert corpus.notes == ()
