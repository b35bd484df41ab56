"""The server: what `predict` says, for many at once; every limit, and every body that is refused, in one line of json."""

from __future__ import annotations

import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from headwater.commands.common import serving
from headwater.commands.use import serve as command
from headwater.core.errors import UserError
from headwater.inference.load import load_run
from headwater.inference.serving.gather import Gathered
from headwater.inference.serving.limits import Limits
from headwater.inference.serving.replies import facts_of
from headwater.inference.trained_run import TrainedRun
from headwater.runs.config.resolve import resolve
from headwater.runs.run import run
from headwater.runs.runtime import Runtime

uvicorn = pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("fastapi", reason="the extra serve is not installed")
from headwater.inference.serving.web import app_of  # noqa: E402 - behind the packages that it needs

QUICK = {"steps": 2, "batch_size": 8, "eval_every": 2}


@dataclass
class Site:
    """A server on a free port of this machine, in a thread."""

    port: int
    run: Gathered

    def send(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None, method: str = "POST") -> Reply:
        """Return the reply to one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, dict(headers or {}))
        found = connection.getresponse()
        reply = Reply(found.status, dict(found.getheaders()), json.loads(found.read()))
        connection.close()
        return reply

    def predict(self, content: bytes, query: str = "") -> Reply:
        """Send the bytes of one file."""
        return self.send(f"/predict{query}", content, {"Content-Type": "audio/wav"})


@dataclass(frozen=True)
class Reply:
    """What a server replied."""

    status: int
    headers: Mapping[str, str]
    content: Any

    @property
    def scores(self) -> dict[str, float]:
        """The scores of the one file."""
        assert self.status == 200, self.content
        (found,) = self.content["predictions"]
        return found["scores"]


@contextmanager
def served(folder: Path, limits: Limits | None = None) -> Iterator[Site]:
    """Serve a run."""
    found = load_run(folder)
    gathered = Gathered.started(found)
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    config = uvicorn.Config(app_of(gathered, facts_of(found), limits or Limits()), log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield Site(listening.getsockname()[1], gathered)
    finally:
        server.should_exit = True
        thread.join()
    assert not gathered.gatherer.thread.is_alive()


@pytest.fixture(scope="module")
def site(finished: Path) -> Iterator[Site]:
    """A server with small limits."""
    with served(finished, Limits(most_mb=0.5, most_seconds=5, idle_seconds=0.5)) as found:
        yield found


def wav(samples: np.ndarray, rate: int = 16_000, form: str = "WAV") -> bytes:
    """Return a file of samples."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form)
    return file.getvalue()


def tone(seconds: float, pitch: float = 700.0) -> np.ndarray:
    """Return a tone."""
    return 0.3 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * 16_000)) / 16_000)


def form(*parts: tuple[str, str | None, bytes]) -> tuple[bytes, dict[str, str]]:
    """Return a form of fields (name, name of the file, content) and its header."""
    lines = []
    for name, file, content in parts:
        what = f'; filename="{file}"' if file is not None else ""
        lines += [f'--x\r\nContent-Disposition: form-data; name="{name}"{what}\r\n\r\n'.encode(), content, b"\r\n"]
    return b"".join([*lines, b"--x--\r\n"]), {"Content-Type": "multipart/form-data; boundary=x"}


def test_200_requests_at_once_get_what_predict_gives_whatever_their_neighbours(site: Site, finished: Path) -> None:
    generator = np.random.default_rng(0)
    sounds = [
        tone(seconds, pitch)
        for seconds, pitch in zip(generator.uniform(0.1, 2, 200), generator.uniform(100, 3000, 200), strict=True)
    ]
    contents = [wav(sound) for sound in sounds]
    before = site.run.gatherer.forwards, site.run.gatherer.pieces
    start = threading.Barrier(200)

    def request(content: bytes) -> Reply:
        start.wait()
        return site.predict(content)

    with ThreadPoolExecutor(200) as pool:
        replies = [*pool.map(request, contents)]
    alone = load_run(finished)
    for content, reply in zip(contents, replies, strict=True):
        samples, _ = soundfile.read(io.BytesIO(content), dtype="float32")
        expected = alone.predict(samples, sampling_rate=16_000)
        assert reply.content["predictions"][0]["label"] == expected.label
        assert reply.scores == pytest.approx(expected.scores, abs=1e-5)
    forwards, pieces = site.run.gatherer.forwards - before[0], site.run.gatherer.pieces - before[1]
    assert pieces == 200
    assert forwards < 200  # some went together; how many, the machine's load decides: test_gather has what does not depend on it


