"""Locks hold between processes, however these end; where flock is not to be trusted, leases do."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.core.errors import UserError
from headwater.core.locks import (
    Kind,
    Mount,
    SharedLease,
    between,
    exclusive,
    has_shared_lease,
    holder_of,
    kind_of_locks,
    mount_of,
    take,
)
from headwater.core.locks.leases import ENDED, LONG_AGO, Pace, Watch, file_of, files_of, highest, read, try_lease, write

processes = multiprocessing.get_context("fork")  # started at once: nothing is imported again
QUICK = Pace(beat=0.02, expiry=0.2)
ALIVE = Pace(beat=0.02, expiry=60)  # of holders that nobody kills: on a machine with much to do, a beat may be late
NOBODY = 2**30  # the number of a process that this machine does not have, and another may
KINDS: tuple[Kind, ...] = ("flock", "lease")
DISKS = [pytest.param(None, id="temporary"), pytest.param("/dev/shm", id="tmpfs")]


@pytest.fixture(params=DISKS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on each file system that can be had."""
    if request.param is None:
        yield tmp_path
        return
    folder = Path(request.param) / f"headwater-test-{os.getpid()}-{tmp_path.name}"
    if not os.access(request.param, os.W_OK):
        pytest.skip(f"{request.param} cannot be written here")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def add(folder: Path, kind: Kind, times: int) -> None:
    """Add to a number, each time reading and writing it under the lock: without one, additions are lost."""
    for _ in range(times):
        with exclusive(folder / "lock", kind, pace=ALIVE):
            number = int((folder / "number").read_text())
            time.sleep(random.Random(os.getpid()).uniform(0, 0.002))
            (folder / "number").write_text(str(number + 1))


def hold(path: Path, kind: Kind, held: Path, pace: Pace = QUICK) -> None:
    """Hold a lock until the process is killed."""
    with exclusive(path, kind, pace=pace):
        held.touch()
        time.sleep(60)


def started(path: Path, kind: Kind, held: Path, pace: Pace = QUICK) -> multiprocessing.process.BaseProcess:
    """Return a process that holds a lock."""
    process = processes.Process(target=hold, args=(path, kind, held, pace))
    process.start()
    while not held.exists():
        time.sleep(0.001)
    return process


@pytest.mark.parametrize("kind", KINDS)
def test_four_processes_lose_no_addition(disk: Path, kind: Kind) -> None:
    (disk / "number").write_text("0")
    many = [processes.Process(target=add, args=(disk, kind, 8)) for _ in range(4)]
    for process in many:
        process.start()
    for process in many:
        process.join()
        assert process.exitcode == 0
    assert (disk / "number").read_text() == "32"


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_is_refused_while_it_is_held_and_free_after_a_kill(disk: Path, kind: Kind) -> None:
    holder = started(disk / "lock", kind, disk / "held")
    with exclusive(disk / "lock", kind, wait=False, pace=QUICK) as claim:
        assert claim is None
    assert holder_of(disk / "lock", kind) == f"process {holder.pid} on {os.uname().nodename}"
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with exclusive(disk / "lock", kind, wait=False, pace=QUICK) as claim:  # of this machine: no need to wait for its expiry
        assert claim is not None


def test_a_holder_on_another_machine_is_waited_for_until_its_lease_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headwater.core.locks.leases.machine", lambda: "elsewhere")
    holder = started(tmp_path / "lock", "lease", tmp_path / "held", Pace(beat=60, expiry=0.2))  # no sign of life
    monkeypatch.setattr("headwater.core.locks.leases.machine", lambda: "here")
    waited: list[str] = []
    began = time.monotonic()
    with exclusive(tmp_path / "lock", "lease", waiting=waited.append, pace=QUICK) as claim:
        assert claim is not None
        assert time.monotonic() - began >= QUICK.expiry
        claim.check()
    assert waited == [f"process {holder.pid} on {os.uname().nodename}"]
    holder.kill()
    holder.join()


