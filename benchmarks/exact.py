"""The exact solver at IEMOCAP's size and at MSP-Podcast's: seconds and memory, beside scikit-learn and the head by steps.

    python benchmarks/exact.py [--rows 5531] [--folds 5] [--rivals]

Layers are made up: dimensions go together as those of a model do, and one layer knows the classes best.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from headwater.training.exact.losses import Multinomial
from headwater.training.exact.probe import Solution, Split, solve_probe

LAYERS, DIM, CLASSES, ROWS = 13, 768, 4, 1024
SHARES = (0.6, 0.2, 0.2)  # of train, dev and test


def made_up(rows: int, seed: int = 0, whole: int = 0) -> tuple[list[Tensor], Tensor]:
    """Return standardised layers in parts (layer, row, dim), and classes; `whole` is the size of the corpus."""
    generator = torch.Generator().manual_seed(0)  # of what all parts of a corpus have in common
    turn = torch.randn(DIM, DIM, generator=generator) * torch.logspace(0, -1.5, DIM)
    scale = (turn.square().sum(dim=0)).sqrt()
    answer = torch.randn(DIM, CLASSES, generator=generator) / DIM**0.5
    kind = torch.float16 if max(rows, whole) * LAYERS * DIM > 2**28 else torch.float32
    parts, classes = [], []
    generator.manual_seed(1 + seed)
    for start in range(0, rows, ROWS):
        hidden = torch.randn(min(ROWS, rows - start), DIM, generator=generator)
        layers = [
            hidden + (0.3 + 0.2 * abs(layer - 8)) * torch.randn(hidden.shape, generator=generator) for layer in range(LAYERS)
        ]
        parts.append(torch.stack([(layer @ turn / scale / layer.std()).to(kind) for layer in layers]))
        classes.append((hidden @ answer + 0.7 * torch.randn(len(hidden), CLASSES, generator=generator)).argmax(dim=1))
    return parts, torch.cat(classes)


def split(parts: list[Tensor], classes: Tensor) -> Split:
    """Return a split of whole parts."""
    weights = torch.full((len(classes),), 1 / len(classes), dtype=torch.float64)
    return Split({"audio": parts}, Multinomial(classes, weights, CLASSES))


def cut(parts: list[Tensor], classes: Tensor, fold: int) -> tuple[Split, Split, Split]:
    """Return train, dev and test of a fold."""
    rows = torch.arange(len(classes)).roll(-fold * len(classes) // 5)
    ends = np.cumsum([int(share * len(rows)) for share in SHARES])
    whole = torch.cat(parts, dim=1)
    found = []
    for chosen in (rows[: ends[0]], rows[ends[0] : ends[1]], rows[ends[1] :]):
        found.append(split([whole[:, piece].contiguous() for piece in chosen.split(ROWS)], classes[chosen]))
    return found[0], found[1], found[2]


def accuracy(found: Solution, test: Split) -> float:
    """Return the share of a test that the kept head gets right."""
    return float((found.kept.heads.outputs(test.blocks)[0].argmax(dim=1) == test.loss.targets).float().mean())  # type: ignore[attr-defined]


def of_scikit_learn(train: Split, dev: Split, test: Split) -> float:
    """Return the accuracy of the layer and penalty that dev chooses of a path of eight, one logistic regression each."""
    from sklearn.linear_model import LogisticRegression

    data = [(torch.cat(list(one.blocks["audio"]), dim=1).numpy(), one.loss.targets.numpy()) for one in (train, dev, test)]  # type: ignore[attr-defined]
    best, kept = -1.0, 0.0
    for layer in range(LAYERS):
        for power in range(8):
            model = LogisticRegression(C=10.0 ** (1 - power * 0.75), max_iter=1000)
            model.fit(data[0][0][layer], data[0][1])
            score = model.score(data[1][0][layer], data[1][1])
            if score > best:
                best, kept = score, model.score(data[2][0][layer], data[2][1])
    return kept


def of_steps(train: Split, dev: Split, test: Split, steps: int = 10_000) -> float:
    """Return the accuracy of linear 256 -> linear over a weighted sum of all layers, by Adam, the best step by dev."""
    torch.manual_seed(0)
    sums, head = (
        torch.nn.Parameter(torch.zeros(LAYERS)),
        torch.nn.Sequential(torch.nn.Linear(DIM, 256), torch.nn.Linear(256, CLASSES)),
    )
    optimizer = torch.optim.Adam([sums, *head.parameters()], lr=1e-3)
    values, classes = torch.cat(list(train.blocks["audio"]), dim=1), train.loss.targets  # type: ignore[attr-defined]

    def score(one: Split) -> float:
        """Return the accuracy on a split."""
        with torch.no_grad():
            mixed = torch.einsum("l,lrd->rd", sums.softmax(0), torch.cat(list(one.blocks["audio"]), dim=1))
            return float((head(mixed).argmax(1) == one.loss.targets).float().mean())  # type: ignore[attr-defined]

    best = kept = -1.0
    for step in range(steps):
        rows = torch.randint(len(classes), (32,))
        mixed = torch.einsum("l,lrd->rd", sums.softmax(0), values[:, rows])
        loss = torch.nn.functional.cross_entropy(head(mixed), classes[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 200 == 199 and (now := score(dev)) > best:
            best, kept = now, score(test)
    return kept


def main() -> None:
    """Print seconds, accuracy and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5531)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--rivals", action="store_true", help="scikit-learn and the head by steps too, in turns")
    flags = parser.parse_args()
    warnings.filterwarnings("ignore")
    parts, classes = made_up(flags.rows) if flags.folds > 1 else ([], torch.zeros(0))
    ways: dict[str, Callable[[Split, Split, Split], float]] = {
        "exact": lambda train, dev, test: accuracy(solve_probe(train, dev), test)
    }
    if flags.rivals:
        ways |= {"scikit-learn, 8 penalties": of_scikit_learn, "steps, one setting": of_steps}
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for fold in range(flags.folds):
        if flags.folds == 1:  # a corpus that is not held twice
            sizes = [int(share * flags.rows) for share in SHARES]
            train, dev, test = (split(*made_up(size, seed, flags.rows)) for seed, size in enumerate(sizes))
            splits = train, dev, test
        else:
            splits = cut(parts, classes, fold)
        for name, way in ways.items():
            began = time.perf_counter()
            right = way(*splits)
            took[name].append((time.perf_counter() - began, right))
    for name, rows in took.items():
        print(f"{name}: {sum(seconds for seconds, _ in rows):.1f} s, accuracy {np.mean([right for _, right in rows]):.3f}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


if __name__ == "__main__":
    main()