def test_one_more_than_may_wait_is_sent_away_with_a_time_to_come_back(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go, rows = threading.Event(), TrainedRun.rows

    def slow(self: TrainedRun, batch: Any) -> Any:
        go.wait()
        return rows(self, batch)

    with served(finished, Limits(most_waiting=2)) as site, ThreadPoolExecutor(2) as pool:
        monkeypatch.setattr(site.run.gatherer, "rows", lambda batch: slow(site.run.run, batch))  # type: ignore[arg-type]
        inside = [pool.submit(site.predict, wav(tone(0.5))) for _ in range(2)]
        while site.send("/health", method="GET").content["waiting"] < 2:
            pass
        refused = site.predict(wav(tone(0.5)))
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert refused.content["error"].startswith("Expected room for one more request, found 2 that wait. Try again in")
        go.set()
        assert [found.result().status for found in inside] == [200, 200]
        assert site.predict(wav(tone(0.5))).status == 200


def test_bodies_that_would_not_fit_into_memory_are_sent_away(finished: Path) -> None:
    with served(finished, Limits(most_held_mb=0.01)) as site:
        refused = site.predict(wav(tone(2)))
        assert refused.status == 503
        assert refused.content["error"].startswith("Expected room for one more request, found bodies of 0.01 MB that wait")
        assert site.predict(wav(tone(0.2))).status == 200  # what was held is free again


def test_a_form_of_several_files_is_predicted_one_by_one_and_a_broken_one_has_its_own_line(site: Site) -> None:
    body, headers = form(
        ("file", "a.wav", wav(tone(0.5))),
        ("file", "../x/b.wav", b"RIFF nothing"),
        ("file", "c.flac", wav(tone(1.0), form="FLAC")),
    )
    first, broken, last = site.send("/predict", body, headers).content["predictions"]
    assert (first["file"], broken["file"], last["file"]) == ("a.wav", "b.wav", "c.flac")
    assert broken["error"].startswith("Expected readable audio, found audio that cannot be decoded")
    assert broken["error"].endswith(": b.wav. Replace the file, or leave it out.")
    assert set(first) == {"file", "seconds", "label", "scores"}
    assert (first["seconds"], last["seconds"]) == (0.5, 1.0)


def test_windows_are_predicted_one_by_one(site: Site, finished: Path) -> None:
    sound = np.concatenate([tone(1, 200), np.zeros(16_000), tone(1, 2500)])
    (found,) = site.predict(wav(sound), "?windows=1").content["predictions"]
    low, silent, high = found["windows"]
    alone = load_run(finished)
    for shown, start in ((low, 0), (high, 2)):
        samples, _ = soundfile.read(io.BytesIO(wav(sound)), dtype="float32", start=start * 16_000, frames=16_000)
        expected = alone.predict(samples, sampling_rate=16_000)
        assert (shown["start"], shown["end"], shown["label"]) == (start, start + 1, expected.label)
        assert shown["scores"] == pytest.approx(expected.scores, abs=1e-5)
    assert low["scores"] != high["scores"]
    assert silent["error"].startswith("Expected sound, found digital silence")
    refused = site.predict(wav(sound), "?windows=0.1")
    assert (refused.status, refused.content) == (
        422, {"error": "Expected windows=0.25 to 20 (seconds), found 0.1. For instance: windows=2"}
    )  # fmt: skip


FILE = ("file", "a.wav", wav(tone(0.5)))
SPEECH = {"Content-Type": "audio/wav"}
BAD: dict[str, tuple[Callable[[], tuple[Any, Mapping[str, str]]], int, str]] = {
    "nothing": (lambda: (b"", SPEECH), 400, "Expected audio, found an empty body"),
    "json": (lambda: (b"{}", {"Content-Type": "application/json"}), 415, "Expected the bytes of an audio file"),
    "no audio": (lambda: (b"<html>", SPEECH), 422, "Expected readable audio, found audio that cannot be decoded"),
    "cut": (lambda: (wav(tone(1))[:9000], SPEECH), 422, "Expected readable audio, found a file cut short"),
    "short": (lambda: (wav(tone(0.01)), SPEECH), 422, "Expected at least one frame of audio"),
    "silent": (lambda: (wav(np.zeros(8000)), SPEECH), 422, "Expected sound, found digital silence"),
    "long": (lambda: (wav(tone(6), form="FLAC"), SPEECH), 413, "Expected at most 5 s of audio, found more: audio. Cut"),
    "large": (lambda: (bytes(600_000), SPEECH), 413, "Expected at most 0.5 MB in a request, found more"),
    "large in pieces": (lambda: (iter([bytes(100_000)] * 6), SPEECH), 413, "Expected at most 0.5 MB in a request, found more"),
    "an empty file": (lambda: form(("file", "a.wav", b"")), 422, "Expected audio, found an empty file: a.wav"),
    "no file": (lambda: form(("text", None, b"yes")), 400, "Expected at least one file in the form, found none"),
    "another field": (lambda: form(FILE, ("model", None, b"x")), 400, "Expected fields file and text in the form, found 'model'"),
    "no boundary": (lambda: (b"x", {"Content-Type": "multipart/form-data"}), 400, "Expected a form with files, found one that"),
    "no form": (lambda: (b"x", form()[1]), 400, "Expected a form with files, found one that cannot be read"),
    "too many": (
        lambda: form(*[("file", "a.wav", b"")] * 65),
        400,
        "Expected a form with files, found one that cannot be read (Too many",
    ),
    "a text too many": (
        lambda: form(FILE, ("text", None, b"a"), ("text", None, b"b")),
        400,
        "Expected a text for each of 1 files",
    ),
    "a file that is none": (lambda: form(FILE, ("file", None, b"b.wav")), 400, "Expected files in the field file, words in"),
    "a text that is a file": (lambda: form(FILE, ("text", "a.txt", b"a")), 400, "Expected files in the field file, words in"),
    "a text": (lambda: form(FILE, ("text", None, b"a")), 422, "Expected no text with a.wav for a run on audio only, found one"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_body_is_refused_in_one_line(site: Site, kind: str) -> None:
    make, status, message = BAD[kind]
    reply = site.send("/predict", *make())
    assert (reply.status, set(reply.content)) == (status, {"error"})
    assert reply.content["error"].startswith(message)
    assert "\n" not in reply.content["error"]


def test_a_body_that_stops_is_not_waited_for(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.port)) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\nContent-Length: 1000\r\n\r\nRIFF")
        client.settimeout(20)
        reply = b""
        while not reply.endswith(b"}"):
            reply += client.recv(4000)
    assert b" 408 " in reply
    assert b"Expected the whole body, found a pause of 0.5 s in it" in reply


def test_what_is_not_there_is_one_line(site: Site) -> None:
    for method, path, status in (("GET", "/predict", 405), ("GET", "/docs", 404), ("POST", "/train", 404)):
        reply = site.send(path, method=method)
        wanted = f"Expected POST /predict, GET /info, /health or /openapi.json, found {method} {path}."
        assert (reply.status, reply.content) == (status, {"error": wanted})
    reply = site.predict(FILE[2], "?windows=soon")
    assert (reply.status, reply.content["error"][:60]) == (422, "Expected windows to be a number of seconds, found 'soon'. Fo")


def test_what_is_not_used_behind_the_address_is_refused(site: Site) -> None:
    behind = "behind the '?' of the address, found"
    for query, wanted in (("?window=2", "name, text, windows"), ("?fold=1&windows=2", "name, text, windows")):
        reply = site.predict(FILE[2], query)
        found = f"'{query[1:].partition('=')[0]}'. For instance: windows=2"
        assert (reply.status, reply.content) == (422, {"error": f"Expected {wanted} {behind} {found}"})
    reply = site.send("/predict?text=yes", *form(FILE))
    assert reply.content == {"error": f"Expected windows {behind} 'text'. It is a field of the form"}


def test_the_facts_and_the_description_are_served(site: Site) -> None:
    info = site.send("/info", method="GET").content
    assert (info["task"], info["labels"], info["upstream"]) == ("emotion", ["high", "low", "middle"], "fbank_no_cmvn")
    assert info["gathers"]
    assert info["limits"]["most_mb"] == 0.5
    assert "keep the licence of the model" in info["licence"]
    described = site.send("/openapi.json", method="GET").content
    assert {*described["paths"]} == {"/predict", "/health", "/info"}
    assert "multipart/form-data" in described["paths"]["/predict"]["post"]["requestBody"]["content"]


def test_the_page_holds_nothing_from_elsewhere(site: Site) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
    connection.request("GET", "/")
    page = connection.getresponse().read().decode()
    connection.close()
    assert "<form" in page
    assert "emotion" in page
    assert "gathers" not in page  # a word of /info, for programs
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)


def test_what_is_sent_is_neither_written_nor_printed(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    held = []
    monkeypatch.setattr(tempfile, "_mkstemp_inner", lambda *given: held.append(given) or pytest.fail("a file was written"))
    body, headers = form(("file", "secret-name.wav", wav(tone(4))), ("file", "other.wav", b"no audio"))
    assert site.send("/predict", body, headers).status == 200
    assert not [*tmp_path.iterdir()]
    assert not held
    assert capfd.readouterr() == ("", "")


def test_a_text_goes_with_each_file(rated: Path, tmp_path: Path) -> None:
    rows = {"task": "avd", "upstream": {"name": "fbank_no_cmvn"}, "text_upstream": {"name": "hashed_words"}}
    run(
        resolve([rows, {"corpus": {"data": str(rated)}, "training": QUICK, "avd": {"scale": [1, 7]}}]),
        tmp_path / "run",
        Runtime("cpu", quiet=True),
    )
    with served(tmp_path / "run") as site:
        body, headers = form(FILE, ("file", "b.wav", wav(tone(0.9))), ("text", None, b"so sad"), ("text", None, b"glad"))
        first, second = site.send("/predict", body, headers).content["predictions"]
        refused = site.predict(FILE[2])
    alone = load_run(tmp_path / "run")
    assert first["label"] is None
    for sound, text, found in ((0.5, "so sad", first), (0.9, "glad", second)):
        samples, _ = soundfile.read(io.BytesIO(wav(tone(sound))), dtype="float32")
        assert found["scores"] == pytest.approx(alone.predict(samples, text, sampling_rate=16_000).scores, abs=1e-5)
    assert (refused.status, refused.content["error"]) == (
        422, "Expected a text with audio for a run that reads, found none. Add -F 'text=what is said'."
    )  # fmt: skip


def test_a_model_that_fails_is_one_line_without_what_was_sent(finished: Path) -> None:
    def broken(_: Any) -> Any:
        raise RuntimeError("CUDA out of memory: secret")

    with served(finished) as site:
        site.run.gatherer.rows = broken
        reply = site.predict(FILE[2])
    assert (reply.status, reply.content) == (
        500, {"error": "Expected a prediction, found a RuntimeError in the model. Report it to whoever runs this server."}
    )  # fmt: skip


def test_the_command_serves_until_a_signal_and_answers_what_came_in(finished: Path) -> None:
    words = [sys.executable, "-m", "headwater", "serve", str(finished), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"serving .*finished at http://127\.0\.0\.1:(\d+) \(Ctrl-C ends it\): curl .*\n", line)
        assert found, line
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
        content = FILE[2]
        connection.putrequest("POST", "/predict")
        connection.putheader("Content-Type", "audio/wav")
        connection.putheader("Content-Length", str(len(content)))
        connection.endheaders(content[:100])  # it is inside now
        health = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
        while True:
            health.request("GET", "/health")
            if json.loads(health.getresponse().read())["waiting"]:
                break
        process.send_signal(signal.SIGTERM)
        connection.send(content[100:])
        reply = connection.getresponse()
        assert reply.status == 200
        assert json.loads(reply.read())["predictions"][0]["label"] == "middle"
        _, noted = process.communicate(timeout=60)
        assert (process.returncode, noted) == (0, "every request that came in has been answered\n")


def test_what_cannot_be_served_is_one_line(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_use = pytest.raises(UserError, match=r"Expected a free port at 127\.0\.0\.1:\d+, found: Address already in use\. Choose")
    with socket.create_server(("127.0.0.1", 0)) as taken, in_use:
        command.main([str(finished), "--port", str(taken.getsockname()[1])])
    with pytest.raises(UserError, match=r"Expected a port from 0 \(any free one\) to 65535 after --port, found 70000"):
        command.main([str(finished), "--port", "70000"])
    with pytest.raises(UserError, match=r"Expected a number above 0 after --most-mb, found 0\. Leave it out"):
        command.main([str(finished), "--most-mb", "0"])
    monkeypatch.setattr(serving.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"for `headwater serve`, found no fastapi\. Run: pip install .*serve"):
        command.main([str(finished)])
