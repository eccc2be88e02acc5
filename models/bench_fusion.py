"""Our fused file against ONNX Runtime's own fusion of our Q/DQ file: `make bench-fusion`, explained in docs/fusion.md.

    python models/bench_fusion.py                                # every fetched model
    python models/bench_fusion.py --models fashion-res8 --seconds 2
    python models/bench_fusion.py --seconds 0                    # op counts only
    python models/bench_fusion.py --readme                       # measures nothing: the last run into docs/fusion.md

Every model is quantized by the pipelines cpu, tensorrt and qoperator on the same few samples.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import onnx
from bench import BenchError, Entry, chosen, commit, entries, machine, versions
from bench_process import ROOT, one_line
from bench_tables import BlockError, replace_block
from bench_worker import LATENCY_SAMPLES, load, opened

from onnxq import registry
from onnxq.config.job import Job
from onnxq.driver import quantize
from onnxq.errors import OnnxqError
from onnxq.ir.load import from_proto
from onnxq.ir.load import load as load_model
from onnxq.ir.save import to_bytes
from onnxq.plan.check import check
from onnxq.runtime.observe import node_runs
from onnxq.runtime.session import Level, Session, optimized
from onnxq.targets.target import load_target
from onnxq.testing import default_context
from onnxq.validate.kernels import words
from onnxq.validate.latency import measure

PAGE = ROOT / "docs" / "fusion.md"
BEGIN, END = "<!-- fusion -->", "<!-- /fusion -->"
TARGETS = {"cpu": "cpu", "tensorrt": "tensorrt", "qoperator": "cpu"}
"""Pipeline -> target."""
HEAVY = words("Conv FusedConv ConvTranspose Gemm FusedGemm MatMul FusedMatMul LSTM GRU RNN")
INTEGER_HEAVY = words(
    "QLinearConv QLinearMatMul QGemm MatMulIntegerToFloat DynamicQuantizeMatMul DynamicQuantizeLSTM ConvInteger "
    "MatMulInteger"
)
MOVES = words(
    "Concat DepthToSpace Expand Flatten Gather GatherElements GatherND MaxPool NhwcMaxPool Pad ReduceMax ReduceMin "
    "Reshape Resize Slice SpaceToDepth Split Squeeze Tile Transpose Unsqueeze Upsample Where"
)
Q, DQ = "QuantizeLinear", "DequantizeLinear"


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a graph holds, bodies included, and what one run of it converts.

    Attributes:
        heavy, integer_heavy: products in float, and on integers.
        qlinear: other integer ops: QLinearAdd, QLinearConcat, ...
        moves: ops that move 8-bit data as it is; Reshape and the like count, too.
        q, dq: conversions.
        converted: elements that QuantizeLinear and DequantizeLinear read in one run.
    """

    heavy: int
    integer_heavy: int
    qlinear: int
    moves: int
    q: int
    dq: int
    converted: int


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of bodies included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes(attribute.g)


def counts(model: bytes, sample: Mapping[str, Any]) -> Counts:
    """Count a graph and watch it run once, as it is."""
    proto = onnx.load_from_string(model)
    for number, node in enumerate(nodes(proto.graph)):
        node.name = f"{number}"  # ONNX Runtime leaves nodes without a name
    every = list(nodes(proto.graph))
    ops = Counter(n.op_type for n in every)
    small = _eight_bit(proto)
    converted = 0
    for name, runs in node_runs(proto.SerializeToString(), sample).items():
        if name.isdigit() and every[int(name)].op_type in (Q, DQ):
            converted += sum(math.prod(run.inputs[0]) for run in runs)
    return Counts(
        heavy=sum(ops[o] for o in HEAVY),
        integer_heavy=sum(ops[o] for o in INTEGER_HEAVY),
        qlinear=sum(n for o, n in ops.items() if o.startswith("QLinear") and o not in INTEGER_HEAVY),
        moves=sum(n.op_type in MOVES and n.output[0] in small for n in every),
        q=ops[Q],
        dq=ops[DQ],
        converted=converted,
    )


