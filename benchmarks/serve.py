"""Claim: `headwater serve` predicts for many at once on one core, and nobody waits longer than those before them take.

python benchmarks/serve.py RUN FOLDER_OF_WAVS
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
from itertools import cycle, islice
from pathlib import Path
from statistics import median, quantiles


def main() -> None:
    """Start a server on one core, and send it a folder's files from so many clients at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--requests", type=int, default=600, help="for each number of clients")
    flags = parser.parse_args()
    files = [path.read_bytes() for path in sorted(flags.folder.glob("*.wav"))]
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])  # the server's, which inherits it
    words = [sys.executable, "-m", "headwater", "serve", flags.run, "--port", "0"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    os.sched_setaffinity(0, cores[1:] or cores)  # the clients have the others
    assert server.stdout is not None
    found = re.search(r"http://([\d.]+):(\d+)", server.stdout.readline())
    assert found, "the server did not start"
    address = found[1], int(found[2])
    average = sum(map(len, files)) / 32_000 / len(files)
    print(f"{len(files)} files, {average:.2f} s on average (16-bit, 16 kHz); load {os.getloadavg()[0]:.1f}")
    measure(address, files, 1, 20)  # warm
    for clients in flags.clients:
        before = core_seconds(server.pid)
        began = time.perf_counter()
        taken = measure(address, files, clients, flags.requests)
        seconds = time.perf_counter() - began
        core = core_seconds(server.pid) - before
        p95 = quantiles(taken, n=20)[-1]
        print(
            f"{clients:>3} clients: {len(taken) / seconds:6.1f} requests/s, p50 {1000 * median(taken):6.0f} ms, "
            f"p95 {1000 * p95:6.0f} ms; {len(taken) / core:6.1f} requests a core-second"
        )
    server.send_signal(signal.SIGTERM)
    print("exit code", server.wait(timeout=60))


def measure(address: tuple[str, int], files: list[bytes], clients: int, requests: int) -> list[float]:
    """Return the seconds that each request took, from so many clients that each send one after the other."""
    todo, lock, taken = islice(cycle(files), requests), threading.Lock(), list[float]()

    def work() -> None:
        connection = http.client.HTTPConnection(*address, timeout=120)
        while True:
            with lock:
                content = next(todo, None)
            if content is None:
                return
            began = time.perf_counter()
            connection.request("POST", "/predict", content, {"Content-Type": "audio/wav"})
            reply = connection.getresponse()
            body = reply.read()
            assert reply.status == 200, body
            taken.append(time.perf_counter() - began)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == requests, "a client failed"
    return taken


def core_seconds(process: int) -> float:
    """Return the processor time that a process has taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
