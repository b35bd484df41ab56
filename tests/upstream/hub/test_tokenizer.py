"""Tokenizers: each of the forms in which a folder holds one, none at all, a damaged one, another model's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headwater.core.errors import UserError
from headwater.upstream.hub.tiny import tiny_model, tiny_tokenizer
from headwater.upstream.hub.tokenizer import _print_once
from headwater.upstream.load import load_upstream
from headwater.upstream.store.space import fingerprint

TEXT = "What did you find there? 1 old house, isn't it"


def save(name: str, folder: Path, tokenizer: bool = True, **settings: Any) -> Path:
    """Save a tiny text model, with its tokenizer or without one."""
    tiny_model(name, **settings).save_pretrained(folder)
    if tokenizer:
        tiny_tokenizer(name).save_pretrained(folder)
    return folder


def write_vocabulary(name: str, folder: Path) -> None:
    """Write the files that older checkpoints have in place of tokenizer.json."""
    described = json.loads(tiny_tokenizer(name).backend_tokenizer.to_str())["model"]
    if name in {"test_bert", "test_distilbert"}:
        (folder / "vocab.txt").write_text("\n".join(described["vocab"]) + "\n", encoding="utf-8")
        return
    (folder / "vocab.json").write_text(json.dumps(described["vocab"]), encoding="utf-8")
    merges = [" ".join(pair) for pair in described["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")


def cache(hub_id: str, root: Path) -> Path:
    """Return an empty snapshot of a hub id in a cache folder."""
    repository = root / f"models--{hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc", encoding="utf-8")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    return repository / "snapshots" / "abc"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub that starts empty."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("name", ["test_bert", "test_distilbert", "test_roberta", "test_gpt2"])
def test_a_vocabulary_reads_as_its_tokenizer_json_does(name: str, tmp_path: Path) -> None:
    folder = save(name, tmp_path, tokenizer=False)
    write_vocabulary(name, folder)
    found: Any = load_upstream(str(folder))
    assert not (folder / "tokenizer.json").exists()
    assert found._tokens(TEXT) == tiny_tokenizer(name)(TEXT).input_ids
    assert found.tokenizer_hash == load_upstream(name).tokenizer_hash


def test_a_tokenizer_of_its_own_counts_as_other_weights(tmp_path: Path) -> None:
    folder = save("test_bert", tmp_path)
    before = load_upstream(str(folder))
    described = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    described["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    after = load_upstream(str(folder))
    assert before.tokenizer_hash != after.tokenizer_hash
    assert before.weights_hash() != after.weights_hash()
    assert fingerprint(before) != fingerprint(after)


def test_padding_and_cutting_that_a_file_requests_are_passed_over(tmp_path: Path) -> None:
    folder = save("test_bert", tmp_path)
    tokenizer = tiny_tokenizer("test_bert").backend_tokenizer
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert load_upstream(str(folder))._tokens(TEXT) == tiny_tokenizer("test_bert")(TEXT).input_ids  # type: ignore[operator]


@pytest.mark.parametrize(("name", "files"), [("test_bert", "vocab.txt"), ("test_gpt2", "vocab.json and merges.txt")])
def test_a_folder_without_tokenizer_is_refused_with_the_files_named(name: str, files: str, tmp_path: Path) -> None:
    folder = save(name, tmp_path, tokenizer=False)
    with pytest.raises(UserError, match=rf"Expected a tokenizer in .* \(tokenizer.json, or {files}\), found none of these"):
        load_upstream(str(folder))


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"model": {"type": "Other"}})])
def test_a_damaged_tokenizer_is_refused(content: str, tmp_path: Path) -> None:
    folder = save("test_bert", tmp_path)
    (folder / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"Expected a whole tokenizer in .*, found: .*Fetch its files again"):
        load_upstream(str(folder))


def test_another_models_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = save("test_bert", tmp_path, vocab_size=100)
    with pytest.raises(
        UserError, match=r"Expected a tokenizer of at most 100 tokens \(vocab_size of config.json\) in .*, found 3"
    ):
        load_upstream(str(folder))


def test_a_model_and_its_tokenizer_in_the_hubs_cache_need_no_network(hub: Path) -> None:
    save("test_bert", cache("google-bert/bert-base-uncased", hub))
    upstream = load_upstream("bert")
    assert upstream.source == "google-bert/bert-base-uncased"
    assert upstream.weights_hash() == load_upstream("test_bert").weights_hash()


def test_weights_in_the_cache_without_their_tokenizer_say_so(hub: Path) -> None:
    save("test_bert", cache("google-bert/bert-base-uncased", hub), tokenizer=False)
    with pytest.raises(UserError, match=r"Expected a tokenizer in .*models--google-bert--bert-base-uncased.*vocab\.txt"):
        load_upstream("bert")


TINYBERT = {"vocab_size": 30522, "hidden_size": 12, "num_hidden_layers": 1, "intermediate_size": 12}


def test_a_tinybert_without_tokenizer_reads_with_that_of_bert_and_says_so_once(
    hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save("test_bert", tmp_path / "TinyBERT_General_4L_312D", tokenizer=False, **TINYBERT)
    write_vocabulary("test_bert", cache("google-bert/bert-base-uncased", hub))
    _print_once.cache_clear()
    for _ in range(2):
        upstream: Any = load_upstream(str(folder))
    assert upstream._tokens(TEXT) == tiny_tokenizer("test_bert")(TEXT).input_ids
    message = capsys.readouterr().err
    assert message.count("has no tokenizer of its own: it reads with that of google-bert/bert-base-uncased") == 1


def test_a_tinybert_without_any_tokenizer_names_what_to_copy(hub: Path, tmp_path: Path) -> None:
    folder = save("test_bert", tmp_path / "tinybert", tokenizer=False, **TINYBERT)
    assert not hub.exists()
    with pytest.raises(UserError, match=r"that of google-bert/bert-base-uncased, .* Copy its vocab\.txt into the model's folder"):
        load_upstream(str(folder))


def test_a_bert_of_the_same_size_of_vocabulary_is_not_read_with_berts_words(hub: Path, tmp_path: Path) -> None:
    write_vocabulary("test_bert", cache("google-bert/bert-base-uncased", hub))
    folder = save("test_bert", tmp_path / "medical", tokenizer=False, **TINYBERT)
    with pytest.raises(UserError, match="found none of these files"):
        load_upstream(str(folder))


def test_a_config_that_names_no_family_takes_that_of_the_name(hub: Path) -> None:
    folder = save("test_bert", cache("huawei-noah/TinyBERT_General_4L_312D", hub))
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del described["model_type"]
    (folder / "config.json").write_text(json.dumps(described), encoding="utf-8")
    assert load_upstream("tinybert").spec.modality == "text"


REPLACE = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"normalizer": {"type": "Sequence", "normalizers": [REPLACE] * 40}}, "that make a text 1.1e+12 times as long"),
        ({"unk_token": "[NOPE]"}, "Expected a tokenizer that reads any text in"),
        ({"offset": 10**6}, "Expected tokens below 1024 (vocab_size of config.json) in"),
    ],
)
def test_a_tokenizer_that_no_model_can_follow_is_refused_at_once(tmp_path: Path, change: dict, words: str) -> None:
    path = save("test_bert", tmp_path) / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content |= {key: value for key, value in change.items() if key == "normalizer"}
    content["model"] |= {key: value for key, value in change.items() if key == "unk_token"}
    content["model"]["vocab"] = {word: number + change.get("offset", 0) for word, number in content["model"]["vocab"].items()}
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError) as problem:
        load_upstream(str(tmp_path))
    assert words in str(problem.value)
    assert "\n" not in str(problem.value)


def test_a_file_of_sentencepiece_names_the_package_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save("test_deberta", tmp_path, tokenizer=False)
    (folder / "spm.model").write_bytes(b"pieces")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"sentencepiece to read its spm\.model with, .*`pip install sentencepiece protobuf`"):
        load_upstream(str(tmp_path))


def test_a_model_whose_hub_folder_has_a_tokenizer_json_alone_asks_for_that(tmp_path: Path) -> None:
    save("test_modernbert", tmp_path, tokenizer=False)
    with pytest.raises(UserError, match=r"\(tokenizer\.json\), found none of these files"):
        load_upstream(str(tmp_path))
