"""`headwater store`: what lies there, what may go, and whether it is sound."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from headwater.__main__ import dispatch
from headwater.commands.common.shell import run_command
from headwater.core.files import cache_folder
from headwater.corpus.audio import check_files
from headwater.corpus.base import Utterance
from headwater.corpus.fingerprints import row_keys
from headwater.upstream.store.maintenance import list_spaces
from headwater.upstream.store.space import Space
from headwater.upstream.store.store import Store
from headwater.upstream.store.writing import Computed

PLAIN = Space("model", (0, 1, 2), 4, False, False, "exact", "auto", "all", "float32")
TypeIn = Callable[..., tuple[int, str, str]]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store's folder in a cache of one's own."""
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "store"


@pytest.fixture
def type_in(capsys: pytest.CaptureFixture[str]) -> TypeIn:
    """Type `headwater store …`: exit code, stdout and stderr come back."""

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = run_command(dispatch, ["store", *words])
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


def compute(numbers: list[int]) -> Iterator[tuple[int, Computed]]:
    """Give each utterance some features."""
    for position, number in enumerate(numbers):
        yield position, Computed(np.full((9, 3, 4), number, np.float32), (1.0, 1.0, 1.0), 9)


def made(root: Path, name: str, rows: int = 20, days: float = 0.0, pooled: bool = False) -> Path:
    """Make a space that was last used some days ago."""
    space = Space(name, (0, 1, 2), 4, pooled, False, "exact", "auto", "all", "float32")
    store = Store(root, space, name)
    store.fill({f"{number:04x}{number:028x}": number for number in range(rows)}, compute, lambda _: None)
    store.touch()
    then = time.time() - days * 86400
    os.utime(store.folder / "used", (then, then))
    store.held.close()
    return store.folder


def names(root: Path) -> list[str]:
    """The upstreams whose features are there."""
    return sorted(space.name for space in list_spaces(root))


def test_status_of_an_empty_cache_says_so(root: Path, type_in: TypeIn) -> None:
    assert type_in("status") == (0, f"nothing is stored in {root}\n", "")


def test_status_shows_each_space_the_total_and_the_limit(root: Path, type_in: TypeIn) -> None:
    folder = made(root, "hubert", rows=20, days=3)
    made(root, "wavlm", rows=5, pooled=True)
    code, out, _ = type_in("status")
    lines = out.splitlines()
    assert code == 0
    day = time.strftime("%Y-%m-%d", time.localtime(time.time() - 3 * 86400))
    assert lines[0].split() == ["upstream", "layers", "rows", "are", "precision", "rows", "size", "last", "used", "folder"]
    assert lines[1].split()[:6] == ["hubert", "all", "3", "frames", "float32", "20"]
    assert lines[1].split()[-2:] == [day, folder.name]
    assert lines[2].split()[:6] == ["wavlm", "all", "3", "means", "float32", "5"]
    total = sum(path.stat().st_size for path in root.glob("*/**/*") if path.is_file())
    assert lines[3] == f"{total / 1000:.1f} kB in 2 spaces, in {root}"
    assert lines[4].startswith("a run adds at most ")
    assert lines[4].endswith("GB by itself (raise it with -o store.limit=SIZE)")


def test_status_of_a_store_elsewhere(tmp_path: Path, root: Path, type_in: TypeIn) -> None:
    made(tmp_path / "elsewhere", "hubert")
    assert "hubert" in type_in("status", "--store", str(tmp_path / "elsewhere"))[1]
    assert not root.exists()


def test_status_lives_with_what_it_cannot_read(root: Path, type_in: TypeIn) -> None:
    folder = made(root, "hubert")
    (folder / "space.json").write_text("{")
    (folder / "00-bad.safetensors").write_bytes(b"garbage")
    code, out, _ = type_in("status")
    assert code == 0
    assert out.splitlines()[1].split()[0] == "?"


