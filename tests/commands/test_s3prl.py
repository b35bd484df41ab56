"""s3prl's words: each flag is accepted, translated or refused with its successor, and SUPERB's loop runs as it stands."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shlex
from pathlib import Path

import pytest

from headwater.commands.downstream import main, make_parser
from headwater.commands.s3prl.flags import FLAGS, TABLE, translated
from headwater.commands.s3prl.page import with_tables
from headwater.core.errors import UserError
from headwater.corpus.demo.make import demo_root
from headwater.corpus.load import get_reader

PAGE = Path(__file__).parents[2] / "docs" / "from_s3prl.md"


def test_the_table_has_every_flag_of_s3prl() -> None:
    package = importlib.util.find_spec("s3prl")
    if package is None or not package.submodule_search_locations:
        assert os.environ.get("HEADWATER_REQUIRE_S3PRL") != "1"
        pytest.skip("s3prl is not installed")
    source = (Path(package.submodule_search_locations[0]) / "run_downstream.py").read_text()
    theirs = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            names = tuple(str(name.value) for name in node.args if isinstance(name, ast.Constant))
            theirs.add((names, any(word.arg == "action" for word in node.keywords)))
    assert theirs == {(tuple(flag.names), flag.is_switch) for flag in TABLE}
    assert len(theirs) == 31


@pytest.mark.parametrize("name", [name for flag in TABLE if not flag.refused for name in flag.names])
def test_what_is_not_refused_is_a_flag_of_ours_with_as_many_values(name: str) -> None:
    flag = FLAGS[name]
    ours = {option: action for action in make_parser("headwater downstream")._actions for option in action.option_strings}
    if name not in ours:
        assert flag.kind == "translated", "ours would not know it"
        return
    assert (ours[name].nargs == 0) == flag.is_switch


UNTOUCHED = [
    "-m train -n one -p two -u hubert -k DIR -d emotion -v fold2 -f -l -2 -a --seed 3 --device cpu --upstream_feature_normalize",
    "--mode evaluate --evaluate_split dev --past_exp RUN --init_ckpt RUN --config superb/emotion --downstream emotion",
    "-s hidden_states --upstream_feature_selection last_hidden_state",
    "-o training.steps=4 optimizer.lr=1e-3 --sweep optimizer.lr=1e-4,1e-3",
    "-c",
]
TRANSLATED = {
    "-c downstream/emotion/config.yaml": "-c superb/emotion",
    "--config=./downstream/emotion/config.yaml": "-c superb/emotion",
    "-c s3prl/downstream/voxceleb1/config.yaml -d voxceleb1": "-c superb/sid -d sid",
    "-d speech_commands": "-d ks",
    "-u hubert -d ctc -c downstream/ctc/libriphone.yaml": "-u hubert -d pr -c superb/pr",
    "-c ./s3prl/downstream/ctc/snips.yaml -d ctc": "-c superb/sf -d sf",
    "-d asr -c downstream/asr/config.yaml": "-d asr -c superb/asr",
    "-c downstream/sv_voxceleb1/config.yaml -d sv_voxceleb1": "-c superb/asv -d asv",
    "-e result/downstream/er/dev-best.ckpt": "-e result/downstream/er",
    "-m train -e result/downstream/er/states-2000.ckpt": "-m train -e result/downstream/er",
    "-i result/downstream/er/dev-best.ckpt": "-i result/downstream/er",
    "-s hidden_state_3": "-l 3",
    "--hub torch --backend nccl --verbose -u fbank": "-u fbank",
    "-o None -u fbank": "-u fbank",
    "-o config.runner.total_steps=10,,config.runner.gradient_clipping=2": "-o training.steps=10 optimizer.clip=2",
    "-o config.optimizer.lr=1e-4 -u hubert -f": "-u hubert -f -o optimizer.lr=1e-4 optimizer.upstream_lr=1e-4",
    "-o args.upstream_trainable=True,,config.optimizer.lr=1e-4": (
        "--upstream_trainable -o optimizer.lr=1e-4 optimizer.upstream_lr=1e-4"
    ),
    "-o args.upstream_trainable=False,,args.seed=3": "--seed 3",
    "-o args.config=downstream/emotion/config.yaml": "-c superb/emotion",
    """-o "config.downstream_expert.datarc.test_fold='fold2'" """: "-v fold2",
    "-o config.downstream_expert.datarc.train_batch_size=4,,config.runner.gradient_accumulate_steps=8": (
        "-o training.batch_size=32"
    ),
    "-o config.downstream_expert.modelrc.projector_dim=64 -d speech_commands": "-d ks -o ks.projector_dim=64",
    "-o config.downstream_expert.datarc.root=/data/IEMOCAP": "-o corpus.data=/data/IEMOCAP",
    "-o config.optimizer.name=TorchOptim,,config.optimizer.torch_optim_name=AdamW": (
        "-o optimizer.name=adamw optimizer.weight_decay=0.01"
    ),
    "-o config.optimizer.name=AdamW,,config.downstream_expert.datarc.num_workers=8": "-o optimizer.name=adamw",
    "-o config.runner.total_steps=10 training.patience=3": "-o training.steps=10 training.patience=3",
    "-oconfig.optimizer.lr=1 -u fbank": "-u fbank -o optimizer.lr=1",
    "-dvoxceleb1 -chere/downstream/emotion/config.yaml -uhubert": "-d sid -c superb/emotion -uhubert",
    "-eresult/er/dev-best.ckpt -sup -shidden_state_3": "-e result/er -s up -l 3",
    "-fa -oconfig.optimizer.lr=1": "-f -a -o optimizer.lr=1 optimizer.upstream_lr=1",
    "--downstream=ks -o config.downstream_expert.modelrc.projector_dim=64": "--downstream=ks -o ks.projector_dim=64",
}
REFUSED = {
    "-g conf.yaml": "s3prl's -g. Headwater does not read option files of s3prl: type `-u fbank`",
    "--upstream_model_config conf.yaml": "s3prl's --upstream_model_config.",
    "-gconf.yaml": "s3prl's -g. Headwater does not read",
    "-fr": "s3prl's -r. Delete",
    "-r": "s3prl's -r. Delete the folder of the model in the cache of the hub",
    "--upstream_refresh": "s3prl's --upstream_refresh",
    "--upstream_model_name model.pt": "Name the file of weights: `-u hubert -k FILE`",
    "--upstream_revision main": "hf download ORG/NAME --revision R --local-dir DIR",
    "--push_to_hf_hub True": "`headwater export RUN DIR`",
    "--hf_hub_org me": "`hf upload ORG/NAME DIR`",
    "--cache_dir there": "Set HF_HOME (cache of models) and HEADWATER_CACHE",
    "--disable_cudnn": "Leave it out, or run on the CPU",
    "--hub huggingface": "Expected --hub torch, found --hub huggingface. `-u ORG/NAME`",
    "--backend gloo": "found --backend gloo. Leave it out.",
    "--local_rank 0": "found --local_rank 0 alone. Start several processes with `torchrun",
    "--local-rank=0": "torchrun --nproc_per_node N",
    "-m evaluate -e result/downstream/er/states-2000.ckpt": "Name the folder: -e result/downstream/er",
    "-o config.runner.fp16=True": "found config.runner.fp16. Leave out",
    "-o config.runner.total_step=10": "Did you mean 'total_steps'?",
    "-o config.downstream_expert.datarc.train_batch_size=8": "found 8 alone: a step here has their product",
    "-o args.upstream_refresh=True": "s3prl's --upstream_refresh",
}


@pytest.mark.parametrize("typed", UNTOUCHED)
def test_our_words_stay_as_they_are(typed: str) -> None:
    assert translated(shlex.split(typed)) == shlex.split(typed)


@pytest.mark.parametrize("typed", TRANSLATED)
def test_their_words_are_put_into_ours(typed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert translated(shlex.split(typed)) == shlex.split(TRANSLATED[typed])


@pytest.mark.parametrize("typed", REFUSED)
def test_what_has_no_counterpart_names_its_successor(typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(UserError, match=re.escape(REFUSED[typed])):
        translated(shlex.split(typed))


def test_every_flag_that_is_not_taken_is_in_one_of_these_lists() -> None:
    typed = {word.partition("=")[0] for line in [*TRANSLATED, *REFUSED] for word in shlex.split(line)}
    assert not [flag.long for flag in TABLE if flag.kind != "accepted" and not typed & {*flag.names}]


def test_the_rank_that_a_launcher_adds_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert translated(["--local_rank=1", "-u", "fbank"]) == ["-u", "fbank"]


def test_a_config_of_s3prl_is_not_taken_for_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("downstream/emotion/config.yaml")
    file.parent.mkdir(parents=True)
    file.write_text("runner:\n  total_steps: 30000\ndownstream_expert:\n  datarc: {}\n")
    with pytest.raises(
        UserError, match=r"found s3prl's config 'downstream/emotion/config.yaml'. Its experiment is -c superb/emotion"
    ):
        translated(["-c", str(file)])


def test_a_checkpoint_of_s3prl_is_not_taken_for_a_run(tmp_path: Path) -> None:
    file = tmp_path / "dev-best.ckpt"
    file.write_bytes(b"PK")
    with pytest.raises(
        UserError, match=r"found a checkpoint of s3prl's. Make a run of it: headwater import .*dev-best.ckpt RUN, then"
    ):
        translated(["-e", str(file)])


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == with_tables(PAGE.read_text(encoding="utf-8")), (
        "run: python -m headwater.commands.s3prl.page docs/from_s3prl.md"
    )


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    """A folder of corpora that holds a small IEMOCAP in its official layout."""
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "iemocap").symlink_to(demo_root(get_reader("iemocap"), scale=0.3))
    return tmp_path / "corpora"


def test_superbs_emotion_loop_runs_as_its_documentation_has_it(
    corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (loop,) = re.findall(r"```sh\n(for test_fold in .*?done)\n```", PAGE.read_text(), flags=re.DOTALL)
    # 30,000 steps would be an hour: two, said in s3prl's words
    loop = loop.replace("$test_fold'\"", "$test_fold',,config.runner.total_steps=2,,config.runner.eval_step=2\"")
    folds = loop.split(" in ")[1].split(";")[0].split()
    commands = [line for line in loop.replace("\\\n", " ").splitlines() if "run_downstream.py" in line]
    assert len(folds) == 5
    assert len(commands) == 2
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_DATA", str(corpora))
    monkeypatch.setattr("headwater.core.figures.save_figure", lambda *_, **__: None)  # half of the time, and not asked here
    for fold in folds:
        for line in commands:
            words = shlex.split(line.replace("$test_fold", fold))
            assert words[:2] == ["python3", "run_downstream.py"]
            assert main(words[2:], prog="python run_downstream.py") == 0
    message = capfd.readouterr().err
    assert (
        "run as    python run_downstream.py -n ExpName_fold5 -m train -u fbank -d emotion -c superb/emotion -v fold5" in message
    )
    for number, fold in enumerate(folds, 1):
        folder = tmp_path / "result" / "downstream" / f"ExpName_{fold}"
        trained, evaluated = (
            json.loads(path.read_text()) for path in (folder / "result.json", *folder.glob("evaluations/*/result.json"))
        )
        assert (trained["protocol"], trained["fold"], trained["steps"]) == ("superb", number, 2)
        assert trained["scores"]["test"]["wa"] == evaluated["scores"]["test"]["wa"]
