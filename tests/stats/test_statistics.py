"""Statistics: merge in any order, files that come back bit for bit, sentences for every bad file."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.errors import CalibrationError, OutputError, UnknownNameError
from onnxq.stats import Statistics, TensorStatistics, make_observer
from onnxq.stats.statistics import merge_all, merge_shapes


def tensor(name: str, *values: float, observers: tuple[str, ...] = ("minmax", "histogram")) -> TensorStatistics:
    made = {o: make_observer(o) for o in observers}
    for observer in made.values():
        observer.update(np.array(values, np.float32))
    return TensorStatistics(name, made)


def statistics(samples: int = 1, **tensors: tuple[float, ...]) -> Statistics:
    return Statistics(
        model_hash="a" * 64,
        samples=samples,
        tensors={n: tensor(n, *v) for n, v in tensors.items()},
        shapes={n: (1, len(v)) for n, v in tensors.items()},
        unreached=("never",),
    )


PARTS = [statistics(x=(1.0, -2.0), y=(0.1,)), statistics(x=(3.5,)), statistics(2, y=(1e-42, -0.0), never=(1.0,))]


def test_tensor_reads_its_observers() -> None:
    found = tensor("x", 1.5, -2.0, 0.0)
    assert (found.min, found.max, found.count, found.infinite) == (-2.0, 1.5, 3, 0)
    assert found.histogram.total == 3


def test_merge_does_not_depend_on_the_order(tmp_path: Path) -> None:
    merged = [merge_all(order) for order in itertools.permutations(PARTS)]
    for index, one in enumerate(merged):
        assert one == merged[0]
        one.save(tmp_path / f"{index}.npz")
    assert len({(tmp_path / f"{i}.npz").read_bytes() for i in range(len(merged))}) == 1
    assert (merged[0].samples, merged[0].tensors["x"].count, merged[0].tensors["x"].max) == (4, 3, 3.5)
    assert merged[0].shapes == {"never": (1, 1), "x": (1, "?"), "y": (1, "?")}
    assert merged[0].unreached == ()  # one part reached it
    assert merge_all(PARTS[:2]).unreached == ("never",)


@pytest.mark.parametrize(
    ("a", "b", "merged"),
    [
        (None, (1, 2), (1, 2)),
        ((1, 2), (1, 2), (1, 2)),
        ((1, 2), (1, 3), (1, "?")),
        ((1, "?"), (1, 2), (1, "?")),
        ((1,), (1, 2), ("?", "?")),
    ],
)
def test_merge_shapes(a: Any, b: Any, merged: Any) -> None:
    assert merge_shapes(a, b) == merged


def test_merge_refuses_another_model() -> None:
    other = Statistics(model_hash="b" * 64, samples=1, tensors={})
    with pytest.raises(CalibrationError, match=r"two different models \(hashes aaaaaaaaaaaa and bbbbbbbbbbbb\)"):
        PARTS[0].merge(other)


def test_merge_refuses_other_observers() -> None:
    with pytest.raises(CalibrationError, match='tensor "x" hold histogram, minmax here and minmax there'):
        tensor("x", 1.0).merge(tensor("x", 1.0, observers=("minmax",)))


def test_what_was_not_collected_is_said() -> None:
    with pytest.raises(CalibrationError, match='statistics of tensor "x" hold no histogram'):
        _ = tensor("x", 1.0, observers=("minmax",)).histogram
    with pytest.raises(CalibrationError, match='statistics of tensor "x" hold no minmax'):
        _ = tensor("x", 1.0, observers=("histogram",)).min


def test_stale_statistics_are_refused() -> None:
    PARTS[0].check("a" * 64)
    with pytest.raises(
        CalibrationError, match=r"belong to another model \(hash aaaaaaaaaaaa, this one has cccccccccccc\)"
    ):
        PARTS[0].check("c" * 64)


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=5),
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20),
        max_size=4,
    )
)
def test_round_trip_is_bit_exact(tmp_path_factory: pytest.TempPathFactory, values: dict[str, list[float]]) -> None:
    path = tmp_path_factory.mktemp("s") / "s.npz"
    made = statistics(7, **{n: tuple(v) for n, v in values.items()})
    made.save(path)
    again = Statistics.load(path)
    assert again == made
    again.save(path.with_name("t.npz"))
    assert path.read_bytes() == path.with_name("t.npz").read_bytes()


def test_tensors_may_hold_different_observers(tmp_path: Path) -> None:
    made = Statistics(
        model_hash="h", samples=1, tensors={"a": tensor("a", 1.0, observers=("minmax",)), "b": tensor("b", 2.0)}
    )
    made.save(tmp_path / "s.npz")
    assert Statistics.load(tmp_path / "s.npz") == made


def test_save_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    path.write_text("old")
    PARTS[0].save(path)
    assert Statistics.load(path) == PARTS[0]
    assert [p.name for p in tmp_path.iterdir()] == ["s.npz"]


def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"the statistics cannot be written to .*nowhere"):
        PARTS[0].save(tmp_path / "nowhere" / "s.npz")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=r"the statistics cannot be written to .*folder"):
        PARTS[0].save(tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def _members(path: Path) -> dict[str, Any]:
    with np.load(path) as archive:
        return {k: archive[k] for k in archive.files}


def _header(members: dict[str, Any], **changes: Any) -> None:
    header = {**json.loads(members["header"].tobytes()), **changes}
    members["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"there is no statistics file .*s\.npz"):
        Statistics.load(tmp_path / "s.npz")


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    PARTS[0].save(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0xFF
    for bad in (b"", b"hello", whole[:100], whole[: len(whole) // 2], bytes(flipped)):
        path.write_bytes(bad)
        with pytest.raises(CalibrationError, match="is not a statistics file or is damaged"):
            Statistics.load(path)
    path.write_bytes(whole)
    assert Statistics.load(path) == PARTS[0]


def test_foreign_and_inconsistent_files(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    np.savez(path, calib=np.zeros(3))
    with pytest.raises(CalibrationError, match="is not a statistics file or is damaged"):
        Statistics.load(path)
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(CalibrationError, match="is not a statistics file or is damaged"):
        Statistics.load(tmp_path / "array.npy")
    PARTS[0].save(path)
    members = _members(path)
    members["histogram.counts"] = members["histogram.counts"][:-1]
    np.savez(path, **members)
    with pytest.raises(CalibrationError, match="array lengths do not add up"):
        Statistics.load(path)


def test_newer_schema_and_unknown_observer(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    PARTS[0].save(path)
    members = _members(path)
    _header(members, schema=2)
    np.savez(path, **members)
    with pytest.raises(CalibrationError, match="has statistics schema 2, this onnxq reads 1"):
        Statistics.load(path)
    _header(members, schema=1, observers={"gram": ["x"]})
    np.savez(path, **members)
    with pytest.raises(UnknownNameError, match='there is no observer "gram"'):
        Statistics.load(path)
