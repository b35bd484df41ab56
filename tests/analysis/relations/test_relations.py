"""Relations of tasks: the paper's rules on the paper's table, to the digit, and clear words about a wrong one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from headwater.analysis.relations.graphs import draw
from headwater.analysis.relations.relations import Pair, Relations, from_json, relations_of, relations_text, width_of
from headwater.analysis.relations.table import read_table, table_of
from headwater.commands import plot
from headwater.core.errors import UserError
from headwater.runs.config.recipes import RECIPES

PAPER = RECIPES / "mtl" / "table1.csv"


def written(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def relations(folder: Path, text: str) -> Relations:
    return relations_of(read_table(written(folder, text)))


def pair(found: Relations, source: str, target: str) -> Pair:
    return next(each for each in found.pairs if (each.source, each.target) == (source, target))


@pytest.fixture(scope="module")
def paper() -> Relations:
    return relations_of(read_table(PAPER))


def by_hand(path: Path) -> dict[tuple[str, str], Fraction]:
    """Every ordered pair of the paper's table by its rules, counted without the library."""
    header, everything, *without = (line.split(",") for line in path.read_text().splitlines())
    heads = [title.split(":") for title in header[1:]]
    found = {}
    for row in without:
        for (task, direction), whole, cell in zip(heads, everything[1:], row[1:], strict=True):
            if task not in {row[0], "SF-F1"}:
                change = (Fraction(cell) - Fraction(whole)) / Fraction(whole)
                found[row[0], task] = -change if direction == "lower" else change
    return found


def test_all_72_pairs_of_the_papers_table_follow_its_rules(paper: Relations) -> None:
    requested = by_hand(PAPER)
    assert len(requested) == len(paper.pairs) == 72
    assert not paper.undefined
    helps, hurts = ({(edge.source, edge.target) for edge in edges} for edges in (paper.improvement, paper.hurt))
    for (source, target), change in requested.items():
        assert pair(paper, source, target).change == float(change)
        percent = 100 * abs(change)
        width = "thick" if percent >= 8 else "medium" if percent >= 2 else "thin" if percent >= Fraction("0.5") else ""
        assert pair(paper, source, target).width == width
        assert ((source, target) in helps) == (bool(width) and change < 0)
        assert ((source, target) in hurts) == (bool(width) and change > 0)


def test_the_papers_graphs_have_so_many_edges_of_each_width(paper: Relations) -> None:
    assert Counter(edge.width for edge in paper.improvement) == {"thin": 9, "medium": 7, "thick": 7}
    assert Counter(edge.width for edge in paper.hurt) == {"thin": 9, "medium": 10, "thick": 4}


@pytest.mark.parametrize(
    ("source", "target", "graph", "width"),
    [
        ("PR", "ASR", "improvement", "thick"),  # "PR is an important auxiliary task for ASR"
        ("SD", "ASR", "improvement", "thin"),  # "SD helps a little"
        ("ASR", "PR", "improvement", "thin"),  # "ASR helps"
        ("SID", "ER", "hurt", "medium"),  # all but SID help ER
        ("ASV", "SD", "hurt", "thick"),  # SD is hurt the most by ASV and SID
        ("SID", "SD", "hurt", "thick"),
        ("SID", "ASV", "improvement", "thick"),  # "especially with SID"
        ("ASV", "SID", "improvement", "medium"),  # "ASV especially helps a lot"
    ],
)
def test_what_the_papers_text_says_stands_in_the_right_graph(
    paper: Relations, source: str, target: str, graph: str, width: str
) -> None:
    edges = {(edge.source, edge.target): edge.width for edge in getattr(paper, graph)}
    assert edges[source, target] == width


def test_keyword_and_intent_tasks_have_no_edge_of_their_own(paper: Relations) -> None:
    assert not {edge.target for edge in (*paper.improvement, *paper.hurt)} & {"IC", "KS"}  # "the influences are negligible"


@pytest.mark.parametrize(
    ("whole", "without", "width"),
    [
        ("10", "10.05", "thin"),  # 0.5 % to the digit
        ("10", "10.04999999999", ""),
        ("5", "5.1", "medium"),  # 2 %: 5.1 / 5 - 1 is less than 0.02 in binary
        ("6.25", "6.75", "thick"),  # 8 %
        ("0.7", "0.756", "thick"),  # 8 %: in binary 0.07999999999999996
        ("0.3", "0.3015", "thin"),  # 0.5 %: in binary 0.00499999999999997
        ("5.2", "5.6159", "medium"),
    ],
)
def test_an_edge_of_a_bin_is_met_to_the_digit(tmp_path: Path, whole: str, without: str, width: str) -> None:
    found = relations(tmp_path, f"left_out,A:higher,B:lower\n,{whole},{whole}\nA,,{without}\nB,{without},\n")
    assert pair(found, "B", "A").width == width
    assert pair(found, "A", "B").width == width


