"""The pages of the documentation, and the commands, links and headings on them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from site_pages import PAGES

import headwater

ROOT = Path(headwater.__path__[0]).resolve()
PATTERNS = (
    "*.md",
    "docs/*.md",
    "docs/guides/*.md",
    "downstream/*/README.md",
    "benchmarks/*.md",
    "examples/*/*.md",
    ".github/**/*.md",
)
MADE = {ROOT / "docs" / "reference" / f"{name}.md": make for name, make in PAGES.items()}
FIRST = (
    "headwater",
    "python",
    "python3",
    "pip",
    "make",
    "torchrun",
    "docker",
    "cp",
    "git",
    "export",
    "cd",
    ".",
)  # words of a shell
NOT_RUN = re.compile(r"<!-- not run: (?P<why>[^>]+) -->")
_PARSER = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Block:
    """A block of code that holds commands, each as one line."""

    page: str
    line: int
    commands: tuple[str, ...]
    why_not: str  # "": its commands are checked

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Return the pages that somebody wrote."""
    return sorted({path for pattern in PATTERNS for path in ROOT.glob(pattern)} - {*MADE})


def text_of(path: Path) -> str:
    """Return a page, written or made."""
    return MADE[path]() if path in MADE else path.read_text(encoding="utf-8")


def blocks(path: Path) -> Iterator[Block]:
    """Yield the blocks of a page that hold commands: those of a shell, and those without a word that begin as a command does."""
    before, name = "", str(path.relative_to(ROOT))
    for token in _PARSER.parse(text_of(path)):
        if token.type in ("fence", "code_block"):
            shell = token.info in ("sh", "console", "bash")
            commands = commands_of(token.content, shell)
            marked = NOT_RUN.search(before)
            if shell or (not token.info and commands):
                assert token.map, f"expected a block of {name} to know its line"
                yield Block(name, token.map[0] + 1, commands, marked["why"] if marked else "")
        before = token.content if token.type == "html_block" else ""


def commands_of(content: str, shell: bool) -> tuple[str, ...]:
    """Return the commands of a block, continued lines joined: every line of a shell's, else those that begin as one does."""
    lines = [line.strip().removeprefix("$ ") for line in content.replace("\\\n", " ").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#") and line.split()[0] not in ("for", "done")]
    return tuple(line for line in lines if shell or line.split()[0] in FIRST)


def words_of(command: str) -> list[list[str]]:
    """Return the words of each part of a command that `&&` joins, without the file that its output goes to."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split, lexer.commenters = True, "#"
    parts: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set(";&|<>"):
            parts.append([word] if set(word) <= {"<", ">"} else [])
        else:
            parts[-1].append(word)
    return [part for part in parts if part and not set(part[0]) <= {"<", ">"}]


def links(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the local links of a page: file (of the same page: none), and anchor."""
    for token in _PARSER.parse(text_of(path)):
        for child in token.children or []:
            target = str(child.attrGet("href") or child.attrGet("src") or "")
            if target and not re.match(r"[a-z]+:", target):
                file, _, anchor = target.partition("#")
                yield file, anchor


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    tokens = _PARSER.parse(text_of(path))
    found: dict[str, int] = {}
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            plain = "".join(child.content for child in inline.children or [] if child.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
            found[slug] = found.get(slug, -1) + 1
    return {*found} | {f"{slug}-{number}" for slug, count in found.items() for number in range(1, count + 1)}