def _eight_bit(proto: onnx.ModelProto) -> set[str]:
    """Tensors of 8 bits: what Q and integer ops write, and what is moved from there."""
    small = {t.name for t in proto.graph.initializer if t.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)}
    for node in nodes(proto.graph):
        if node.op_type == Q or node.op_type.startswith("QLinear") or (node.op_type == "QGemm" and node.input[7:8]):
            small.add(node.output[0])
        elif node.op_type in MOVES and node.input[node.op_type == "Where"] in small:
            small.update(node.output)
    return small


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Calibration samples, and seconds of each latency measurement (0: none)."""

    samples: int = 8
    seconds: float = 8.0


def fuse(entry: Entry, settings: Settings, out: Path) -> dict[str, Any]:
    """Everything about one job.

    Raises:
        OnnxqError: a pipeline fails.
    """
    folder = out / entry.name
    folder.mkdir(parents=True, exist_ok=True)
    job = load(entry.job, settings.samples, None)
    job = replace(job, validate=replace(job.validate, enabled=False, metric=None), data=replace(job.data, eval=None))
    files = {}
    for pipeline, target in TARGETS.items():
        files[pipeline] = folder / f"{pipeline}.onnx"
        quantize(job.with_overrides(target=target, pipeline=pipeline, output=files[pipeline], placement="rules"))
    samples = [s.inputs for s in itertools.islice(iter(_data(job)), LATENCY_SAMPLES)]
    made: dict[str, Any] = {
        "ours": asdict(counts(files["qoperator"].read_bytes(), samples[0])),
        "extended": asdict(counts(optimized(files["cpu"], level=Level.EXTENDED), samples[0])),
        "all": asdict(counts(optimized(files["cpu"], level=Level.ALL), samples[0])),
        "tensorrt": _tensorrt(files["tensorrt"], samples[0]),
        "latency": None,
    }
    if settings.seconds:
        found = measure(files["cpu"], files["qoperator"], samples, threads=1, budget_seconds=settings.seconds)
        made["latency"] = asdict(found)
    return made


def _data(job: Job) -> Any:
    return opened(job, calibration=True)


def _tensorrt(path: Path, sample: Mapping[str, Any]) -> dict[str, Any]:
    """Conversions and broken rules; ONNX Runtime must be able to run it."""
    Session(path, level=Level.OFF, threads=1).run(sample)
    ops = Counter(n.op_type for n in nodes(onnx.load(path, load_external_data=False).graph))
    return {"q": ops[Q], "dq": ops[DQ], "broken": len(check(load_model(path), load_target("tensorrt")))}


def conv_integer(seconds: float) -> dict[str, Any]:
    """ConvInteger and the Q/DQ that it is made of against a float Conv (64 to 64 channels, 3x3, 28x28), one thread."""
    random = np.random.default_rng(0)
    integers = random.integers(-127, 128, (64, 64, 3, 3)).astype(np.int8)
    steps = np.linspace(0.001, 0.002, 64).astype(np.float32)
    constants = {
        "w": integers,
        "sw": steps,
        "zw": np.zeros(64, np.int8),
        "wf": (integers * steps.reshape(-1, 1, 1, 1)).astype(np.float32),
        "s": np.asarray(0.02, np.float32),
        "z": np.asarray(120, np.uint8),
    }
    head = '<ir_version: 8, opset_import: ["": 17]> g (float[1,64,28,28] x) => (float[1,64,28,28] y)'
    conv = "y = Conv <pads = [1, 1, 1, 1]>"
    q = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear <axis = 0> (w, sw, zw)"
    protos = [onnx.parser.parse_model(f"{head} {{ {body} }}") for body in (f"{conv} (x, wf)", f"{q} {conv} (d, v)")]
    for proto in protos:
        read = {name for node in proto.graph.node for name in node.input}
        tensors = [onnx.numpy_helper.from_array(v, k) for k, v in constants.items() if k in read]
        proto.graph.initializer.extend(tensors)
    reference, qdq = (proto.SerializeToString() for proto in protos)
    model = from_proto(protos[1])
    fuse_conv = registry.load(registry.PASSES, "fuse-conv-integer")()
    assert fuse_conv.run(model.graph, default_context()).rewrites == 1
    sample = {"x": random.normal(0, 1.5, (1, 64, 28, 28)).astype(np.float32)}
    sides = {"Q/DQ": qdq, "ConvInteger": to_bytes(model)}
    return {k: asdict(measure(reference, v, [sample], threads=1, budget_seconds=seconds)) for k, v in sides.items()}


def markdown(found: Mapping[str, Any]) -> str:
    """The fusions, the files for TensorRT, and what ConvInteger costs."""
    head = ("model", "graph", "heavy int", "heavy float", "QLinear", "moves int", "Q", "DQ", "converted", "time")
    lines = [_line(head), _line(["---", "---"] + ["---:"] * (len(head) - 2))]
    for name, one in found["models"].items():
        if "error" in one:
            lines.append(_line([name, one["error"], *[""] * (len(head) - 2)]))
            continue
        for kind, shown in (("ours", "ours"), ("extended", "ORT, extended"), ("all", "ORT, all")):
            c = Counts(**one[kind])
            figures = [c.integer_heavy, c.heavy, c.qlinear, c.moves, c.q, c.dq]
            cells = [name if kind == "ours" else "", shown, *map(str, figures), f"{c.converted / 1e3:,.1f} k"]
            lines.append(_line([*cells, _ratio(one["latency"]) if kind == "ours" else ""]))
    lines += ["", _line(("model, for TensorRT", "Q", "DQ", "broken rules")), _line(["---", "---:", "---:", "---:"])]
    for name, one in found["models"].items():
        if "error" not in one:
            lines.append(_line([name, *(str(one["tensorrt"][k]) for k in ("q", "dq", "broken"))]))
    if found["conv_integer"]:
        lines += ["", _line(("one Conv with a float result", "time / float")), _line(["---", "---:"])]
        lines += [_line([kind, _ratio(latency)]) for kind, latency in found["conv_integer"].items()]
    versions_ = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    place = f"{found['machine']['cpu']}, {found['machine']['cores']} cores; {versions_}"
    lines += ["", f"{place}; {found['settings']['samples']} calibration samples; commit {found['commit']}."]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ratio(latency: Mapping[str, Any] | None) -> str:
    """Our file's time by that of the Q/DQ file, median and quartiles of the pairs."""
    if latency is None:
        return ""
    middle, low, high = (1 / latency[k] for k in ("speedup", "speedup_high", "speedup_low"))
    return f"{middle:.3f} ({low:.3f}–{high:.3f}){', noisy' if latency['noisy'] else ''}"