def test_bins_are_closed_below_and_open_above() -> None:
    percents = ("0", "0.4999", "0.5", "1.9999", "2", "7.9999", "8", "300")
    assert [width_of(-Fraction(percent) / 100) for percent in percents] == [
        "",
        "",
        "thin",
        "thin",
        "medium",
        "medium",
        "thick",
        "thick",
    ]


def test_an_edge_leads_from_the_task_left_out_and_lower_is_turned(tmp_path: Path) -> None:
    found = relations(tmp_path, "left_out,ER:higher,ASR:lower\n,50,10\nER,,11\nASR,55,\n")
    assert found.as_json()["improvement"] == [{"from": "ER", "to": "ASR", "change": -0.1, "width": "thick"}]
    assert found.as_json()["hurt"] == [{"from": "ASR", "to": "ER", "change": 0.1, "width": "thick"}]


def test_below_zero_a_lower_score_is_still_worse(tmp_path: Path) -> None:
    found = relations(tmp_path, "left_out,AVD:higher,KS:higher\n,-0.1,90\nAVD,,90\nKS,-0.2,\n")  # concordance may be negative
    assert pair(found, "KS", "AVD").change == -1


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (",0,90\nKS,0.1,\n", "AVD is 0 with all tasks"),
        (",0,90\nKS,0,\n", "AVD is 0 with all tasks"),
        (",0.1,90\nKS,-0.1,\n", "AVD changes its sign without KS"),
        (",-0.1,90\nKS,0.1,\n", "AVD changes its sign without KS"),
        (",0.1,90\nKS,,\n", "no score of AVD without KS"),
        (",0.1,90\nKS,-,90\n", "no score of AVD without KS"),
        (",0.1,90\n", "no score of AVD without KS"),
        (",,90\nKS,0.1,\n", "no score of AVD with all tasks"),
    ],
)
def test_a_pair_without_a_relative_change_is_undefined_with_its_reason(tmp_path: Path, rows: str, reason: str) -> None:
    found = relations(tmp_path, f"left_out,AVD:higher,KS:higher\n{rows}AVD,X,91\n")
    assert found.as_json()["undefined"] == [{"from": "KS", "to": "AVD", "reason": reason}]
    assert [(edge.source, edge.target) for edge in found.hurt] == [("AVD", "KS")]


def test_seeds_count_by_their_mean_and_a_spread_that_hides_it_is_uncertain(tmp_path: Path) -> None:
    rows = ",0.1,10\n,0.2,10.4\n,0.3,10.8\nB,0.11,\nB,0.31,\nA,,11.4\n"
    found = relations(tmp_path, f"left_out,A:higher,B:higher\n{rows}")
    steady, shaky = pair(found, "A", "B"), pair(found, "B", "A")
    assert shaky.change == float(Fraction("0.21") / Fraction("0.2") - 1) == 0.05
    assert not shaky.is_certain
    # Student's two-sample interval by hand: three values of spread 0.4 and a single one, two degrees of freedom
    half = 4.302652729749462 * 0.4 * (1 / 3 + 1) ** 0.5 / 10.4
    assert steady.interval == pytest.approx((1 / 10.4 - half, 1 / 10.4 + half))


def test_an_interval_beyond_zero_is_certain(tmp_path: Path) -> None:
    rows = "".join(f",10.{digit},5\nB,13.{digit},\n" for digit in range(3))
    found = relations(tmp_path, f"left_out,A:higher,B:higher\n{rows}A,,5\n")
    assert pair(found, "B", "A").is_certain
    assert pair(found, "A", "B").interval is None  # equal runs do not tell how far runs spread


def test_single_runs_take_the_interval_that_is_handed_over() -> None:
    table = table_of({"A": "higher", "B": "lower"}, [("", {"A": 0.5, "B": 0.2}), ("A", {"B": 0.25}), ("B", {"A": 0.54})])
    found = relations_of(table, {("B", "A"): (-0.01, 0.17)})
    assert (pair(found, "B", "A").width, pair(found, "B", "A").is_certain) == ("thick", False)
    assert pair(found, "A", "B").interval is None
    assert found.as_json()["hurt"][0]["interval"] == [-0.01, 0.17]


