"""Mistakes in a command's words: names, flags, options, recipes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

TRAIN = "python run_downstream.py -u fbank_no_cmvn -d emotion --data tones/tones.csv"

# the mistake in words: what is typed, what the answer must say
WORDS = {
    "a wrong verb": ("headwater predic run a.wav", "no verb 'predic'", "Did you mean 'predict'?"),
    "an option of another section": (f"{TRAIN} -o training.lr=0.01", "'training.lr'", "Did you mean 'optimizer.lr'?"),
    "an option without its section": (f"{TRAIN} -o lr=0.01", "Unknown option 'lr'", "Did you mean 'optimizer.lr'?"),
    "an option of the corpus without its section": (f"{TRAIN} -o protocol=speaker5", "Did you mean 'corpus.protocol'?"),
    "an option of the corpus in another section": (f"{TRAIN} -o training.demo_scale=1", "Did you mean 'corpus.demo_scale'?"),
    "an option of a section in the task's": (f"{TRAIN} -o emotion.steps=5", "'emotion.steps'", "Did you mean 'training.steps'?"),
    "a corpus in capitals": ("python run_downstream.py -u fbank -d emotion --corpus RAVDESS", "Did you mean 'ravdess'?"),
    "a corpus with a dash": ("headwater corpus check MSP-Podcast", "Did you mean 'msp_podcast'?"),
    "a task in capitals": (TRAIN.replace("emotion", "Emotion"), "no task 'Emotion'", "Did you mean 'emotion'?"),
    "an upstream in capitals": (TRAIN.replace("fbank_no_cmvn", "HuBERT"), "no upstream 'HuBERT'", "Did you mean 'hubert'?"),
    "a wrong flag": ("python run_downstream.py --upstreem fbank", "'--upstreem'", "Did you mean '--upstream'?", "--help"),
    "a flag of another command": ("headwater predict run a.wav --skip-broken", "Unknown argument '--skip-broken'"),
    "a flag without its value": ("python run_downstream.py -d emotion -u", "expected one argument", "--help"),
    "an empty word": (f"{TRAIN} -p ''", "a value after -p, found an empty word", "a variable of your shell unset"),
    "a wrong mode": ("python run_downstream.py -m evalute -e run", "'evalute'", "train", "evaluate"),
    "a word where a number belongs": (f"{TRAIN} --seed one", "--seed", "invalid int value: 'one'", "--help"),
    "a word where a layer belongs": (f"{TRAIN} -l last", "a layer after -l, as in `-l 9`", "found 'last'"),
    "a wrong upstream name": (TRAIN.replace("fbank_no_cmvn", "hubrt"), "no upstream 'hubrt'", "Did you mean 'hubert'?"),
    "a pattern that no upstream has": ("headwater list upstreams hubart", "hubart", "Did you mean 'hubert'?"),
    "a wrong task name": (TRAIN.replace("emotion", "emotoin"), "no task 'emotoin'", "Did you mean 'emotion'?"),
    "a wrong corpus name": ("python run_downstream.py -u fbank -d emotion --corpus iemocop", "Did you mean 'iemocap'?"),
    "no upstream": ("python run_downstream.py -d emotion --data tones/tones.csv", "an upstream, found none", "Add `-u fbank`"),
    "no task": ("python run_downstream.py -u fbank", "a task, found none", "Add `-d emotion`"),
    "no corpus to check": ("headwater corpus check", "a corpus after `corpus check`, found none", "`headwater list corpora`"),
    "an option of endless letters": (f"{TRAIN} -o {'a' * 3000}=1", f"Unknown option '{'a' * 100}…'. Known here: task"),
    "an option of a section of endless letters": (f"{TRAIN} -o training.{'b' * 3000}=1", f"'training.{'b' * 91}…'. Known"),
    "an option with a typo": (f"{TRAIN} -o optimizer.lrr=1", "Unknown option 'optimizer.lrr'", "Did you mean 'lr'?"),
    "a section with a typo": (f"{TRAIN} -o emotoin.dropout=0.1", "'emotoin'", "mean 'emotion'?", "task, emotion, corpus, labels"),
    "an option of the wrong type": (f"{TRAIN} -o training.steps=many", "'training.steps' to be a whole number, found 'many'"),
    "a number that is no number": (f"{TRAIN} -o optimizer.lr=nan", "'optimizer.lr' to be a number, found 'nan'"),
    "endless steps": (f"{TRAIN} -o training.steps=inf", "'training.steps' to be a whole number, found 'inf'"),
    "a value out of range": (f"{TRAIN} -o training.batch_size=0", "'training.batch_size' above 0 and at most 1,000,000, found 0"),
    "a batch of astronomic size": (f"{TRAIN} -o training.batch_size=99999999999999999999", "above 0 and at most 1,000,000"),
    "astronomically many masks": (f"{TRAIN} -o masks.time_masks=1e9", "'masks.time_masks' from 0 to 1,000, found 1000000000"),
    "masks wider than any recording": (f"{TRAIN} -o masks.time_width=1e21", "'masks.time_width' from 0 to 1,000,000, found 1"),
    "a size in no unit": (f"{TRAIN} -o store.memory=much", "a size such as 20GB, found 'much'"),
    "a layer that there is not": (f"{TRAIN} -o exact.keep=5", "exact.keep auto, mixture, or a layer from 0 to 0, found '5'"),
    "a dropout out of range": (f"{TRAIN} -o emotion.dropout=1.5", "emotion.dropout", "1.5"),
    "a head of no size": (f"{TRAIN} -o emotion.projector_dim=0", "emotion.projector_dim", "found 0"),
    "a wrong choice": (f"{TRAIN} -o optimizer.name=sgdd", "one of adam, adamw, found 'sgdd'"),
    "a wrong metric": (f"{TRAIN} -o select_by=accuracy", "one of wa, ua, macro_f1, found 'accuracy'"),
    "an option without a value": (f"{TRAIN} -o training.steps", "`-o key=value`, found 'training.steps'", "-o optimizer.lr=1e-4"),
    "yaml that does not close": (f"{TRAIN} -o 'labels.keep=[low, high'", "a yaml value after 'labels.keep='", "Quote it"),
    "a value where a section is": (f"{TRAIN} -o training=fast", "a mapping at 'training', found 'fast'"),
    "a value where the task's section is": (f"{TRAIN} -o emotion=fast", "a mapping at 'emotion', found 'fast'"),
    "two mistakes at once": (f"{TRAIN} -o optimizer.lrr=1 training.steps=x", "'optimizer.lrr'", "'training.steps'"),
    "s3prl's -o with a wrong value": (
        f'{TRAIN} -o "config.optimizer.lr=fast,,args.seed=2"',
        "'optimizer.lr' to be a number, found 'fast'",
    ),
    "s3prl's -o with an unknown key": (
        f'{TRAIN} -o "config.runner.fp16=1"',
        "found config.runner.fp16",
        "Leave out what has none",
    ),
    "a fold out of range": (f"{TRAIN} -o corpus.protocol=speaker5 -v fold6", "'corpus.fold' between 1 and 5", "found 6"),
    "a fold that is no number": (f"{TRAIN} -v last", "a fold after -v, as in `-v 1`", "found 'last'"),
    "an unknown protocol": (f"{TRAIN} -o corpus.protocol=session", "session", "speaker5"),
    "a demo of a corpus that has none": ("python run_downstream.py -u fbank -d emotion --corpus manifest --demo", "no demo"),
    "a layer that is not there": (f"{TRAIN} -l 3", "-l 0, a layer of 'fbank_no_cmvn', found 3", "Leave it out"),
    "a wrong selection": (f"{TRAIN} -s PR", "-s hidden_states or last_hidden_state, found 'PR'"),
    "-f on what has no weights": (f"{TRAIN} -f", "an upstream with weights for -f", "Leave out -f"),
    "-k on what has no weights": (f"{TRAIN} -k run", "takes no weights", "leave out -k"),
    "an option that the upstream lacks": (f"{TRAIN} -o upstream.keep_layers=2", "no option 'keep_layers'", "Leave it out"),
    "--sweep without values": (f"{TRAIN} --sweep optimizer.lr", "`--sweep key=a,b`", "--sweep optimizer.lr=1e-4,1e-3"),
    "--sweep with a typo": (f"{TRAIN} --sweep optimizer.lrr=1,2", "Unknown option 'optimizer.lrr'", "Did you mean 'lr'?"),
    "--seeds that are no numbers": (f"{TRAIN} --seeds a,b", "whole numbers after --seeds", "found 'a,b'"),
    "seeds of what draws nothing": (f"{TRAIN} --seeds 1,2", "one seed for solver=exact, found 2", "add -o solver=adam"),
    "a sweep of solvers": (f"{TRAIN} --sweep solver=exact,adam", "one solver for all runs of a sweep", "compare them"),
    "steps of what has none": (f"{TRAIN} -o solver=exact training.steps=5", "beside solver=exact, found training.steps"),
    "the same seed twice": (f"{TRAIN} -o solver=adam --seeds 1,2,1", "the runs of a plan to differ", "'seed1' and 'seed1' alike"),
    "a sweep that sets what a plan sets": (f"{TRAIN} --sweep seed=1,2", "'seed=1' and 'seed=2' alike", "Leave one out"),
    "two folders for one run": (f"{TRAIN} -n mine -p mine", "found both -n and -p", "Leave one out"),
    "--folds that are not there": (f"{TRAIN} -o corpus.protocol=speaker5 --folds 5,6", "between 1 and 5", "found 6"),
    "--folds that are no numbers": (f"{TRAIN} -o corpus.protocol=speaker5 --folds 1-3", "--folds", "found '1-3'"),
    "no process at all": (f"{TRAIN} --seeds 1,2 --jobs 0", "--jobs", "found 0"),
    "a device that is not there": (f"{TRAIN} --device cuda", "a CUDA device for --device cuda, found none", "--device cpu"),
    "a device that nobody has": (f"{TRAIN} --device gpu", "--device cpu, cuda, cuda:N or mps, found 'gpu'"),
    "half precision on a CPU": (f"{TRAIN} -o training.precision=fp16", "a CUDA device for training.precision=fp16", "bf16"),
    "a recipe that is not there": ("python run_downstream.py -u fbank -c superb/emotoin", "'superb/emotoin'", "superb/emotion"),
    "a head's start that is no run": (f"{TRAIN} -i tones", "a trained run after -i", "no checkpoint in 'tones'"),
    "a size of the demo": ("headwater corpus demo iemocap -o corpus.demo_scale=0", "'corpus.demo_scale' above 0", "found 0"),
}


@pytest.mark.parametrize("mistake", WORDS)
def test_a_wrong_word_is_reported_in_one_line(mistake: str, error_of: Callable[..., str]) -> None:
    typed, *parts = WORDS[mistake]
    message = error_of(typed, lines=2 if mistake.startswith("two") else 1)
    assert all(part in message for part in parts), message


RECIPES = {
    "broken yaml": ("training: {steps: 5", "Expected yaml in 'my.yaml'", "Mend the file"),
    "a list instead of options": ("- steps", "a mapping of options in 'my.yaml', found list"),
    "an unknown key": ("task: emotion\ntraning: {steps: 5}\n", "Unknown option 'traning'", "Did you mean 'training'?"),
    "a value of the wrong type": ("task: emotion\ntraining: {sort_pieces: maybe}\n", "true or false, found 'maybe'"),
    "another task than -d": ("task: speech\n", "the recipe's task 'speech' after -d, found 'emotion'", "Leave out -d"),
    "a section that is empty": ("task: emotion\ntraining:\n", "a mapping at 'training', found None"),
}


def test_a_sweep_over_lists_and_precisions_is_no_mistake(type_in: Callable[[str], tuple[int, str, str]]) -> None:
    code, out, err = type_in(f"{TRAIN} --sweep labels.keep=[low,high],[low,middle] QUICK")
    assert code == 0, err
    assert "labels.keep=[low,middle]" in out
    code, out, err = type_in(f"{TRAIN} --sweep training.precision=bf16,float32 QUICK")
    assert code == 0, err
    assert "training.precision=bf16" in out


@pytest.mark.parametrize("mistake", RECIPES)
def test_a_wrong_recipe_is_reported_in_one_line(mistake: str, error_of: Callable[..., str], desk: Path) -> None:
    content, *parts = RECIPES[mistake]
    (desk / "my.yaml").write_text(content)
    message = error_of(f"{TRAIN} -c my.yaml")
    assert all(part in message for part in parts), message
