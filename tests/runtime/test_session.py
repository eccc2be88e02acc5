from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.parser
import pytest

from onnxq.errors import ModelError
from onnxq.runtime.session import Level, Session, physical_threads

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'
MODEL = onnx.parser.parse_model(
    f"{HEAD} g (float[n,2] x, int64 k) => (float[n,2] y, int64 z) {{ y = Relu(x) z = Neg(k) }}"
).SerializeToString()
INPUTS = {"x": np.array([[-1.0, 2.0]], np.float32), "k": np.array(3)}


def test_interface() -> None:
    session = Session(MODEL)
    assert [(i.name, i.dtype.name, i.shape) for i in session.inputs] == [("x", "float32", ("n", 2)), ("k", "int64", ())]
    assert session.outputs == ("y", "z")
    assert [o.dtype.name for o in session.output_specs] == ["float32", "int64"]
    assert session.overridable == ()


@pytest.mark.parametrize("level", list(Level))
def test_run_all_or_some_outputs(level: Level) -> None:
    session = Session(MODEL, level=level, threads=1, memory_pattern=False, prepacking=False)
    found = session.run(INPUTS)
    assert found["y"].tolist() == [[0.0, 2.0]]
    assert found["z"] == -3
    assert list(session.run(INPUTS, ["z"])) == ["z"]


def test_profile_is_read_and_removed(tmp_path: Path) -> None:
    session = Session(MODEL, profile_prefix=tmp_path / "p")
    session.run(INPUTS)
    events = session.end_profiling()
    assert any(e.get("args", {}).get("op_name") == "Relu" for e in events)
    assert not list(tmp_path.iterdir())


def test_errors_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match=r"cannot load .*m\.onnx: [^\n]*$"):
        Session(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"cannot run the model: [^\n]*$"):
        Session(MODEL).run({"x": INPUTS["x"]})


def test_threads_of_this_process() -> None:
    assert physical_threads() >= 1