def test_json_comes_back_as_the_same_graphs(tmp_path: Path) -> None:
    found = relations(tmp_path, "left_out,A:higher,B:higher,marks\n,10,5,DEMO\n,10.1,5,DEMO\nB,13,,DEMO\nA,,5,UNTRAINED\n")
    again = from_json(json.loads(json.dumps(found.as_json())), tmp_path)
    assert (again.improvement, again.hurt, again.undefined) == (found.improvement, found.hurt, found.undefined)
    assert (again.tasks, again.marks) == (("A", "B"), ("DEMO", "UNTRAINED"))
    with pytest.raises(
        UserError, match=r"Expected improvement, hurt and undefined in '.*', found another format\. Write it again"
    ):
        from_json({"improvement": 3}, tmp_path)


def test_a_further_metric_of_a_task_makes_no_edge(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "left_out,SF-F1:higher,SF:lower,A:lower\n,87,26,5\nSF,,,6\nA,80,27,\n"))
    assert table.further == ("SF-F1",)
    assert {edge.target for edge in relations_of(table).pairs} == {"SF", "A"}
    own = read_table(written(tmp_path, "left_out,SF-F1:higher,SF:lower\n,87,26\nSF,88,\nSF-F1,,27\n"))
    assert own.further == ()  # it is left out itself: a task


def test_a_table_from_a_spreadsheet_is_read_the_same(tmp_path: Path) -> None:
    text = "\ufeffleft_out, ASR:Lower ,ER:higher,seed\r\n,6.22,67.28,1\r\n\r\nER, 6.17 ,X,1\r\nASR,X,65.07,1\r\n"
    found = relations(tmp_path, text)
    assert found.tasks == ("ASR", "ER")
    assert pair(found, "ER", "ASR").change == float(Fraction(5, 622))


