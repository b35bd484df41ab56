"""A browser for tests: chromium, over its own protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


class Browser:
    """A headless browser that takes commands over two pipes (no server, no package)."""

    def __init__(self, program: str, profile: Path, flags: Sequence[str] = ()) -> None:
        read_there, self.write_here = os.pipe()
        self.read_here, write_there = os.pipe()
        quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        words = [program, *quiet, *flags, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        moved = f'exec "$@" 3<&{read_there} 4>&{write_there}'  # where the browser expects its pipes
        self.process = subprocess.Popen(
            ["bash", "-c", moved, "bash", *words],
            pass_fds=(read_there, write_there),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        self.answers = os.fdopen(self.read_here, "rb")
        self.events: list[dict[str, Any]] = []
        self.count = 0
        self.watch = threading.Timer(120, self.process.kill)  # a browser that hangs fails the test
        self.watch.start()
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the answer to a command; what happens meanwhile is kept in `events`."""
        self.count += 1
        session = {"sessionId": self.session} if hasattr(self, "session") else {}
        line = json.dumps({"id": self.count, "method": method, "params": parameters, **session})
        os.write(self.write_here, line.encode() + b"\0")
        while True:
            message = self.next_message()
            if message.get("id") == self.count:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def next_message(self) -> dict[str, Any]:
        content = bytearray()
        while (byte := self.answers.read(1)) != b"\0":
            assert byte, "the browser went away"
            content += byte
        return json.loads(content)

    def open(self, url: str) -> None:
        """Load a page to its end."""
        self.events.clear()
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")
        self.command("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self.next_message())

    def value(self, expression: str) -> Any:
        """Return what a script says of the page."""
        return self.command("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait(self, expression: str, seconds: float = 60.0) -> Any:
        """Return what a script says of the page as soon as it is something."""
        end = time.monotonic() + seconds
        while not (found := self.value(expression)):
            assert time.monotonic() < end, f"never: {expression}; {complaints(self)}"
            time.sleep(0.05)
        return found

    def choose(self, selector: str, *files: Path) -> None:
        """Choose files in a field of the page, as a user does."""
        root = self.command("DOM.getDocument")["root"]["nodeId"]
        field = self.command("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.command("DOM.setFileInputFiles", nodeId=field, files=[str(file) for file in files])

    def picture(self, file: Path, width: int, height: int) -> None:
        """Write a picture of the page in a window of this size."""
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        file.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"]))

    @property
    def requested(self) -> list[str]:
        """The addresses that the page has asked for; what it holds itself is none."""
        asked = [event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith(("data:", "blob:"))]

    def close(self) -> None:
        self.watch.cancel()
        self.process.kill()
        self.process.wait()
        self.answers.close()
        os.close(self.write_here)


@contextmanager
def opened(profile: Path, *flags: str) -> Iterator[Browser]:
    """Open a browser, where the machine has one; with HEADWATER_REQUIRE_BROWSER it must."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        assert "HEADWATER_REQUIRE_BROWSER" not in os.environ, f"none of {', '.join(BROWSERS)} is installed"
        pytest.skip("no browser on this machine")
    found = Browser(program, profile, flags)
    try:
        yield found
    finally:
        found.close()


def complaints(browser: Browser) -> list[str]:
    """Return what a browser has to complain about; what it stopped to load by itself is nothing of that kind."""
    wrong = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed"}
    found = [event for event in browser.events if event["method"] in wrong and not event["params"].get("canceled")]
    return [json.dumps(event)[:300] for event in found]