def test_a_holder_that_gives_signs_of_life_keeps_its_lease(tmp_path: Path) -> None:
    file, watch, pace = file_of(tmp_path / "lock", 1), Watch(), Pace(beat=0.02, expiry=0.05)
    file.touch()
    for beats in range(8):  # longer than its expiry in all
        write(file, {"host": "other", "machine": "elsewhere", "process": NOBODY, "token": "x", "beats": beats})
        assert not watch.is_over(file, pace)
        time.sleep(0.02)
    time.sleep(pace.expiry)
    assert watch.is_over(file, pace)


def test_a_lease_gives_signs_of_life_until_it_is_released(tmp_path: Path) -> None:
    lease = try_lease(tmp_path / "lock", QUICK)
    assert lease is not None
    while read(lease.file).get("beats", 0) < 3:
        time.sleep(0.01)
    lease.release()
    assert read(lease.file)["released"]


def test_a_holder_that_stood_still_sees_that_it_lost_the_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.core.locks.leases.machine", lambda: "")  # nothing tells machines apart: only time does
    with exclusive(tmp_path / "lock", "lease", pace=Pace(beat=60, expiry=0.1)) as first:
        assert first is not None
        with exclusive(tmp_path / "lock", "lease", pace=QUICK) as second:
            assert second is not None
            second.check()
            with pytest.raises(UserError, match=r"took over: this process gave no sign of life for 0 s. Nothing is lost: run"):
                first.check()
    with exclusive(tmp_path / "lock", "lease", wait=False, pace=QUICK) as third:
        assert third is not None


def test_a_number_made_from_an_old_view_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(ENDED + 3):
        lease = try_lease(tmp_path / "lock", QUICK)
        assert lease is not None
        lease.release()
    there = {*tmp_path.iterdir()}
    assert not file_of(tmp_path / "lock", 2).exists()
    views = iter([1])  # what was the highest a while ago: its file has gone
    monkeypatch.setattr("headwater.core.locks.leases.highest", lambda path: next(views, None) or highest(path))
    assert highest(tmp_path / "lock") == ENDED + 3
    assert try_lease(tmp_path / "lock", QUICK) is None
    assert {*tmp_path.iterdir()} == there


def test_a_listing_of_which_claims_come_and_go_still_shows_one_that_was_there(tmp_path: Path) -> None:
    lease = try_lease(tmp_path / "lock", ALIVE)
    assert lease is not None
    begun = {*files_of(tmp_path / "lock")}  # of what comes while it goes on, a file system need show nothing
    for _ in range(ENDED):
        lease.release()
        lease = try_lease(tmp_path / "lock", ALIVE)
        assert lease is not None
    lease.release()
    assert begun & {*files_of(tmp_path / "lock")}


def test_a_sign_of_life_leaves_the_name_in_its_folder(tmp_path: Path) -> None:
    lease = try_lease(tmp_path / "lock", QUICK)
    assert lease is not None
    before = lease.file.stat().st_ino
    while read(lease.file).get("beats", 0) < 2:
        time.sleep(0.01)
    lease.release()
    assert lease.file.stat().st_ino == before  # renamed over, it could be missing from a listing
    assert [*tmp_path.iterdir()] == [lease.file]
    lease.file.unlink()
    with pytest.raises(FileNotFoundError):
        write(lease.file, {"beats": 1})


def test_a_lease_that_was_left_long_ago_is_over_at_once(tmp_path: Path) -> None:
    file = file_of(tmp_path / "lock", 1)
    file.write_text(json.dumps({"host": "gone", "machine": "elsewhere", "process": NOBODY, "token": "x"}))
    assert not Watch().is_over(file, QUICK)
    os.utime(file, (time.time() - LONG_AGO - 1,) * 2)
    assert Watch().is_over(file, QUICK)


