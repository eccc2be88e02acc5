"""The smallest file within a budget: on values, where every answer is known, and on a small decoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import decoder
import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from onnxq.compact import SMALL, smallest
from onnxq.config.job import Job
from onnxq.config.placing import Judged
from onnxq.driver import quantize
from onnxq.encoding import Kind
from onnxq.ir import text
from onnxq.ir.model import Model
from onnxq.ir.save import to_bytes
from onnxq.plan.kinds import possible
from onnxq.plan.plan import Decision, Placement, Plan
from onnxq.targets.target import load_target
from onnxq.validate.result import Result

SOME = text.parse('<ir_version: 8, opset_import: ["" : 17]> m (float x) => (float y) { y = Relu(x) }')
NOISE = {"int8": 4.0, "weights8": 1.0, "weights4": 10.0, "dynamic": 3.0}


def graph() -> gs.Graph:
    """Products "large" and "small" (int8 by rules), a Gather "rows", twins "one" and "two" of one weight, an LSTM."""
    x, i = gs.Variable("x", np.float32), gs.Variable("i", np.int64)
    w = {n: gs.Constant(f"w_{n}", np.ones(s, np.float32)) for n, s in SIZES.items()}
    nodes = [
        gs.Node("MatMul", n, {}, [x, w["twins" if n in ("one", "two") else n]], [gs.Variable(n, np.float32)])
        for n in ("small", "large", "one", "two")
    ]
    nodes.append(gs.Node("Gather", "rows", {}, [w["rows"], i], [gs.Variable("rows", np.float32)]))
    nodes.append(gs.Node("LSTM", "lstm", {}, [x, w["w"], w["r"]], [gs.Variable("lstm", np.float32)]))
    return gs.Graph(nodes, [x, i], [n.outputs[0] for n in nodes], opset=21)


SIZES = {
    "small": (64, 32),
    "large": (64, 640),
    "twins": (64, 64),
    "rows": (100, 65),
    "w": (1, 64, 32),
    "r": (1, 64, 16),
}
INTEGER = {"small", "large", "one", "two"}


def made(limit: float) -> tuple[Mapping[str, Kind], Placement, list[str], int]:
    """With a judge that allows a summed noise of `limit`."""
    placements: list[Placement] = []
    judged: list[float] = []
    target, some = load_target("cpu"), graph()
    decisions = {n.name: Decision(op=n.op, integer=n.name in INTEGER) for n in some.nodes}
    rules = Plan(values={}, uses={}, decisions=decisions)
    current = [rules]

    def replan(placement: Placement) -> Plan:
        placements.append(placement)
        left = {n: Decision(op=d.op, integer=d.integer and n not in placement.floats) for n, d in decisions.items()}
        return Plan(values={}, uses={}, decisions=left, kinds=placement.kinds)

    def insert(plan: Plan) -> Model:
        current[0] = plan
        return SOME

    def judge(_: Model) -> Judged:
        noise = sum(NOISE["int8"] for d in current[0].decisions.values() if d.integer)
        noise += sum(NOISE[k] for k in current[0].kinds.values())
        judged.append(noise)
        return Judged(holds=noise <= limit, sentence=f"noise {noise:g}")

    plan, notes = smallest(some, rules, possible(some, target), judge=judge, replan=replan, insert=insert)
    return plan.kinds, next(p for p in reversed(placements) if p.kinds == plan.kinds), notes, len(judged)


EIGHT: dict[str, Kind] = {"rows": "weights8", "lstm": "dynamic"}


def test_what_cannot_be_int8_gets_weights_of_8_bits_and_an_lstm_is_dynamic() -> None:
    kinds, placement, notes, _ = made(20.0)  # 4 x 4 + 1 + 3
    assert kinds == EIGHT and not placement.floats
    assert notes == [
        "The smallest file within the budget has 4 ops in int8, 1 with weights of 8 bits, 1 dynamic: noise 20."
    ]


def test_the_largest_weights_get_4_bits_as_far_as_the_budget_goes() -> None:
    kinds, placement, _, _ = made(27.0)  # large: +6
    assert kinds == {**EIGHT, "large": "weights4"}
    assert placement.floats == {"large": SMALL}
    kinds, _, notes, count = made(38.0)  # both twins: +12
    assert kinds == {**EIGHT, "large": "weights4", "one": "weights4", "two": "weights4"}
    assert "1 ops in int8, 3 with weights of 4 bits, 1 with weights of 8 bits, 1 dynamic: noise 38" in notes[0]
    assert count <= 4
    kinds, _, _, _ = made(1000.0)
    assert kinds == {**EIGHT, **dict.fromkeys(INTEGER, "weights4")}  # an odd number of columns stays in 8 bits


def test_weights_of_8_bits_where_int8_is_too_loud() -> None:
    kinds, placement, _, _ = made(8.0)  # 5 x 1 + 3
    assert kinds == {**EIGHT, **dict.fromkeys(INTEGER, "weights8")}
    assert set(placement.floats) == INTEGER


def test_a_budget_that_nothing_keeps_is_said() -> None:
    kinds, _, notes, _ = made(1.0)
    assert kinds == EIGHT
    assert notes == ["The accuracy budget does not hold, even for weights of 8 bits: noise 20."]


def job(folder: Path, **options: object) -> Result:
    onnx.save(decoder.decoder(1), folder / "lm.onnx")
    np.savez(folder / "ids.npz", ids=np.stack([s["ids"] for s in decoder.ids(8, 12)]))
    return quantize(
        Job(model=folder / "lm.onnx").with_overrides(
            output=folder / "o.onnx", calib=str(folder / "ids.npz"), method="minmax", threads=1, speed=False, **options  # type: ignore[arg-type]
        )
    )  # fmt: skip


def test_a_decoder_becomes_five_times_smaller(tmp_path: Path) -> None:
    result = job(tmp_path, optimize="size")
    assert any(
        note.startswith("The smallest file within the budget has 0 ops in int8, 8 with") for note in result.notes
    )
    assert (tmp_path / "lm.onnx").stat().st_size > 4.5 * (tmp_path / "o.onnx").stat().st_size
    assert result.coverage is not None and result.accuracy is not None
    forms = {op.name: op.form for op in result.coverage.ops}
    assert forms["n_embedded"] == forms["n_logits"] == "integer weights"
    assert forms["n_norm0"] == forms["n_after0"] == "float"  # they read what comes out of such ops
    assert (result.accuracy.outputs[0].sqnr_db or 0.0) > 10.0


@pytest.mark.parametrize("target", ["tensorrt"])
def test_a_target_without_kinds_has_none(tmp_path: Path, target: str) -> None:
    result = job(tmp_path, optimize="size", target=target)
    ops = {n.op_type for n in onnx.load(tmp_path / "o.onnx").graph.node}
    assert not ops & {"MatMulNBits", "GatherBlockQuantized", "DynamicQuantizeMatMul"}
    assert not any("smallest file" in note for note in result.notes)


def test_a_convolution_that_is_faster_in_float_is_int8_for_its_size(tmp_path: Path) -> None:
    weight = ", ".join(f"{v:.5f}" for v in np.random.default_rng(0).normal(0, 0.1, 4 * 4 * 27))
    some = text.parse(
        '<ir_version: 8, opset_import: ["" : 21]> m (float[1,4,6,6,6] x) => (float[1,4,4,4,4] y) '
        f"<float[4,4,3,3,3] w = {{{weight}}}> {{ [conv] y = Conv(x, w) }}"
    )
    (tmp_path / "m.onnx").write_bytes(to_bytes(some))
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(1).normal(0, 1, (4, 1, 4, 6, 6, 6)).astype(np.float32))
    asked = Job(model=tmp_path / "m.onnx").with_overrides(
        output=tmp_path / "o.onnx", calib=str(tmp_path / "x.npz"), method="minmax", threads=1, speed=False
    )
    integer = []
    for options in ({"placement": "rules"}, {"optimize": "size"}):
        found = quantize(asked.with_overrides(**options)).coverage  # type: ignore[arg-type]
        assert found is not None
        integer.append([op.integer for op in found.ops])
    assert integer == [[False], [True]]
