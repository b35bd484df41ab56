"""The page: opened from the disk in a browser, it predicts what the run does, and opens no connection."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import soundfile
from browser import Browser, complaints, opened

from headwater.commands.use import export as command
from headwater.core.errors import UserError
from headwater.downstream.answer import OneClass, Ratings, Text
from headwater.downstream.asv.answer import Embedding
from headwater.downstream.sd.answer import Turns
from headwater.inference.export import onnx
from headwater.inference.export.export import export_run
from headwater.inference.export.page import page as writer
from headwater.inference.export.page import runtime
from headwater.inference.load import load_run
from headwater.runs.config.resolve import resolve
from headwater.runs.run import run
from headwater.runs.runtime import Runtime

pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
STATE = "document.getElementById('state').textContent"
LABEL = "document.getElementById('label').textContent"
_ROWS = "[...document.querySelectorAll('.row')].map(row => [row.children[0].textContent, +row.children[2].textContent])"
NUMBERS = f"Object.fromEntries({_ROWS})"


@pytest.fixture(scope="module")
def ort() -> str:
    """The archive of onnxruntime-web, where the machine has it."""
    place = os.environ.get("HEADWATER_ORT")
    if not place:
        assert "HEADWATER_REQUIRE_BROWSER_RUNTIME" not in os.environ, "HEADWATER_ORT names no archive of onnxruntime-web"
        pytest.skip(f"set HEADWATER_ORT to the archive of `npm pack onnxruntime-web@{runtime.VERSION}`")
    return place


@pytest.fixture(scope="module")
def page(finished: Path, ort: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run over tones."""
    folder = tmp_path_factory.mktemp("pages") / "out"
    assert command.main([str(finished), str(folder), "--onnx", "--page", "--ort", ort]) == 0
    return folder / "page"


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of sound, and one that is none."""
    folder = tmp_path_factory.mktemp("sounds")
    generator = np.random.default_rng(5)
    for name, seconds, pitch, rate, channels in SOUNDS:
        at = np.arange(round(seconds * rate)) / rate
        sound = 0.3 * np.sin(2 * np.pi * pitch * at) * np.hanning(len(at)) + 0.01 * generator.standard_normal(len(at))
        soundfile.write(folder / name, np.stack([sound] * channels, axis=1), rate)
    soundfile.write(folder / "silence.wav", np.zeros(8000), 16_000)
    soundfile.write(folder / "short.wav", np.full(300, 0.1), 16_000)
    (folder / "text.wav").write_text("no sound")
    return folder


SOUNDS = (
    ("low.wav", 0.4, 210, 16_000, 1),
    ("middle.wav", 0.5, 720, 16_000, 1),
    ("high.wav", 0.4, 2600, 16_000, 1),
    ("stereo.flac", 0.5, 720, 48_000, 2),
    ("long.wav", 41.3, 720, 16_000, 1),
)


@pytest.fixture(scope="module")
def browser(page: Path, sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser with the page, whose microphone plays a file."""
    microphone = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    played = f"--use-file-for-fake-audio-capture={sounds / 'high.wav'}"
    with opened(tmp_path_factory.mktemp("profile"), *microphone, played) as found:
        found.open((page / "index.html").as_uri())
        found.wait(f"{STATE} === 'Ready.'")
        yield found


def predicted(browser: Browser, file: Path) -> str:
    """Choose a file, and return the line that says how that went."""
    browser.value(f"document.getElementById('state').textContent = ''; {STATE}")
    browser.choose("#file", file)
    return browser.wait(f"/^(Computed|Expected)/.test({STATE}) && {STATE}")


