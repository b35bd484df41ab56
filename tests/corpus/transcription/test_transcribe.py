"""`headwater corpus transcribe`: a tiny random Whisper whose words are garbage, and always the same garbage."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from headwater.__main__ import dispatch
from headwater.commands.common.shell import run_command
from headwater.core.errors import UserError
from headwater.corpus.base import Corpus, Utterance
from headwater.corpus.transcription import transcribe as transcribing
from headwater.corpus.transcription.recogniser import Recogniser, cut_at_pauses, find_asr
from headwater.corpus.transcription.transcribe import normalizer_of, transcripts_of, with_transcripts, word_errors
from headwater.corpus.transcription.transcripts import TranscriptCache
from headwater.inference.texts import lookup_transcripts

WORDS = ["<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>"]
WORDS += ["<|nospeech|>", "<|notimestamps|>"]
HUMAN = ["the cat sat down", "It's  LATE!", "[laughter]", "", "colour me twenty two"]
TypeIn = Callable[..., tuple[int, str, str]]


def made(folder: Path, *, languages: tuple[str, ...] = ("en", "de")) -> Path:
    """A Whisper in the hub's format; without languages it is an English-only one."""
    vocab = {letter: number for number, letter in enumerate(sorted(bytes_to_unicode().values()))}
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ġ", "a")]
    vocab |= {"".join(pair): len(vocab) + number for number, pair in enumerate(merges)}
    tokenizer = WhisperTokenizer(vocab=vocab, merges=merges)
    tokenizer.add_special_tokens({"additional_special_tokens": WORDS})
    number = tokenizer.convert_tokens_to_ids
    end = number("<|endoftext|>")
    tokens = {"decoder_start_token_id": number(WORDS[0]), "eos_token_id": end, "pad_token_id": end, "bos_token_id": end}
    sizes: dict[str, Any] = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "max_target_positions": 24, "init_std": 0.3}
    sizes |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)
    sizes |= dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 32) | dict.fromkeys(
        ("suppress_tokens", "begin_suppress_tokens")
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WhisperForConditionalGeneration(WhisperConfig(vocab_size=len(tokenizer), **sizes, **tokens))
    several: dict[str, Any] = {"lang_to_id": {f"<|{code}|>": number(f"<|{code}|>") for code in languages}}
    several["task_to_id"] = {task: number(f"<|{task}|>") for task in ("transcribe", "translate")}
    model.generation_config = GenerationConfig(
        **tokens,
        max_length=12,
        no_timestamps_token_id=number("<|notimestamps|>"),
        is_multilingual=bool(languages),
        **(several if languages else {}),
    )
    for part in (model, tokenizer, WhisperFeatureExtractor()):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two languages, 32 numbers wide."""
    return made(tmp_path_factory.mktemp("models") / "whisper")


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest of five clips with human texts, in a folder and a cache of its own; two of them are the same sound."""
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rows = ["audio,text,split"]
    for number, text in enumerate(HUMAN):
        soundfile.write(f"{number}.wav", sound(4_000 * min(number + 1, 4)), 16_000)
        rows.append(f'{number}.wav,"{text}",{"train" if number < 3 else "test"}')
    Path("clips.csv").write_text("\n".join(rows) + "\n")
    return Path("clips.csv")


@pytest.fixture
def type_in(capsys: pytest.CaptureFixture[str]) -> TypeIn:
    """Type `headwater corpus transcribe …`: exit code, stdout and stderr come back."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = run_command(dispatch, ["corpus", "transcribe", *map(str, words)])
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The samples of every window that is recognised."""
    seen: list[int] = []
    recognise = Recogniser._recognise

    def counted(self: Recogniser, windows: list[np.ndarray]) -> list[str]:
        seen.extend(len(window) for window in windows)
        return recognise(self, windows)

    monkeypatch.setattr(Recogniser, "_recognise", counted)
    return seen


def sound(samples: int, seed: int = 1) -> np.ndarray:
    """Noise."""
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize("language", ["en", "de"])
def test_a_short_utterance_says_what_transformers_own_pipeline_says(whisper: Path, language: str) -> None:
    waveform = sound(20_000)
    processor = WhisperProcessor.from_pretrained(whisper)
    model = WhisperForConditionalGeneration.from_pretrained(whisper)
    features = processor(waveform, sampling_rate=16_000, return_tensors="pt").input_features
    tokens = model.generate(features, language=language, task="transcribe", do_sample=False, num_beams=1)
    (expected,) = processor.batch_decode(tokens, skip_special_tokens=True)
    assert expected.strip()
    assert Recogniser(find_asr(str(whisper), language)).text(waveform) == " ".join(expected.split())


def test_language_matters_and_may_be_guessed(whisper: Path) -> None:
    message = {language: Recogniser(find_asr(f"{whisper}:{language}")).text(sound(8_000)) for language in ("en", "de", "auto")}
    assert message["en"] != message["de"]
    assert message["auto"] in (message["en"], message["de"])


def test_an_english_only_model_gets_no_language(tmp_path: Path) -> None:
    folder = made(tmp_path / "model", languages=())
    asr = find_asr(str(folder), "auto")
    assert (asr.language, asr.is_multilingual) == ("en", False)
    assert Recogniser(asr).text(sound(8_000))
    with pytest.raises(UserError, match=r"Expected a language that '.*' knows \(en; auto: it guesses\), found 'de'"):
        find_asr(str(folder), "de")


def test_what_a_file_says_does_not_depend_on_its_neighbours(whisper: Path) -> None:
    waveforms = [sound(samples, samples) for samples in (1, 9_000, 500_000, 16_000)]
    alone, together = Recogniser(find_asr(str(whisper))), Recogniser(find_asr(str(whisper)))
    together.at_once = 3
    assert together.texts(waveforms) == [alone.text(waveform) for waveform in waveforms]


def test_longer_files_are_cut_at_pauses_and_their_words_joined(whisper: Path, passes: list[int]) -> None:
    waveform = sound(75 * 16_000)
    waveform[27 * 16_000 : 27 * 16_000 + 6_400] = 0  # the only pause in the first window
    windows = cut_at_pauses(waveform)
    assert np.array_equal(np.concatenate(windows), waveform)
    assert len(windows[0]) / 16_000 == pytest.approx(27.2, abs=0.11)
    assert all(25 * 16_000 <= len(window) <= 30 * 16_000 for window in windows[:-1])
    recogniser = Recogniser(find_asr(str(whisper)))
    joined = recogniser.text(waveform)
    assert passes == [len(window) for window in windows]
    assert joined == " ".join(recogniser.text(window) for window in windows)


def test_up_to_30_seconds_are_one_window() -> None:
    assert [len(window) for window in cut_at_pauses(sound(480_000))] == [480_000]


def test_the_command_says_how_much_how_fast_how_well_and_how_to_use_it(whisper: Path, clips: Path, type_in: TypeIn) -> None:
    code, out, _ = type_in(clips, "--model", whisper, "--out", "said.csv")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith(f"5 utterances (0.00 h) transcribed by {whisper}, language en, ")
    assert lines[1].startswith("4 transcribed now, the others cached; ")  # two of the five are the same sound
    assert lines[1].endswith(" s for an hour of audio on cpu")
    assert lines[2].startswith("against the corpus' text, Whisper's English normaliser without its table of British spellings on")
    assert {line.split(" in ")[1].split()[0] for line in lines[3:-1]} <= {"train", "dev", "test", "all"}
    assert " % in all (" in lines[-2]
    assert lines[-2].endswith(" of 10 words; 1 left out)")  # "[laughter]" has no word; an empty cell is no transcript
    assert lines[-1] == f"use it with --transcripts {whisper} or --transcripts said.csv"
    with Path("said.csv").open(encoding="utf-8") as file:
        texts = {row["id"]: row["text"] for row in csv.DictReader(file)}
    assert sorted(texts) == [f"{number}.wav" for number in range(5)]
    assert texts["3.wav"] == texts["4.wav"] != texts["0.wav"]
    assert texts["0.wav"] == Recogniser(find_asr(str(whisper))).text(soundfile.read("0.wav", dtype="float32")[0])


def test_a_second_run_reads_no_audio_and_gives_the_same_texts(
    whisper: Path, clips: Path, type_in: TypeIn, passes: list[int]
) -> None:
    type_in(clips, "--model", whisper, "--out", "first.jsonl")
    result = len(passes)
    code, out, _ = type_in(clips, "--model", whisper, "--out", "second.jsonl")
    assert (code, result, len(passes)) == (0, 4, 4)
    assert out.splitlines()[1] == "all of them remembered"
    assert Path("first.jsonl").read_text() == Path("second.jsonl").read_text()
    moved = shutil.copytree(whisper, "moved")  # the same files elsewhere are the same model
    assert type_in(clips, "--model", moved)[0] == 0
    assert len(passes) == 4
    assert type_in(clips, "--model", whisper, "--language", "de")[1].splitlines()[-1] == f"use it with --transcripts {whisper}:de"
    assert len(passes) == 8


def test_a_changed_file_is_read_again(whisper: Path, clips: Path, type_in: TypeIn, passes: list[int]) -> None:
    type_in(clips, "--model", whisper)
    soundfile.write("1.wav", sound(5_000), 16_000)
    type_in(clips, "--model", whisper)
    assert passes[4:] == [5_000]


def test_a_kill_costs_the_utterance_in_flight(
    whisper: Path, clips: Path, type_in: TypeIn, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = Recogniser.texts

    def killed(self: Recogniser, waveforms: list[np.ndarray]) -> list[str]:
        if len(passes) == 2:
            raise KeyboardInterrupt
        return texts(self, waveforms)

    with monkeypatch.context() as patched:
        patched.setattr(Recogniser, "texts", killed)
        assert type_in(clips, "--model", whisper)[0] == 130
    assert type_in(clips, "--model", whisper)[1].splitlines()[1].startswith("2 transcribed now")
    assert sorted(passes) == [4_000, 8_000, 12_000, 16_000]


def test_a_split_is_transcribed_alone(whisper: Path, clips: Path, type_in: TypeIn, passes: list[int]) -> None:
    assert type_in(clips, "--model", whisper, "--split", "test")[1].startswith("2 utterances")
    assert passes == [16_000]


def test_broken_audio_is_named_and_passed_over(whisper: Path, clips: Path, type_in: TypeIn) -> None:
    Path("1.wav").write_bytes(b"RIFFnonsense")
    Path("2.wav").unlink()
    code, out, err = type_in(clips, "--model", whisper)
    assert code == 3
    assert out.startswith("3 utterances")
    assert "1.wav: audio that cannot be decoded" in err
    assert "2.wav: no such file" in err


def test_a_corpus_without_texts_is_transcribed_without_comparing(whisper: Path, clips: Path, type_in: TypeIn) -> None:
    clips.write_text("audio\n0.wav\n1.wav\n2.wav\n3.wav\n4.wav\n")
    assert "the corpus has no text of its own to compare with" in type_in(clips, "--model", whisper)[1]


def corpus(*names: str) -> Corpus:
    """Clips as a corpus."""
    return Corpus("mine", "split", None, {"train": tuple(Utterance(name, name, text="human") for name in names)})


def test_transcripts_of_a_model_are_those_that_were_made(whisper: Path, clips: Path, type_in: TypeIn, passes: list[int]) -> None:
    type_in(clips, "--model", whisper, "--out", "said.csv")
    names = [f"{number}.wav" for number in range(5)]
    by_model, by_table = with_transcripts(corpus(*names), str(whisper)), with_transcripts(corpus(*names), "said.csv")
    assert len(passes) == 4  # using them hears nothing
    assert by_model.splits == by_table.splits
    assert all(row.text not in (None, "human") for row in by_model.splits["train"])
    assert by_model.notes[-1].startswith(f"transcripts are those of {whisper}")


def test_transcripts_that_were_not_made_name_the_command_that_makes_them(whisper: Path, clips: Path, type_in: TypeIn) -> None:
    make = f"Make them: `headwater corpus transcribe mine --data DIR --model {whisper} --language de`"
    with pytest.raises(UserError) as problem:
        with_transcripts(corpus("0.wav", "3.wav"), f"{whisper}:de", where="--data DIR")
    assert str(problem.value).endswith(f"in {whisper}:de, found none (the first that lacks one: 0.wav). {make}")
    type_in(clips, "--model", whisper, "--split", "test", "--language", "de")
    some = with_transcripts(corpus("0.wav", "3.wav"), f"{whisper}:de", where="--data DIR")
    assert some.notes[-1] == f"1 of 2 utterances have no text in {whisper}:de (the first: 0.wav). {make}"
    soundfile.write("0.wav", np.zeros(0), 16_000)
    assert (
        "1 utterances with broken audio have no transcript" in with_transcripts(corpus("0.wav", "3.wav"), f"{whisper}:de").notes
    )


def test_an_empty_output_of_the_recogniser_is_a_transcript(
    whisper: Path, clips: Path, type_in: TypeIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recogniser, "_recognise", lambda _, windows: [" "] * len(windows))
    assert "5 of them empty" in type_in(clips, "--model", whisper, "--out", "said.csv")[1]
    for what in (str(whisper), "said.csv"):
        assert [row.text for row in with_transcripts(corpus("0.wav"), what).splits["train"]] == [""]


def test_predict_transcribes_with_the_same_recogniser(whisper: Path, clips: Path) -> None:
    file = clips.with_name("0.wav")
    expected = Recogniser(find_asr(str(whisper))).text(soundfile.read(file, dtype="float32")[0])
    assert lookup_transcripts(str(whisper))(file) == expected


def test_predict_transcribes_the_same_bytes_once(whisper: Path, clips: Path, type_in: TypeIn, passes: list[int]) -> None:
    words = lookup_transcripts(str(whisper))
    first = words(clips.with_name("3.wav"))
    assert len(passes) == 1
    assert words(Utterance("a stretch", "4.wav")) == first  # the same sound under another name
    assert lookup_transcripts(str(whisper))("3.wav") == first
    assert len(passes) == 1
    words(Utterance("a stretch", "3.wav", 0.25, 0.25))
    assert passes[1:] == [4_000]
    type_in(clips, "--model", whisper)
    result = len(passes)
    words("0.wav")
    assert len(passes) == result


def test_predict_refuses_a_recogniser_that_is_none_before_it_reads_audio() -> None:
    with pytest.raises(UserError, match=r"There is no recogniser 'whisper_bsae'\. Did you mean 'whisper_base'"):
        lookup_transcripts("whisper_bsae")


def test_word_errors_are_counted_over_all_utterances_after_the_normaliser(whisper: Path) -> None:
    normalize, called = normalizer_of(find_asr(str(whisper)))
    result = ["the cat sat town", "it is late, late.", "anything", "", "Color me 22"]
    found = word_errors(list(zip(HUMAN, result, strict=True)), normalize)
    # town for down, one late too many, color for colour; of 4 + 3 + 3 words
    assert found is not None
    assert (found.errors, found.spelling, found.left_out, found.rate) == (3, 10, 2, 0.3)
    assert called == "Whisper's English normaliser without its table of British spellings"


def test_the_folders_table_of_spellings_is_used(whisper: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whisper, tmp_path / "model"))
    (folder / "normalizer.json").write_text('{"colour": "color"}')
    normalize, called = normalizer_of(find_asr(str(folder)))
    assert called == "Whisper's English normaliser"
    found = word_errors([("My Colour, um, isn't it?", "my color is not it")], normalize)
    assert found is not None
    assert found.errors == 0
    assert normalizer_of(find_asr(str(folder), "de"))[1] == "Whisper's basic normaliser"


def test_nothing_to_compare_with_is_no_rate() -> None:
    assert word_errors([("", "a"), (" ", "b")], str.strip) is None


def test_every_file_that_decides_the_words_is_in_the_key(whisper: Path, tmp_path: Path) -> None:
    keys = {transcripts_of(find_asr(str(whisper))).path.name, transcripts_of(find_asr(str(whisper), "de")).path.name}
    for number, name in enumerate(("generation_config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors")):
        folder = Path(shutil.copytree(whisper, tmp_path / str(number) / "whisper"))
        with (folder / name).open("ab") as file:
            file.write(b"\n")
        keys.add(transcripts_of(find_asr(str(folder))).path.name)
    assert len(keys) == 6


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"decoder_start_token_id": 99999999999}', "decoder_start_token_id 99999999999 of a model with"),
        ("[]", "list in place of a mapping"),
        ("[" * 100_000, "maximum recursion depth exceeded"),
    ],
)
def test_settings_of_another_model_are_refused(whisper: Path, tmp_path: Path, content: str, words: str) -> None:
    folder = Path(shutil.copytree(whisper, tmp_path / "whisper"))
    (folder / "generation_config.json").write_text(content)
    with pytest.raises(UserError, match=f"Expected json of the same model in '.*generation_config.json', found {words}"):
        find_asr(str(folder))