HEAD = "left_out,ASR:lower,ER:higher\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expected a header `left_out,ASR:lower,ER:higher,…` in '{}', found: an empty file. Add that column."),
        ("run,ASR:lower,ER:higher\n,1,2\n", "found: run, ASR:lower, ER:higher. Add that column."),
        (HEAD, "Expected a row with an empty left_out in '{}', found none. Add the run with all tasks, which"),
        (HEAD + "ER,6,\n", "Expected a row with an empty left_out"),
        (
            HEAD + ",6,60\nEE,6,\n",
            "Expected a task of the header under left_out in line 3 of '{}', found 'EE'. Did you mean 'ER'? Leave it empty for "
            "the run with all tasks; the tasks are: ASR, ER.",
        ),
        (
            "left_out,ASR,ER:higher\n,6,60\n",
            "Expected a column's head as TASK:lower or TASK:higher in '{}', found 'ASR'. Say which is better.",
        ),
        ("left_out,ASR:less,ER:higher\n,6,60\n", "found 'ASR:less'"),
        ("left_out,:lower,ER:higher\n,6,60\n", "found ':lower'"),
        ("left_out,ER:lower,ER:higher\n,6,60\n", "Expected each column once in '{}', found 'ER' twice. Rename one"),
        ("left_out,ER:higher\n,60\n", "Expected columns of at least two tasks in '{}', found 1."),
        (
            HEAD + ",6,60\nER,six,\n",
            "Expected a number for ASR in line 3 of '{}', found 'six'. Leave it empty where there is none.",
        ),
        (HEAD + ",nan,60\n", "found 'nan'"),
        (HEAD + ",inf,60\n", "found 'inf'"),
        (HEAD + ",1e999999999,60\n", "found '1e999999999'"),
        (HEAD + ",6,60\nER,6\n", "Expected 3 cells in line 3 of '{}', found 2. Leave a cell empty where there is no score."),
        (HEAD + ',"6,60\n', "Expected a table of runs in '{}', found: unexpected end of data. Name a csv file in UTF-8."),
    ],
)
def test_a_wrong_table_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_table(path)
    assert message.format(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"found: No such file or directory\. Name a csv file"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes("left_out,Gefühl:higher".encode("latin-1"))
    with pytest.raises(UserError, match=r"found: 'utf-8' codec can't decode"):
        read_table(tmp_path / "latin.csv")


def test_the_command_prints_the_table_and_writes_json_and_both_pictures(tmp_path: Path, capsys: Any) -> None:
    assert plot.plot_relations([str(PAPER), "--json", str(tmp_path / "r.json"), "--plot", str(tmp_path / "r.png")]) == 0
    printed = capsys.readouterr().out
    assert "improvement     9       7      7" in printed
    assert "no edge: 26 below 0.5 %, 0 undefined" in printed
    assert "no edges from SF-F1: a further metric of SF" in printed
    content = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert {"from": "PR", "to": "ASR", "change": float(Fraction(-57, 622)), "width": "thick"} in content["improvement"]
    with Image.open(tmp_path / "r.png") as image:
        assert image.width > 1000
    assert (tmp_path / "r.pdf").read_bytes().startswith(b"%PDF")


def test_the_command_never_writes_over_its_table_and_knows_its_formats(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + ",6,60\nER,6,\n")
    with pytest.raises(UserError, match=r"Expected another file than the table after --json, found '.*'\. Choose another name"):
        plot.plot_relations([str(path), "--json", str(path)])
    with pytest.raises(UserError, match=r"ends in \.png, \.pdf, \.svg, found 'r\.jpg'\. Add one"):
        plot.plot_relations([str(path), "--plot", "r.jpg"])


def edge_styles(found: Relations, monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[list[tuple[float, Any]]]:
    """Width and line style of every arrow, graph by graph."""
    import matplotlib.figure
    from matplotlib.patches import FancyArrowPatch

    drawn: list[list[tuple[float, Any]]] = []

    def recorded(figure: matplotlib.figure.Figure, path: Path, **_: Any) -> None:
        for axes in figure.axes:
            arrows = [text.arrow_patch for text in axes.texts if getattr(text, "arrow_patch", None)]
            drawn.append(
                [(arrow.get_linewidth(), arrow.get_linestyle()) for arrow in arrows if isinstance(arrow, FancyArrowPatch)]
            )
        Path(path).touch()

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", recorded)
    draw(found, folder / "r.svg")
    return drawn


def test_arrows_are_as_wide_as_their_bins_and_dashed_where_uncertain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edges = (
        Pair("A", "B", -0.01, "thin"),
        Pair("B", "A", -0.05, "medium", (-0.2, 0.1)),
        Pair("A", "C", 0.09, "thick", (0.01, 0.2)),
        Pair("C", "A", 0.001, "", (-0.1, 0.1)),  # negligible: no arrow
    )
    helps, hurts = edge_styles(Relations(("A", "B", "C"), edges, ()), monkeypatch, tmp_path)
    assert [width for width, _ in sorted(helps, key=lambda style: style[0])] == [0.8, 2.0]
    assert [style == "-" for _, style in sorted(helps, key=lambda style: style[0])] == [True, False]
    assert hurts == [(4.2, "-")]


def test_names_with_signs_of_formulas_are_drawn_as_they_are(tmp_path: Path) -> None:
    found = Relations(
        ("$\\a$_b", "a very long name of a task"), (Pair("$\\a$_b", "a very long name of a task", 0.1, "thick"),), ()
    )
    assert draw(found, tmp_path / "r.png") == [tmp_path / "r.png", tmp_path / "r.pdf"]


def test_marks_stand_in_picture_json_and_text(tmp_path: Path, headwater: Callable[..., Any]) -> None:
    path = written(tmp_path, "left_out,A:higher,B:higher,marks\n,10,5,DEMO\nB,13,,DEMO\nA,,5,\n")
    done = headwater("plot", "relations", path, "--plot", tmp_path / "r.svg", "--json", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("DEMO\n")
    assert "DEMO · Relations of tasks" in (tmp_path / "r.svg").read_text(
        encoding="utf-8"
    )  # matplotlib's comment beside the letters
    assert json.loads((tmp_path / "r.json").read_text())["marks"] == ["DEMO"]


def test_uncertain_edges_are_counted_in_the_text(tmp_path: Path) -> None:
    lines = relations_text(relations(tmp_path, "left_out,A:higher,B:higher\n,10,5\n,20,5\nB,16,\nA,,5\n")).splitlines()
    heads, *graphs = lines[-4:-1]
    assert heads.endswith("interval includes 0")
    assert [graph.split() for graph in graphs] == [["improvement", "0", "0", "0", "0"], ["hurt", "0", "1", "0", "1"]]
