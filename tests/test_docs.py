"""The documentation: every command on it can be typed, every local link leads somewhere, the reference says all there is."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pages import MADE, ROOT, Block, anchors, blocks, links, pages, text_of, words_of
from site_pages import layouts, options, write_reference

from headwater.__main__ import VERBS, dispatch
from headwater.commands import downstream, mtl
from headwater.commands.common.shell import Parser, TypedPath
from headwater.core.errors import UserError
from headwater.corpus.base import CORPORA
from headwater.downstream.base import TASKS
from headwater.runs.config.recipes import RECIPES
from headwater.upstream.base import UPSTREAMS

SEVERAL = re.compile(r"^tasks\.\w+\.|^[\w-]*\*\.|^(single|transfer)\.")  # which task, parts or scenario of a plan an option is of
FREE = ("corpus.options.", "upstream.config.", "balance.settings.", "balance.weights.", "labels.merge.")  # keys of their own
NAMES = {"downstream": TASKS, "tasks": TASKS, "corpus": CORPORA, "upstream": UPSTREAMS, "text_upstream": UPSTREAMS}
INVENTED = re.compile(r"[./]|^[A-Z_]+(=|$)|^(model|runs|own)$|…")  # a path, a hub id, or a word in capitals that stands for one


class Parsed(Exception):
    """The words of a command were read: nothing is run."""

    def __init__(self, parser: Parser, flags: Any) -> None:
        super().__init__(parser.prog)
        self.verb, self.flags = parser.prog, flags


@pytest.fixture(autouse=True)
def only_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop every command when its words are read; code that a reader would write is not there to be loaded."""

    def stop(read: Any) -> Any:
        def parse(parser: Parser, words: Sequence[str]) -> None:
            raise Parsed(parser, read(parser, words))

        return parse

    monkeypatch.setattr(Parser, "parse_args", stop(ArgumentParser.parse_args), raising=False)
    monkeypatch.setattr(Parser, "parse_intermixed_args", stop(ArgumentParser.parse_intermixed_args), raising=False)
    monkeypatch.setattr(TypedPath, "named", lambda _, word, __: word)


@cache
def all_blocks() -> list[Block]:
    """Return all blocks with commands of all pages."""
    return [block for path in pages() for block in blocks(path)]


