"""Arrays in files: how they become samples, streaming, types, and every refusal."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.data import open_dataset
from onnxq.data.npyfile import ArrayFile
from onnxq.errors import DataError, UsageError

BATCH = np.arange(24, dtype=np.float32).reshape(4, 3, 2)


def shapes(dataset: Any) -> list[tuple[int, ...]]:
    return [s.inputs["x"].shape for s in dataset]


@pytest.mark.parametrize("lead", ["N", None, 1])
def test_a_batch_is_split(tmp_path: Path, spec: Any, lead: Any) -> None:
    np.save(tmp_path / "a.npy", BATCH)
    dataset = open_dataset(tmp_path / "a.npy", [spec(lead, 3, 2)])
    samples = list(dataset)
    assert len(dataset) == 4
    assert [s.name for s in samples] == ["a.npy[0]", "a.npy[1]", "a.npy[2]", "a.npy[3]"]
    np.testing.assert_array_equal(np.concatenate([s.inputs["x"] for s in samples]), BATCH)
    assert dataset.description == f"4 samples of {tmp_path}/a.npy"
    assert dataset.preprocess_summary == "arrays as stored"
    assert not dataset.labelled
    assert dataset.skipped == []


def test_a_sample_without_the_batch_axis(tmp_path: Path, spec: Any) -> None:
    np.save(tmp_path / "a.npy", BATCH[0])
    assert shapes(open_dataset(tmp_path / "a.npy", [spec("N", 3, 2)])) == [(1, 3, 2)]


def test_a_model_without_a_batch_axis(tmp_path: Path, spec: Any) -> None:
    np.save(tmp_path / "one.npy", BATCH[0])
    np.save(tmp_path / "many.npy", BATCH)
    assert shapes(open_dataset(tmp_path / "one.npy", [spec(3, 2)])) == [(3, 2)]
    assert shapes(open_dataset(tmp_path / "many.npy", [spec(3, 2)])) == [(3, 2)] * 4


def test_a_fixed_batch_takes_groups(tmp_path: Path, spec: Any) -> None:
    np.savez(tmp_path / "a.npz", anything=np.arange(7.0, dtype="f4")[:, None], label=np.arange(7))
    dataset = open_dataset(tmp_path / "a.npz", [spec(2, 1)])
    assert [s.label.tolist() for s in dataset] == [[0, 1], [2, 3], [4, 5]]
    assert shapes(dataset) == [(2, 1)] * 3
    assert dataset.description == f"3 batches of 2 samples of {tmp_path}/a.npz, remainder of 1 left out"


def test_whole_batches_in_files_stay_whole_unless_one_differs(tmp_path: Path, spec: Any) -> None:
    np.save(tmp_path / "a.npy", BATCH)
    np.save(tmp_path / "b.npy", BATCH)
    assert [s.name for s in open_dataset(tmp_path, [spec(4, 3, 2)])] == ["a.npy", "b.npy"]
    np.save(tmp_path / "c.npy", BATCH[:1])
    assert [s.name for s in open_dataset(tmp_path, [spec(4, 3, 2)])] == ["a.npy[0] to a.npy[3]", "b.npy[0] to b.npy[3]"]


def test_fewer_samples_than_the_fixed_batch(tmp_path: Path, spec: Any, refuses: Any) -> None:
    np.save(tmp_path / "a.npy", BATCH)
    with refuses(f"{tmp_path}/a.npy holds 4 samples, but the model takes batches of 8: add more"):
        open_dataset(tmp_path / "a.npy", [spec(8, 3, 2)])


def test_several_inputs_by_name_with_a_label(tmp_path: Path, spec: Any) -> None:
    np.savez(tmp_path / "a.npz", b=np.arange(4), a=BATCH, labels=np.array(["p", "q", "r", "s"]))
    dataset = open_dataset(tmp_path / "a.npz", [spec("N", 3, 2, name="a"), spec("N", name="b", dtype="int64")])
    assert [(list(s.inputs), s.inputs["b"].tolist(), s.label) for s in dataset] == [
        (["a", "b"], [i], name) for i, name in enumerate("pqrs")
    ]
    assert dataset.labelled


def test_inputs_without_a_batch_axis_make_one_sample_or_a_stack(tmp_path: Path, spec: Any) -> None:
    inputs = [spec(1, 8), spec(2, 1, 4, name="state"), spec(name="rate", dtype="int64")]
    x, state, rate = np.zeros((5, 1, 8), "f4"), np.zeros((5, 2, 1, 4), "f4"), np.full(5, 16000)
    np.savez(tmp_path / "one.npz", x=x[0], state=state[0], rate=rate[0], label=np.array([1, 2]))
    np.savez(tmp_path / "stack.npz", x=x, state=state, rate=rate, label=np.zeros((5, 2)))
    (one,) = open_dataset(tmp_path / "one.npz", inputs)
    assert {k: v.shape for k, v in one.inputs.items()} == {"x": (1, 8), "state": (2, 1, 4), "rate": ()}
    assert one.label.tolist() == [1, 2]
    stack = list(open_dataset(tmp_path / "stack.npz", inputs))
    assert [s.inputs["state"].shape for s in stack] == [(2, 1, 4)] * 5
    assert stack[0].label.shape == (2,)


def test_a_folder_of_files_with_labels(tmp_path: Path, spec: Any) -> None:
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", BATCH[: i + 1])
    (tmp_path / "labels.csv").write_text("file,label\n0.npy,a\n1.npy,b\n2.npy,c\n")
    dataset = open_dataset(tmp_path, [spec("N", 3, 2)])
    assert [(s.index, s.name, s.label) for s in dataset] == [
        (0, "0.npy", "a"),
        (1, "1.npy[0]", "b"),
        (2, "1.npy[1]", "b"),
        (3, "2.npy[0]", "c"),
        (4, "2.npy[1]", "c"),
        (5, "2.npy[2]", "c"),
    ]


def test_files_of_different_free_shapes(tmp_path: Path, spec: Any) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 3, 5), "f4"))
    np.save(tmp_path / "b.npy", np.zeros((1, 3, 9), "f4"))
    assert shapes(open_dataset(tmp_path, [spec("N", 3, "W")])) == [(1, 3, 5), (1, 3, 9)]


def test_a_limit_reads_only_the_chosen_rows(tmp_path: Path, spec: Any) -> None:
    np.save(tmp_path / "a.npy", np.arange(10, dtype="f4")[:, None])
    dataset = open_dataset(tmp_path / "a.npy", [spec("N", 1)], limit=4)
    assert [(s.index, s.name, s.inputs["x"].item()) for s in dataset] == [
        (0, "a.npy[0]", 0),
        (1, "a.npy[2]", 2),
        (2, "a.npy[5]", 5),
        (3, "a.npy[7]", 7),
    ]
    with pytest.raises(UsageError, match=r"^limit must be at least 1, not 0$"):
        open_dataset(tmp_path / "a.npy", [spec("N", 1)], limit=0)


@pytest.mark.parametrize("compressed", [False, True])
def test_memory_holds_one_sample_of_an_npz(tmp_path: Path, spec: Any, compressed: bool) -> None:
    rows, size = 64, 1 << 16  # 16 MB in all, 256 kB a row
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "a.npz", x=np.zeros((rows, size), "f4"), label=np.arange(rows))
    dataset = open_dataset(tmp_path / "a.npz", [spec("N", size)])
    tracemalloc.start()
    labels = [s.label for s in dataset]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert labels == list(range(rows))
    assert peak < 6 * size * 4


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 5),
    tail=st.lists(st.integers(0, 3), max_size=2),
    fortran=st.booleans(),
    kind=st.sampled_from(["<f4", ">f4", "<i8", "|u1"]),
    data=st.data(),
)
def test_rows_are_those_of_numpy(
    tmp_path_factory: Any, rows: int, tail: list[int], fortran: bool, kind: str, data: Any
) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.npz"
    array = np.arange(rows * int(np.prod(tail)), dtype=kind).reshape(rows, *tail)
    np.savez(path, a=np.asfortranarray(array) if fortran else array)
    wanted = sorted(data.draw(st.sets(st.integers(0, rows - 1))))
    got = [r["a"] for r in ArrayFile.open(path, "a").rows(["a"], wanted)]
    np.testing.assert_array_equal(np.array(got).reshape(len(wanted), *tail), array[wanted])


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        ("float64", "float32"),
        ("float32", "float16"),
        ("int32", "int64"),
        ("int64", "int32"),
        ("uint8", "int64"),
        (">f4", "float32"),
        ("<U3", "object"),
    ],
)
def test_safe_casts(tmp_path: Path, spec: Any, stored: str, wanted: str) -> None:
    np.save(tmp_path / "a.npy", np.array([[1, 2, 100]]).astype(stored))
    (sample,) = open_dataset(tmp_path / "a.npy", [spec("N", 3, dtype=wanted)])
    assert sample.inputs["x"].dtype == np.dtype(wanted)
    assert [str(int(float(v))) for v in sample.inputs["x"].ravel()] == ["1", "2", "100"]


@pytest.mark.parametrize(
    ("values", "wanted", "sentence"),
    [
        (
            np.zeros((1, 3), np.uint8),
            "float32",
            'has type uint8, but input "x" takes float32: scale the values as the model expects and store them as '
            "float32",
        ),
        (np.zeros((1, 3), np.float32), "int64", 'has type float32, but input "x" takes int64: store them as int64'),
        (np.zeros((1, 3), np.bool_), "float32", 'has type bool, but input "x" takes float32: store them as float32'),
        (np.zeros((1, 3), np.int64), "bool", 'has type int64, but input "x" takes bool: store them as bool'),
        (np.zeros((1, 3), "U2"), "float32", 'has type string, but input "x" takes float32: store them as float32'),
        (
            np.zeros((1, 3), np.float32),
            "object",
            'has type float32, but input "x" takes string: give an array of strings',
        ),
    ],
)
def test_other_casts_are_refused(
    tmp_path: Path, spec: Any, refuses: Any, values: Any, wanted: str, sentence: str
) -> None:
    np.save(tmp_path / "a.npy", values)
    with refuses(f"{tmp_path}/a.npy {sentence}", DataError):
        open_dataset(tmp_path / "a.npy", [spec("N", 3, dtype=wanted)])


@pytest.mark.parametrize(
    ("values", "wanted", "sentence"),
    [
        (np.array([[1, 2**31, 3]]), "int32", "holds the value 2147483648, outside of int32"),
        (np.array([[1, 2, -3]]), "uint8", "holds the value -3, outside of uint8"),
        (np.array([[1, 2, 2**63]], np.uint64), "int64", "holds the value 9223372036854775808, outside of int64"),
        (np.array([[1, 70000, 2]], np.float32), "float16", "holds the value 70000.0, outside of float16"),
    ],
)
def test_values_outside_of_the_type(
    tmp_path: Path, spec: Any, refuses: Any, values: Any, wanted: str, sentence: str
) -> None:
    np.save(tmp_path / "a.npy", values)
    with refuses(f'{tmp_path}/a.npy {sentence}, which input "x" takes: store values of that type', DataError):
        list(open_dataset(tmp_path / "a.npy", [spec("N", 3, dtype=wanted)]))


def test_infinity_is_not_ours_to_refuse(tmp_path: Path, spec: Any) -> None:
    np.save(tmp_path / "a.npy", np.array([[np.inf, np.nan, 1]], np.float32))
    (sample,) = open_dataset(tmp_path / "a.npy", [spec("N", 3, dtype="float16")])
    assert np.isinf(sample.inputs["x"][0, 0])


ONE = [("x", ("N", 3, 2), "float32")]
TWO = [("ids", ("N", "L"), "int64"), ("mask", ("N", "L"), "int64")]
Z = np.zeros


@pytest.mark.parametrize(
    ("arrays", "inputs", "sentence"),
    [
        ({}, ONE, "holds no arrays: save one per input, x"),
        (
            {"x": Z((4, 3, 3), "f4")},
            ONE,
            ', array "x", has shape [4, 3, 3], but input "x" takes [N, 3, 2]: give one sample or a batch of that shape',
        ),
        ({"x": Z((0, 3, 2), "f4")}, ONE, "holds arrays of length 0, no sample: add samples"),
        ({"a": Z((4, 3, 2), "f4"), "xx": Z(3)}, ONE, 'lacks the input "x": did you mean "xx"?'),
        ({"idds": Z((2, 5), int), "mask": Z((2, 5), int)}, TWO, 'lacks the input "ids": did you mean "idds"?'),
        (
            {"ids": Z((2, 5), int), "mask": Z((3, 5), int)},
            TWO,
            'holds "ids" [2, 5], "mask" [3, 5], which do not agree on the number of samples: make it one number',
        ),
        (
            {"x": Z((4, 3, 2), "f4"), "label": Z(3)},
            ONE,
            ', array "label", holds 3 labels for 4 samples: give one label per sample',
        ),
        (
            {"x": Z((4, 3, 2), "f4"), "labels": np.array(3)},
            ONE,
            ', array "labels", holds 1 labels for 4 samples: give one label per sample',
        ),
    ],
)
def test_npz_refused(
    tmp_path: Path, spec: Any, refuses: Any, arrays: dict[str, Any], inputs: list[Any], sentence: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    between = "" if sentence.startswith(",") else " "
    with refuses(f"{tmp_path}/a.npz{between}{sentence}", DataError):
        open_dataset(tmp_path / "a.npz", [spec(*s, name=n, dtype=d) for n, s, d in inputs])


def test_inputs_that_disagree_about_a_symbol(tmp_path: Path, spec: Any, refuses: Any) -> None:
    np.savez(tmp_path / "a.npz", ids=Z((2, 5), int), mask=Z((2, 6), int))
    dataset = open_dataset(tmp_path / "a.npz", [spec(*s, name=n, dtype=d) for n, s, d in TWO])
    with refuses(
        f'{tmp_path}/a.npz[0] is at odds with itself: dimension "L" is 5 in input "ids" and 6 in input "mask", '
        f"give both the same size"
    ):
        list(dataset)


def test_an_npy_for_two_inputs(tmp_path: Path, spec: Any, refuses: Any) -> None:
    np.save(tmp_path / "a.npy", BATCH)
    with refuses(
        f"{tmp_path}/a.npy is one array, but the model has 2 inputs (ids, mask): save them by name with np.savez"
    ):
        open_dataset(tmp_path / "a.npy", [spec(*s, name=n, dtype=d) for n, s, d in TWO])


def test_pickles_and_records_are_refused(tmp_path: Path, spec: Any, refuses: Any) -> None:
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    with refuses(
        f"{tmp_path}/a.npy holds Python objects (pickle), which are not loaded: save arrays of numbers or strings"
    ):
        open_dataset(tmp_path / "a.npy", [spec("N")])
    np.save(tmp_path / "b.npy", np.zeros(2, [("u", "f4"), ("v", "f4")]))
    with refuses(f"{tmp_path}/b.npy holds records with fields u, v: save one plain array per input"):
        open_dataset(tmp_path / "b.npy", [spec("N")])


def test_damaged_files(tmp_path: Path, spec: Any) -> None:
    x = spec("N", 3, 2)
    (tmp_path / "a.npy").write_bytes(b"nothing")
    with pytest.raises(
        DataError, match=rf"^{tmp_path}/a\.npy is no readable NumPy file \(.*\): write it again with np.save$"
    ):
        open_dataset(tmp_path / "a.npy", [x])
    (tmp_path / "a.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"a\.npz is no readable NumPy file \(File is not a zip file\)"):
        open_dataset(tmp_path / "a.npz", [x])
    with zipfile.ZipFile(tmp_path / "v.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x03\x00")
    with pytest.raises(DataError, match=r"format version 3\.0, which only records with named fields need"):
        open_dataset(tmp_path / "v.npz", [x])


def test_a_truncated_file_among_good_ones_is_skipped_on_demand(tmp_path: Path, spec: Any) -> None:
    x = spec("N", 3, 2)
    for name in ("a.npy", "b.npy", "c.npy"):
        np.save(tmp_path / name, BATCH)
    whole = (tmp_path / "b.npy").read_bytes()
    (tmp_path / "b.npy").write_bytes(whole[:-1])
    (tmp_path / "c.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"b\.npy is no readable NumPy file \(it ends 1 bytes too early\)"):
        open_dataset(tmp_path, [x])
    dataset = open_dataset(tmp_path, [x], skip_bad=True)
    assert [s.name for s in dataset] == [f"a.npy[{i}]" for i in range(4)]
    assert len(dataset) == 4
    assert [s.split(" is ")[0] for s in dataset.skipped] == [f"{tmp_path}/b.npy", f"{tmp_path}/c.npy"]


def test_damage_inside_of_an_npz_is_reported_once(tmp_path: Path, spec: Any) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 3, 2000), "f4"))
    np.savez(tmp_path / "b.npz", x=np.zeros((4, 3, 2000), "f4"))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[40_000] ^= 1  # found by the checksum, when the last row is read
    (tmp_path / "a.npz").write_bytes(data)
    x = spec("N", 3, 2000)
    with pytest.raises(DataError, match=r"a\.npz is no readable NumPy file \(Bad CRC-32"):
        list(open_dataset(tmp_path, [x]))
    dataset = open_dataset(tmp_path, [x], skip_bad=True)
    assert [s.name for s in dataset][-4:] == [f"b.npz[{i}]" for i in range(4)]
    assert len(dataset.skipped) == 1


def test_fortran_order_and_the_long_header(tmp_path: Path, spec: Any) -> None:
    np.save(tmp_path / "a.npy", np.asfortranarray(BATCH))
    with (tmp_path / "b.npy").open("wb") as stream:
        np.lib.format.write_array(stream, BATCH, version=(2, 0))
    for name in ("a.npy", "b.npy"):
        got = [s.inputs["x"] for s in open_dataset(tmp_path / name, [spec("N", 3, 2)])]
        np.testing.assert_array_equal(np.concatenate(got), BATCH)
        assert all(g.flags.c_contiguous and g.flags.writeable for g in got)


def test_labels_twice_or_in_some_files_only(tmp_path: Path, spec: Any, refuses: Any) -> None:
    np.savez(tmp_path / "a.npz", x=BATCH, label=np.arange(4))
    np.savez(tmp_path / "b.npz", x=BATCH)
    with refuses(f"{tmp_path}/a.npz holds labels and {tmp_path}/b.npz does not: label all files or none"):
        open_dataset(tmp_path, [spec("N", 3, 2)])
    (tmp_path / "labels.csv").write_text("file,label\na.npz,1\nb.npz,2\n")
    with refuses(f"{tmp_path}/a.npz holds labels, and {tmp_path} gives labels as well: keep one of them"):
        open_dataset(tmp_path, [spec("N", 3, 2)])
