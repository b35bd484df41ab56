"""A script for CI: the demo's UA on unseen speakers is well above chance, and not perfect."""

from __future__ import annotations

import json
import sys
from pathlib import Path

CHANCE, ABOVE, PERFECT = 0.25, 0.30, 0.99


def main(folder: str) -> int:
    """Check every finished run below a folder."""
    results = [json.loads(path.read_text()) for path in Path(folder).rglob("result.json")]
    trained = [result for result in results if result["marks"] == ["DEMO"]]
    assert trained, f"Expected a finished demo run below {folder}, found none."
    for result in trained:
        score = result["scores"]["test"]["ua"]
        print(f"demo: UA {score:.3f} on unseen speakers (chance {CHANCE})")
        assert CHANCE + ABOVE <= score < PERFECT, f"Expected UA from {CHANCE + ABOVE:.2f} to {PERFECT}, found {score:.3f}."
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