def mistake_in(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what is wrong with a command; nothing where it can be typed."""
    kinds = {"headwater": headwater_command, "python": python_command, "python3": python_command, "make": make_target}
    kinds |= {"torchrun": torchrun_command, "pip": pip_command}
    if words[0] in {"cp", "cd", "export"}:
        return ""
    if words[0] not in kinds:
        return f"not checked: mark its block `<!-- not run: why -->` ({words[0]})"
    try:
        kinds[words[0]](words[1:])
    except Parsed as parsed:
        return wrong_names(parsed)
    except (UserError, LookupError) as problem:
        return str(problem)
    except SystemExit as end:
        return "" if not end.code else capsys.readouterr().err
    return ""


def headwater_command(words: Sequence[str]) -> None:
    """Read the words of `headwater`."""
    dispatch(words)


def python_command(words: Sequence[str]) -> None:
    """Read the words of `python`: of our scripts, or check that what it runs is there."""
    if words[0] in {"run_downstream.py", "run_mtl.py"}:
        verb = downstream if words[0] == "run_downstream.py" else mtl
        verb.main([*words[1:]])
    if words[0] != "-m" and words[0] != "-c" and not (ROOT / words[0]).is_file():
        raise LookupError(f"no file {words[0]}")


def torchrun_command(words: Sequence[str]) -> None:
    """Read the words of what torchrun starts."""
    scripts = [place for place, word in enumerate(words) if word.endswith(".py")]
    python_command(words[scripts[0] :])


def make_target(words: Sequence[str]) -> None:
    """Check that the Makefile has the targets."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        if not re.search(rf"^{word}:", text, re.MULTILINE):
            raise LookupError(f"no target {word}")


def pip_command(words: Sequence[str]) -> None:
    """Check the extras that are named."""
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    for extra in re.findall(r"\.\[([\w,-]+)\]", " ".join(words)):
        for name in extra.split(","):
            if f'"{name}": [' not in setup and f'EXTRAS["{name}"]' not in setup:
                raise LookupError(f"no extra {name}")


def wrong_names(parsed: Parsed) -> str:
    """Return which names of tasks, corpora, upstreams, recipes or options are none."""
    given = vars(parsed.flags)
    for flag, registry in NAMES.items():
        for name in str(given.get(flag) or "").split(",") if flag in given else []:
            if name and not INVENTED.search(name) and name not in registry.names() and not name.startswith("new/"):
                return f"'{name}' is no {registry.kind}"
    config = given.get("config")
    if config and not (Path(config).suffix or (RECIPES / f"{config}.yaml").is_file()):
        return f"'{config}' is no recipe"
    if parsed.verb.split()[-1] in {"downstream", "mtl"}:
        return wrong_option([str(word) for word in given.get("override") or []])
    return ""


@cache
def known_options() -> set[str]:
    """Return the full name of every option."""
    return options.names()


def wrong_option(overrides: Sequence[str]) -> str:
    """Return the first option after -o that no recipe has."""
    for word in overrides:
        key = SEVERAL.sub("", word.partition("=")[0])
        parents = {name.rpartition(".")[0] for name in known_options()}
        if not (
            key in known_options() or key in parents or key.startswith(FREE) or "config." in word or word.startswith("args.")
        ):
            return f"no option '{key}'"
    return ""


def test_every_command_on_every_page_can_be_typed_or_is_marked_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    found, wrong = Counter[str](), []
    for block in all_blocks():
        found["blocks"] += 1
        found["marked"] += bool(block.why_not)
        for command in () if block.why_not else block.commands:
            for words in words_of(command):
                found["commands"] += 1
                if problem := mistake_in(words, capsys):
                    wrong.append(f"{block}: {command}\n    {problem}")
    with capsys.disabled():
        print(f"\n{found['blocks']} blocks of commands, {found['commands']} commands read, {found['marked']} blocks marked")
    assert found["commands"] > 120
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("command", "mistake"),
    [
        ("headwater downsteam -u hubert", "downsteam"),
        ("headwater downstream -u hubert --no-such-flag", "Unknown argument '--no-such-flag'"),
        ("python run_downstream.py -u hubert -d emotions", "'emotions' is no task"),
        ("headwater downstream -u hubertt -d emotion", "'hubertt' is no upstream"),
        ("headwater downstream -u hubert -d emotion -c superb/emotions", "is no recipe"),
        ("headwater downstream -u hubert -d emotion -o training.stepz=3", "no option 'training.stepz'"),
        ("headwater plot layer result/downstream/my_run", "Expected one of"),
        ("torchrun --nproc_per_node 2 run_mtl.py --tasks emotion,no", "'no' is no task"),
        ("python benchmarks/none.py", "no file"),
        ("make nothing", "no target"),
        ("pip install -e '.[demos]'", "no extra demos"),
        ("rm -rf result", "mark its block"),
    ],
)
def test_a_command_that_cannot_be_typed_is_found(command: str, mistake: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert mistake in mistake_in(words_of(command)[0], capsys)


def test_commands_within_sentences_name_verbs_that_exist() -> None:
    spans = [span for path in pages() for span in re.findall(r"`headwater ([a-z_-]+)[^`\n]*`", without_blocks(text_of(path)))]
    assert len(spans) > 60
    former = {"upstreams", "layer-weights", "doctor", "geometry", "relations"}  # in the changelog
    assert {*spans} - {*VERBS} <= former


def without_blocks(text: str) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def local_links() -> Iterator[tuple[Path, Path, str]]:
    """Yield each local link of all pages, written and made: page, target, anchor."""
    for page in [*pages(), *MADE]:
        for file, anchor in links(page):
            yield page, (page.parent / file).resolve() if file else page, anchor


def test_every_local_link_leads_to_a_file_and_a_heading_of_it() -> None:
    every = [*local_links()]
    assert len(every) > 150
    broken = []
    for page, target, anchor in every:
        if target not in MADE and not target.exists():
            broken.append(f"{page.relative_to(ROOT)}: no file {target.relative_to(ROOT)}")
        elif anchor and anchor not in anchors(target):
            broken.append(f"{page.relative_to(ROOT)}: no heading {anchor} in {target.relative_to(ROOT)}")
    assert not broken, "\n".join(broken)


def test_every_page_stands_in_the_site_s_list() -> None:
    listed = set()
    for tree in re.findall(r"```\{toctree\}\n(.*?)```", text_of(ROOT / "docs" / "index.md"), re.DOTALL):
        for line in [line for line in tree.splitlines() if line and not line.startswith(":")]:
            name = line.rpartition("<")[2].rstrip(">")
            base = ROOT if name.startswith("/") else ROOT / "docs"
            listed |= {*base.glob(f"{name.lstrip('/')}.md")} | {path for path in MADE if path == base / f"{name}.md"}
    places = [
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "docs" / "guides").glob("*.md"),
        *MADE,
        *ROOT.glob("downstream/*/README.md"),
    ]
    assert {*places} - listed == {ROOT / "docs" / "index.md"}