def publish(block: str, page: Path) -> None:
    """Write the tables between the markers of a page.

    Raises:
        BlockError: the markers are not both there, once each and in this order.
    """
    text = page.read_text(encoding="utf-8")
    page.write_text(replace_block(text, block, page.name, (BEGIN, END)), encoding="utf-8")


def bench(settings: Settings, names: Sequence[str], out: Path) -> dict[str, Any]:
    """Measure, and write fusion.json after every model, so that what is done stays.

    Raises:
        BenchError: unknown names, or none of the models is there.
    """
    wanted = [e for e in chosen(entries(), names) if e.model.is_file()]
    if not wanted:
        raise BenchError("none of these model files is there: fetch them with `make models`")
    found: dict[str, Any] = {
        "settings": asdict(settings),
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        "conv_integer": conv_integer(settings.seconds) if settings.seconds else {},
        "models": {},
    }
    out.mkdir(parents=True, exist_ok=True)
    for entry in wanted:
        print(f"bench-fusion: {entry.name}", file=sys.stderr, flush=True)
        try:
            found["models"][entry.name] = fuse(entry, settings, out)
        except OnnxqError as error:
            found["models"][entry.name] = {"error": one_line(str(error))}
        (out / "fusion.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 if a pipeline failed, 2 if the command line makes no sense."""
    default = Settings()
    parser = argparse.ArgumentParser(
        description="Our fused files against ONNX Runtime's own fusion; see docs/fusion.md"
    )
    parser.add_argument("--models", default="", help="names separated by commas; default: all that are fetched")
    parser.add_argument("--samples", type=int, default=default.samples, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="per model; 0: no times")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "fusion")
    parser.add_argument("--readme", action="store_true", help="only write the last run into docs/fusion.md")
    args = parser.parse_args(arguments)
    try:
        if args.readme:
            publish(markdown(json.loads((args.out / "fusion.json").read_text(encoding="utf-8"))), PAGE)
            return 0
        names = [n for n in args.models.split(",") if n]
        found = bench(Settings(samples=args.samples, seconds=args.seconds), names, args.out)
    except (BenchError, BlockError, OSError) as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return 2
    print(markdown(found), end="")
    return 1 if any("error" in one for one in found["models"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
