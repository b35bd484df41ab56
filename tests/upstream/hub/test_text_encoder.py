"""Text encoders: layers, padding, cutting, dropout, views, pruning, and rebuilding without a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from headwater.core.errors import UserError
from headwater.corpus.batch import Batch
from headwater.upstream.base import TokenCounter, UpstreamConfig
from headwater.upstream.hub.models import rebuild
from headwater.upstream.hub.tiny import tiny_model, tiny_tokenizer
from headwater.upstream.load import list_upstreams, load_upstream
from headwater.upstream.store.space import fingerprint

BUILT_IN = [row.name for row in list_upstreams(modality="text") if row.source == "built in"]
TINY = [name for name in BUILT_IN if name.startswith("test_")]
TEXTS = ["", "Why did you ask?", "I've told you: it's 4 o'clock, in the old place - what more?", "Schöner Tag, 東京!", "no " * 30]
LAST = {"test_gpt2": "ln_f", "test_modernbert": "final_norm", "test_qwen3": "norm"}  # norms of the model's output
CAUSAL = ["test_gpt2", "test_qwen3"]


def save(name: str, folder: Path, **settings: Any) -> Path:
    """Save a tiny model and its tokenizer as the hub has them."""
    tiny_model(name, **settings).save_pretrained(folder)
    tiny_tokenizer(name).save_pretrained(folder)
    return folder


def reference_layers(folder: Path, text: str) -> list[Tensor]:
    """Return transformers' own layers of one text, the last one being the model's output."""
    import transformers

    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        output = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
    return [*output.hidden_states[:-1], output.last_hidden_state]


def test_text_upstreams_without_download_are_found() -> None:
    assert {"hashed_words", "test_bert", "test_xlm_roberta", "test_modernbert", "test_deberta", "test_qwen3"} < {*BUILT_IN}
    assert all(load_upstream(name).spec.modality == "text" for name in BUILT_IN)


@pytest.mark.parametrize("name", TINY)
def test_layers_equal_those_of_transformers(name: str, tmp_path: Path, difference: Any) -> None:
    upstream = load_upstream(str(save(name, tmp_path)))
    assert upstream.source == str(tmp_path)
    assert not upstream.untrained
    for text in TEXTS[1:]:
        expected = reference_layers(tmp_path, text)
        with torch.no_grad():
            found = upstream([text])
        assert len(found.values) == len(expected) == upstream.spec.num_layers
        assert max(difference(ours, theirs) for ours, theirs in zip(found.values, expected, strict=True)) < 1e-5


def worst_difference(name: str, difference: Any) -> float:
    """Return the largest difference of a layer between each text alone and among longer ones."""
    upstream, worst = load_upstream(name), 0.0
    with torch.no_grad():
        together, padded = upstream(TEXTS), upstream([*TEXTS, "the end " * 60])
        for row, text in enumerate(TEXTS):
            alone = upstream([text])
            frames = alone.lengths[0]
            assert frames == together.lengths[row] == padded.lengths[row] == alone.values[0].shape[1] >= 1
            for one, many, more in zip(alone.values, together.values, padded.values, strict=True):
                worst = max(worst, difference(many[row, :frames], one[0]), difference(more[row, :frames], one[0]))
    return worst


@pytest.mark.parametrize("name", BUILT_IN)
def test_alone_equals_padded(name: str, difference: Any) -> None:
    assert worst_difference(name, difference) < 1e-5


@pytest.mark.parametrize("name", sorted({*TINY} - {*CAUSAL}))
def test_dropping_the_attention_mask_would_be_seen(name: str, monkeypatch: pytest.MonkeyPatch, difference: Any) -> None:
    monkeypatch.setattr("headwater.upstream.hub.text_encoder.mask_if_padded", lambda *_: None)
    assert worst_difference(name, difference) > 1e-3


@pytest.mark.parametrize("name", BUILT_IN)
def test_an_empty_text_has_its_defined_tokens(name: str) -> None:
    layers = load_upstream(name)([""])
    expected = 1 if name in {*CAUSAL, "hashed_words"} else 2  # [CLS] and [SEP]; GPT-2 starts a text with its one mark
    assert layers.lengths == (expected,)
    assert all(value.shape[1] == expected and bool(value.isfinite().all()) for value in layers.values)


def test_gpt2_reads_an_empty_text_as_its_end_of_text() -> None:
    upstream = load_upstream("test_gpt2")
    with torch.no_grad():
        assert torch.equal(upstream([""]).values[-1], upstream(["<|endoftext|>"]).values[-1])


@pytest.mark.parametrize("name", BUILT_IN)
def test_tokens_are_counted_without_running(name: str) -> None:
    upstream: Any = load_upstream(name)
    assert isinstance(upstream, TokenCounter)
    assert tuple(upstream.num_tokens(text) for text in TEXTS) == upstream(TEXTS).lengths


@pytest.mark.parametrize("name", TINY)
def test_a_longer_text_is_cut_as_transformers_cuts_it(name: str) -> None:
    upstream: Any = load_upstream(name)
    text = "the cat sat there " * 60
    assert upstream.max_tokens == 128 < upstream.num_tokens(text)
    expected = tiny_tokenizer(name)(text, truncation=True, max_length=128).input_ids
    assert upstream._tokens(text) == expected
    assert upstream([text]).lengths == (128,)


def test_text_comes_from_a_batch() -> None:
    upstream = load_upstream("test_bert")
    batch = Batch(None, (16_000, 8_000), ("one", "two"), texts=("you and me", ""))
    with torch.no_grad():
        assert torch.equal(upstream(batch).values[-1], upstream(["you and me", ""]).values[-1])


def test_an_utterance_without_transcript_is_no_empty_text() -> None:
    for texts in (("you", None), ()):
        with pytest.raises(AssertionError, match="of 2 utterances without a transcript came through"):
            load_upstream("hashed_words")(Batch(None, (1, 1), ("one", "two"), texts=texts))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("one text", "Expected a list of texts, found the text 'one text'"),
        ([torch.ones(400)], "Expected texts, found a Tensor at position 0"),
        ([], "Expected at least one text"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_upstream("test_bert")(given)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_text_upstream_has_no_mask_embedding_and_no_samples(name: str) -> None:
    upstream = load_upstream(name)
    with pytest.raises(ValueError, match="Leave `masked` out"):
        upstream(["you"], masked=torch.ones(1, 1))
    with pytest.raises(ValueError, match=r"found 16000 samples\. Ask `num_tokens\(text\)`"):
        upstream.spec.num_frames(16_000)


@pytest.mark.parametrize("trainable", [False, True], ids=["frozen", "finetuned"])
@pytest.mark.parametrize("name", TINY)
def test_one_step_trains_every_weight_or_none(name: str, trainable: bool, tmp_path: Path) -> None:
    upstream = load_upstream(str(save(name, tmp_path))).requires_grad_(trainable).train(trainable)
    head = nn.Linear(upstream.spec.dim, 2)
    layers = upstream(TEXTS[1:3])
    nn.functional.cross_entropy(head(layers.values[-1].mean(dim=1)), torch.tensor([0, 1])).backward()
    assert head.weight.grad is not None
    assert upstream.front_end() == []
    assert {parameter.grad is not None for parameter in upstream.parameters()} == {trainable}


@pytest.mark.parametrize("name", TINY)
def test_number_of_layers_is_constant_in_train_mode(name: str) -> None:
    upstream = load_upstream(name).train()
    counts = {len(upstream(["so what"]).values) for _ in range(4)}
    assert counts == {5} == {upstream.spec.num_layers} == {len(upstream.blocks()) + 1}


@pytest.mark.parametrize("name", TINY)
def test_dropout_level_reaches_every_dropout_and_zero_makes_train_mode_equal_eval_mode(name: str) -> None:
    upstream = load_upstream(UpstreamConfig(name=name, dropout=0.37))
    levels = [module.p for module in upstream.modules() if isinstance(module, nn.Dropout)]
    if name == "test_qwen3":  # whose attention alone has one
        levels = [block.self_attn.attention_dropout for block in upstream.blocks()]  # type: ignore[union-attr]
    else:
        assert len(levels) > len(upstream.blocks())
    assert {*levels} == {0.37}
    quiet = load_upstream(UpstreamConfig(name=name, dropout=0.0))
    with torch.no_grad():
        expected = quiet(TEXTS).values[-1]
        assert torch.equal(quiet.train()(TEXTS).values[-1], expected)


@pytest.mark.parametrize("name", TINY)
def test_two_views_differ_in_train_mode_and_are_one_in_eval_mode(name: str) -> None:
    upstream = load_upstream(UpstreamConfig(name=name, dropout=0.2))
    assert len(upstream(TEXTS, views=2).lengths) == len(TEXTS)
    layers = upstream.train()(TEXTS, views=2)
    assert layers.lengths == layers.lengths[: len(TEXTS)] * 2, "view-major: the first view's utterances, then the second's"
    for values in layers.values[name == "test_qwen3" :]:  # nothing is dropped in front of its first block
        first, second = values.chunk(2)
        assert not torch.allclose(first, second)


@pytest.mark.parametrize("name", BUILT_IN)
def test_views_without_dropout_repeat_the_batch_in_order(name: str, difference: Any) -> None:
    upstream = load_upstream(UpstreamConfig(name=name, dropout=None if name == "hashed_words" else 0.0)).train()
    with torch.no_grad():
        once, twice = upstream(TEXTS), upstream(TEXTS, views=2)
    assert twice.lengths == once.lengths * 2
    assert difference(twice.values[-1], once.values[-1].repeat(2, 1, 1)) < 1e-5


@pytest.mark.parametrize("name", TINY)
def test_fewer_layers_are_those_of_the_whole_model(name: str) -> None:
    whole, cut = load_upstream(name), load_upstream(UpstreamConfig(name=name, keep_layers=2))
    with torch.no_grad():
        expected, found = list(whole(TEXTS).values[:3]), cut(TEXTS).values
        if name in LAST:
            expected[2] = whole.model.get_submodule(LAST[name])(expected[2])  # type: ignore[union-attr, operator]
    assert cut.spec.num_layers == len(found) == 3
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", TINY)
def test_blocks_behind_the_last_named_layer_do_not_run(name: str) -> None:
    upstream = load_upstream(name)
    every = upstream(TEXTS).values
    ran: list[int] = []
    for index, block in enumerate(upstream.blocks()):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    two, none = upstream(TEXTS, layers=[2, 0]).values
    assert ran == [0, 1]
    assert torch.equal(two, every[2])
    assert torch.equal(none, every[0])


@pytest.mark.parametrize("name", TINY)
def test_a_described_model_is_rebuilt_without_a_file(name: str, tmp_path: Path) -> None:
    upstream = load_upstream(UpstreamConfig(name=str(save(name, tmp_path)), keep_layers=3))
    described = json.loads(json.dumps(upstream.architecture()))
    for path in tmp_path.iterdir():
        path.unlink()
    again = rebuild(described, UpstreamConfig()).eval()
    again.load_state_dict(upstream.state_dict())
    with torch.no_grad():
        pairs = zip(again(TEXTS).values, upstream(TEXTS).values, strict=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    assert again.weights_hash() == upstream.weights_hash()


@pytest.mark.parametrize("name", TINY)
def test_building_leaves_the_random_generator_alone(name: str, tmp_path: Path) -> None:
    folder = save(name, tmp_path)
    hashes = set()
    for seed in (3, 4):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        hashes |= {load_upstream(name).weights_hash(), load_upstream(str(folder)).weights_hash()}
        assert torch.equal(torch.get_rng_state(), state)
    assert len(hashes) == 1, "the same random weights anywhere"


def test_no_two_text_upstreams_share_their_features(tmp_path: Path) -> None:
    found = {name: fingerprint(load_upstream(name)) for name in BUILT_IN}
    assert len({*found.values()}) == len(BUILT_IN)
    assert fingerprint(load_upstream(str(save("test_bert", tmp_path)))) == found["test_bert"]


def test_a_missing_layer_and_a_hidden_one_are_refused(tmp_path: Path) -> None:
    for name, surplus in (("test_bert", "4"), ("test_distilbert", "4"), ("test_gpt2", "4")):
        folder = save(name, tmp_path / name)
        config = json.loads((folder / "config.json").read_text())
        key = next(key for key in ("num_hidden_layers", "n_layers", "n_layer") if key in config)
        (folder / "config.json").write_text(json.dumps(config | {key: 2}))
        with pytest.raises(UserError, match=rf"Expected 2 blocks as config.json says, found weights of {surplus} "):
            load_upstream(str(folder))
        (folder / "config.json").write_text(json.dumps(config | {key: 5}))
        with pytest.raises(UserError, match=r"Expected weights for every layer of config\.json"):
            load_upstream(str(folder))


@pytest.mark.parametrize(
    ("name", "task_model"),
    [
        ("test_bert", "BertForPreTraining"),
        ("test_distilbert", "DistilBertForMaskedLM"),
        ("test_roberta", "RobertaForMaskedLM"),
        ("test_gpt2", "GPT2LMHeadModel"),
        ("test_xlm_roberta", "XLMRobertaForMaskedLM"),
        ("test_modernbert", "ModernBertForMaskedLM"),
        ("test_deberta", "DebertaV2ForMaskedLM"),
        ("test_mpnet", "MPNetForMaskedLM"),
        ("test_qwen3", "Qwen3ForCausalLM"),
    ],
)
def test_a_task_models_checkpoint_loads(name: str, task_model: str, tmp_path: Path) -> None:
    import transformers

    encoder = load_upstream(name)
    whole = getattr(transformers, task_model)(tiny_model(name).config)
    whole.base_model.load_state_dict(encoder.model.state_dict(), strict=False)  # type: ignore[union-attr, operator]
    whole.save_pretrained(tmp_path)
    tiny_tokenizer(name).save_pretrained(tmp_path)
    if name == "test_bert":  # the first checkpoints name the norms' weights otherwise
        old = {
            key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
            for key, value in load_file(tmp_path / "model.safetensors").items()
        }
        assert any("LayerNorm.gamma" in key for key in old)
        torch.save(old, tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
    assert load_upstream(str(tmp_path)).weights_hash() == encoder.weights_hash()


def test_an_option_of_audio_is_refused(tmp_path: Path) -> None:
    folder = save("test_bert", tmp_path)
    with pytest.raises(
        UserError, match=r"BERT has no option 'padding' \(it has: adapter, .*, dropout, dropout_of, keep_layers\)"
    ):
        load_upstream(UpstreamConfig(name=str(folder), padding="s3prl"))
    with pytest.raises(UserError, match=r"Expected keep_layers from 1 to 4 .* found 9.*`-o text_upstream\.keep_layers=4`"):
        load_upstream(UpstreamConfig(name=str(folder), keep_layers=9))


def test_an_audio_model_is_refused_for_text_and_a_text_model_for_audio(tmp_path: Path) -> None:
    folder = save("test_bert", tmp_path)
    for name in ("bert", "test_bert", str(folder)):
        with pytest.raises(UserError, match=r"that listens for -u, found .*, which reads\. Give it to --text-upstream"):
            load_upstream(name, "audio")
    with pytest.raises(UserError, match=r"that reads for --text-upstream, found 'fbank', which listens\. Give it to -u"):
        load_upstream("fbank", "text")
    assert load_upstream(str(folder), "text").spec.modality == "text"


def test_names_are_registered_with_their_hub_ids() -> None:
    sources = {row.name: row.source for row in list_upstreams(modality="text")}
    assert sources["bert"] == "google-bert/bert-base-uncased"
    assert sources["tinybert"] == "huawei-noah/TinyBERT_General_4L_312D"
    assert sources["distilbert"] == "distilbert/distilbert-base-uncased"
    assert sources["roberta"] == "FacebookAI/roberta-base"
    assert sources["gpt2"] == "openai-community/gpt2"


def test_without_network_the_message_says_what_reads_without_a_download() -> None:
    with pytest.raises(UserError) as caught:
        load_upstream("tinybert")
    message = str(caught.value)
    assert "`hf download huawei-noah/TinyBERT_General_4L_312D --local-dir DIR`" in message
    assert "give `--text-upstream DIR`" in message
    assert "`--text-upstream hashed_words`" in message
