"""Which files count, in which order, with which labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from onnxq.data import open_dataset
from onnxq.data.folder import scan
from onnxq.errors import DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(root / name) if not name.endswith((".npy", ".txt", "DS_Store")) else (
            root / name
        ).write_bytes(b"")


def labelled(root: Path, text: str) -> Any:
    (root / "labels.csv").write_text(text, encoding="utf-8")
    return scan(root, Path("data"))


def test_class_folders_by_sorted_name(tmp_path: Path, spec: Any) -> None:
    touch(tmp_path, "dog/b.PNG", "dog/a.jpeg", "cat/z.bmp", "ant/.DS_Store")
    dataset = open_dataset(tmp_path, [spec(1, 3, 2, 2)])
    # ant is empty and still class 0: the numbers come from the folders, not from what is in them
    assert [(s.name, s.label) for s in dataset] == [("cat/z.bmp", 1), ("dog/a.jpeg", 2), ("dog/b.PNG", 2)]
    assert dataset.labelled
    assert dataset.description == f"3 pictures of {tmp_path}"


def test_integer_class_folders_are_the_labels(tmp_path: Path) -> None:
    touch(tmp_path, "10/a.png", "9/a.png", "123/a.png")
    folder = scan(tmp_path, tmp_path)
    assert (folder.files, folder.labels) == (("10/a.png", "123/a.png", "9/a.png"), (10, 123, 9))


def test_no_labels(tmp_path: Path, spec: Any) -> None:
    touch(tmp_path, "b.png", "a.webp", "c.tiff", "notes.txt")
    dataset = open_dataset(tmp_path, [spec(1, 3, 2, 2)])
    assert [(s.index, s.name, s.label) for s in dataset] == [
        (0, "a.webp", None),
        (1, "b.png", None),
        (2, "c.tiff", None),
    ]
    assert not dataset.labelled


def test_a_limit_is_spread_over_the_classes(tmp_path: Path, spec: Any) -> None:
    touch(tmp_path, *(f"{c}/{i}.png" for c in range(3) for i in range(4)))
    dataset = open_dataset(tmp_path, [spec(1, 3, 2, 2)], limit=3)
    assert [s.label for s in dataset] == [0, 1, 2]
    assert dataset.description == f"3 of 12 pictures of {tmp_path}"
    assert len(dataset) == 3


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("file,label\nb.png,7\na.png,-1\n", (-1, 7)),
        ("\ufefffile, label\r\nb.png,7\r\n\r\na.png,x\r\n", ("x", "7")),
        ("file,label\na.png,007\nb.png,1\n", ("007", "1")),
        ('file,label\na.png,"one, two"\nb.png,\n', ("one, two", "")),
    ],
)
def test_labels_csv(tmp_path: Path, text: str, labels: tuple[Any, ...]) -> None:
    touch(tmp_path, "a.png", "b.png")
    assert labelled(tmp_path, text).labels == labels


def test_labels_csv_wins_over_folders(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.png", "b.png", "x/deeper/c.png")
    assert labelled(tmp_path, "file,label\nx\\a.png,5\nb.png,6\n").labels == (6, 5)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", 'data/labels.csv starts with "": its first line must be "file,label"'),
        ("name;label\n", 'data/labels.csv starts with "name;label": its first line must be "file,label"'),
        (
            "file,label\na.png,1,2\n",
            "data/labels.csv, line 2, has 3 columns: write file,label (quote a label with commas)",
        ),
        (
            "file,label\na.png,1\na.png,2\n",
            "data/labels.csv, line 3, names a.png a second time: keep one row per file",
        ),
        (
            "file,label\nmissing.png,1\n",
            "data/labels.csv, line 2, names missing.png, which is not in the folder: add it or drop the row",
        ),
        ("file,label\na.png,1\n", "data/labels.csv has 1 labels for 2 files: add a row for b.png"),
    ],
)
def test_labels_csv_refused(tmp_path: Path, refuses: Any, text: str, sentence: str) -> None:
    touch(tmp_path, "a.png", "b.png")
    with refuses(sentence, DataError):
        labelled(tmp_path, text)


def test_labels_csv_in_another_encoding(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    (tmp_path / "labels.csv").write_bytes("file,label\na.png,naïve\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"^data/labels\.csv cannot be read as CSV in UTF-8 \(.*\): save it again$"):
        scan(tmp_path, Path("data"))


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ((), "data holds no samples, it is empty: "),
        (("a.npy", "b.png"), "data mixes pictures (b.png) with arrays (a.npy): keep one kind in a folder"),
        (
            ("cat/a.png", "b.png"),
            "data holds b.png beside the class folder cat: put every sample into a class folder, or name the "
            "classes in labels.csv",
        ),
        (
            ("cat/tabby/a.png", "dog/b.png"),
            "data/cat/tabby is a folder inside a class folder: put the samples directly into one folder per class",
        ),
    ],
)
def test_folders_refused(tmp_path: Path, names: tuple[str, ...], sentence: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(DataError) as caught:
        scan(tmp_path, Path("data"))
    assert str(caught.value).startswith(sentence)


def test_a_folder_of_other_files(tmp_path: Path, refuses: Any) -> None:
    (tmp_path / "movie.mp4").write_bytes(b"")
    with refuses(
        "data holds no samples, only files like movie.mp4: put in pictures (.bmp .gif .jpeg .jpg .png .tif .tiff "
        ".webp), arrays (.npy .npz), texts (.txt) or ONNX test_data_set folders",
        DataError,
    ):
        scan(tmp_path, Path("data"))
