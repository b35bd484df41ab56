"""Verbs and flags that are no more, and those of other toolkits: one line says what to type."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from headwater.__main__ import VERBS
from headwater.commands import downstream, mtl
from headwater.commands.common import hints
from headwater.commands.s3prl.flags import TABLE
from headwater.commands.use import predict
from headwater.core.options import parse_override
from headwater.runs.config.resolve import resolve

ErrorOf = Callable[..., str]
TRAIN = "python run_downstream.py -u fbank_no_cmvn -d emotion --data tones/tones.csv"

# what is typed -> what has to be typed
MOVED = {
    "upstreams 'hubert*' --modality audio": "list upstreams 'hubert*' --modality audio",
    "layer-weights run --probe": "plot layers run --probe",
    "geometry a b --out 'my plots'": "plot geometry a b --out 'my plots'",
    "relations table.csv": "plot relations table.csv",
    "doctor --json here.json": "check --json here.json",
    "corpus list": "list corpora",
}


@pytest.mark.parametrize("typed", MOVED)
def test_a_former_verb_is_refused_with_the_whole_command_of_today(typed: str, error_of: ErrorOf) -> None:
    line_shown = error_of(f"headwater {typed}")
    assert line_shown.startswith("error: There is no ")
    assert line_shown.endswith(f" any more. Type: headwater {MOVED[typed]}")


def test_every_former_verb_is_tried_and_leads_to_a_verb_of_today() -> None:
    assert {*hints.MOVED, "corpus"} == {typed.split()[0] for typed in MOVED}
    assert {words[0] for words in hints.MOVED.values()} <= {*VERBS}
    assert not {*hints.MOVED, *hints.GUESSED} & {*VERBS}


GUESSED = {
    "train -u hubert": "headwater downstream -u hubert -d emotion",
    "finetune": "headwater downstream -f -u hubert",
    "evaluate -e run": "headwater downstream -m evaluate -e RUN",
    "test": "headwater downstream -m evaluate -e RUN",
    "probe": "headwater plot layers --probe RUN",
    "inference": "headwater predict RUN my.wav",
}


@pytest.mark.parametrize("typed", GUESSED)
def test_a_verb_of_another_toolkit_is_refused_with_the_command_that_does_it(typed: str, error_of: ErrorOf) -> None:
    line_shown = error_of(f"headwater {typed}")
    assert f"no verb '{typed.split()[0]}'" in line_shown
    assert GUESSED[typed] in line_shown


@pytest.mark.parametrize("verb", hints.GUESSED)
def test_a_guessed_verb_is_refused_with_verbs_that_are_there(verb: str, error_of: ErrorOf) -> None:
    named = [part.split()[1] for part in error_of(f"headwater {verb}").split("`") if part.startswith("headwater ")]
    assert named
    assert {*named} <= {*VERBS, "--version"}


# the flag as it was typed -> the option of today
RETIRED = {
    "--normalize-layers": "upstream.normalize_layers=true",
    "--columns audio=wav,label=emotion,speaker=spk": "corpus.options.columns='{audio: wav, label: emotion, speaker: spk}'",
    "--columns 'label=my emotion'": "corpus.options.columns.label='my emotion'",
    "--columns wav_path": "corpus.options.columns='{audio: HEADER, label: HEADER}'",
    "--audio-root '/my files'": "corpus.options.audio_root='/my files'",
    "--protocol loso": "corpus.protocol=loso",
    "--protocol=loso": "corpus.protocol=loso",
    "--protocol": "corpus.protocol=VALUE",
    "--demo-scale 0.2": "corpus.demo_scale=0.2",
    "--store-limit 20GB": "store.limit=20GB",
    "--missing-text drop": "corpus.missing_text=drop",
    "--skip-broken": "corpus.skip_broken=true",
    "--text-upstream-ckpt ./weights": "text_upstream.path=./weights",
}


@pytest.mark.parametrize("typed", RETIRED)
def test_a_retired_flag_is_refused_with_its_option_and_the_users_own_value(typed: str, error_of: ErrorOf) -> None:
    assert error_of(f"{TRAIN} {typed}").endswith(f" is an option now: -o {RETIRED[typed]}")
    assert parse_override(shlex.split(RETIRED[typed])[0])


def test_several_retired_flags_are_reported_together(error_of: ErrorOf) -> None:
    line_shown = error_of(f"{TRAIN} --protocol loso --skip-broken --store-limit 1GB")
    options = "corpus.protocol=loso corpus.skip_broken=true store.limit=1GB"
    assert line_shown == f"error: --protocol loso, --skip-broken and --store-limit 1GB are options now: -o {options}"


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("headwater mtl -u hubert --tasks emotion,ks --demo --demo-scale 0.2", "tasks.TASK.corpus.demo_scale=0.2"),
        ("headwater predict run --corpus emodb --demo --demo-scale 0.2", "corpus.demo_scale=0.2"),
        ("headwater predict run my.wav --text-upstream-ckpt bert", "text_upstream.path=bert"),
        ("headwater export run out --text-upstream-ckpt bert", "text_upstream.path=bert"),
        ("headwater corpus check tones/tones.csv --protocol speaker5", "corpus.protocol=speaker5"),
        ("headwater corpus check tones/tones.csv --columns label=directed", "corpus.options.columns.label=directed"),
        ("headwater corpus demo iemocap --demo-scale 0.1", "corpus.demo_scale=0.1"),
    ],
)
def test_other_verbs_had_them_too(command: str, option: str, error_of: ErrorOf) -> None:
    assert error_of(command).endswith(f" is an option now: -o {option}")


def test_every_retired_flag_is_tried_and_no_parser_has_it_any_more() -> None:
    assert {*hints.DOWNSTREAM} == {typed.split()[0].partition("=")[0] for typed in RETIRED}
    parsers = (downstream.make_parser("x"), mtl.make_parser("x"), predict.make_parser())
    there = {flag for parser in parsers for action in parser._actions for flag in action.option_strings}
    assert not there & {*hints.DOWNSTREAM, *hints.MTL, *hints.PREDICTION}


def test_s3prls_own_flags_are_all_there_and_what_only_plans_write_is_hidden() -> None:
    actions = downstream.make_parser("x")._actions
    there = {flag for action in actions for flag in action.option_strings}
    assert {name for flag in TABLE if flag.kind == "accepted" for name in flag.names} <= there
    hidden = [flag for action in actions if action.help == argparse.SUPPRESS for flag in action.option_strings]
    assert hidden == ["--share-layers"]
    assert [action.dest for action in mtl.make_parser("x")._actions if action.help == argparse.SUPPRESS] == []


@pytest.mark.parametrize(
    ("typed", "instead"),
    [
        ("--task emotion", "Type -d emotion."),
        ("--task=emotion", "Type -d emotion."),
        ("--model hubert", "Type -u hubert."),
        ("--lr 1e-3", "Type -o optimizer.lr=1e-3."),
        ("--batch-size 8", "Type -o training.batch_size=8."),
        ("--finetune", "Type -f."),
        ("--output_dir here", "Type -p here."),
        ("--resume", "Type the same command again"),
    ],
)
def test_a_flag_of_another_toolkit_is_refused_with_ours(typed: str, instead: str, error_of: ErrorOf) -> None:
    line_shown = error_of(f"python run_downstream.py {typed}")
    assert f"Unknown argument '{typed.split()[0]}'. {instead}" in line_shown


def test_every_option_in_the_help_of_downstream_is_one() -> None:
    typed = [word for line in downstream.OPTIONS.splitlines()[2:] for word in shlex.split(re.split(r" {3,}", line.strip())[0])]
    assert len(typed) > 12
    upstreams = {"upstream": {"name": "hubert"}, "text_upstream": {"name": "bert"}}
    recipe = {"task": "emotion", **upstreams, "corpus": {"name": "manifest"}}
    mappings = [parse_override(word) for word in typed if not word.startswith("corpus.protocol=")]
    assert resolve([recipe, *mappings]).store.limit == "20GB"
    assert {option.option for option in hints.DOWNSTREAM.values()} <= {word.partition("=")[0] for word in typed}


def test_a_flag_that_the_verb_has_not_is_not_advised(error_of: ErrorOf) -> None:
    assert "Type" not in error_of("headwater compare run run --model hubert")


@pytest.mark.parametrize(
    ("word", "message"),
    [("", "a word after `headwater plot` (layers, geometry, relations), found none"), ("layer", "Did you mean 'layers'?")],
)
def test_a_second_word_that_is_missing_or_wrong(word: str, message: str, error_of: ErrorOf) -> None:
    assert message in error_of(f"headwater plot {word}")


LAYOUTS = {
    "ravdess": "Actor_01/03-01-05-01-01-01-01.wav",
    "emodb": "wav/03a01Fa.wav",
    "cremad": "AudioWAV/1001_DFA_ANG_XX.wav",
}


@pytest.mark.parametrize("above", ["", "unpacked/"])
@pytest.mark.parametrize("corpus", LAYOUTS)
def test_a_corpus_folder_without_its_name_is_recognised(corpus: str, above: str, desk: Path, error_of: ErrorOf) -> None:
    file = desk / "DATA" / above / LAYOUTS[corpus]
    file.parent.mkdir(parents=True)
    file.touch()
    line_shown = error_of("python run_downstream.py -u fbank_no_cmvn -d emotion --data DATA")
    assert "Expected the folder of iemocap, the usual corpus of 'emotion', at DATA, found the layout of" in line_shown
    assert line_shown.endswith(f"found the layout of {corpus}. Add --corpus {corpus}.")
    line_shown = error_of("headwater corpus check --data DATA")
    assert f"a corpus after `corpus check`, found the layout of {corpus} in 'DATA'" in line_shown
    assert line_shown.endswith(f"Name it: headwater corpus check {corpus} --data DATA")


def test_a_folder_of_a_corpus_that_does_not_serve_the_task_is_recognised(desk: Path, error_of: ErrorOf) -> None:
    (desk / "DATA" / "train-clean-100").mkdir(parents=True)
    line_shown = error_of("python run_downstream.py -u fbank_no_cmvn -d emotion --data DATA")
    assert line_shown.endswith("found the layout of librispeech. It does not serve task 'emotion'.")


def test_the_options_of_other_verbs_are_read_strictly(error_of: ErrorOf) -> None:
    predicting = "headwater predict run --corpus emodb --demo"
    assert "Expected -o corpus.KEY=VALUE or text_upstream.KEY=VALUE or asr.KEY=VALUE, found 'corpsu'." in error_of(
        f"{predicting} -o corpsu.protocol=x"
    )
    assert "Unknown option 'corpus.protocl'. Did you mean 'protocol'?" in error_of(f"{predicting} -o corpus.protocl=x")
    assert "--corpus NAME beside -o corpus." in error_of("headwater predict run my.wav -o corpus.protocol=x")
    assert "found 'trainable'" in error_of("headwater export run out -o text_upstream.trainable=true")
    assert "after `corpus demo`, found corpus.protocol" in error_of("headwater corpus demo emodb -o corpus.protocol=x")
    assert "a task, an upstream or a corpus beside --demo" in error_of("headwater check --demo")
    assert "--json for the check of this machine" in error_of("headwater check emotion --json x.json")
    assert "--corpus NAME beside -o corpus.protocol" in error_of("headwater check emotion -o corpus.protocol=x")
