"""IEMOCAP's reader on a miniature in the official layout, and s3prl's dev lists."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from headwater.core.errors import UserError
from headwater.corpus.base import Corpus, Utterance
from headwater.corpus.readers import iemocap
from headwater.corpus.readers.superb_order import DEV_HASHES, dev_hash, dev_ids, dialogs
from headwater.downstream.avd.question import DIMENSIONS, ratings_of, scale_of

CODES = ("neu", "hap", "exc", "ang", "sad", "fru", "xxx", "neu")


def write_release(root: Path, sessions: tuple[int, ...] = (1, 2, 3, 4, 5)) -> Path:
    for session in sessions:
        for dialog in (f"Ses0{session}F_impro01", f"Ses0{session}M_script02_1"):
            write_dialog(root / f"Session{session}", dialog)
    return root


def write_dialog(folder: Path, dialog: str) -> None:
    blocks, lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n"], []
    for number, code in enumerate(CODES):
        name = f"{dialog}_{'FM'[number % 2]}{number // 2:03d}"
        wav = folder / "sentences" / "wav" / dialog / f"{name}.wav"
        wav.parent.mkdir(parents=True, exist_ok=True)
        wav.touch()
        blocks.append(f"[{number}.0000 - {number}.9000]\t{name}\t{code}\t[2.5000, 3.0000, 3.5000]")
        blocks.append("C-E2:\tNeutral;\t()\nA-E3:\tval 3; act 3; dom  3;\t()\n")
        lines.append(f"{name} [{number:03d}.0000-{number:03d}.9000]: [LAUGHTER] Excuse me {number}.")
    lines += ["M: [BREATHING]", f"{dialog}_FXX0 [001.0000-002.0000]: nobody's turn"]
    for kind, content in (("EmoEvaluation", blocks), ("transcriptions", lines)):
        (folder / "dialog" / kind).mkdir(parents=True, exist_ok=True)
        (folder / "dialog" / kind / f"{dialog}.txt").write_text("\n".join(content))
        (folder / "dialog" / kind / f"._{dialog}.txt").write_bytes(
            b"\0\5\x16\7 macOS litter \xff\n" + "\n".join(content).encode()
        )
    (folder / "dialog" / "EmoEvaluation" / "Categorical").mkdir(exist_ok=True)
    (folder / "dialog" / "EmoEvaluation" / "Categorical" / f"{dialog}_e2_cat.txt").write_text(blocks[1])


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("data") / "IEMOCAP_full_release")


def rows(corpus: Corpus) -> list[Utterance]:
    return [row for split in corpus.splits.values() for row in split]


def test_every_turn_is_read_once_with_its_own_code(release: Path) -> None:
    corpus = iemocap.read(release)
    assert len({row.id for row in rows(corpus)}) == len(rows(corpus)) == 5 * 2 * len(CODES)
    assert Counter(row.labels["emotion"] for row in rows(corpus)) == {code: 10 * CODES.count(code) for code in set(CODES)}
    assert all(Path(row.audio).is_file() for row in rows(corpus))


def test_ratings_are_valence_activation_dominance_in_that_order(release: Path) -> None:
    row = rows(iemocap.read(release))[0]
    assert (row.labels["valence"], row.labels["arousal"], row.labels["dominance"]) == (2.5, 3.0, 3.5)
    assert iemocap.read(release).scale == (1.0, 5.0)


def test_the_speaker_is_who_speaks_not_who_wears_the_markers(release: Path) -> None:
    speakers = {row.id: row.speaker for row in rows(iemocap.read(release))}
    assert speakers["Ses03F_impro01_M000"] == "Ses03M"
    assert speakers["Ses03M_script02_1_F000"] == "Ses03F"


def test_text_comes_from_the_transcription_and_tags_can_go(release: Path) -> None:
    assert {row.id: row.text for row in rows(iemocap.read(release))}["Ses01F_impro01_F000"] == "[LAUGHTER] Excuse me 0."
    stripped = iemocap.read(release, strip_tags=True)
    assert {row.id: row.text for row in rows(stripped)}["Ses01F_impro01_F000"] == "Excuse me 0."


@pytest.mark.parametrize("fold", range(1, 6))
def test_session5_tests_one_session_and_selects_on_another(release: Path, fold: int) -> None:
    splits = iemocap.read(release, fold=fold).splits
    sessions = {name: {row.session for row in split} for name, split in splits.items()}
    assert sessions["test"] == {f"Ses0{fold}"}
    assert sessions["dev"] == {f"Ses0{fold % 5 + 1}"}
    assert len(sessions["train"]) == 3
    assert not sessions["train"] & (sessions["dev"] | sessions["test"])


@pytest.mark.parametrize("fold", range(1, 11))
def test_speaker10_tests_one_speaker_and_selects_on_the_other_of_the_session(release: Path, fold: int) -> None:
    splits = iemocap.read(release, protocol="speaker10", fold=fold).splits
    speakers = {name: {row.speaker for row in split} for name, split in splits.items()}
    (test,), (dev,) = speakers["test"], speakers["dev"]
    assert test == iemocap.SPEAKERS[fold - 1]
    assert dev[:-1] == test[:-1]
    assert len(speakers["train"]) == 8
    assert not speakers["train"] & {test, dev}


def test_random10_covers_each_turn_once_as_test_and_says_that_it_flatters(release: Path) -> None:
    corpora = [iemocap.read(release, protocol="random10", fold=fold) for fold in range(1, 11)]
    tested = [row.id for corpus in corpora for row in corpus.splits["test"]]
    assert len(tested) == len(set(tested)) == len(rows(corpora[0]))
    assert any("speakers are in all splits" in note for note in corpora[0].notes)


@pytest.mark.parametrize("protocol", list(iemocap.PROTOCOLS))
def test_improvised_only_takes_turns_away_and_moves_none(release: Path, protocol: str) -> None:
    everything = iemocap.read(release, protocol=protocol, fold=2).splits
    improvised = iemocap.read(release, protocol=protocol, fold=2, improvised_only=True).splits
    for name, split in improvised.items():
        assert [row.id for row in split] == [row.id for row in everything[name] if "impro" in row.id]


def test_what_differs_from_the_release_is_named(release: Path) -> None:
    notes = iemocap.read(release).notes
    assert "Session1 differs from the release: neu 4 instead of 384, hap 4 instead of 278" in notes[0]
    assert len(notes) == 5


def test_a_demo_is_not_compared_with_the_release(tmp_path: Path) -> None:
    (write_release(tmp_path / "demo") / "DEMO").touch()
    assert iemocap.read(tmp_path / "demo").notes == ()
    assert iemocap.read(tmp_path / "demo", protocol="superb").notes == ()


def test_the_four_classes_are_a_default_that_a_user_can_undo(release: Path) -> None:
    corpus = iemocap.read(release)
    assert corpus.label_defaults["emotion"] == {"merge": {"exc": "hap"}, "keep": ["neu", "hap", "ang", "sad"]}
    assert set(corpus.label_order["emotion"]) >= set(CODES)


def test_the_folder_above_the_release_is_accepted(release: Path) -> None:
    assert len(rows(iemocap.read(release.parent))) == 80


def test_one_session_of_it_is_refused_with_the_folder_above(release: Path) -> None:
    with pytest.raises(UserError, match="found a part of it only") as problem:
        iemocap.read(release / "Session1")
    assert f"--data {release}" in str(problem.value)


def test_two_releases_in_one_folder_are_refused(tmp_path: Path) -> None:
    write_release(tmp_path / "one", (1,))
    write_release(tmp_path / "two", (1,))
    with pytest.raises(UserError, match=r"found 2 \(one, two\)"):
        iemocap.read(tmp_path)


def test_another_folder_is_refused_with_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    with pytest.raises(UserError, match=r"Expected Session1 to Session5 in .* found holiday"):
        iemocap.read(tmp_path)


def test_a_missing_session_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"all five sessions .*Session4") as problem:
        iemocap.read(write_release(tmp_path / "part", (1, 2, 3, 5)))
    assert "Unpack" in str(problem.value)


@pytest.mark.parametrize(
    ("requested", "words"),
    [
        ({"fold": 6}, "fold between 1 and 5"),
        ({"fold": 0}, "fold between 1 and 5"),
        ({"protocol": "session6"}, "Expected a protocol"),
    ],
)
def test_a_fold_or_protocol_that_is_not_there_is_refused(release: Path, requested: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        iemocap.read(release, **requested)


def synthetic_ids() -> list[str]:
    """Return ids of IEMOCAP's shapes over all 151 dialogs, as many in each session as the release's four classes have."""
    counts = {1: 1085, 2: 1023, 3: 1151, 4: 1031, 5: 1241}
    ids = []
    for session, count in counts.items():
        names = dialogs(session)
        ids += [f"{names[i % len(names)]}_{'FM'[i // len(names) % 2]}{i // len(names) // 2:03d}" for i in range(count)]
    return ids


def test_the_order_of_s3prl_names_every_dialog_once() -> None:
    names = [name for session in range(1, 6) for name in dialogs(session)]
    assert len(names) == len(set(names)) == 151
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    assert digest.startswith("dcb0ea5b29f22e74"), "the order is the point: it is that of a disk, and nothing may sort it"


@pytest.mark.parametrize(("fold", "size"), list(enumerate((890, 902, 876, 900, 858), start=1)))
def test_superb_draws_as_many_dev_utterances_as_s3prl(fold: int, size: int) -> None:
    ids = synthetic_ids()
    dev = dev_ids(ids, fold)
    assert len(dev) == size
    assert not any(name.startswith(f"Ses0{fold}") for name in dev)
    assert dev_ids(reversed(ids), fold) == dev


def test_superb_draws_what_random_split_draws() -> None:
    import torch

    ids = synthetic_ids()
    place = {name: number for number, name in enumerate(dialogs(1) + dialogs(2) + dialogs(3) + dialogs(4))}
    train = sorted((name for name in ids if name[:5] != "Ses05"), key=lambda name: (place[name[:-5]], name))
    torch.manual_seed(0)
    lengths = [int(0.8 * len(train)), len(train) - int(0.8 * len(train))]
    _, dev = torch.utils.data.random_split(train, lengths)
    assert dev_ids(ids, 5) == list(dev)


def test_superb_evaluates_in_s3prls_own_order(release: Path) -> None:
    corpus = iemocap.read(release, protocol="superb", fold=1)
    place = {name: number for number, name in enumerate(dialogs(1))}
    rows = [(place[turn.id[:-5]], turn.id) for turn in corpus.splits["test"]]
    assert len(rows) > 4
    assert rows == sorted(rows)
    assert [name for _, name in rows] != sorted(name for _, name in rows)  # not the alphabet's
    four = [
        turn.id
        for rows in corpus.splits.values()
        for turn in rows
        if turn.labels["emotion"] in {"neu", "hap", "exc", "ang", "sad"}
    ]
    assert [turn.id for turn in corpus.splits["dev"]] == dev_ids(four, 1)


def test_superb_leaves_other_classes_in_train_and_says_what_differs(release: Path) -> None:
    corpus = iemocap.read(release, protocol="superb", fold=3)
    assert {row.labels["emotion"] for row in corpus.splits["dev"]} <= {"neu", "hap", "exc", "ang", "sad"}
    assert {"fru", "xxx"} <= {row.labels["emotion"] for row in corpus.splits["train"]}
    assert {row.session for row in corpus.splits["test"]} == {"Ses03"}
    assert any(DEV_HASHES[2] in note for note in corpus.notes)


def test_a_hash_of_ids_does_not_depend_on_their_order() -> None:
    assert dev_hash(["b", "a"]) == dev_hash(["a", "b"]) != dev_hash(["a", "c"])


def test_one_stray_rating_is_left_out_and_counted(tmp_path: Path) -> None:
    root = write_release(tmp_path / "IEMOCAP_full_release")
    path = root / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt"
    path.write_text(path.read_text().replace("[2.5000, 3.0000, 3.5000]", "[5.5000, 3.0000, 3.5000]", 1))
    corpus = iemocap.read(root)
    (stray,) = [row for row in rows(corpus) if "valence" not in row.labels]
    assert stray.labels["arousal"] == 3.0
    assert f"1 turns have a rating outside of 1 to 5, which is left out (the first: {stray.id})" in corpus.notes
    assert scale_of(None, corpus, [row for row in rows(corpus) if ratings_of(row, DIMENSIONS)], DIMENSIONS) == (1.0, 5.0)
    assert sum(ratings_of(row, DIMENSIONS) is None for row in rows(corpus)) == 1  # avd passes it over