def test_of_many_that_take_over_at_once_one_wins(tmp_path: Path) -> None:
    file_of(tmp_path / "lock", 1).write_text(json.dumps({"released": True}))

    ready, tried = processes.Barrier(8), processes.Barrier(8)

    def race(number: int) -> None:
        ready.wait(60)
        if try_lease(tmp_path / "lock", Pace()) is not None:
            (tmp_path / f"won-{number}").touch()
        tried.wait(60)  # a winner that has gone would be one to take over from

    many = [processes.Process(target=race, args=(number,)) for number in range(8)]
    for process in many:
        process.start()
    for process in many:
        process.join()
    assert len([*tmp_path.glob("won-*")]) == 1
    assert read(file_of(tmp_path / "lock", 2))["token"]


def test_a_shared_lease_is_seen_until_it_is_closed_or_its_holder_dies(tmp_path: Path) -> None:
    first, second = SharedLease(tmp_path / "held"), SharedLease(tmp_path / "held")
    first.close()
    assert has_shared_lease(tmp_path / "held")
    second.close()
    assert not has_shared_lease(tmp_path / "held")
    process = processes.Process(target=lambda: (SharedLease(tmp_path / "held"), os.kill(os.getpid(), signal.SIGKILL)))
    process.start()
    process.join()
    assert not has_shared_lease(tmp_path / "held")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("mount", "doubt"),
    [
        (Mount("ext4"), ""),
        (Mount("tmpfs"), ""),
        (Mount("overlay"), ""),
        (Mount("nfs4", frozenset({"rw", "local_lock=none"})), ""),
        (Mount("nfs", frozenset({"rw", "nolock"})), "nfs mounted with nolock keeps locks on one machine"),
        (Mount("nfs4", frozenset({"local_lock=flock"})), "nfs4 mounted with local_lock=flock keeps locks on one machine"),
        (Mount("lustre"), "lustre mounted without the option flock keeps no locks between machines"),
        (Mount("lustre", frozenset({"flock"})), ""),
        (Mount("fuse.sshfs"), "a file system of type fuse.sshfs may keep locks on one machine only"),
    ],
    ids=lambda value: (
        f"{value.kind} {' '.join(sorted(value.options))}" if isinstance(value, Mount) else ""
    ),  # a set's order varies
)
def test_flock_is_trusted_where_the_file_system_keeps_it(mount: Mount, doubt: str) -> None:
    assert mount.doubt == doubt


def test_the_file_system_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    spaced = str(tmp_path / "a b").replace(" ", "\\040")
    (tmp_path / "a b").mkdir()
    options = "rw,vers=4.2,local_lock=all"
    table.write_text(f"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:30 / {spaced} rw,relatime shared:4 - nfs4 server:/a {options}\n")
    found = mount_of(tmp_path / "a b" / "not" / "yet", str(table))
    assert found is not None
    assert (found.kind, "local_lock=all" in found.options) == ("nfs4", True)
    assert mount_of(tmp_path, str(table)) == Mount("ext4", frozenset({"rw"}))
    assert mount_of(tmp_path, str(tmp_path / "none")) is None


def test_a_doubtful_file_system_gets_leases_and_the_user_decides_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kind_of_locks(tmp_path) == "flock"
    monkeypatch.setattr(between, "mount_of", lambda _: Mount("fuse.s3fs"))
    assert kind_of_locks(tmp_path) == "lease"
    monkeypatch.setenv("HEADWATER_LOCKS", "flock")
    assert kind_of_locks(tmp_path) == "flock"
    monkeypatch.setenv("HEADWATER_LOCKS", "none")
    with pytest.raises(UserError, match=r"Expected HEADWATER_LOCKS=flock or HEADWATER_LOCKS=lease, found 'none'. Unset it"):
        kind_of_locks(tmp_path)


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        (tmp_path / "lock").open("w") as file,
        pytest.raises(UserError, match=r"locks files at '.*lock', found: No locks available"),
    ):
        take(file)
