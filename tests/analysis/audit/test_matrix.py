"""Runs on each other's corpora, audits of tables, and what a report shows of an audit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from headwater.analysis.audit.matrix import cross_matrix, matrix_text
from headwater.analysis.report.report import report
from headwater.core.files import write_json
from headwater.runs.config.recipes import task_default
from headwater.runs.config.resolve import resolve
from headwater.runs.run import run
from headwater.runs.runtime import Runtime

QUIET = Runtime("cpu", quiet=True)


def trained(folder: Path, table: Path) -> Path:
    """A run over a table."""
    mapping = {"task": "emotion", "upstream": {"name": "fbank_no_cmvn"}, "corpus": {"data": str(table)}}
    run(resolve([task_default("emotion"), mapping]), folder, QUIET)
    return folder


def test_each_run_is_tested_on_the_corpus_of_each_other(tones: Path, tmp_path: Path) -> None:
    lines = tones.read_text().splitlines()
    for name, rename in (("same", {}), ("other", {"low": "x", "middle": "y", "high": "z"})):
        place = tmp_path / name
        shutil.copytree(tones.parent, place, ignore=shutil.ignore_patterns("*.csv"))
        rows = [line.split(",") for line in lines]
        rows = [[audio, rename.get(label, label), *rest] for audio, label, *rest in rows]
        (place / f"{name}.csv").write_text("\n".join(",".join(row) for row in rows) + "\n")
    runs = [trained(tmp_path / "a", tones)]
    runs += [trained(tmp_path / f"run_{name}", tmp_path / name / f"{name}.csv") for name in ("same", "other")]
    matrix = cross_matrix(runs, QUIET)
    assert matrix.names == ("a", "run_same", "run_other")
    assert matrix.scores[0][0] == matrix.scores[0][1] == matrix.scores[1][0]
    assert (matrix.scores[0][2], matrix.scores[2][0]) == (None, None)
    shown = matrix_text(matrix)
    assert "UA of each run on each corpus" in shown
    assert "pected labels of manifest among x, y, z, found high, low, middle" in shown


def test_a_table_is_trained_and_audited(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headwater.commands.audit import main

    monkeypatch.chdir(tmp_path)
    assert main([str(tones), "-u", "fbank_no_cmvn", "-d", "emotion", "--device", "cpu", "--quiet"]) == 0
    [found] = (tmp_path / "result").rglob("audit.json")
    assert "has no weights" in found.read_text()


def test_a_report_shows_an_audit(solved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(solved, tmp_path / "run")
    findings = [{"section": "controls", "name": "random", "line": "0.41 of the <0.58> UA is there", "warns": True}]
    write_json(folder / "audit.json", {"about": "/home/ann/model: emotion", "findings": findings})
    report([folder], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<strong>0.41 of the &lt;0.58&gt; UA is there</strong>" in page
    assert "/home/ann" not in page
    report([solved], tmp_path / "without.html")
    assert "what else could explain" not in (tmp_path / "without.html").read_text()
