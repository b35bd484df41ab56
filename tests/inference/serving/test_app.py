"""The app: what it shows of a run, of the layers of a probe and of several runs, and that nothing leaves the machine."""

from __future__ import annotations

import importlib.util
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from browser import Browser, complaints, opened

from headwater.commands.common import serving
from headwater.commands.use import app as command
from headwater.core.errors import UserError
from headwater.downstream.answer import OneClass, Ratings
from headwater.downstream.asv.answer import Embedding
from headwater.downstream.sd.answer import Spoken, Turns
from headwater.inference.load import load_run
from headwater.inference.predict import Prediction
from headwater.inference.serving.app import drawing
from headwater.inference.serving.app.subject import Subject
from headwater.inference.serving.layers import Probe, probe_of
from headwater.inference.serving.uploads import Upload, waveform_of
from headwater.inference.waveforms import Waveform
from headwater.plans.grid import expand, run_plan
from headwater.runs.config.resolve import resolve
from headwater.runs.run import run
from headwater.runs.runtime import Runtime

QUIET = Runtime("cpu", quiet=True)
HOSTILE = '<img src=x onerror="alert(1)">'
# of gradio's own script, which closes a stream that it has read
KNOWN = "Method not implemented."


def sound_of(seconds: float, pitch: float) -> np.ndarray:
    """Return a tone as those that the runs were trained on."""
    at = np.arange(round(seconds * 16_000)) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * pitch * at) * np.hanning(len(at))
    return (tone + 0.01 * np.random.default_rng(5).standard_normal(len(at))).astype(np.float32)