def test_prune_all_removes_everything_and_says_what_it_freed(root: Path, type_in: TypeIn) -> None:
    made(root, "hubert")
    made(root, "wavlm")
    code, out, _ = type_in("prune", "--all")
    assert code == 0
    assert names(root) == []
    assert out.count("removed  ") == 2
    assert out.splitlines()[-1].endswith(f"kB freed in {root}")
    assert not [*root.glob("*/")]
    assert not [*root.glob(".gone-*")]


def test_prune_unused_takes_what_was_not_used_for_so_long(root: Path, type_in: TypeIn) -> None:
    made(root, "old", days=40)
    made(root, "new", days=20)
    assert type_in("prune", "--unused", "30d")[0] == 0
    assert names(root) == ["new"]


def test_prune_to_a_size_takes_the_longest_unused_first(root: Path, type_in: TypeIn) -> None:
    for name, days in (("b", 20), ("a", 10), ("c", 30)):
        made(root, name, days=days)
    size = list_spaces(root)[0].size
    assert type_in("prune", "--to", f"{2 * size}B")[0] == 0
    assert names(root) == ["a", "b"]
    assert type_in("prune", "--to", f"{2 * size}B")[1].startswith("0 B freed")
    assert type_in("prune", "--to", f"{2 * size - 1}B")[0] == 0
    assert names(root) == ["a"]


def test_a_dry_run_removes_nothing(root: Path, type_in: TypeIn) -> None:
    made(root, "hubert")
    code, out, _ = type_in("prune", "--all", "--dry-run")
    assert code == 0
    assert "would go  " in out
    assert "would be freed" in out
    assert names(root) == ["hubert"]


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_prune_never_takes_what_a_process_holds_and_goes_on_to_the_next(root: Path, type_in: TypeIn, dry: list[str]) -> None:
    made(root, "held", days=30)
    made(root, "free", days=20)
    held = Store(root, Space("held", (0, 1, 2), 4, False, False, "exact", "auto", "all", "float32"), "held")
    size = list_spaces(root)[0].size
    code, out, err = type_in("prune", "--to", f"{size}B", *dry)
    assert code == 0
    assert "held, frames: a running process holds it" in err
    assert "free, frames, 20 rows" in out
    assert names(root) == (["free", "held"] if dry else ["held"])
    assert len(held.index) == 20


def test_what_a_killed_prune_left_goes_with_the_next(root: Path, type_in: TypeIn) -> None:
    (root / f".gone-{'0' * 24}-17").mkdir(parents=True)
    type_in("prune", "--all")
    assert not [*root.iterdir()]


def test_prune_removes_nothing_that_the_store_did_not_make(root: Path, type_in: TypeIn) -> None:
    places = [root / "thesis" / "locks", root / ("a" * 24) / "locks", root / ".gone-fishing", root / ".gone-x-1"]
    for place in places:
        place.mkdir(parents=True)
        (place / "ch1.txt").write_text("x")
    space = made(root, "hubert")
    assert type_in("prune", "--all")[0] == 0
    assert not space.exists()
    assert all((place / "ch1.txt").is_file() for place in places)


def test_prune_says_which_folder_it_keeps_because_no_space_json_is_in_it(root: Path, type_in: TypeIn) -> None:
    folder = made(root, "hubert")
    (folder / "space.json").write_text("{")
    code, out, err = type_in("prune", "--all")
    assert code == 0
    assert f"{folder}: no space.json says that the store made it" in err
    assert out.startswith("0 B freed")
    assert folder.is_dir()


def test_prune_leaves_a_space_that_is_a_link_as_it_is(root: Path, type_in: TypeIn, tmp_path: Path) -> None:
    folder = made(root, "hubert")
    moved = folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(moved)
    (root / f".gone-{'0' * 24}-17").symlink_to(moved)
    assert type_in("prune", "--all")[0] == 0
    assert folder.is_symlink()
    assert (moved / "space.json").is_file()


