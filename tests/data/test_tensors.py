"""ONNX test data sets, written with onnx itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxq.data import open_dataset
from onnxq.errors import DataError


def write(folder: Path, *tensors: tuple[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, (name, array) in enumerate(tensors):
        (folder / f"input_{i}.pb").write_bytes(numpy_helper.from_array(np.asarray(array), name).SerializeToString())


def test_sets_in_numeric_order_inputs_in_model_order(tmp_path: Path, spec: Any) -> None:
    for i in (0, 2, 10):
        write(tmp_path / f"test_data_set_{i}", ("", np.full((1, 2), i, "f4")), ("", i))
        (tmp_path / f"test_data_set_{i}" / "output_0.pb").write_bytes(b"never read")
    dataset = open_dataset(tmp_path, [spec(1, 2, name="b"), spec(name="a", dtype="int64")])
    samples = list(dataset)
    assert [s.name for s in samples] == ["test_data_set_0", "test_data_set_2", "test_data_set_10"]
    assert [s.inputs["b"].tolist() for s in samples] == [[[0, 0]], [[2, 2]], [[10, 10]]]
    assert samples[2].inputs["a"].shape == ()
    assert dataset.description == f"3 test data sets of {tmp_path}"
    assert dataset.preprocess_summary == "tensors as stored"
    assert not dataset.labelled


def test_one_set_named_itself_and_more_than_ten_inputs(tmp_path: Path, spec: Any) -> None:
    write(tmp_path, *(("", np.array([i], "f4")) for i in range(11)))
    (sample,) = open_dataset(tmp_path, [spec(1, name=f"i{i}") for i in range(11)])
    assert [float(v[0]) for v in sample.inputs.values()] == list(range(11))


def test_names_in_the_tensors_win_over_numbers(tmp_path: Path, spec: Any) -> None:
    write(tmp_path, ("weight", np.ones(3, "f4")), ("b", np.ones(2, "f4")), ("a", np.zeros(2, "f4")))
    (sample,) = open_dataset(tmp_path, [spec(2, name="a"), spec(2, name="b")])
    assert {k: v.tolist() for k, v in sample.inputs.items()} == {"a": [0, 0], "b": [1, 1]}


def test_a_fixed_batch_is_fed_as_stored(tmp_path: Path, spec: Any) -> None:
    write(tmp_path / "test_data_set_0", ("", np.ones((4, 2), "f4")))
    (sample,) = open_dataset(tmp_path, [spec(4, 2)])
    assert sample.inputs["x"].shape == (4, 2)


def test_too_few_and_too_many(tmp_path: Path, spec: Any, refuses: Any) -> None:
    write(tmp_path / "test_data_set_0", ("p", np.ones(2, "f4")), ("q", np.ones(2, "f4")))
    with refuses(
        f"{tmp_path}/test_data_set_0 holds 2 files input_<i>.pb, but the model has 3 inputs (a, b, c): "
        f"add the missing ones"
    ):
        open_dataset(tmp_path, [spec(2, name=n) for n in "abc"])
    with refuses(
        f"{tmp_path}/test_data_set_0 holds 2 tensors that do not carry the names of the model's 1 inputs (x): "
        f"keep one file per input"
    ):
        list(open_dataset(tmp_path, [spec(2)]))


def test_shape_and_type(tmp_path: Path, spec: Any, refuses: Any) -> None:
    write(tmp_path / "test_data_set_0", ("x", np.ones((1, 3), "f4")))
    with refuses(
        f'{tmp_path}/test_data_set_0 has shape [1, 3], but input "x" takes [N, 2]: give samples of that shape'
    ):
        list(open_dataset(tmp_path, [spec("N", 2)]))
    with refuses(f'{tmp_path}/test_data_set_0 has type float32, but input "x" takes int64: store them as int64'):
        list(open_dataset(tmp_path, [spec("N", 3, dtype="int64")]))


def test_damaged_sets(tmp_path: Path, spec: Any) -> None:
    good = np.arange(64, dtype="f4")
    for i in range(5):
        write(tmp_path / f"test_data_set_{i}", ("x", good))
    whole = (tmp_path / "test_data_set_1" / "input_0.pb").read_bytes()
    (tmp_path / "test_data_set_1" / "input_0.pb").write_bytes(whole[:-9])
    (tmp_path / "test_data_set_2" / "input_0.pb").write_bytes(b"")
    short = onnx.TensorProto(data_type=onnx.TensorProto.FLOAT, dims=[4], raw_data=b"1234")
    (tmp_path / "test_data_set_3" / "input_0.pb").write_bytes(short.SerializeToString())
    odd = onnx.TensorProto(data_type=99, dims=[1], raw_data=b"1234")
    (tmp_path / "test_data_set_4" / "input_0.pb").write_bytes(odd.SerializeToString())
    with pytest.raises(
        DataError,
        match=rf"^{tmp_path}/test_data_set_1/input_0\.pb is no readable tensor \(not a tensor.*\): write it again or",
    ):
        list(open_dataset(tmp_path, [spec(64)]))
    dataset = open_dataset(tmp_path, [spec(64)], skip_bad=True)
    assert [s.name for s in dataset] == ["test_data_set_0"]
    assert len(dataset.skipped) == 4
