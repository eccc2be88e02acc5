"""ONNX Runtime's own propagation of Q and DQ (level BASIC) and its own fusion (level EXTENDED) against ours, on the
committed models and on random networks: ours does no less, and where it does more, here stands what and why it is exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import random_graphs
import whole
from rewriting import model

from onnxq.config.job import load_job
from onnxq.driver import quantize
from onnxq.ir import load, save, text
from onnxq.ir.model import Model
from onnxq.optable import OP_TABLE
from onnxq.pipeline.base import Stage
from onnxq.pipeline.manager import Pipeline, run_pipeline
from onnxq.pipeline.spec import load_pipeline
from onnxq.runtime.session import Level, Session, optimized
from onnxq.testing import default_context, random_inputs
from onnxq.workbench.run import Show, run
from onnxq.workbench.setup import Request
from onnxq_passes.cancel_dq_q import CancelDqQ
from onnxq_passes.hoist_quantize import HoistQuantize
from onnxq_passes.merge_quantize import MergeQuantize
from onnxq_passes.sink_dequantize import SinkDequantize

MODELS = Path(__file__).parents[2] / "models"
JOBS = sorted(MODELS.glob("fashion-*/job*.yaml"))
THIRD_PARTY = sorted((Path(__file__).parent / "thirdparty").glob("*.onnx"))
FUSE = Pipeline("fuse", tuple(s for s in load_pipeline("qoperator").steps if s.body.takes is not Stage.FLOAT))
PUSHED_BY_ORT = {"MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice"}


PROPAGATION = (HoistQuantize(), SinkDequantize(), CancelDqQ(), MergeQuantize())


def between(proto: onnx.ModelProto, nodes: Collection[str] | None = None) -> Counter[str]:
    """Ops that move data and stand between DQ and Q only, by type: those that become integer ops.

    Args:
        nodes: only these; ONNX Runtime puts Reshapes of its own around a Gemm that it made of MatMul and Add.
    """
    makers = {o: n.op_type for n in proto.graph.node for o in n.output}
    readers: dict[str, set[str]] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    outputs = {o.name for o in proto.graph.output}
    found: Counter[str] = Counter()
    for node in proto.graph.node:
        row = OP_TABLE.get(node.op_type) if nodes is None or node.name in nodes else None
        if row is None or row.moves is None:
            continue
        slots = range(len(node.input)) if row.data is None else row.data
        front = all(makers.get(node.input[s]) == "DequantizeLinear" for s in slots)
        behind = all(o not in outputs and readers.get(o) == {"QuantizeLinear"} for o in node.output)
        found[node.op_type] += front and behind
    return found


@pytest.mark.parametrize("path", JOBS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_no_move_that_ort_makes_is_left_out(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "quantized.onnx"
    quantize(
        load_job(path).with_overrides(
            output=file, calib_limit=8, eval_limit=4, threads=1, speed=False, placement="rules"
        )
    )
    loaded = load.load(file)
    for pass_ in PROPAGATION:
        pass_.run(loaded.graph, default_context())
    ours = save.to_bytes(loaded)
    theirs = between(onnx.load_from_string(optimized(file, level=Level.BASIC)))
    mine = between(onnx.load_from_string(ours))
    assert all(mine[op] >= theirs[op] for op in PUSHED_BY_ORT), (mine, theirs)
    one, other = Session(file, level=Level.OFF, threads=1), Session(ours, level=Level.OFF, threads=1)
    inputs = random_inputs(one.inputs)
    expected, got = one.run(inputs), other.run(inputs)
    assert all(np.array_equal(expected[k], got[k]) for k in expected)
    assert sum(theirs.values()) > 0 or path.parent.name != "fashion-vit"


@pytest.mark.parametrize(
    ("move", "pushed"),
    [
        ("Transpose(a)", True),
        ("Slice(a, zero, one, zero)", True),
        ("Gather(a, zero)", False),
        ("Tile(a, pair)", False),
        ("Flatten(a)", False),
        ("ReduceMax(a, zero)", False),
        ("Expand(a, pair)", False),
    ],
)
def test_ours_moves_more_than_six_ops(move: str, pushed: bool) -> None:
    source = (
        "(uint8[2,2] p) => (float[n,m] y) <float s = {0.1}, uint8 z = {9}, int64[1] zero = {0}, int64[1] one = {1}, int64[2] pair = {2, 2}> "
        f"{{ a = DequantizeLinear(p, s, z) b = {move} y = Softmax(b) }}"
    )
    parsed = text.parse(model(source))
    theirs = between(onnx.load_from_string(optimized(save.to_bytes(parsed), level=Level.BASIC)))
    SinkDequantize().run(parsed.graph, default_context())
    mine = between(onnx.load_from_string(save.to_bytes(parsed)))
    assert sum(mine.values()) == 1
    assert sum(theirs.values()) == pushed


HEAVY_FLOAT = ("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")
PRODUCTS = ("QLinearMatMul", "MatMulIntegerToFloat", "QGemm")

MOVED_FURTHER = {
    "Concat": "copies; each input gets the Q of the result",
    "DepthToSpace": "permutes",
    "Expand": "repeats",
    "Flatten": "is a Reshape",
    "Gather": "copies",
    "Identity": "copies",
    "Max": "rounding keeps the order: the integer of the greatest value is the greatest integer",
    "Min": "as Max",
    "Pad": "copies; a constant border goes through the same Q",
    "ReduceMax": "as Max",
    "ReduceMin": "as Max",
    "Resize": "copies, in mode nearest",
    "SpaceToDepth": "permutes",
    "Split": "copies",
    "Tile": "repeats",
    "Where": "copies one of two, both quantized alike",
    **dict.fromkeys(
        PUSHED_BY_ORT, "is moved by ONNX Runtime, too, but stands in front of or behind an op of this list"
    ),
}
"""Ops that ours brings between DQ and Q and ONNX Runtime does not, since its propagation knows six ops: why the
integers stay the same (`test_random_networks` compares the bits, tests/test_optable.py each op)."""

FUSED_FURTHER = {
    "a product with integer output": "the Q that stood behind a Concat stands behind each of its inputs now, and a "
    "product with a Q behind it is a QLinearMatMul: one rounding of the same int32 sum",
    "a product": "a Gemm with a float bias and no Q behind it: ours writes the bias as int32, so that it is off by half a "
    "step of the sums (sx * sw) at most; the sums themselves are exact, those of the float Gemm are not",
    "heavy float": "the same Gemm, which ONNX Runtime leaves in float",
}
"""Integer ops that ours makes and ONNX Runtime at EXTENDED does not."""

RIPPLE_DB = 40.0
"""Least SQNR (dB) of the integer file against Q/DQ without optimizations, where ours fuses further: integer kernels are
one step off now and then (docs/ort.md)."""


def ops(file: bytes) -> Counter[str]:
    """Op types of a graph and of its bodies."""

    def count(graph: onnx.GraphProto) -> Counter[str]:
        inner = [a.g for n in graph.node for a in n.attribute if a.HasField("g")]
        return sum((count(g) for g in inner), Counter(n.op_type for n in graph.node))

    return count(onnx.load_from_string(file).graph)


def integer_ops(counts: Counter[str]) -> Counter[str]:
    """The integer ops, the forms of one product as one, and heavy float ops as a debt."""
    found = Counter({n: c for n, c in counts.items() if n.startswith("QLinear") and n not in PRODUCTS})
    found["a product"] = sum(counts[n] for n in PRODUCTS)
    found["a product with integer output"] = counts["QLinearMatMul"]
    found["heavy float"] = -sum(counts[n] for n in HEAVY_FLOAT)
    return found


def fused_further(
    quantized: Model, file: bytes, samples: Sequence[whole.Arrays], title: str
) -> tuple[Counter[str], Counter[str]]:
    """Fuse a Q/DQ model, whose bytes are `file`, by the rest of qoperator: no fewer integer ops than ONNX Runtime makes
    at EXTENDED, and where there are more, nearly the same numbers.

    Returns:
        what ours fuses and ONNX Runtime does not, and what that fuses.
    """
    run_pipeline(quantized.graph, FUSE, default_context())
    counts = ops(save.to_bytes(quantized))
    ours, theirs = integer_ops(counts), integer_ops(ops(optimized(file, level=Level.EXTENDED)))
    # between equal encodings Concat and Where move integers as they are
    with_plain = Counter(ours)
    with_plain.update({f"QLinear{op}": counts[op] for op in ("Concat", "Where")})
    assert with_plain >= theirs, f"{title}: {ours} and {theirs}"
    if ours - theirs:
        a, b = whole.run(file, samples), whole.run(save.to_bytes(quantized), samples)
        assert all(whole.sqnr(a, b, o) >= RIPPLE_DB for o in a[0]), title
    return ours - theirs, theirs


@pytest.mark.parametrize("path", JOBS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_no_fusion_that_ort_makes_is_left_out(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "quantized.onnx"
    quantize(
        load_job(path).with_overrides(
            output=file, calib_limit=8, eval_limit=4, threads=1, speed=False, placement="rules"
        )
    )
    fusion_of(file)


@pytest.mark.parametrize("path", THIRD_PARTY, ids=lambda p: p.stem)
def test_files_of_others(path: Path, tmp_path: Path) -> None:
    """Behind the import; these files have scales and zero points that ONNX Runtime cannot always make integers of."""
    file = tmp_path / "imported.onnx"
    run(Request(pipeline="import", model=path), file, Show(), lambda _: None)
    theirs = between(onnx.load_from_string(optimized(path, level=Level.BASIC)))
    mine = between(onnx.load(file))
    assert all(mine[op] >= theirs[op] for op in PUSHED_BY_ORT), (mine, theirs)
    fusion_of(file)


def fusion_of(file: Path) -> None:
    """Of one Q/DQ file on one sample: what goes further is explained, and there is something to compare."""
    samples = [random_inputs(Session(file, threads=1).inputs)]
    further, theirs = fused_further(load.load(file), file.read_bytes(), samples, file.name)
    print(f"fused further: {sorted(further.items())}")
    assert set(further) <= set(FUSED_FURTHER)
    assert theirs["a product"] + theirs["QLinearConv"] > 0


@pytest.mark.parametrize(
    "seeds",
    [range(100), *(pytest.param(range(i, i + 250), marks=pytest.mark.slow) for i in range(100, 1100, 250))],
    ids=str,
)
def test_random_networks(seeds: range) -> None:
    moved: Counter[str] = Counter()
    fused: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for seed in seeds:
        recipe = random_graphs.drawn(seed)
        network = random_graphs.build(recipe)
        samples = random_graphs.inputs(recipe, network, 2)
        made = whole.quantized(network, samples)
        file = save.to_bytes(made.model)
        placed = made.model.copy()
        for pass_ in PROPAGATION:
            pass_.run(placed.graph, default_context())
        nodes = {n.name for n in onnx.load_from_string(file).graph.node}
        ours = between(onnx.load_from_string(save.to_bytes(placed)), nodes)
        theirs = between(onnx.load_from_string(optimized(file, level=Level.BASIC)), nodes)
        seen += theirs
        assert ours >= theirs, f"seed {seed}: {ours} and {theirs}"
        if ours > theirs:
            moved += ours - theirs
            a, b = whole.run(file, samples), whole.run(save.to_bytes(placed), samples)
            assert all(x[o].tobytes() == y[o].tobytes() for x, y in zip(a, b, strict=True) for o in x), f"seed {seed}"

        further, theirs = fused_further(made.model, file, samples, f"seed {seed}")
        fused += further
        seen += theirs
    print(f"moved further: {sorted(moved.items())}; fused further: {sorted(fused.items())}")
    assert set(moved) <= set(MOVED_FURTHER)
    assert set(fused) <= set(FUSED_FURTHER)
    assert sum(seen[n] for n in PUSHED_BY_ORT) > 0 and seen["a product"] > 0 and seen["QLinearConv"] > 0