def test_a_folder_called_like_a_shard_costs_nothing(root: Path, type_in: TypeIn) -> None:
    folder = made(root, "hubert", rows=20)
    (folder / "00-0.safetensors").mkdir()
    assert type_in("status")[0] == 0
    assert type_in("verify")[0] == 0
    store = Store(root, Space("hubert", (0, 1, 2), 4, False, False, "exact", "auto", "all", "float32"), "hubert")
    assert len(store.index) == 20
    store.held.close()


def test_verify_is_content_with_what_is_sound(root: Path, type_in: TypeIn, tmp_path: Path) -> None:
    made(root, "hubert")
    (tmp_path / "a.wav").write_bytes(b"1234")
    row_keys([Utterance("u", str(tmp_path / "a.wav"))], root, 16000)
    code, out, _ = type_in("verify")
    assert code == 0
    assert out.splitlines()[-1].startswith("1 audio files, 0 changed; ")
    assert out.splitlines()[-1].endswith(f"shards, 0 damaged, in {root}")


def test_verify_finds_a_file_that_changed_without_its_size_or_time(
    root: Path, type_in: TypeIn, tones: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes((tones.parent / "00.wav").read_bytes())
    utterances = [Utterance("u", str(path))]
    check_files(utterances, cache_folder())
    before = row_keys(utterances, root, 16000)
    state = path.stat()
    path.write_bytes(b"\0" * state.st_size)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert row_keys(utterances, root, 16000) == before  # nobody could see it
    code, out, _ = type_in("verify")
    assert code == 3
    assert f"changed  {path}: its bytes are others" in out
    assert row_keys(utterances, root, 16000) != before
    assert len(check_files(utterances, cache_folder())[1]) == 1  # checked again, and found to be broken
    assert type_in("verify")[0] == 0


def test_verify_passes_over_files_that_went_away_or_changed_openly(root: Path, type_in: TypeIn, tmp_path: Path) -> None:
    for name in ("gone.wav", "changed.wav"):
        (tmp_path / name).write_bytes(b"1234")
    row_keys([Utterance(name, str(tmp_path / name)) for name in ("gone.wav", "changed.wav")], root, 16000)
    (tmp_path / "gone.wav").unlink()
    (tmp_path / "changed.wav").write_bytes(b"12345")
    code, out, _ = type_in("verify")
    assert code == 0
    assert out.startswith("0 audio files, 0 changed")


def test_verify_removes_a_shard_whose_bytes_changed_without_its_size_or_time(root: Path, type_in: TypeIn) -> None:
    shard = sorted(made(root, "hubert").glob("*.safetensors"))[0]
    state, content = shard.stat(), bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(bytes(content))
    os.utime(shard, ns=(state.st_atime_ns, state.st_mtime_ns))
    code, out, _ = type_in("verify")
    assert code == 3
    assert f"damaged  {shard}: removed" in out
    assert not shard.exists()
    assert type_in("verify")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Expected one of status, prune, verify, found none. For instance: headwater store "),
        (["prune"], "Expected one of --all, --unused 30d and --to 20GB after `store prune`. Add --dry-run to see what goes."),
        (["prune", "--all", "--to", "1GB"], "Expected one of --all, --unused 30d and --to 20GB"),
        (["prune", "--unused", "soon"], "Expected an age such as 30d, found 'soon'. Write a number and h, d or w."),
        (["prune", "--to", "little"], "Expected a size such as 20GB, found 'little'. Write a number and KB, MB, GB or TB."),
        (["status", "--all"], "Expected --all, --unused, --to and --dry-run after `prune`, found them after `status`."),
        (["verify", "--store", "nowhere"], "Expected a store in"),
    ],
)
def test_a_mistake_is_one_line(root: Path, type_in: TypeIn, words: list[str], message: str) -> None:
    root.mkdir(parents=True)
    code, out, err = type_in(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
