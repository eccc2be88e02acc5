"""Texts through a real tokenizer file made here: word level, [CLS] text [SEP]."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from onnxq.data import Preprocess, open_dataset
from onnxq.errors import DataError

WORDS = {"[PAD]": 3, "[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "red": 4, "green": 5, "blue": 6}


def tokenizer(path: Path, *, special: bool = True, words: dict[str, int] = WORDS) -> Tokenizer:
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
    made.save(str(path))
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "texts"
    root.mkdir()
    (root / "a.txt").write_text("red green", encoding="utf-8")
    (root / "b.txt").write_text("blue blue blue\n", encoding="utf-8")
    tokenizer(tmp_path / "tokenizer.json")
    return root


def ids(spec: Any, *shape: Any, dtype: str = "int64") -> Any:
    return spec(*(shape or ("N", "L")), name="input_ids", dtype=dtype)


def test_free_length_and_all_four_inputs(folder: Path, spec: Any) -> None:
    names = ("attention_mask", "input_ids", "position_ids", "token_type_ids")
    dataset = open_dataset(folder, [spec("N", "L", name=n, dtype="int64") for n in names])
    samples = list(dataset)
    assert [list(s.inputs) for s in samples] == [list(names)] * 2
    assert {k: v.tolist() for k, v in samples[1].inputs.items()} == {
        "attention_mask": [[1, 1, 1, 1, 1]],
        "input_ids": [[1, 6, 6, 6, 2]],
        "position_ids": [[0, 1, 2, 3, 4]],
        "token_type_ids": [[0, 0, 0, 0, 0]],
    }
    assert samples[0].inputs["input_ids"].tolist() == [[1, 4, 5, 2]]
    assert dataset.description == f"2 texts of {folder}"
    assert dataset.preprocess_summary == "tokens of tokenizer.json"
    assert not dataset.labelled


def test_fixed_length_pads_and_cuts_in_the_model_s_type(folder: Path, spec: Any) -> None:
    inputs = [ids(spec, 2, 4, dtype="int32"), spec(2, 4, name="attention_mask", dtype="int32")]
    (folder / "a.txt").write_text("red")
    dataset = open_dataset(folder, inputs)
    (sample,) = dataset
    assert sample.inputs["input_ids"].tolist() == [[1, 4, 2, 3], [1, 6, 6, 2]]
    assert sample.inputs["input_ids"].dtype == "int32"
    assert sample.inputs["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert dataset.preprocess_summary == "tokens of tokenizer.json, at most 4, padded to 4"


def test_the_padding_token_of_the_file_and_none(tmp_path: Path, folder: Path, spec: Any) -> None:
    made = tokenizer(tmp_path / "tokenizer.json")
    made.enable_padding(pad_id=6, pad_token="blue")
    made.save(str(tmp_path / "tokenizer.json"))
    assert next(iter(open_dataset(folder, [ids(spec, "N", 6)]))).inputs["input_ids"].tolist() == [[1, 4, 5, 2, 6, 6]]
    tokenizer(folder / "tokenizer.json", words={w: i for w, i in WORDS.items() if w != "[PAD]"})
    assert next(iter(open_dataset(folder, [ids(spec, "N", 5)]))).inputs["input_ids"].tolist() == [[1, 4, 5, 2, 0]]


def test_max_length(folder: Path, spec: Any, refuses: Any) -> None:
    dataset = open_dataset(folder, [ids(spec)], Preprocess(max_length=3))
    assert [s.inputs["input_ids"].tolist() for s in dataset] == [[[1, 4, 2]], [[1, 6, 2]]]
    assert dataset.preprocess_summary == "tokens of tokenizer.json, at most 3"
    with refuses("preprocess.max_length is 5, but the model takes 4 tokens: lower it", DataError):
        open_dataset(folder, [ids(spec, "N", 4)], Preprocess(max_length=5))


def test_a_file_of_lines(tmp_path: Path, spec: Any, refuses: Any) -> None:
    tokenizer(tmp_path / "tokenizer.json")
    path = tmp_path / "lines.txt"
    path.write_text("red\n\n  \nblue green\r\ngreen", encoding="utf-8")
    dataset = open_dataset(path, [ids(spec)])
    assert [(s.index, s.name, s.inputs["input_ids"].tolist()) for s in dataset] == [
        (0, "lines.txt:1", [[1, 4, 2]]),
        (1, "lines.txt:4", [[1, 6, 5, 2]]),
        (2, "lines.txt:5", [[1, 5, 2]]),
    ]
    assert dataset.description == f"3 texts of {path}"
    assert [s.name for s in open_dataset(path, [ids(spec)], limit=2)] == ["lines.txt:1", "lines.txt:4"]
    path.write_text("\n\n")
    with refuses(f"{path} holds no text, only blank lines: write one text per line"):
        open_dataset(path, [ids(spec)])
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"lines\.txt is no text in UTF-8 \(.*\): save it again$"):
        open_dataset(path, [ids(spec)])


def test_labels_of_texts(folder: Path, spec: Any) -> None:
    (folder / "labels.csv").write_text("file,label\na.txt,1\nb.txt,0\n")
    assert [s.label for s in open_dataset(folder, [ids(spec)])] == [1, 0]


def test_an_unreadable_text_is_named_and_skipped_on_demand(folder: Path, spec: Any) -> None:
    (folder / "a.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"a\.txt is no text in UTF-8 \(.*\): save it again$"):
        list(open_dataset(folder, [ids(spec)]))
    dataset = open_dataset(folder, [ids(spec)], skip_bad=True)
    assert [s.name for s in dataset] == ["b.txt"]
    assert len(dataset.skipped) == 1


def test_an_empty_text(tmp_path: Path, folder: Path, spec: Any, refuses: Any) -> None:
    (folder / "a.txt").write_text("")
    assert next(iter(open_dataset(folder, [ids(spec)]))).inputs["input_ids"].tolist() == [[1, 2]]
    tokenizer(tmp_path / "tokenizer.json", special=False)
    with refuses(f"{folder}/a.txt gives no token: write a text or remove it"):
        list(open_dataset(folder, [ids(spec)]))


def test_models_that_take_no_texts(folder: Path, spec: Any, refuses: Any) -> None:
    with refuses(
        f'{folder} holds texts, which feed models with an input "input_ids", but this one takes x: '
        f"give arrays or a function"
    ):
        open_dataset(folder, [spec("N", "L")])
    with refuses(
        f'{folder} holds texts, but input "pixels" (float32 [N, 3]) is none of input_ids, attention_mask, '
        f"token_type_ids, position_ids: give arrays by name or a function"
    ):
        open_dataset(folder, [ids(spec), spec("N", 3, name="pixels")])
    with refuses(
        f'{folder} holds texts, but input "input_ids" takes int64 [N, 1, L] and not integers [batch, tokens]: '
        f"give arrays or a function"
    ):
        open_dataset(folder, [ids(spec, "N", 1, "L")])


def test_the_tokenizer_file(tmp_path: Path, folder: Path, spec: Any, refuses: Any) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=rf"^tokenizer\.json for {folder} is no tokenizer file \(.*\): save it again$"):
        open_dataset(folder, [ids(spec)])
    (tmp_path / "tokenizer.json").unlink()
    with refuses(f"{folder} holds texts, but there is no tokenizer.json in or beside the folder: put it there"):
        open_dataset(folder, [ids(spec)])


def test_without_the_library(folder: Path, spec: Any, refuses: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with refuses(f"{folder} holds texts, which need the tokenizers library: pip install onnxq[text]"):
        open_dataset(folder, [ids(spec)])