@pytest.mark.parametrize("name", [name for name, *_ in SOUNDS])
def test_a_file_is_predicted_as_the_run_does(browser: Browser, sounds: Path, finished: Path, name: str) -> None:
    assert predicted(browser, sounds / name).startswith("Computed in ")
    expected = load_run(finished).predict(str(sounds / name))
    assert browser.value(LABEL) == expected.label
    near = 0.02 if "stereo" in name else 0.0006  # the browser resamples by a filter of its own
    assert browser.value(NUMBERS) == pytest.approx(expected.scores, abs=near)
    assert browser.value("document.querySelector('.best span').textContent") == expected.label
    assert complaints(browser) == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("silence.wav", "Expected sound, found digital silence (zeros). Record it again."),
        ("short.wav", "Expected at least 400 samples at 16 kHz, found 300. Record it again."),
        ("text.wav", "Expected audio that this browser can decode, found something else. Try wav, mp3 or ogg."),
    ],
)
def test_what_cannot_be_predicted_is_one_line(browser: Browser, sounds: Path, name: str, line: str) -> None:
    assert predicted(browser, sounds / name) == line
    assert browser.value("document.getElementById('result').hidden")


def test_the_microphone_is_predicted(browser: Browser) -> None:
    browser.value("document.getElementById('record').click()")
    browser.wait(f"{STATE}.startsWith('Recording')")
    time.sleep(1.2)
    browser.value("document.getElementById('record').click()")
    assert browser.wait(f"/^(Computed|Expected)/.test({STATE}) && {STATE}").startswith("Computed in ")
    assert browser.value(LABEL) in ("high", "middle", "low")
    assert complaints(browser) == []


def test_nothing_comes_from_elsewhere_and_nothing_goes_there(browser: Browser, page: Path) -> None:
    assert len(browser.requested) >= 6
    assert all(url.startswith(page.as_uri()) for url in browser.requested)
    refused = "fetch('http://127.0.0.1:9/').then(() => 'sent', problem => problem.message)"
    found = browser.command("Runtime.evaluate", expression=refused, returnByValue=True, awaitPromise=True)["result"]["value"]
    assert "Refused to connect" in found or "Failed to fetch" in found
    assert any("Content Security Policy" in text for text in complaints(browser))
    browser.events.clear()


