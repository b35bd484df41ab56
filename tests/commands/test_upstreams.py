"""The list of upstreams: what listens and what reads."""

from __future__ import annotations

import pytest

from headwater.commands.upstreams import main


def test_each_line_says_whether_an_upstream_listens_or_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["*bert"]) == 0
    rows = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()}
    assert {rows[name] for name in ("hubert", "test_hubert", "distilhubert")} == {"audio"}
    assert {rows[name] for name in ("bert", "tinybert", "test_bert", "distilbert")} == {"text"}
