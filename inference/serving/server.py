"""Run an application until a signal ends it; requests that came in are answered first."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

_PATIENCE = 30  # seconds for what is under way when the server is to end
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):
    """A server that ends with an exit code of 0, and says when it takes requests."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.ready = ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End in order at the first signal, at once at the second."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take requests from now on."""
        await super().startup(sockets)
        self.ready()


def serve(app: Any, address: socket.socket, ready: Callable[[], None]) -> None:
    """Serve an application on a bound socket until SIGINT or SIGTERM; who asks for what is in no log."""
    config = uvicorn.Config(app, access_log=False, log_level="warning", timeout_graceful_shutdown=_PATIENCE, server_header=False)
    asyncio.run(Server(config, ready).serve([address]))
