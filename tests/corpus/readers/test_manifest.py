"""Manifests: anybody's tables, and what is said about those that cannot be used."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from headwater.core.errors import UserError
from headwater.corpus.base import Corpus, Utterance
from headwater.corpus.readers import manifest
from headwater.corpus.tables import likeliest


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def table(tmp_path: Path, header: str, *lines: str) -> Path:
    return write(tmp_path / "data.csv", header, *lines)


def by_speaker(tmp_path: Path, speakers: int = 6) -> Path:
    lines = [f"{speaker}_{n}.wav,{'yes' if n % 2 else 'no'},s{speaker}" for speaker in range(speakers) for n in range(4)]
    return table(tmp_path, "audio,label,speaker", *lines)


def rows(corpus: Corpus) -> dict[str, Utterance]:
    return {row.id: row for split in corpus.splits.values() for row in split}


def failure(path: Path, **options: object) -> str:
    with pytest.raises(UserError) as problem:
        manifest.read(path, **options)
    message = str(problem.value)
    assert "\n" not in message
    return message


def test_csv_tsv_and_jsonl_say_the_same(tmp_path: Path) -> None:
    records = [{"audio": f"{n}.wav", "label": "ab"[n % 2], "speaker": f"s{n}", "text": f"word, {n}"} for n in range(5)]
    keys = list(records[0])
    csv = write(tmp_path / "a.csv", ",".join(keys), *(",".join(f'"{record[key]}"' for key in keys) for record in records))
    semicolons = write(tmp_path / "b.csv", ";".join(keys), *(";".join(record[key] for key in keys) for record in records))
    tsv = write(tmp_path / "a.tsv", "\t".join(keys), *("\t".join(record[key] for key in keys) for record in records))
    jsonl = write(tmp_path / "a.jsonl", *(json.dumps(record) for record in records))
    expected = manifest.read(csv)
    assert rows(expected)["3.wav"].text == "word, 3"
    for path in (semicolons, tsv, jsonl):
        assert manifest.read(path) == expected


def test_foreign_headers_are_mapped(tmp_path: Path) -> None:
    path = table(tmp_path, "wav_path,emotion,spk", "a.wav,x,1", "b.wav,y,2", "c.wav,x,3", "d.wav,y,4", "e.wav,x,5")
    corpus = manifest.read(path, columns={"audio": "wav_path", "label": "emotion", "speaker": "spk"})
    assert corpus.protocol == "speaker5"
    assert (rows(corpus)["b.wav"].speaker, rows(corpus)["b.wav"].labels["label"]) == ("2", "y")


def test_other_columns_become_labels_by_their_own_name(tmp_path: Path) -> None:
    path = table(tmp_path, "audio,label,valence,device", "a.wav,x,3.5,phone", "b.wav,y,,tv")
    assert rows(manifest.read(path))["a.wav"].labels == {"label": "x", "valence": "3.5", "device": "phone"}
    assert rows(manifest.read(path))["b.wav"].labels == {"label": "y", "device": "tv"}


def test_paths_are_relative_to_the_table_or_to_the_root_that_is_named(tmp_path: Path) -> None:
    path = table(tmp_path, "audio,label", "clips/a.wav,x", "/far/b.wav,y")
    assert rows(manifest.read(path))["clips/a.wav"].audio == str(tmp_path / "clips/a.wav")
    assert rows(manifest.read(path, audio_root="/else"))["clips/a.wav"].audio == "/else/clips/a.wav"
    assert rows(manifest.read(path, audio_root="/else"))["/far/b.wav"].audio == "/far/b.wav"


def test_start_and_end_cut_one_file_into_utterances(tmp_path: Path) -> None:
    path = table(tmp_path, "audio,label,start,end", "a.wav,x,0,1.5", "a.wav,y,1.5,4", "a.wav,y,4,")
    cut = [(row.start, row.duration) for row in sorted(rows(manifest.read(path)).values(), key=lambda row: row.start)]
    assert cut == [(0.0, 1.5), (1.5, 2.5), (4.0, None)]


@pytest.mark.parametrize("fold", range(1, 6))
def test_with_speakers_folds_are_disjoint_in_them(tmp_path: Path, fold: int) -> None:
    splits = manifest.read(by_speaker(tmp_path), fold=fold).splits
    speakers = {name: {row.speaker for row in found} for name, found in splits.items()}
    assert all(speakers.values())
    assert sum(map(len, speakers.values())) == 6


def test_without_speakers_folds_are_drawn_and_the_note_says_what_that_means(tmp_path: Path) -> None:
    path = table(tmp_path, "audio,label,client_id", *(f"{n}.wav,{'xy'[n % 2]},c{n}" for n in range(20)))
    corpus = manifest.read(path)
    assert corpus.protocol == "random5"
    assert {name: len(found) for name, found in corpus.splits.items()} == {"train": 12, "dev": 4, "test": 4}
    assert "-o corpus.options.columns.speaker=client_id" in corpus.notes[0]


def test_split_names_are_understood_and_others_kept(tmp_path: Path) -> None:
    names = ["Training", "valid", "TEST", "far_field"]
    corpus = manifest.read(table(tmp_path, "audio,label,split", *(f"{n}.wav,{'xy'[i % 2]},{n}" for i, n in enumerate(names))))
    assert [*corpus.splits][:2] == ["train", "dev"]  # wherever they stand in the table
    assert (set(corpus.splits), corpus.protocol, corpus.fold) == ({"train", "dev", "test", "far_field"}, "split", None)


def test_a_missing_dev_is_taken_from_whole_training_speakers(tmp_path: Path) -> None:
    lines = [f"{s}_{n}.wav,{'xy'[n % 2]},{s},{'test' if s == 0 else 'train'}" for s in range(5) for n in range(4)]
    corpus = manifest.read(table(tmp_path, "audio,label,speaker,split", *lines))
    train, dev = ({row.speaker for row in corpus.splits[name]} for name in ("train", "dev"))
    assert (len(train), len(dev)) == (3, 1)
    assert not train & dev
    assert "dev is 4 utterances of 1 of the 4 training speakers" in corpus.notes[0]


def test_a_missing_dev_without_speakers_is_drawn_with_a_note(tmp_path: Path) -> None:
    lines = [f"{n}.wav,{'xy'[n % 2]},{'test' if n < 5 else 'train'}" for n in range(25)]
    corpus = manifest.read(table(tmp_path, "audio,label,split", *lines))
    assert {name: len(found) for name, found in corpus.splits.items()} == {"train": 18, "dev": 2, "test": 5}
    assert "drawn at random (speakers are not known)" in corpus.notes[0]


def test_all_rows_can_be_the_test(tmp_path: Path) -> None:
    corpus = manifest.read(by_speaker(tmp_path), protocol="all_test")
    assert {name: len(found) for name, found in corpus.splits.items()} == {"test": 24}


def test_classes_stand_in_natural_order(tmp_path: Path) -> None:
    path = table(tmp_path, "audio,label", *(f"{n}.wav,{n}" for n in (10, 9, 2, 1, 11)))
    assert manifest.read(path).label_order == {"label": ("1", "2", "9", "10", "11")}


def test_a_byte_order_mark_quotes_and_empty_lines_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text('\ufeffaudio,label\n\n"a,1.wav","x"\n,\n"b ""2"".wav",y\n\n', encoding="utf-8")
    assert set(rows(manifest.read(tmp_path / "data.csv"))) == {"a,1.wav", 'b "2".wav'}


def test_labels_may_be_absent_where_none_are_required(tmp_path: Path) -> None:
    corpus = manifest.read(table(tmp_path, "audio", "a.wav", "b.wav"), label_required=False)
    assert corpus.label_order == {}
    assert rows(corpus)["a.wav"].labels == {}


@pytest.mark.parametrize(
    ("header", "option"),
    [
        ("wav_path,emotion,spk", "-o corpus.options.columns='{audio: wav_path, label: emotion, speaker: spk}'"),
        ("Filename;Class", "-o corpus.options.columns='{audio: Filename, label: Class}'"),
        (
            "path,client_id,sentence,target",
            "-o corpus.options.columns='{audio: path, label: target, speaker: client_id, text: sentence}'",
        ),
        ("audio,emo_class,split", "-o corpus.options.columns.label=emo_class"),
        ("foo,bar", "-o corpus.options.columns='{audio: HEADER, label: HEADER}'"),
        (
            "wav_path,is_directed,hyp,spk_id,partition,locale",
            "-o corpus.options.columns='{audio: wav_path, label: is_directed, speaker: spk_id, split: partition, text: hyp, "
            "lang: locale}'",
        ),
    ],
)
def test_a_missing_column_is_refused_with_the_option_filled_in(tmp_path: Path, header: str, option: str) -> None:
    message = failure(table(tmp_path, header, header.replace("a", "b")))
    assert message.endswith(option)
    assert str(tmp_path / "data.csv") in message


@pytest.mark.parametrize(
    ("header", "note"),
    [
        ("arousal,valence,dominance", None),
        ("EmoAct,EmoVal,EmoDom", "ratings: arousal is column EmoAct, valence is column EmoVal, dominance is column EmoDom"),
        ("activation,val,dom", "ratings: arousal is column activation, valence is column val, dominance is column dom"),
    ],
)
def test_ratings_are_numbers_where_no_label_is_needed(tmp_path: Path, header: str, note: str | None) -> None:
    path = table(tmp_path, f"audio,split,{header}", "a.wav,train,1.5,2,7", "b.wav,dev,3,,4", "c.wav,test,3,2,4")
    corpus = manifest.read(path, label_required=False)
    assert rows(corpus)["a.wav"].labels == {"arousal": 1.5, "valence": 2.0, "dominance": 7.0}
    assert rows(corpus)["b.wav"].labels["arousal"] == 3.0
    assert "valence" not in rows(corpus)["b.wav"].labels
    assert corpus.notes == (() if note is None else (note,))


def test_ratings_can_be_mapped_and_an_act_of_words_is_none(tmp_path: Path) -> None:
    path = table(tmp_path, "audio,act,mood", "a.wav,question,1.5", "b.wav,answer,2")
    corpus = manifest.read(path, label_required=False, columns={"valence": "mood"})
    assert rows(corpus)["b.wav"].labels == {"act": "answer", "valence": 2.0}


def test_a_rating_that_is_no_number_is_named(tmp_path: Path) -> None:
    path = table(tmp_path, "audio,arousal", "a.wav,1.5", "b.wav,high")
    assert "Expected a number in column 'arousal', found 'high' in row 3" in failure(path, label_required=False)


def test_device_and_language_are_labels_under_their_known_names(tmp_path: Path) -> None:
    path = table(tmp_path, "audio,label,platform,locale", "a.wav,x,phone,en", "b.wav,y,tv,de")
    mapped = manifest.read(path, columns={"device": "platform", "lang": "locale"})
    assert rows(mapped)["b.wav"].labels == {"label": "y", "device": "tv", "lang": "de"}


def test_columns_that_could_be_used_are_named(tmp_path: Path) -> None:
    corpus = manifest.read(table(tmp_path, "audio,label,hyp,locale", "a.wav,x,go,en", "b.wav,y,stop,de"))
    assert rows(corpus)["a.wav"].text is None
    assert corpus.notes[-1] == "columns that are not used, but could be: -o corpus.options.columns='{text: hyp, lang: locale}'"


def test_two_test_sets_are_as_good_as_one(tmp_path: Path) -> None:
    lines = ["a.wav,x,train", "b.wav,y,train", "c.wav,x,dev", "d.wav,y,test1", "e.wav,y,test2"]
    assert [*manifest.read(table(tmp_path, "audio,label,split", *lines)).splits] == ["train", "dev", "test1", "test2"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["audio,label", "a.wav,x", "b.wav,"], "Expected a value in column 'label', found none in row 3"),
        (["audio,label", ",x", "b.wav,y"], "Expected a value in column 'audio', found none in row 2"),
        (["audio,label", "a.wav,x", "b.wav,y", "", "a.wav,y"], "found 'a.wav' in rows 2 and 5"),
        (["audio,label,id", "a.wav,x,1", "b.wav,y,1"], "found '1' in rows 2 and 3"),
        (["audio,label", "a.wav,x", "b.wav,x"], "at least two classes in column 'label'"),
        (["audio,label,start", "a.wav,x,0", "b.wav,y,soon"], "found 'soon' in row 3"),
        (["audio,label,start", "a.wav,x,0", "b.wav,y,nan"], "found 'nan' in row 3"),
        (["audio,label,start,end", "a.wav,x,2,1", "b.wav,y,0,1"], "found start 2 and end 1.0 in row 2"),
        (["audio,label", "a.wav,x,3", "b.wav,y"], "Expected 2 columns, found 3 in row 2"),
        (["audio,label,label", "a.wav,x,3", "b.wav,y,3"], "found 'label' 2 times"),
        (["audio,label,split", "a.wav,x,train", "b.wav,y,"], "found nothing in row 3"),
        (["audio,label,split", "a.wav,x,dev", "b.wav,y,test"], "Expected rows of split 'train' in"),
        (["audio,label,split", "a.wav,x,train", "b.wav,y,dev"], "Expected rows of split 'test' in"),
        (["audio,label"], "at least one row"),
        ([], "found nothing"),
        (["audio,label", '"a.wav,x', "b.wav,y"], "Mend its quotes"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_the_row(tmp_path: Path, lines: list[str], words: str) -> None:
    message = failure(write(tmp_path / "data.csv", *lines))
    assert words in message
    assert str(tmp_path / "data.csv") in message


@pytest.mark.parametrize(("line", "words"), [("{'audio': 1}", "found in row 2"), ("[1, 2]", "found [1, 2] in row 2")])
def test_a_line_that_is_no_json_object_is_named(tmp_path: Path, line: str, words: str) -> None:
    assert words in failure(write(tmp_path / "a.jsonl", '{"audio": "a.wav", "label": "x"}', line))


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    assert ".csv, .tsv, .jsonl" in failure(write(tmp_path / "data.xlsx", "audio,label"))


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes("audio,label\nä.wav,x\n".encode("latin-1"))
    assert "Save the table as UTF-8" in failure(tmp_path / "data.csv")


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "No such file" in failure(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("columns", "words"),
    [({"lable": "x"}, "Did you mean 'label'?"), ({"label": "emotoin"}, "Did you mean 'emotion'?")],
)
def test_a_mapping_with_a_typo_is_refused_with_the_nearest_name(tmp_path: Path, columns: dict[str, str], words: str) -> None:
    assert words in failure(table(tmp_path, "audio,emotion", "a.wav,x"), columns=columns)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"protocol": "speaker5"}, "a speaker in every row"),
        ({"protocol": "split"}, "-o corpus.options.columns.split=HEADER"),
        ({"fold": 6}, "fold between 1 and 5"),
    ],
)
def test_a_protocol_that_the_table_cannot_serve_is_refused(tmp_path: Path, options: dict, words: str) -> None:
    assert words in failure(table(tmp_path, "audio,label", "a.wav,x", "b.wav,y"), **options)


def test_too_few_speakers_for_folds_are_counted(tmp_path: Path) -> None:
    assert "at least 5 speakers for 5 folds, found 3" in failure(by_speaker(tmp_path, speakers=3))


def test_a_second_fold_of_a_table_with_splits_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "audio,label,split", "a.wav,x,train", "b.wav,y,test")
    assert "whose own column of splits decides" in failure(path, fold=2)


def test_a_header_is_likeliest_by_name_then_by_part_then_by_spelling() -> None:
    assert likeliest("audio", ["notes", "WAV-Path"]) == "WAV-Path"
    assert likeliest("label", ["my_emotion"]) == "my_emotion"
    assert likeliest("speaker", ["spekaer"]) == "spekaer"
    assert likeliest("speaker", ["colour"]) is None


def test_a_misspelt_split_is_no_split_of_its_own_and_a_second_test_is(tmp_path: Path) -> None:
    lines = ["a.wav,x,train", "b.wav,y,train", "c.wav,x,dev", "d.wav,y,test"]
    extra = table(tmp_path, "audio,label,split", *lines, "e.wav,x,test2", "f.wav,x,calls")
    assert {"train", "dev", "test", "test2", "calls"} == {*manifest.read(extra).splits}
    assert "found 'trian' in row 6" in failure(table(tmp_path, "audio,label,split", *lines, "e.wav,x,trian"))


def test_the_index_that_pandas_writes_is_no_column_of_ours(tmp_path: Path) -> None:
    path = table(tmp_path, ",audio,label", *(f"{n},{n}.wav,{'ab'[n % 2]}" for n in range(10)))
    found = rows(manifest.read(path))
    assert {*found} == {f"{n}.wav" for n in range(10)}
    assert {(row.start, row.duration, row.text, row.speaker) for row in found.values()} == {(0.0, None, None, None)}
    assert {*found["3.wav"].labels} == {"label"}
    rated = table(tmp_path, ",audio,label,start,end", *(f"first {n},{n}.wav,{'ab'[n % 2]},0,1" for n in range(10)))
    assert {*rows(manifest.read(rated, label_required=False))["3.wav#0-1"].labels} == {"label"}


def test_a_line_of_json_may_hold_any_character_that_ends_lines_elsewhere(tmp_path: Path) -> None:
    said = "one\u2028two\u0085three"
    lines = [json.dumps({"audio": f"{n}.wav", "label": "ab"[n % 2], "text": said}, ensure_ascii=False) for n in range(6)]
    assert rows(manifest.read(write(tmp_path / "a.jsonl", *lines)))["3.wav"].text == said


@pytest.mark.parametrize("label", [{"a": 1}, ["a", "b"], float("nan")])
def test_a_label_that_is_no_word_is_named(tmp_path: Path, label: object) -> None:
    lines = [json.dumps({"audio": f"{n}.wav", "label": label if n == 2 else "ab"[n % 2]}) for n in range(6)]
    said = failure(write(tmp_path / "a.jsonl", *lines))
    assert f"Expected a word or a number in column 'label', found {label} in row 3 of" in said


@pytest.mark.parametrize("value", ["[" * 100_000, "1" * 5000])
def test_json_that_is_too_deep_or_too_long_a_number_is_named(tmp_path: Path, value: str) -> None:
    said = failure(write(tmp_path / "a.jsonl", f'{{"audio": "a.wav", "label": {value}'))
    assert "Expected one json object in each line, found in row 1 of" in said


def test_thirty_thousand_columns_are_read_at_once(tmp_path: Path) -> None:
    headers = ["audio", "label", *(f"c{n}" for n in range(30_000))]
    path = table(tmp_path, ",".join(headers), *(",".join([f"{n}.wav", "ab"[n % 2], *["1"] * 30_000]) for n in range(6)))
    began = time.process_time()
    assert len(rows(manifest.read(path))) == 6
    assert time.process_time() - began < 10


def test_a_pipe_is_no_table_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    said = f"Expected a table that can be read at {tmp_path / 'a.csv'}, found a pipe, a socket or a device. Check the path."
    assert failure(tmp_path / "a.csv") == said


def test_a_user_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    path = table(tmp_path, "audio,label", *(f"~nobody/{n}.wav,{'ab'[n % 2]}" for n in range(6)))
    assert len(rows(manifest.read(path))) == 6


def test_rows_without_a_label_are_named_or_left_out(tmp_path: Path) -> None:
    path = table(tmp_path, "audio,label", "a.wav,yes", "b.wav,", "c.wav,no", "d.wav, ")
    assert "found none in row 3 of" in failure(path)
    assert failure(path).endswith("Fill it in, or leave out all such rows: -o corpus.options.missing_label=drop")
    corpus = manifest.read(path, missing_label="drop")
    assert {*rows(corpus)} == {"a.wav", "c.wav"}
    assert "2 of 4 rows left out: no label (the first: row 3)" in corpus.notes
    (tmp_path / "data.csv").write_text("audio,label\na.wav,\n")
    assert "found none in any row" in failure(path, missing_label="drop")


def test_a_table_need_not_make_folds_where_nobody_needs_them(tmp_path: Path) -> None:
    few = manifest.read(by_speaker(tmp_path, speakers=2), splits_required=False)
    assert {split: len(found) for split, found in few.splits.items()} == {"test": 8}
    assert few.fold is None
    assert few.notes == ("fewer than 5 speakers make no folds: all rows are one split",)
    assert manifest.read(by_speaker(tmp_path), splits_required=False) == manifest.read(by_speaker(tmp_path))
    only = manifest.read(table(tmp_path, "audio,label,split", "a.wav,x,train", "b.wav,y,train"), splits_required=False)
    assert {*only.splits} == {"train", "dev"}  # what is pretrained needs one, and no test
    (note,) = manifest.read(table(tmp_path, "audio,label,split", "a.wav,x,train"), splits_required=False).notes
    assert note.startswith("only one class, 'x': nothing can be trained on this table alone. Add rows of another class")
