"""`onnxq run` and `onnxq show` end to end, and what a failing pass leaves behind."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import onnx
import onnx_graphsurgeon as gs
import pytest
import tiny

from onnxq import registry
from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq.pipeline.spec import load_pipeline

CALIB = ("--calib", "calib.npz", "--threads", "1", "--method", "minmax")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and samples, which is the current one."""
    monkeypatch.chdir(tmp_path)
    tiny.save_classifier(Path("model.onnx"))
    tiny.save_samples(Path("calib.npz"))
    return tmp_path


def test_run_makes_what_quantize_makes(onnxq: Any) -> None:
    ran = onnxq("run", "cpu", "model.onnx", *CALIB, "-o", "a.onnx")
    assert ran.code == 0, ran.err
    assert re.fullmatch(r"a\.onnx: \d+ passes, \d+ rewrites", ran.out.splitlines()[-1])
    assert onnxq("quantize", "model.onnx", *CALIB, "-o", "b.onnx", "--no-validate", "--placement", "rules").code == 0
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()


def test_a_float_pipeline_needs_no_samples(onnxq: Any) -> None:
    Path("clean.yaml").write_text("passes: [deduplicate-names, fold-constants, eliminate-dead]\n")
    assert onnxq("run", "clean.yaml", "model.onnx", "-o", "a.onnx", "--verify-each").code == 0
    assert [n.op_type for n in onnx.load("a.onnx").graph.node] == [
        "Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm",
    ]  # fmt: skip


def test_a_plan_needs_samples_and_that_is_said_before_the_model_is_read(onnxq: Any) -> None:
    sentence = onnxq("run", "cpu", "missing.onnx", "-o", "a.onnx").sentence
    assert sentence == 'pass "insert-qdq" needs a plan, which is made from samples: give --calib DATA'


def test_samples_may_stand_in_the_pipeline(onnxq: Any) -> None:
    Path("sub").mkdir()
    Path("calib.npz").rename("sub/calib.npz")
    Path("sub/p.yaml").write_text("calibration: {method: minmax, data: calib.npz}\npasses: [{include: cpu}]\n")
    assert onnxq("run", "sub/p.yaml", "model.onnx", "-o", "a.onnx").code == 0
    assert onnxq("run", "cpu", "model.onnx", "--calib", "sub/calib.npz", "--method", "minmax", "-o", "b.onnx").code == 0
    assert onnxq("run", "sub/p.yaml", "model.onnx", "--calib", "sub/calib.npz", "-o", "c.onnx").code == 0
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes() == Path("c.onnx").read_bytes()


def test_printing(onnxq: Any) -> None:
    out = onnxq("run", "cpu", "model.onnx", *CALIB, "-o", "a.onnx", "--print-changed").out
    assert "# fold-constants changed nothing\n" in out
    assert "\n+" in out and "QuantizeLinear(image, " in out and "# insert-qdq: " in out
    out = onnxq("run", "cpu", "model.onnx", *CALIB, "-o", "a.onnx", "--print-after", "eliminate-dead").out
    assert out.count("# after eliminate-dead\ngraph classifier(image: float32[N,3,8,8])") == 1
    assert "QuantizeLinear" not in out
    sentence = onnxq("run", "cpu", "model.onnx", *CALIB, "-o", "a.onnx", "--print-after", "eliminate-ded").sentence
    assert sentence == '--print-after "eliminate-ded" is no pass of cpu: did you mean "eliminate-dead"?'


def test_timing(onnxq: Any) -> None:
    lines = onnxq("run", "cpu", "model.onnx", *CALIB, "-o", "a.onnx", "--timing").out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split() == ["pass", "seconds", "rewrites", "nodes"])
    steps = [step.name for step in load_pipeline("cpu").steps]
    end = start + 1 + len(steps)
    rows = [line.split() for line in lines[start + 1 : end]]
    assert [row[0] for row in rows] == steps
    inserted = rows[steps.index("insert-qdq")]
    assert int(inserted[2]) > 0 and int(inserted[3]) > int(rows[0][3]) == 5
    stages = dict(stage.rsplit(" ", 1) for stage in lines[end].removeprefix("seconds: ").split(", "))
    assert list(stages)[:2] == ["load", "convert"] and list(stages)[-2:] == ["passes", "save"]
    assert {"check passes", "calibrate", "plan"} <= set(stages)
    assert float(stages["passes"]) == pytest.approx(sum(float(row[1]) for row in rows), abs=0.01)
    checked = onnxq("run", "cpu", "model.onnx", *CALIB, "-o", "a.onnx", "--timing", "--verify-each").out
    assert ", prints and checks " in checked and "prints and checks" not in "".join(lines)