def cached(whisper: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with the model in it, as openai/whisper-tiny; the folder is its snapshot."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    repository = cache / "models--openai--whisper-tiny"
    shutil.copytree(whisper, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc", encoding="utf-8")
    return repository / "snapshots" / "abc"


def test_a_model_in_the_hubs_cache_needs_no_network(whisper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = cached(whisper, tmp_path, monkeypatch)
    found = find_asr("whisper_tiny")
    assert found.folder.samefile(snapshot)
    assert found.fingerprint == find_asr("openai/whisper-tiny").fingerprint == find_asr(str(whisper)).fingerprint


def test_an_encoder_that_was_fetched_for_audio_gets_a_list_of_what_it_lacks(
    whisper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cached(whisper, tmp_path, monkeypatch) / "tokenizer.json").unlink()
    with pytest.raises(
        UserError, match=r"tokenizer\.json .* beside the weights of 'whisper_tiny' .* openai/whisper-tiny --local-dir"
    ):
        find_asr("whisper_tiny")


def test_a_model_that_is_nowhere_says_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"'openai/whisper-base' .* `hf download openai/whisper-base .* `--model DIR`"):
        find_asr("whisper_base")


def without(whisper: Path, folder: Path, *names: str) -> Path:
    """The model without some of its files."""
    shutil.copytree(whisper, folder)
    for name in names:
        (folder / name).unlink()
    return folder


def described(folder: Path, **settings: object) -> Path:
    """A folder with nothing but a config."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--model", "bare"),
            "Expected tokenizer.json (or vocab.json and merges.txt) beside the weights of 'bare' in 'bare', found",
        ),
        (("--model", "mute"), "Expected generation_config.json beside the weights of 'mute'"),
        (
            ("--model", "hubert"),
            "Expected a Whisper model to transcribe with, found model_type 'hubert' in 'hubert'. Try whisper_base.",
        ),
        (
            ("--model", "whisper_tinny"),
            "There is no recogniser 'whisper_tinny'. Did you mean 'whisper_tiny'? Known: whisper_tiny, ",
        ),
        (("--model", "./nowhere"), "Expected a folder with config.json and weights at './nowhere', found nothing there."),
        (("--language", "klingon"), "knows (de, en; auto: it guesses), found 'klingon'."),
        (("--language", "french"), "knows (de, en; auto: it guesses), found 'french'. Name one of these, or another model."),
        (("--language", "germna"), "knows (de, en; auto: it guesses), found 'germna'. Did you mean 'german'?"),
        (("--split", "tset"), "Expected splits of manifest (train, dev, test), found 'tset'. Did you mean 'test'? Name these."),
        (("--out", "said.txt"), "Expected a table (.csv, .jsonl, .tsv) to write to, found 'said.txt'. Name it so."),
        (("--device", "tpu"), "tpu"),
    ],
)
def test_a_mistake_is_one_line(whisper: Path, clips: Path, type_in: TypeIn, words: tuple[str, ...], message: str) -> None:
    without(whisper, Path("bare"), "tokenizer.json")
    without(whisper, Path("mute"), "generation_config.json")
    described(Path("hubert"), model_type="hubert")
    code, out, err = type_in(clips, *(() if "--model" in words else ("--model", whisper)), *words)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_weights_without_a_decoder_are_refused(whisper: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whisper, tmp_path / "model"))
    model = WhisperForConditionalGeneration.from_pretrained(whisper)
    model.model.encoder.save_pretrained(tmp_path / "encoder")
    shutil.copy(tmp_path / "encoder" / "model.safetensors", folder)
    with pytest.raises(UserError, match=r"Expected weights for every layer of config.json in .*, found \d+ missing"):
        Recogniser(find_asr(str(folder)))


def test_flags_of_transcribe_are_refused_elsewhere(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(dispatch, ["corpus", "check", str(clips), "--split", "dev"]) == 2
    assert "after `transcribe`, not after `check`" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_one_line(
    whisper: Path, clips: Path, type_in: TypeIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = clips.absolute().with_name("a-file") / "said.jsonl"
    place.parent.write_text("in the way")
    monkeypatch.setattr(transcribing, "transcripts_of", lambda _: TranscriptCache(place, {}))
    code, out, err = type_in(clips, "--model", whisper)
    assert (code, out) == (2, "")
    assert err == f"error: Expected to write '{place}', found that a file stands in the way. Choose another place.\n"