@pytest.fixture(scope="module")
def probe_folder(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `-l all` leaves: a run on each layer, and one on their sum."""
    rows = {"task": "emotion", "upstream": {"name": "test_hubert"}, "corpus": {"data": str(tones)}, "solver": "exact"}
    folder = tmp_path_factory.mktemp("probe") / "layers"
    run_plan(expand(resolve([rows]), [1], [1], [], [0, 1, 2, None]), folder, QUIET)
    return folder


@pytest.fixture(scope="module")
def probe(probe_folder: Path) -> Probe:
    """The same, loaded."""
    found = probe_of(probe_folder)
    assert found is not None
    return found


def test_a_pass_for_all_layers_predicts_what_each_run_does(probe: Probe, probe_folder: Path) -> None:
    assert [*probe.runs] == ["layer0", "layer1", "layer2", "sum"]
    assert len({id(run.model.upstream("audio")) for run in probe.runs.values()}) == 1  # in memory once
    sound = sound_of(23.0, 700)  # two windows
    for name, found in probe.predict(Waveform(sound, 16_000)).items():
        expected = load_run(probe_folder / name).predict(sound, sampling_rate=16_000)
        assert (found.label, found.seconds) == (expected.label, expected.seconds)
        assert found.scores == pytest.approx(expected.scores, abs=1e-5), name


def test_what_is_no_probe_is_none(finished: Path, tmp_path: Path) -> None:
    assert probe_of(finished) is None
    assert probe_of(tmp_path) is None


def test_the_card_of_each_layer_has_its_own_answer_and_those_of_all(probe: Probe) -> None:
    subject = Subject.of(probe)
    assert subject.layers[subject.chosen] == probe.chosen
    cards = subject.cards(Waveform(sound_of(3.0, 700), 16_000), 1.0, "")
    assert len(cards) == 4
    assert ["layer 0" in cards[0], "layer 2" in cards[2], "the weighted sum of all layers" in cards[3]] == [True] * 3
    for shown in cards:
        assert shown.count("<svg") == 2
        assert shown.count("<rect") == 3 * 3 + 3 * 4  # classes x windows, classes x layers
    assert Subject.of(probe).empty().count("predicts one of 3 classes") == 1


def test_the_card_of_a_run_is_what_predict_gives(finished: Path) -> None:
    found = load_run(finished)
    sound = sound_of(0.5, 700)
    (shown,) = Subject.of(found).cards(Waveform(sound, 16_000), 2.0, "")
    expected = found.predict(sound, sampling_rate=16_000)
    assert f'<p class="hw-label">{expected.label}</p>' in shown
    for value in (expected.scores or {}).values():
        assert f'<span class="hw-number">{value:.3f}</span>' in shown
    assert "<svg" not in shown  # of one window there is no timeline


def test_what_cannot_be_predicted_is_one_line_on_each_card(finished: Path, probe: Probe) -> None:
    for subject in (Subject.of(load_run(finished)), Subject.of(probe)):
        for samples, line in (
            (np.zeros(8000), "Expected sound, found digital silence"),
            (np.ones(9), "Expected at least one frame"),
        ):
            cards = subject.cards(Waveform(samples.astype(np.float32), 16_000), 2.0, "")
            assert all(shown.count(f'<p class="hw-wrong">{line}') == 1 for shown in cards)


def test_a_run_that_reads_needs_what_is_said(rated: Path, tmp_path: Path) -> None:
    rows = {"task": "avd", "upstream": {"name": "fbank_no_cmvn"}, "text_upstream": {"name": "hashed_words"}}
    training = {"steps": 1, "batch_size": 8, "eval_every": 1}
    run(
        resolve([rows, {"corpus": {"data": str(rated)}, "training": training, "avd": {"scale": [1, 7]}}]), tmp_path / "run", QUIET
    )
    subject = Subject.of(load_run(tmp_path / "run"))
    sound = Waveform(sound_of(1.0, 700), 16_000)
    assert subject.uses_text
    assert "found nothing. Type it below the sound." in subject.cards(sound, 2.0, " ")[0]
    shown = subject.cards(sound, 2.0, "so glad")[0]
    assert [shown.count(name) for name in ("arousal", "valence", "dominance")] == [2, 2, 2]  # a title and a word each


def test_words_and_marks_are_text_and_no_html() -> None:
    answer = OneClass((HOSTILE, "b"))
    found = Prediction("x", 0.0, 1.0, HOSTILE, {HOSTILE: 0.7, "b": 0.3})
    cells = drawing.windows_as_cells([found, replace(found, start=1.0)])
    facts = {"run": HOSTILE, "task": "t", "upstream": HOSTILE, "corpus": HOSTILE, "finetuned": True, "marks": [HOSTILE]}
    drawn = drawing.verdict(found, answer) + drawing.picture(cells, answer, over="time") + drawing.heading(facts)
    drawn += drawing.words([replace(cell, name=HOSTILE) for cell in cells]) + drawing.verdict(
        Prediction("x", error=HOSTILE), answer
    )
    assert "<img" not in drawn


def test_of_many_classes_the_highest_are_drawn_and_of_an_embedding_nothing() -> None:
    names = tuple(f"id{place}" for place in range(100))
    found = Prediction("x", 0.0, 1.0, "id99", {name: place / 100 for place, name in enumerate(names)})
    drawn = drawing.bars(found, OneClass(names))
    assert drawn.count('class="hw-row') == drawing.MOST_BARS
    assert drawn.startswith('<div class="hw-row hw-best"><span title="id99">')
    assert drawing.bars(found, Embedding(dim=100, threshold=0.5)) == ""
    assert 'style="width: 50.0%"' in drawing.bars(Prediction("x", scores={"arousal": 4.0}), Ratings(("arousal",), (1, 7)))


def test_turns_and_windows_of_text_are_tables() -> None:
    spoken = Prediction("x", 0.0, 2.0, Spoken((("speaker1", 0.5, 1.25),)))
    assert "<td>speaker1<td>0.50 s<td>1.25 s" in drawing.turns(spoken)
    assert "nobody speaks" in drawing.verdict(replace(spoken, label=Spoken(())), Turns(2))
    texts = [Prediction("x", 2.0 * place, 2.0, word) for place, word in enumerate(("HELLO", "THERE"))]
    assert "<tr><td>2.0 s<td>THERE" in drawing.words(drawing.windows_as_cells(texts))


def test_what_cannot_be_opened_is_one_line(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"Expected at most 6 runs side by side, found 7\. Leave some out"):
        command.main([str(finished)] * 7)
    with pytest.raises(UserError, match=r"Expected a number above 0 after --most-seconds, found 0"):
        command.main([str(finished), "--most-seconds", "0"])
    monkeypatch.setattr(serving.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"for `headwater app`, found no gradio\. Run: pip install .*app"):
        command.main([str(finished)])


@pytest.fixture(scope="module")
def address(probe: Probe, finished: Path) -> Iterator[str]:
    """The app with a probe and a run side by side, on a free port of this machine."""
    if importlib.util.find_spec("gradio") is None:
        assert "HEADWATER_REQUIRE_APP" not in os.environ, "HEADWATER_REQUIRE_APP is set, and gradio is not installed"
        pytest.skip("the extra app is not installed")
    import uvicorn

    from headwater.inference.serving.app.app import app_of, private_uploads

    marked = replace(load_run(finished), marks=("DEMO",))
    with private_uploads(), socket.create_server(("127.0.0.1", 0)) as listening:
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        app = app_of([Subject.of(probe), Subject.of(marked)], most_mb=5, most_seconds=60)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join()
    assert not folder.exists()


@pytest.fixture(scope="module")
def browser(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser with the app."""
    with opened(tmp_path_factory.mktemp("profile")) as found:
        found.open(address)
        found.wait(FIELD)
        yield found


FIELD = "!!document.querySelector('#sound input[type=file]')"


def wrong(browser: Browser) -> list[str]:
    """Return what the browser has to complain about, beside gradio's own remark."""
    return [text for text in complaints(browser) if KNOWN not in text]


def shown_for(browser: Browser, file: Path) -> list[str]:
    """Upload a file, and return what stands on the cards."""
    if not browser.value(FIELD):
        browser.value("document.querySelector('#sound button[aria-label=Clear], #sound button[title=Clear]').click()")
        browser.wait(f"{FIELD} && !document.querySelector('.hw-label') && !document.querySelector('.hw-wrong')")
    browser.choose("#sound input[type=file]", file)
    browser.wait("['#run0', '#run1'].every(run => document.querySelector(`${run} .hw-label, ${run} .hw-wrong`))")
    return browser.value("['#run0', '#run1'].map(run => document.querySelector(run).innerText)")


def test_an_upload_shows_the_right_class_and_nothing_goes_elsewhere(
    browser: Browser, address: str, tmp_path: Path, finished: Path
) -> None:
    soundfile.write(tmp_path / "middle.wav", sound_of(0.5, 720), 16_000)
    _, shown = shown_for(browser, tmp_path / "middle.wav")
    assert browser.value("document.querySelector('#run1 .hw-label').textContent") == "middle"
    expected = load_run(finished).predict(str(tmp_path / "middle.wav")).scores or {}
    for value in expected.values():
        assert f"{value:.3f}" in shown
    assert "DEMO: not a result to quote" in shown
    assert "keep the licence of the model" in browser.value("document.body.innerText")
    assert [*Path(os.environ["GRADIO_TEMP_DIR"]).rglob("middle.wav")]  # which is gone when the app ends
    assert all(url.startswith(address) for url in browser.requested)
    assert not browser.value("[...document.querySelectorAll('button')].some(one => /share/i.test(one.ariaLabel ?? ''))")
    assert wrong(browser) == []


def test_a_long_file_is_a_timeline_and_a_slider_chooses_the_layer(browser: Browser, probe: Probe, tmp_path: Path) -> None:
    sound = np.concatenate([sound_of(11.0, 200), sound_of(11.0, 2600)])
    soundfile.write(tmp_path / "long.wav", sound, 16_000)
    shown_for(browser, tmp_path / "long.wav")
    assert browser.value("document.querySelectorAll('#run1 svg rect').length") == 3 * 11
    titles = browser.value("[...document.querySelectorAll('#run1 svg title')].map(node => node.textContent)")
    assert any(title.startswith("20.0 s: high ") for title in titles)
    found = probe.predict(waveform_of(Upload("x", (tmp_path / "long.wav").read_bytes()), 60))
    for place, name in ((0, "layer 0"), (3, "the weighted sum of all layers")):
        browser.value(SLIDE % place)
        browser.wait(f"document.querySelector('#run0').innerText.includes({name!r})")
        expected = [*found.values()][place].label
        assert browser.value("document.querySelector('#run0 .hw-label').textContent") == expected
    assert wrong(browser) == []


SLIDE = """(() => {
    const field = document.querySelector('#layer0 input[type=number]');
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(field, '%d');
    for (const name of ['input', 'change']) field.dispatchEvent(new Event(name, {bubbles: true}));
})()"""


def test_a_sound_that_is_too_long_or_none_is_one_line(browser: Browser, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "day.flac", sound_of(61.0, 700), 16_000)
    shown = shown_for(browser, tmp_path / "day.flac")
    assert all("Expected at most 60 s of audio, found more: day.flac. Cut the file." in card for card in shown)


def test_a_browser_is_kept_from_every_other_address(browser: Browser) -> None:
    script = "fetch('http://127.0.0.1:9/').then(() => 'sent', problem => problem.message)"
    found: Any = browser.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
    assert found["result"]["value"] == "Failed to fetch" or "Refused" in found["result"]["value"]
    assert any("Content Security Policy" in text for text in complaints(browser))
    browser.events.clear()