FROM_FLOAT = [n for n in registry.names(registry.PIPELINES) if Stage.FLOAT in load_pipeline(n).starts]


@pytest.mark.parametrize("name", FROM_FLOAT)
@pytest.mark.parametrize("model", ["model.onnx", "models/fashion-res8/model-bn.onnx"])
def test_every_pass_of_a_builtin_pipeline_is_sound(name: str, model: str, onnxq: Any, root: Path) -> None:
    data = "calib.npz" if model == "model.onnx" else root / "models/fashion-mnist/calib.npz"
    path = model if model == "model.onnx" else root / model
    few = ("--calib-samples", "4", "--method", "minmax", "--threads", "1")
    outcome = onnxq("run", name, path, "--calib", data, *few, "-o", "a.onnx", "--verify-each")
    assert outcome.code == 0, outcome.err
    assert "passes, each verified" in outcome.out


def test_random_models_are_verified_without_their_numbers(onnxq: Any) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {
        [same] i = Identity(x) [draw] r = RandomNormalLike(i) [add] y = Add(i, r) }"""
    )
    onnx.save(model, "random.onnx")
    Path("p.yaml").write_text("passes: [eliminate-identity]\n")
    outcome = onnxq("run", "p.yaml", "random.onnx", "-o", "a.onnx", "--verify-each")
    assert outcome.code == 0, outcome.err
    assert outcome.out.endswith("a.onnx: 1 pass, each verified, 1 rewrite\n")


def test_the_stage_of_the_model_must_fit(onnxq: Any) -> None:
    assert onnxq("run", "cpu", "model.onnx", *CALIB, "-o", "q.onnx").code == 0
    sentence = onnxq("run", "cpu", "q.onnx", *CALIB, "-o", "a.onnx").sentence
    assert sentence.startswith(
        "q.onnx is quantized already (it has DequantizeLinear, QuantizeLinear), and the pass float16"
    )
    sentence = onnxq("run", "cpu", "model.onnx", *CALIB, "-o", "model.onnx").sentence
    assert sentence == "the output model.onnx is the model itself: give another path with -o"


def test_show_prints_a_pipeline_that_does_the_same(onnxq: Any) -> None:
    Path("p.yaml").write_text("passes: [{include: cpu}]\n")
    shown = onnxq("show", "p.yaml").out
    assert "  - share-initializers:\n      least_bytes: 256\n" in shown and "include" not in shown
    Path("shown.yaml").write_text(shown)
    assert onnxq("show", "shown.yaml").out == shown == onnxq("show", "cpu").out
    for name in ("p", "shown"):
        assert onnxq("run", f"{name}.yaml", "model.onnx", *CALIB, "-o", f"{name}.onnx").code == 0
    assert Path("p.onnx").read_bytes() == Path("shown.onnx").read_bytes()


def test_faults_of_a_pipeline_are_told_all_at_once(onnxq: Any) -> None:
    Path("p.yaml").write_text("passes:\n  - fold-constant\n  - insert-qdq: {x: 1}\n")
    outcome = onnxq("run", "p.yaml", "missing.onnx", "-o", "a.onnx")
    assert outcome.code == 2
    assert outcome.err.splitlines() == [
        'error: p.yaml:2:5: passes[0]: there is no pass "fold-constant": did you mean "fold-constants"?',
        'p.yaml:3:18: insert-qdq has no key "x": none is known here',
    ]


@dataclass(frozen=True, kw_only=True)
class Fragile(Pass):
    """Fails as long as it is told to."""

    takes: ClassVar[Stage] = Stage.FLOAT
    broken: ClassVar[bool] = True
    how: str = "raise"

    def run(self, graph: gs.Graph, context: Context) -> Report:
        if not Fragile.broken:
            return Report()
        graph.nodes[1].op = "Abs"
        if self.how == "raise":
            raise ZeroDivisionError("boom")
        return Report(rewrites=1)


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> None:
    load, names = registry.load, registry.names
    monkeypatch.setattr(registry, "load", lambda g, n: Fragile if n == "fragile" else load(g, n))
    monkeypatch.setattr(registry, "names", lambda g: [*names(g), *(["fragile"] if g == registry.PASSES else [])])
    monkeypatch.setattr(Fragile, "broken", True)


@pytest.mark.usefixtures("fragile")
@pytest.mark.parametrize("command", ["run", "quantize"])
def test_a_failing_pass_leaves_what_it_failed_on(command: str, onnxq: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("p.yaml").write_text("passes: [deduplicate-names, fold-constants, fragile, insert-qdq]\n")
    Path("job.yaml").write_text("model: model.onnx\npipeline: p.yaml\nkeep_float: [gemm]\nplacement: {by: rules}\n")
    made = {
        "run": ("run", "p.yaml", "model.onnx", *CALIB, "-o", "out.onnx", "--keep-float", "gemm"),
        "quantize": ("quantize", *CALIB, "-o", "out.onnx", "--config", "job.yaml", "--no-validate"),
    }[command]
    outcome = onnxq(*made)
    assert outcome.code == 2 and not Path("out.onnx").exists()
    assert outcome.sentence == (
        "in pass 'fragile', after ['deduplicate-names', 'fold-constants']: ZeroDivisionError: boom; "
        "to run it again: onnxq run out.onnx.crash/pipeline.yaml out.onnx.crash/model.onnx -o again.onnx"
    )
    assert "boom" in Path("out.onnx.crash/error.txt").read_text()
    assert [n.op_type for n in onnx.load("out.onnx.crash/model.onnx").graph.node][1] == "Relu"
    again = ("run", "out.onnx.crash/pipeline.yaml", "out.onnx.crash/model.onnx", "-o", "again.onnx")
    assert "ZeroDivisionError: boom" in onnxq(*again).sentence
    monkeypatch.setattr(Fragile, "broken", False)
    outcome = onnxq(*again)
    assert outcome.code == 0, outcome.err
    assert onnxq(*made).code == 0
    first, second = (onnx.load(f).graph for f in ("out.onnx", "again.onnx"))
    assert [n.SerializeToString() for n in first.node] == [n.SerializeToString() for n in second.node]
    assert "Gemm" in {n.op_type for n in second.node}
    assert first.initializer == second.initializer


@pytest.mark.usefixtures("fragile")
def test_the_command_runs_again_what_was_refused(onnxq: Any) -> None:
    """A pass that does not raise is refused because it is verified: so it must be the second time, and paths may have
    spaces."""
    Path("p.yaml").write_text("passes: [deduplicate-names, {fragile: {how: quiet}}]")
    sentence = onnxq("run", "p.yaml", "model.onnx", "-o", "my out.onnx", "--verify-each").sentence
    again = shlex.split(sentence.partition("to run it again: ")[2])
    assert again[0] == "onnxq" and again[-1] == "--verify-each"
    assert "it changes the numbers" in sentence
    assert "in pass 'fragile', the first pass: it changes the numbers" in onnxq(*again[1:]).sentence
    assert onnxq(*again[1:-1]).code == 0


@dataclass(frozen=True, kw_only=True)
class FragileLate(Fragile):
    """The same behind insert-qdq."""

    takes: ClassVar[Stage] = Stage.QDQ
    gives: ClassVar[Stage] = Stage.QDQ


@pytest.mark.usefixtures("fragile")
def test_behind_the_plan_the_rest_needs_no_samples(onnxq: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda g, n: FragileLate if n == "fragile" else load(g, n))
    Path("p.yaml").write_text("passes: [insert-qdq, fragile]\n")
    assert "in pass 'fragile', after ['insert-qdq']" in onnxq("run", "p.yaml", "model.onnx", *CALIB, "-o", "o.onnx").err
    monkeypatch.setattr(Fragile, "broken", False)
    assert onnxq("run", "p.yaml", "model.onnx", *CALIB, "-o", "o.onnx").code == 0
    Path("calib.npz").unlink()
    outcome = onnxq("run", "o.onnx.crash/pipeline.yaml", "o.onnx.crash/model.onnx", "-o", "again.onnx", "--verify-each")
    assert outcome.code == 0, outcome.err
    first, second = (onnx.load(f).graph for f in ("o.onnx", "again.onnx"))
    assert [n.SerializeToString() for n in first.node] == [n.SerializeToString() for n in second.node]
    assert onnxq("run", "p.yaml", "model.onnx", *CALIB, "-o", "x.onnx").sentence.startswith(
        "there is no data at calib.npz"
    )


@pytest.mark.usefixtures("fragile")
def test_a_crash_that_cannot_be_kept_is_said(onnxq: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxq.errors import OutputError
    from onnxq.pipeline import crash

    def refuse(*_: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(crash, "save", refuse)
    Path("p.yaml").write_text("passes: [fragile]\n")
    sentence = onnxq("run", "p.yaml", "model.onnx", "-o", "out.onnx").sentence
    assert sentence.endswith("boom; nothing could be left in out.onnx.crash to run it again (the disk is full)")
    assert not Path("out.onnx.crash").exists()


def test_a_pipeline_for_quantized_models_refuses_a_float_one(onnxq: Any) -> None:
    Path("p.yaml").write_text("passes: [merge-quantize]\n")
    assert onnxq("run", "p.yaml", "model.onnx", "-o", "a.onnx").sentence == (
        "model.onnx is a float model, and the first pass, merge-quantize, takes a quantized one (stage qdq): "
        "give a quantized model, or put insert-qdq first"
    )


@pytest.mark.usefixtures("fragile")
def test_a_pass_that_breaks_the_numbers_is_found_and_left(onnxq: Any) -> None:
    Path("p.yaml").write_text("passes: [deduplicate-names, fragile: {how: silently}]\n")
    assert onnxq("run", "p.yaml", "model.onnx", "-o", "out.onnx").code == 0
    sentence = onnxq("run", "p.yaml", "model.onnx", "-o", "out.onnx", "--verify-each").sentence
    assert sentence.startswith("in pass 'fragile', after ['deduplicate-names']: it changes the numbers: output scores")
    assert Path("out.onnx.crash/model.onnx").is_file()
    onnxq("run", "p.yaml", "model.onnx", "-o", "out.onnx", "--verify-each")
    assert Path("out.onnx.crash-2/model.onnx").is_file()


def test_explain_a_float_model_by_its_structure(onnxq: Any) -> None:
    lines = onnxq("explain", "model.onnx", "--keep-float", "gemm").out.splitlines()
    assert lines[0] == "int8   Conv conv"
    assert lines[4].split("  ")[-1].strip() == 'kept float by the pattern "gemm"'
    assert lines[-1].startswith("The structure alone was looked at")


def test_explain_with_ranges_is_explain_of_the_quantized_file(onnxq: Any) -> None:
    assert onnxq("run", "cpu", "model.onnx", *CALIB, "-o", "q.onnx", "--keep-float", "gemm").code == 0
    float_model = json.loads(onnxq("explain", "model.onnx", *CALIB, "--keep-float", "gemm", "--json").out)
    quantized = json.loads(onnxq("explain", "q.onnx", "--json").out)
    assert float_model == quantized
    ops = {o["name"]: o for o in quantized["ops"]}
    assert ops["conv"]["integer"] and not ops["gemm"]["integer"]
    assert ops["gemm"]["reason"] == 'kept float by the pattern "gemm"'
    first = quantized["conversions"][0]
    assert (first["op"], first["tensor"], first["type"]) == ("QuantizeLinear", "image", "uint8")
    weight = next(c for c in quantized["conversions"] if c["tensor"].startswith("w1"))
    assert (weight["type"], weight["axis"], len(weight["scale"]), weight["zero_point"]) == ("int8", 0, 8, [0] * 8)
    assert weight["serves"] == ["Conv conv (int8)"]


def test_explain_refuses_samples_for_a_quantized_model(onnxq: Any) -> None:
    assert onnxq("run", "cpu", "model.onnx", *CALIB, "-o", "q.onnx").code == 0
    assert "is quantized already: leave --calib out" in onnxq("explain", "q.onnx", *CALIB).sentence
    lines = onnxq("explain", "q.onnx").out.splitlines()
    assert any(line.startswith("Q      image  uint8, scale ") for line in lines)
    assert any(line.startswith("DQ     w1") and "axis 0" in line and "... (8)" in line for line in lines)


@dataclass(frozen=True, kw_only=True)
class Refuses(Pass):
    """Refuses everything."""

    takes: ClassVar[Stage] = Stage.QDQ
    gives: ClassVar[Stage] = Stage.QDQ

    def run(self, graph: gs.Graph, context: Context) -> Report:
        report = Report()
        for node in graph.nodes:
            if node.op in ("QuantizeLinear", "Gemm"):
                report.refuse(node, "not today")
        return report


@dataclass(frozen=True, kw_only=True)
class Breaks(Refuses):
    """Fails."""

    def run(self, graph: gs.Graph, context: Context) -> Report:
        raise KeyError("x")


def test_explain_prints_what_passes_refuse(onnxq: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert onnxq("run", "cpu", "model.onnx", *CALIB, "-o", "q.onnx").code == 0
    table = {"refuses": Refuses, "breaks": Breaks, "float": Fragile}
    names, load = registry.names, registry.load
    monkeypatch.setattr(registry, "names", lambda g: sorted(table) if g == registry.PASSES else names(g))
    monkeypatch.setattr(registry, "load", lambda g, n: table[n] if g == registry.PASSES else load(g, n))
    found = json.loads(onnxq("explain", "q.onnx", "--json").out)
    assert {tuple(c["refusals"]) for c in found["conversions"] if c["op"] == "QuantizeLinear"} == {
        ("refuses: not today",)
    }
    assert {tuple(c["refusals"]) for c in found["conversions"] if c["op"] != "QuantizeLinear"} == {()}
    assert found["refusals"] == [["gemm", "refuses: not today"]]
    assert any(n == "The pass breaks fails on this model (KeyError: 'x')." for n in found["notes"])
    lines = onnxq("explain", "q.onnx").out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("Q      image"))
    assert lines[at + 1] == "       refuses: not today"
    assert "gemm: refuses: not today" in lines


def bisect(onnxq: Any, *arguments: str) -> list[str]:
    outcome = onnxq("bisect", *arguments, "--data", "calib.npz", "--threads", "1", "--method", "minmax")
    assert outcome.code == 0, outcome.err
    return [str(line) for line in outcome.out.splitlines()]


def test_bisect_names_the_pass_and_ranks_its_ops(onnxq: Any) -> None:
    lines = bisect(onnxq, "cpu", "model.onnx", "--limit", "2")
    assert lines[0].startswith("insert-qdq  ") and lines[0].endswith(" dB")
    assert lines[1].startswith("align-channels  "), "without optimizations, float sums of more channels round otherwise"
    assert lines[2] == "most harm: insert-qdq"
    tried = [line.split(":")[0].strip() for line in lines[3:5]]
    assert sorted(tried) == ["Conv conv", "Gemm gemm"], "heavy ops come first"
    gains = [float(line.split()[-2]) for line in lines[3:5]]
    assert gains == sorted(gains, reverse=True) and gains[0] > 0
    assert lines[5] == "  3 more nodes were not tried: give a higher --limit"


@pytest.mark.usefixtures("fragile")
def test_bisect_names_the_first_node_that_a_float_pass_moves(onnxq: Any) -> None:
    Path("p.yaml").write_text("passes: [deduplicate-names, fragile: {how: silently}, {include: cpu}]\n")
    lines = bisect(onnxq, "p.yaml", "model.onnx")
    assert lines[0].startswith("fragile     ") and lines[1].startswith("insert-qdq  ")
    assert lines[3] == "most harm: fragile"
    assert lines[4].startswith("  Abs relu: its result is the first that moves, ")
    assert lines[5].startswith("  GlobalAveragePool pool: moves, too, ")


def test_bisect_where_nothing_changes(onnxq: Any) -> None:
    Path("p.yaml").write_text("passes: [deduplicate-names, eliminate-dead]\n")
    assert bisect(onnxq, "p.yaml", "model.onnx") == ["no pass of this pipeline changes the outputs on these samples"]