def test_every_option_has_a_sentence_and_every_number_with_a_range_shows_it() -> None:
    every = [option for _, _, found in options.sections() for option in found]
    assert len(every) > 200
    assert not [option.name for option in every if not option.about]
    shown = {option.name: (option.kind, option.default, option.range) for option in every}
    assert shown["training.steps"] == ("whole number", "10000", "above 0")
    assert shown["exact.penalty"] == ("number or null", "null", "above 0")


def test_the_reference_has_every_verb_task_corpus_and_recipe(tmp_path: Path) -> None:
    write_reference(tmp_path)
    verbs = (tmp_path / "verbs.md").read_text(encoding="utf-8")
    assert all(f"\n### headwater {verb}\n" in verbs for verb in VERBS)
    assert all(f"usage: headwater {words}" in verbs for words in ("list upstreams", "plot layers", "audit", "downstream"))
    for page, names in (("tasks", TASKS.built_in()), ("corpora", CORPORA.built_in()), ("upstreams", UPSTREAMS.built_in())):
        text = (tmp_path / f"{page}.md").read_text(encoding="utf-8")
        missing = [name for name in names if name not in text]
        assert names
        assert not missing, f"{page}: {missing}"
    recipes = (tmp_path / "recipes.md").read_text(encoding="utf-8")
    assert all(f"recipes/{path.relative_to(RECIPES)}" in recipes for path in RECIPES.rglob("*.yaml"))


def test_a_layout_shows_one_of_many_speakers_and_every_split(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        for speaker in ("ann", "ben", "cid"):
            (tmp_path / split / speaker).mkdir(parents=True)
            for number in range(3):
                (tmp_path / split / speaker / f"{number}.wav").touch()
    (tmp_path / "list.txt").touch()
    one = ["  ann/", "    0.wav", "    1.wav", "    …", "  …"]
    assert layouts.tree(tmp_path) == ["dev/", *one, "list.txt", "test/", *one, "train/", *one]


def test_the_reference_shows_the_official_layout_of_every_corpus_with_a_miniature() -> None:
    sections = text_of(ROOT / "docs" / "reference" / "corpora.md").split("\n## ")[1:]
    spoken = [section for section in sections if "| yes, in the same layout |" in section]
    assert len(spoken) > 10
    assert not [section.splitlines()[0] for section in spoken if "```text\n" not in section]


def test_the_readme_has_at_most_130_lines() -> None:
    assert len(text_of(ROOT / "README.md").splitlines()) <= 130


def test_actions_of_the_workflows_are_pinned_by_hash() -> None:
    flows = [path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").glob("*.yml")]
    used = [line for text in flows for line in text.splitlines() if "uses:" in line]
    assert len(used) >= 6
    assert not [line for line in used if not re.search(r"@[0-9a-f]{40} # v\d", line)]


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0].split()
    assert phony == [line.partition(":")[0] for line in text.splitlines() if re.match(r"[a-z]+:.*## ", line)]
