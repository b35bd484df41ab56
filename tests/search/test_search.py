"""A search as a whole: tables of one's own, what is scored and what is left out, and what a command writes."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from headwater.commands import downstream, qbe
from headwater.core.errors import UserError
from headwater.corpus.base import Corpus, Utterance
from headwater.search.config import SearchConfig
from headwater.search.features import moments_of
from headwater.search.scoring import Trials
from headwater.search.search import Searcher, found_in, whole_truth
from headwater.search.tables import corpus_of, read_recordings

RATE = 16_000
TUNES = {"up": (300, 500, 900, 1500), "down": (1500, 900, 500, 300), "flat": (700, 720, 700, 720), "jump": (300, 2500, 400, 2000)}


def tune(name: str, seconds: float, generator: np.random.Generator) -> np.ndarray:
    """A term: four tones, faster or slower, over noise."""
    steps = np.arange(int(seconds * RATE)) / RATE
    frequency = np.array(TUNES[name])[np.minimum((steps / seconds * 4).astype(int), 3)]
    return 0.3 * np.sin(2 * np.pi * np.cumsum(frequency) / RATE) + 0.005 * generator.normal(size=len(steps))


@pytest.fixture(scope="module")
def tunes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Queries of one tune and documents of two, as two tables; the document of a query's own speaker is a decoy."""
    folder, generator = tmp_path_factory.mktemp("tunes"), np.random.default_rng(0)
    names = [*TUNES]
    queries = [["audio", "term", "speaker", "split"]]
    documents = [["audio", "terms", "speaker"]]
    for place in range(8):
        name = names[place % 4]
        soundfile.write(folder / f"q{place}.wav", tune(name, 0.4 + 0.02 * place, generator), RATE)
        queries.append([f"q{place}.wav", name, f"s{place}", "dev" if place % 4 < 2 else "test"])
    for place in range(12):
        pair = names[place % 4], names[(place // 4 + place + 1) % 4]
        silence = 0.005 * generator.normal(size=RATE // 4)
        wave = np.concatenate([silence, *(np.concatenate([tune(name, 0.45, generator), silence]) for name in pair)])
        soundfile.write(folder / f"d{place}.wav", wave, RATE)
        documents.append([f"d{place}.wav", ";".join(pair), f"s{place}"])
    for table, rows in (("queries", queries), ("documents", documents)):
        with (folder / f"{table}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder


def words_for(tunes: Path, *more: str) -> list[str]:
    return ["-u", "fbank_no_cmvn", "--queries", str(tunes / "queries.csv"), "--documents", str(tunes / "documents.csv"), *more]


def test_two_tables_are_searched_and_scored(tunes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert qbe.main(words_for(tunes, "-p", str(tmp_path / "run"))) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["scores"]["dev"]["mtwv"] > 0.9
    assert result["scores"]["test"]["atwv"] > 0.8
    assert 0 <= result["scores"]["test"]["min_cnxe"] < 0.5
    assert result["intervals"] == {"test": {"mtwv": None, "atwv": None}}  # four queries
    assert result["whole_ground_truth"] == {}
    assert "4 test trials are left out: the query's own speaker speaks in the document" in result["notes"]
    printed = capsys.readouterr().out
    assert "qbe · fbank_no_cmvn · tables · layer 0" in printed
    assert "4 test queries: no interval" in printed
    rows = list(csv.DictReader((tmp_path / "run" / "detections-test.csv").open()))
    assert all(row["is_target"] == "1" for row in rows)
    first = next(row for row in rows if row["query"] == "q3.wav" and row["document"] == "d7.wav")
    assert abs(float(first["start"]) - 0.25) < 0.15  # jump is the first tune there
    trials = xml.etree.ElementTree.parse(tmp_path / "run" / "stdlist-test" / "benchmark.stdlist.xml").getroot()
    assert [found.get("termid") for found in trials] == ["q2.wav", "q3.wav", "q6.wav", "q7.wav"]
    assert {len(found) for found in trials} == {11}  # the speaker's own document is no trial
    yes = sum(term.get("decision") == "YES" for found in trials for term in found)
    assert yes == len(rows)
    assert (tmp_path / "run" / "plots" / "layers.csv").is_file()


def test_dev_chooses_the_layer(tunes: Path, tmp_path: Path) -> None:
    words = ["-u", "test_hubert", *words_for(tunes, "-p", str(tmp_path / "run"), "-l", "0,2", "--quiet")[2:]]
    assert qbe.main(words) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["marks"] == ["UNTRAINED"]
    best = max(result["layers"].values(), key=lambda of: (of["dev"]["mtwv"], -of["dev"]["min_cnxe"]))
    assert result["layers"][str(result["layer"])] == best
    assert {*result["layers"]} == {"0", "2"}
    for suffix in ("csv", "png", "pdf"):
        assert (tmp_path / "run" / "plots" / f"layers.{suffix}").is_file()


def test_recordings_without_terms_are_searched(tunes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silence = np.zeros(RATE // 2, np.float32)
    others = (0, 1, 4, 6, 9, 10) * 2  # without the tune jump
    pieces = [soundfile.read(tunes / f"d{place}.wav", dtype="float32")[0] for place in (*others, 3)]
    whole = np.concatenate([piece for wave in pieces for piece in (wave, silence)])
    begin = sum(len(wave) + len(silence) for wave in pieces[:-1]) / RATE + 0.25  # jump is said last
    assert begin > 20  # so that the file has windows
    soundfile.write(tmp_path / "long.wav", whole, RATE)
    query, long = str(tunes / "q7.wav"), str(tmp_path / "long.wav")
    words = ["-u", "fbank_no_cmvn", "--queries", query, "--documents", long, "--top", "1"]
    assert qbe.main([*words, "--out", str(tmp_path / "found.csv")]) == 0
    (row,) = csv.DictReader((tmp_path / "found.csv").open())
    assert (row["query"], row["document"]) == (query, long)
    assert abs(float(row["start"]) - begin) < 0.2
    words[words.index(query)] = str(tunes / "queries.csv")
    assert qbe.main(words) == 0
    printed = capsys.readouterr()
    assert "long.wav" in printed.out
    assert "not scored: the queries have terms, the documents have none" in printed.err


def test_the_demo_runs_as_s3prl_spells_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("espeakng_loader", reason="the extra `demo` is not installed")
    ours = ["--demo", "-o", "corpus.demo_scale=0.2", "-p", str(tmp_path / "run")]
    theirs = ["-m", "evaluate", "-t", "test", "-u", "fbank", "-d", "quesst14_dtw"]
    assert downstream.main([*theirs, *ours, "-o", "config.downstream_expert.dtwrc.dist_method='cosine'"]) == 0
    printed = capsys.readouterr()
    assert "run as    headwater qbe -u fbank" in printed.err
    assert printed.out.startswith("DEMO\nqbe · fbank · quesst14 · superb · layer 0\n")
    assert "as the official scorer counts: MTWV" in printed.out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["search"]["distance"] == "cosine"
    whole = result["whole_ground_truth"]["test"]
    assert whole["queries"] == result["num_queries"]["test"] + 2
    assert whole["documents"] == result["num_documents"] + 2


def test_frames_are_normalized_over_queries_and_documents() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, documents = ([3 + 2 * torch.randn(n, 5, generator=generator) for n in sizes] for sizes in ((4, 9), (20, 30, 7)))
    every = torch.cat([*queries, *documents])
    moments = moments_of([*queries, *documents])
    torch.testing.assert_close(moments.mean.float(), every.mean(0))
    torch.testing.assert_close(moments.deviation.float(), every.std(0))
    searcher = Searcher(queries, documents, SearchConfig(distance="euclidean"), torch.device("cpu"))
    torch.testing.assert_close(searcher.prepare(queries[0]), (queries[0] - every.mean(0)) / every.std(0))


def test_scores_are_normalized_for_each_query_over_the_trials_that_count() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, documents = ([torch.randn(n, 5, generator=generator) for n in sizes] for sizes in ((4, 9, 6), (20, 30, 7, 11)))
    counted = np.ones((3, 4), bool)
    counted[1, 2] = False
    scores = Searcher(queries, documents, SearchConfig(), torch.device("cpu")).scores(counted)
    assert (scores[0] == 0).all()  # four frames are too few
    for row in (1, 2):
        assert scores[row][counted[row]].mean() == pytest.approx(0, abs=1e-9)
        assert scores[row][counted[row]].std() == pytest.approx(1)


def test_the_whole_ground_truth_counts_what_was_not_searched_as_missed() -> None:
    targets = {"a": ("x",), "b": ("z",)}  # b and z are of another language
    tables = {"dev": {"targets": targets, "all_queries": ["a", "b"], "all_documents": ["x", "y", "z"]}}
    found = found_in(Trials(np.array([[1.0, -1.0]]), np.array([[True, False]]), np.ones((1, 2), bool)), SearchConfig().costs)
    whole = whole_truth(
        Corpus("made", "", None, {}, split_tables=tables), "dev", found, found, [["a"], ["x", "y"]], SearchConfig()
    )
    assert whole is not None
    assert found.scores["mtwv"] == 1.0
    assert whole["mtwv"] == 0.5


def test_a_text_holds_a_term_as_whole_words_and_a_split_is_drawn_by_terms(tmp_path: Path) -> None:
    (tmp_path / "queries.csv").write_text("audio,term\na.wav,ice cream\nb.wav,Ice\nc.wav,cream\nd.wav,ice\n")
    (tmp_path / "documents.csv").write_text('audio,text\nx.wav,"I like Ice Cream, too"\ny.wav,creamy ice\n')
    corpus = corpus_of(read_recordings(str(tmp_path / "queries.csv")), read_recordings(str(tmp_path / "documents.csv")))
    targets = {query: held for tables in corpus.split_tables.values() for query, held in tables["targets"].items()}
    assert targets == {"a.wav": ("x.wav",), "b.wav": ("x.wav", "y.wav"), "c.wav": ("x.wav",), "d.wav": ("x.wav", "y.wav")}
    together = [{row.id for row in rows} for split, rows in corpus.splits.items() if split != "documents"]
    assert any({"b.wav", "d.wav"} <= rows for rows in together)  # one term is in one split
    assert corpus.notes == ("the queries have no column split: dev is 1 of their 3 terms, drawn at random",)


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        ("audio,term\na.wav,\nb.wav,ice\n", "Expected a term for each query, found none for 'a.wav'"),
        ("audio,term\na.wav,ice\na.wav,cream\n", "Expected each query once, found 'a.wav' twice"),
        ("audio,term,split\na.wav,ice,train\n", "Expected dev or test in the column split of the queries, found 'train'"),
    ],
)
def test_mistakes_in_a_table_of_queries_are_named(queries: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "queries.csv").write_text(queries)
    documents = [Utterance("x", "x.wav", labels={"terms": ("ice",)})]
    with pytest.raises(UserError, match=message):
        corpus_of(read_recordings(str(tmp_path / "queries.csv")), documents)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--queries", "a.wav"], "Expected --queries and --documents together, found --queries alone. Add --documents"),
        (["--queries", "a.wav", "--documents", "b.wav", "--demo"], "Expected a corpus, or --queries and --documents, found both"),
        (["--demo", "--top", "0"], "Expected --top of 1 or more, found 0"),
        (["--demo", "-o", "distance=cosin"], "'distance' to be one of cosine_exp, .*, found 'cosin'"),
        (["--demo", "-o", "dist=cosine"], "Unknown option 'dist'. Did you mean 'distance'?"),
        (["--demo", "-o", "upstream.attend=valid"], "Upstream 'fbank' has no option 'attend'"),
        (["--demo", "-o", "upstream.layer=9"], r"Unknown option 'upstream\.layer'\..* Known here: .*attend"),
        (["--corpus", "iemocap", "--demo"], "Expected a corpus with queries and documents, found 'iemocap'. Use quesst14"),
        (
            ["--data", __file__],
            "Expected the folder of quesst14 after --data, found the file .* go behind --queries and --documents",
        ),
        (["--data", "nowhere"], "Expected the folder of quesst14 at nowhere .* found nothing there"),
    ],
)
def test_mistakes_in_a_command_are_one_line(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        qbe.main(["-u", "fbank", *words])
    assert "\n" not in str(caught.value)


def test_an_upstream_has_its_own_options_in_a_search(tunes: Path, tmp_path: Path) -> None:
    words = ["-u", "test_hubert", *words_for(tunes, "-p", str(tmp_path / "run"), "--quiet")[2:]]
    assert qbe.main([*words, "-o", "upstream.keep_layers=1"]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [*result["layers"]] == ["0", "1"]
    assert result["upstream_options"]["keep_layers"] == 1


def test_layers_that_nothing_can_choose_or_that_are_not_there_are_refused(tunes: Path, tmp_path: Path) -> None:
    base = ["-u", "test_hubert", *words_for(tunes, "-p", str(tmp_path / "run"))[2:]]
    with pytest.raises(UserError, match=r"Expected layers between 0 and \d after -l, found 99"):
        qbe.main([*base, "-l", "99"])
    with pytest.raises(UserError, match=r"Expected layers after -l, as in .*, found 'last'"):
        qbe.main([*base, "-l", "last"])
    query = str(tunes / "q0.wav")
    with pytest.raises(UserError, match=r"Expected one layer to search with, found \d of 'test_hubert'"):
        qbe.main(["-u", "test_hubert", "--queries", query, "--documents", query])


def test_queries_that_nothing_can_score_are_refused_before_anything_is_computed(tunes: Path, tmp_path: Path) -> None:
    table = tmp_path / "queries.csv"
    table.write_text(f"audio,term,split\n{tunes / 'q0.wav'},nowhere,dev\n{tunes / 'q1.wav'},down,test\n")
    with pytest.raises(UserError, match="Expected dev queries that some documents hold and others do not, found none among 1"):
        qbe.main([*words_for(tunes, "--queries", str(table)), "-p", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_queries_of_few_frames_are_counted(tunes: Path, tmp_path: Path) -> None:
    assert qbe.main(words_for(tunes, "-p", str(tmp_path / "run"), "-o", "min_frames=42", "--quiet")) == 0
    notes = json.loads((tmp_path / "run" / "result.json").read_text())["notes"]
    assert "2 of the 4 dev queries have fewer than 42 frames: they find nothing" in notes


def test_a_broken_file_is_named(tunes: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"Expected readable audio, found 1 broken of 2, the first: .*torn.wav"):
        qbe.main(["-u", "fbank", "--queries", str(tmp_path / "torn.wav"), "--documents", str(tunes / "d0.wav")])


def test_the_same_command_again_computes_no_score_and_another_is_refused(
    tunes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = words_for(tunes, "-p", str(tmp_path / "run"), "--quiet")
    assert qbe.main(words) == 0
    before = json.loads((tmp_path / "run" / "result.json").read_text())
    (tmp_path / "run" / "result.json").unlink()  # as a kill before the end leaves it
    monkeypatch.setattr(Searcher, "costs", None)
    assert qbe.main(words) == 0
    after = json.loads((tmp_path / "run" / "result.json").read_text())
    assert after["scores"] == before["scores"]
    assert qbe.main([*words, "-o", "threshold=2"]) == 0  # decides what is made of the scores alone
    with pytest.raises(UserError, match=r"Expected the scores of this search in .*, found those of other recordings, options"):
        qbe.main([*words, "-o", "distance=cosine"])
