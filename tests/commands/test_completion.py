"""Completion of the command line: what is printed is asked as a shell asks it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from headwater.__main__ import VERBS, dispatch
from headwater.commands import completion
from headwater.core.errors import UserError


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The script of each shell, in a file."""
    folder, words = tmp_path_factory.mktemp("completion"), completion.table()
    for shell, write in completion.SHELLS.items():
        (folder / shell).write_text(write(words))
    return {shell: folder / shell for shell in completion.SHELLS}


def in_bash(script: Path, typed: str) -> list[str]:
    """What bash offers behind what is typed."""
    words = typed.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    code = (
        f"source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _headwater; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def in_zsh(script: Path, typed: str) -> list[str]:
    """What zsh's bashcompinit gets of the same function; the beginning it compares itself."""
    words = typed.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    begin = f"source {script}; emulate -L sh; setopt kshglob noshglob braceexpand"  # as its compgen calls a function
    code = f"{begin}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _headwater; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["zsh", "-f", "-c", code], capture_output=True, text=True, check=True)
    return [word for word in done.stdout.split() if word.startswith(words[-1])]


def in_fish(script: Path, typed: str) -> list[str]:
    """What fish offers behind what is typed."""
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {script}; complete -C'{typed}'"], capture_output=True, text=True, check=True
    )
    return [line.split("\t")[0] for line in done.stdout.splitlines()]


ASK = {"bash": in_bash, "zsh": in_zsh, "fish": in_fish}


@pytest.mark.parametrize("shell", ASK)
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("headwater pre", ["predict"]),
        ("headwater downstream -u hubert_m", ["hubert_mini"]),
        ("headwater downstream -d emo", ["emotion"]),
        ("headwater downstream --corpus rav", ["ravdess"]),
        ("headwater downstream -c distil/dis", ["distil/distilhubert"]),
        ("headwater list up", ["upstreams"]),
        ("headwater recipe superb/k", ["superb/ks"]),
        ("headwater list upstreams --modality te", ["text"]),
        ("headwater corpus chec", ["check"]),
        ("headwater corpus check crem", ["cremad"]),
        ("headwater push run --dry", ["--dry-run"]),
        ("headwater plot geometry --poi", ["--points"]),
        ("headwater completion ba", ["bash"]),
    ],
)
def test_names_and_flags_are_completed(shell: str, typed: str, offered: list[str], scripts: dict[str, Path]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    assert ASK[shell](scripts[shell], typed) == offered


def test_every_verb_has_its_flags() -> None:
    table = completion.table()
    assert {at for at in table if " " not in at} == {*VERBS}
    assert all("--help" in found.flags for found in table.values())
    assert "--upstream" not in table["predict"].values  # there it takes a path alone


def test_a_shell_that_is_not_there_is_one_line() -> None:
    with pytest.raises(
        UserError, match=r"Expected a shell \(bash, zsh, fish\) after `headwater completion`, found 'fihs'\. Did you"
    ):
        dispatch(["completion", "fihs"])


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_script_is_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["completion", shell]) == 0
    assert "headwater" in capsys.readouterr().out
