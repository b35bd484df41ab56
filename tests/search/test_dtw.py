"""Subsequence time warping: equal to plain loops, to the package dtw, and to what s3prl computes with it."""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from headwater.search import dtw
from headwater.search.dtw import best_stretch, distances, make_blocks, search_costs, unit_rows


def drawn(seed: int, count: int, least: int, most: int, dim: int = 12) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(least, most, (count,), generator=generator).tolist()
    return [torch.randn(length, dim, generator=generator) for length in lengths]


def by_loops(query: Tensor, document: Tensor, minmax: bool) -> tuple[float, int, int]:
    """The recursion as it is written in books."""
    apart = np.exp(1 - (unit_rows(query) @ unit_rows(document).T).double().numpy()) - 1
    if minmax:
        apart = (apart - apart.min(1, keepdims=True)) / np.maximum(np.ptp(apart, axis=1)[:, None], 1e-9)
    best = {(0, column): (value, column) for column, value in enumerate(apart[0])}
    for row in range(1, len(apart)):
        for column in range(apart.shape[1]):
            before = [best[row - 1, column - step] for step in (0, 1, 2) if column >= step]
            cost, start = min(before, key=lambda pair: pair[0])
            best[row, column] = (cost + apart[row, column], start)
    cost, end = min((best[len(apart) - 1, column][0], column) for column in range(apart.shape[1]))
    return cost / len(apart), best[len(apart) - 1, end][1], end


def costs_of(queries: Sequence[Tensor], documents: Sequence[Tensor], *, minmax: bool = True) -> np.ndarray:
    found = np.full((len(queries), len(documents)), np.nan)
    for costs, rows in search_costs(queries, documents, unit_rows, minmax=minmax):
        found[:, rows] = costs.numpy()
    return found


@pytest.mark.parametrize("minmax", [True, False])
def test_many_pairs_at_once_cost_what_plain_loops_say(minmax: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(dtw._CELLS, "cpu", 100)  # several blocks, of several documents each
    monkeypatch.setattr(dtw, "_ROWS", 30)  # and several groups of queries
    queries, documents = drawn(0, 5, 1, 20), drawn(1, 15, 1, 40)
    blocks = list(make_blocks(documents, unit_rows, torch.device("cpu")))
    assert 2 < len(blocks) < 15
    costs = costs_of(queries, documents, minmax=minmax)
    for row, query in enumerate(queries):
        for column, document in enumerate(documents):
            expected, first, last = by_loops(query, document, minmax)
            assert costs[row, column] == pytest.approx(expected, abs=1e-5)
            one = best_stretch(unit_rows(query), unit_rows(document), minmax=minmax)
            assert one[0] == pytest.approx(expected, abs=1e-5)
            assert one[1:] == (first, last)


def test_several_threads_find_the_same_and_leave_torch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(dtw._CELLS, "cpu", 100)
    queries, documents = drawn(0, 5, 1, 20), drawn(1, 15, 1, 40)
    alone = costs_of(queries, documents)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        np.testing.assert_allclose(costs_of(queries, documents), alone, atol=1e-6)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_the_padding_of_a_block_changes_no_cost() -> None:
    queries, documents = drawn(0, 1, 8, 9), drawn(1, 4, 3, 30)
    alone = [costs_of(queries, [document])[0, 0] for document in documents]
    np.testing.assert_allclose(costs_of(queries, documents)[0], alone, atol=1e-6)


def test_a_query_that_was_cut_out_is_found_where_it_was() -> None:
    document = drawn(3, 1, 60, 61)[0]
    cost, first, last = best_stretch(unit_rows(document[20:31]), unit_rows(document))
    assert cost == pytest.approx(0.0, abs=1e-5)
    assert (first, last) == (20, 30)


@pytest.mark.parametrize("name", ["cosine", "cosine_exp", "euclidean", "cityblock"])
def test_distances_are_those_of_scipy(name: str) -> None:
    from scipy.spatial.distance import cdist

    query, document = (one.double() for one in drawn(0, 2, 5, 9))
    expected = cdist(query, document, "cosine" if name == "cosine_exp" else name)
    expected = np.exp(expected) - 1 if name == "cosine_exp" else expected
    pair = (unit_rows(query), unit_rows(document)) if name.startswith("cosine") else (query, document)
    np.testing.assert_allclose(distances(*pair, name).numpy(), expected, atol=1e-9)
    if name == "cosine":
        near = expected < 1  # further away there is no logarithm: s3prl has NaN there
        found = distances(*pair, "cosine_neg_log").numpy()
        np.testing.assert_allclose(found[near], -np.log(1 - expected[near]), atol=1e-9)
        assert np.isfinite(found).all()


@pytest.fixture
def s3prl_expert(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """s3prl's own file, without what it imports for reading data and writing xml."""
    if os.environ.get("HEADWATER_REQUIRE_S3PRL"):
        import s3prl
    else:
        s3prl = pytest.importorskip("s3prl", reason="s3prl is not installed")
    pytest.importorskip("dtw", reason="the package dtw-python is not installed")
    for name, attribute in (("lxml", "etree"), ("quesst14_dtw.dataset", "QUESST14Dataset")):
        stub = types.ModuleType(name)
        setattr(stub, attribute, None)
        monkeypatch.setitem(sys.modules, name, stub)
    package = types.ModuleType("quesst14_dtw")
    package.__path__ = []  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "quesst14_dtw", package)
    path = Path(s3prl.__file__).parent / "downstream" / "quesst14_dtw" / "expert.py"
    spec = importlib.util.spec_from_file_location("quesst14_dtw.expert", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_costs_are_those_of_s3prl(s3prl_expert: types.ModuleType) -> None:
    queries, documents = drawn(0, 4, 5, 20), drawn(1, 8, 3, 40)
    options = {
        "step_pattern": "asymmetric",
        "keep_internals": False,
        "distance_only": False,
        "open_begin": True,
        "open_end": True,
    }
    costs = costs_of(queries, documents)
    for row, query in enumerate(queries):
        for column, document in enumerate(documents):
            pair = query.numpy(), document.numpy()
            _, _, score = s3prl_expert.match(*pair, "q", "d", s3prl_expert.cosine_exp, True, options)
            assert -costs[row, column] == pytest.approx(score, abs=1e-5)
