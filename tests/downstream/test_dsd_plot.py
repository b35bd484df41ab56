"""The DET picture and the picture of agreement: the numbers behind them are those of the metrics."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from headwater.downstream.avd import plot as agreement
from headwater.downstream.dsd import plot as det
from headwater.downstream.metrics import concordance, equal_error_rate


@pytest.fixture(scope="module")
def predictions() -> tuple[np.ndarray, np.ndarray]:
    """What is true, and how sure the answers are."""
    generator = np.random.default_rng(0)
    truth = generator.integers(2, size=200)
    return truth, 1 / (1 + np.exp(-generator.normal(2 * truth - 1, 1.0)))


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_csv_holds_the_errors_at_every_threshold(predictions: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    truth, scores = predictions
    det.det_plot(truth, scores, 0.5, tmp_path / "det.png", title="Misses and false alarms, test", marks=("DEMO",))
    rows = read(tmp_path / "det.csv")
    assert (float(rows[0]["false_alarms"]), float(rows[0]["misses"])) == (0, 1)
    assert (float(rows[-1]["false_alarms"]), float(rows[-1]["misses"])) == (1, 0)
    assert {row["marks"] for row in rows} == {"DEMO"}
    middle = rows[len(rows) // 2]
    threshold = float(middle["threshold"]) - 1e-5  # six digits are written
    assert float(middle["false_alarms"]) == pytest.approx(np.mean(scores[truth == 0] >= threshold), abs=1e-5)
    assert float(middle["misses"]) == pytest.approx(np.mean(scores[truth == 1] < threshold), abs=1e-5)


def legend_of(monkeypatch: pytest.MonkeyPatch, truth: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, tuple]:
    """Draw, and return the picture's named points (false alarms, misses), in normal deviates."""
    figures: list = []
    monkeypatch.setattr(det, "save_figure", lambda figure, _: figures.append(figure))
    monkeypatch.setattr(det, "save_csv", lambda *_: None)
    det.det_plot(truth, scores, threshold, Path("det.png"), title="Misses and false alarms, test")
    lines = figures[0].axes[0].get_lines()
    return {line.get_label(): (*line.get_xdata(), *line.get_ydata()) for line in lines if not line.get_label().startswith("_")}


def test_the_points_are_the_equal_error_rate_and_the_operating_point(
    predictions: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, scores = predictions
    (equal, at_rate), (chosen, at_point) = legend_of(monkeypatch, truth, scores, 0.3).items()
    assert equal == f"equal error rate {100 * equal_error_rate(truth, scores)[0]:.1f} %"
    assert at_rate[0] == at_rate[1]  # on the diagonal
    alarms, misses = np.mean(scores[truth == 0] >= 0.3), np.mean(scores[truth == 1] < 0.3)
    assert chosen == f"operating point: {100 * alarms:.1f} % alarms, {100 * misses:.1f} % misses"
    assert at_point[0] > at_rate[0] > at_point[1]


@pytest.mark.parametrize("threshold", [-1.0, 2.0])
def test_a_point_beyond_the_picture_stands_at_its_edge(threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    points = legend_of(monkeypatch, np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.2, 0.8]), threshold)
    assert all(np.isfinite(value) for point in points.values() for value in point)


def test_one_score_for_everybody_is_drawn(tmp_path: Path) -> None:
    det.det_plot(np.array([0, 1, 1]), np.full(3, 0.5), 0.5, tmp_path / "det.png", title="Misses and false alarms, test")
    assert (tmp_path / "det.png").stat().st_size > 1000


def test_the_picture_of_agreement_has_every_rating_beside_it(tmp_path: Path) -> None:
    given = [(1.0, 2.0), (5.0, 4.0), (3.0, 3.5)]
    predicted = [(1.5, 2.5), (4.0, 4.0), (3.0, 2.0)]
    path = tmp_path / "agreement.png"
    agreement.agreement_plot(
        given, predicted, ["arousal", "valence"], [1, 7], path, title="Predicted over rated, test", marks=("DEMO",)
    )
    rows = read(path.with_suffix(".csv"))
    expected = ["reference_arousal", "prediction_arousal", "reference_valence", "prediction_valence", "marks"]
    assert [*rows[0]] == expected
    assert [float(rows[1][name]) for name in expected[:4]] == [5.0, 4.0, 4.0, 4.0]


def test_a_panel_of_agreement_says_its_ccc(monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list = []
    monkeypatch.setattr(agreement, "save_figure", lambda figure, _: figures.append(figure))
    monkeypatch.setattr(agreement, "save_csv", lambda *_: None)
    given, predicted = [(1.0,), (5.0,), (3.0,)], [(1.5,), (4.0,), (3.0,)]
    agreement.agreement_plot(given, predicted, ["valence"], [1, 7], Path("agreement.png"), title="Predicted over rated, test")
    expected = concordance([1, 5, 3], [1.5, 4, 3])
    assert [axes.get_title() for axes in figures[0].axes] == [f"valence, CCC {expected:.3f}"]