def test_windows_are_those_of_predict(browser: Browser) -> None:
    for size in (400, 320_000, 320_001, 700_003):
        parts = np.array_split(np.arange(size), max(1, -(-size // 320_000)))
        found = browser.value(
            f"windowsOf(Float32Array.from({{length: {size}}}, (_, place) => place)).map(part => [part.length, part[0]])"
        )
        assert found == [[len(part), part[0]] for part in parts]


def test_it_fits_a_phone(browser: Browser, sounds: Path) -> None:
    predicted(browser, sounds / "low.wav")
    browser.command("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
    assert browser.value("document.documentElement.scrollWidth <= 390")
    browser.command("Emulation.clearDeviceMetricsOverride")


def test_it_runs_from_a_host_too(page: Path, tmp_path: Path, sounds: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def __init__(self, *given: Any) -> None:
            super().__init__(*given, directory=str(page))

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server, opened(tmp_path) as found:
        Thread(target=server.serve_forever).start()
        found.open(f"http://127.0.0.1:{server.server_port}/")
        found.wait(f"{STATE} === 'Ready.'")
        predicted(found, sounds / "low.wav")
        assert found.value(LABEL) == "low"
        assert complaints(found) == []
        server.shutdown()


def test_a_text_is_read_off_its_frames(rated: Path, ort: str, tmp_path: Path, sounds: Path) -> None:
    head = {"projector_dim": 8, "hidden_dim": 8, "layers": 1, "zero_infinity": True}
    training = {"steps": 10, "batch_size": 8, "eval_every": 10}
    rows = {"task": "asr", "upstream": {"name": "fbank"}, "asr": head, "corpus": {"data": str(rated)}, "training": training}
    run(resolve([rows, {"optimizer": {"lr": 0.02}}]), tmp_path / "run", Runtime("cpu", quiet=True))
    export_run(tmp_path / "run", tmp_path / "out", onnx=True, page=True, ort=ort)
    with opened(tmp_path / "profile") as browser:
        browser.open((tmp_path / "out" / "page" / "index.html").as_uri())
        browser.wait(f"{STATE} === 'Ready.'")
        predicted(browser, sounds / "long.wav")
        found = browser.value(LABEL)
        made_up = "textOf({dims: [1, 6, 4], data: Float32Array.from([0,0,0,9, 0,0,0,9, 9,0,0,0, 0,0,0,9, 0,0,9,0, 0,9,0,0])})"
        names = load_run(tmp_path / "run").vocabulary["characters"]
        assert browser.value(made_up) == "".join([names[2], names[2], names[1], names[0]]).strip()
    assert found == (load_run(tmp_path / "run").predict(str(sounds / "long.wav")).label or "(nothing)")


def test_slots_ratings_and_many_classes_are_drawn(browser: Browser) -> None:
    facts = {"kind": "classes", "names": ["on", "off", "red", "blue"], "threshold": None, "scale": [0, 1]}
    groups = [{"name": "what", "begin": 0, "end": 2}, {"name": "colour", "begin": 2, "end": 4}]
    drawn = shown(browser, {**facts, "groups": groups}, [0.9, 0.1, 0.2, 0.8])
    assert (drawn["label"], drawn["heads"]) == ("on, blue", ["what", "colour"])
    ratings = {
        "kind": "ratings",
        "names": ["arousal"],
        "threshold": None,
        "scale": [1, 7],
        "groups": [{"name": "", "begin": 0, "end": 1}],
    }
    drawn = shown(browser, ratings, [4.0])
    assert (drawn["label"], drawn["widths"]) == ("", ["50%"])
    one = [{"name": "", "begin": 0, "end": 2}]
    assert shown(browser, {**facts, "names": ["no", "yes"], "groups": one, "threshold": 0.2}, [0.7, 0.3])["label"] == "yes"
    many = {**facts, "names": [f"id{place}" for place in range(100)], "groups": [{"name": "", "begin": 0, "end": 100}]}
    drawn = shown(browser, many, [place / 100 for place in range(100)])
    assert (drawn["label"], len(drawn["widths"]), drawn["widths"][0]) == ("id99", 12, "99%")


def shown(browser: Browser, facts: Mapping[str, Any], scores: list[float]) -> dict[str, Any]:
    """Return what the page draws of other facts."""
    script = f"""(() => {{
        const before = {{...FACTS}};
        Object.assign(FACTS, {json.dumps(facts)});
        show({{scores: {json.dumps(scores)}}});
        Object.assign(FACTS, before);
        return {{
            label: {LABEL},
            heads: [...document.querySelectorAll('h2')].map(node => node.textContent),
            widths: [...document.querySelectorAll('.fill')].map(node => node.style.width),
        }};
    }})()"""
    return browser.value(script)


def test_marks_and_labels_are_text_and_no_html(page: Path, tmp_path: Path) -> None:
    hostile = '<img src=x onerror="alert(1)">'
    for file in page.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    facts = (tmp_path / "facts.js").read_text().replace('"marks": []', f'"marks": ["DEMO", {hostile!r}]')
    (tmp_path / "facts.js").write_text(facts)
    with opened(tmp_path / "profile") as browser:
        browser.open((tmp_path / "index.html").as_uri())
        browser.wait(f"{STATE} === 'Ready.'")
        marks = browser.value("[...document.querySelectorAll('.mark')].map(node => node.textContent)")
        assert marks == ["DEMO: not a result to quote", f"{hostile}: not a result to quote"]
        assert browser.value("document.images.length") == 0


def archive(files: Mapping[str, bytes]) -> bytes:
    """Return files as npm packs them."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as made:
        for name, bytes_ in files.items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(bytes_)
            made.addfile(entry, io.BytesIO(bytes_))
    return content.getvalue()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A runtime of a few bytes in place of npm's."""
    files = {runtime.SCRIPT: b"script", runtime.WASM: b"wasm"}
    monkeypatch.setattr(runtime, "HASHES", {name: hashlib.sha256(content).hexdigest() for name, content in files.items()})
    return files


def test_the_runtime_is_fetched_once_and_checked(
    small: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = [archive({**small, "other.js": b"x"})]
    monkeypatch.setattr(runtime, "download", fetched.pop)
    assert runtime.runtime_files(cache=tmp_path) == small
    assert runtime.runtime_files(cache=tmp_path) == small  # from the cache
    (tmp_path / f"onnxruntime-web-{runtime.VERSION}" / runtime.WASM).write_bytes(b"damaged")
    fetched.append(archive({**small, runtime.WASM: b"something else"}))
    with pytest.raises(
        UserError, match=r"Expected ort-wasm-simd-threaded\.wasm of onnxruntime-web .* at 'https:.*', found another\. Use"
    ):
        runtime.runtime_files(cache=tmp_path)


def test_the_runtime_of_a_user_is_checked(small: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "ort.tgz").write_bytes(archive(small))
    assert runtime.runtime_files(tmp_path / "ort.tgz") == small
    folder = tmp_path / "node_modules" / "onnxruntime-web" / "dist"
    folder.mkdir(parents=True)
    for name, content in small.items():
        (folder / name).write_bytes(content)
    assert runtime.runtime_files(tmp_path) == small
    (tmp_path / "none.tgz").write_bytes(archive({}))
    (tmp_path / "page.html").write_text("<html>")
    for place, line in (
        ("none.tgz", r"Expected ort\.wasm\.bundle\.min\.mjs of onnxruntime-web .* at '.*none\.tgz', found none\. Use `npm pack"),
        ("page.html", r"Expected the archive of onnxruntime-web .* at '.*page\.html', found: .*\. Fetch it again\."),
        ("nowhere", r"Expected onnxruntime-web .* at '.*nowhere' \(--ort\), found none\. Use `npm pack"),
    ):
        with pytest.raises(UserError, match=line):
            runtime.runtime_files(tmp_path / place)


def test_without_a_network_the_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> Any:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(runtime.urllib.request, "urlopen", offline)
    with pytest.raises(
        UserError, match=r"for --page from https:.*, found no way to it \(Network is unreachable\)\. Use `npm pack .* --ort"
    ):
        runtime.download()


REFUSED: dict[str, Callable[[], Any]] = {
    "an embedding": lambda: Embedding(dim=4, threshold=0.5),
    "turns": lambda: Turns(2),
    "tokens": lambda: Text(("a", "["), "tokens"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_page_cannot_show_is_refused(kind: str) -> None:
    with pytest.raises(UserError, match=r"Expected a task that predicts classes, slots, .* for --page, found one that predicts"):
        writer.refuse_answer(REFUSED[kind]())


@pytest.mark.parametrize("answer", [OneClass(("a", "b")), Ratings(("arousal",)), Text(("a",)), Text(("a",), "phones")])
def test_what_a_page_can_show_is_taken(answer: Any) -> None:
    writer.refuse_answer(answer)


def test_flags_that_belong_together(finished: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    with pytest.raises(UserError, match=r"Expected --onnx beside --page, which shows the graph, found none\. Add it"):
        command.main([str(finished), out, "--page"])
    with pytest.raises(UserError, match=r"Expected --page beside --ort"):
        command.main([str(finished), out, "--onnx", "--ort", "x"])
    with pytest.raises(UserError, match=r"Expected no --page beside --hub"):
        command.main([str(finished), out, "--hub", "--page"])
    assert not (tmp_path / "out").exists()


def test_a_graph_too_large_for_a_browser_leaves_the_folder_whole(
    finished: Path, tmp_path: Path, small: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ort.tgz").write_bytes(archive(small))
    monkeypatch.setattr(writer, "MOST_MB", 1e-6)
    monkeypatch.setattr(onnx, "traced", lambda _, path: path.write_bytes(b"a graph"))
    monkeypatch.setattr(onnx, "compare", lambda *_: onnx.Compared((0.5,), (0.0,)))
    words = [str(finished), str(tmp_path / "out"), "--onnx", "--page", "--ort", str(tmp_path / "ort.tgz")]
    assert command.main(words) == 3
    assert capsys.readouterr().err.splitlines()[-1].startswith("no page: Expected a graph of at most 1e-06 MB for --page, found")
    assert (tmp_path / "out" / "model.onnx").is_file()
    assert not (tmp_path / "out" / "page").exists()


def test_a_page_is_cut_into_files_that_a_browser_can_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_CHUNK", 4)
    names = [*writer.chunked(tmp_path, "model", b"abcdefghij")]
    assert names == ["model-1.js", "model-2.js", "model-3.js"]
    assert (tmp_path / "model-3.js").read_text() == 'headwaterChunk("model", "aWo=");\n'
