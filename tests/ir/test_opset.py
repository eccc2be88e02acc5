"""Conversion reaches the wanted opset or says why not; it never changes what the model computes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto, helper, numpy_helper, parser, version_converter

from onnxq.errors import ModelError
from onnxq.ir import opset, walk
from onnxq.ir.load import from_proto, load
from onnxq.ir.model import Model
from onnxq.ir.opset import compare, convert, made_up_sample
from onnxq.ir.save import save, to_proto
from onnxq.ir.text import parse
from onnxq.runtime.session import Level, Session

SAME = "both give the same outputs on a sample."


def model(body: str, version: int, *, shape: str = "1,2,4,6", out: str = "?,?,?,?", ir: int = 7) -> Model:
    head = f'<ir_version: {ir}, opset_import: ["": {version}, "com.microsoft": 1]>'
    return parse(f"{head} g (float[{shape}] x) => (float[{out}] y) {body}")


def sample(shape: tuple[int, ...] = (1, 2, 4, 6)) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}


RESIZES = {
    "upsample7 nearest": (8, '{ y = Upsample<mode="nearest", scales=[1.0,1.0,2.0,3.0]>(x) }'),
    "upsample7 linear": (7, '{ y = Upsample<mode="linear", scales=[1.0,1.0,2.0,3.0]>(x) }'),
    "upsample9 nearest": (9, '<float[4] s = {1, 1, 2, 1.5}> { y = Upsample<mode="nearest">(x, s) }'),
    "upsample9 linear": (9, '<float[4] s = {1, 1, 2, 1.5}> { y = Upsample<mode="linear">(x, s) }'),
    "upsample9 computed scales": (9, "<float[4] s = {1, 1, 2, 2}> { t = Identity(s) y = Upsample(x, t) }"),
    "resize10 linear": (10, '<float[4] s = {1, 1, 2, 1.5}> { y = Resize<mode="linear">(x, s) }'),
    "resize10 linear shrinks": (10, '<float[4] s = {1, 1, 0.5, 0.5}> { y = Resize<mode="linear">(x, s) }'),
    "resize10 nearest": (10, "<float[4] s = {1, 1, 2, 3}> { y = Resize(x, s) }"),
    "resize10 nearest shrinks": (10, "<float[4] s = {1, 1, 0.5, 0.7}> { y = Resize(x, s) }"),
}


class TestResize:
    @pytest.mark.parametrize("name", RESIZES)
    def test_means_the_same(self, name, run):
        version, body = RESIZES[name]
        old = model(body, version)
        expected = run(old, sample())["y"]
        new = convert(old, 21, 10, sample(), run)
        assert (new.opset, new.ir_version) == (21, 10)
        assert new.notes == [f"Opset {version} became 21; {SAME}"]
        np.testing.assert_allclose(run(new, sample())["y"], expected, rtol=1e-6, atol=1e-6)
        onnx.checker.check_model(to_proto(new), full_check=True)
        assert not [n for n in new.graph.nodes if n.op == "Constant"]
        assert (old.opset, old.graph.nodes[-1].op) == (version, body.split("y = ")[1].split("(")[0].split("<")[0])

    @pytest.mark.parametrize("name", ["upsample9 linear", "resize10 linear", "resize10 nearest shrinks"])
    def test_the_converter_alone_changes_the_values(self, name, run):
        version, body = RESIZES[name]
        old = model(body, version)
        proto = version_converter.convert_version(to_proto(old), 21)
        got = Session(proto.SerializeToString(), level=Level.OFF, threads=1).run(sample())["y"]
        assert np.abs(got - run(old, sample())["y"]).max() > 0.1

    def test_mixed_enlarging_and_shrinking_is_noticed(self, run):
        # nearest rounds each axis its own way in opset 10; no later opset can say that
        old = model("<float[4] s = {1, 1, 2.0, 0.7}> { y = Resize(x, s) }", 10)
        new = convert(old, 21, 10, sample(), run)
        assert new is old
        assert new.notes[0].startswith(
            'The opset stays 10, not 21: output "y" of the converted model differs on a sample'
        )

    def test_resize11_is_left_alone(self, run):
        body = '<float[0] r = {}, float[4] s = {1, 1, 2, 1.5}> { y = Resize<mode="linear">(x, r, s) }'
        new = convert(model(body, 11), 21, 10, sample(), run)
        assert new.opset == 21
        assert "coordinate_transformation_mode" not in new.graph.nodes[0].attrs


class TestOps:
    @pytest.mark.parametrize(
        ("version", "body"),
        [
            (7, "{ y = Dropout<ratio=0.3>(x) }"),
            (9, "{ y = Clip<min=-0.5, max=0.5>(x) }"),
            (9, "{ y = Pad<pads=[0,0,1,1,0,0,2,2]>(x) }"),
            (9, "{ y = Softmax<axis=1>(x) }"),
            (11, "{ a = Unsqueeze<axes=[0]>(x) b = Squeeze<axes=[0]>(a) y = ReduceSum<axes=[1]>(b) }"),
            (11, "{ a, b = Split<axis=1, split=[1,1]>(x) y = Concat<axis=1>(b, a) }"),
            (12, "{ y = ReduceMean<axes=[2,3]>(x) }"),
            (8, "<float[2] g = {1,2}, float[2] b = {0,1}, float[2] m = {1,1}, float[2] v = {2,2}>"
                "{ y = BatchNormalization(x, g, b, m, v) }"),
            (11, "<int64 k = {2}> { y, i = TopK(x, k1) }".replace("int64 k = {2}", "int64[1] k1 = {2}")),
        ],
    )  # fmt: skip
    def test_old_forms(self, version, body, run):
        old = model(body, version)
        new = convert(old, 21, 10, sample(), run)
        assert new.opset == 21, new.notes
        np.testing.assert_array_equal(run(new, sample())["y"], run(old, sample())["y"])
        onnx.checker.check_model(to_proto(new))

    def test_inner_graphs(self, run):
        old = parse("""<ir_version: 6, opset_import: ["": 10]> g (float[2,3] x, bool c) => (float[2,1] y)
            <float w = {2.0}> {
            t = Abs(x)
            y = If(c) <then_branch = a () => (float[2,1] p) { q = ReduceSum<axes=[1]>(t) p = Mul(q, w) },
                       else_branch = b () => (float[2,1] r) { u = Unsqueeze<axes=[0]>(x) s = Squeeze<axes=[0]>(u)
                                                             r = ReduceMax<axes=[1]>(s) }>
        }""")
        for branch in (True, False):
            x = {"x": np.array([[1, -2, 3], [4, 5, -6]], np.float32), "c": np.array(branch)}
            new = convert(old, 21, 10, x, run)
            assert new.opset == 21
            np.testing.assert_array_equal(run(new, x)["y"], run(old, x)["y"])
        assert len(list(walk.graphs(new.graph))) == 3

    def test_inner_resize(self, run):
        old = parse("""<ir_version: 6, opset_import: ["": 10]> g (float[1,1,2,2] x, bool c) => (float[1,1,4,4] y)
            <float[4] s = {1, 1, 2, 2}> {
            y = If(c) <then_branch = a () => (float[1,1,4,4] p) { p = Resize<mode="linear">(x, s) },
                       else_branch = b () => (float[1,1,4,4] p) { p = Resize<mode="nearest">(x, s) }>
        }""")
        for branch in (True, False):
            x = {"x": np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2), "c": np.array(branch)}
            new = convert(old, 21, 10, x, run)
            assert new.opset == 21
            np.testing.assert_allclose(run(new, x)["y"], run(old, x)["y"], rtol=1e-6)

    def test_other_domains_survive(self, run):
        body = """<float[6,6] w = {1}> { a = com.microsoft.FusedMatMul<alpha=2.0>(x, x2) y = ReduceSum<axes=[3]>(a) }"""
        body = (
            body.replace("<float[6,6] w = {1}> ", "")
            .replace("x2", "t")
            .replace("{ a", "{ t = Transpose<perm=[0,1,3,2]>(x) a")
        )
        old = model(body, 11)
        new = convert(old, 21, 10, sample(), run)
        assert new.opset == 21, new.notes
        assert [n.domain for n in new.graph.nodes if n.op == "FusedMatMul"] == ["com.microsoft"]
        np.testing.assert_array_equal(run(new, sample())["y"], run(old, sample())["y"])

    def test_an_op_of_another_domain_with_a_familiar_name_is_not_touched(self):
        old = model("{ t = com.microsoft.ReduceSum<axes=[1]>(x) y = Relu(t) }", 11)
        new = convert(old, 21, 10, sample(), lambda m, x: dict(x))
        assert new.graph.nodes[0].attrs == {"axes": [1]}
        assert len(new.graph.nodes[0].inputs) == 1

    def test_names_like_the_converters(self, run):
        body = "{ _v_3 = Unsqueeze<axes=[0]>(x) _v_6 = Squeeze<axes=[0]>(_v_3) _v_4 = Neg(_v_6) y = Relu(_v_4) }"
        old = model(body, 11)
        new = convert(old, 21, 10, sample(), run)
        assert new.opset == 21, new.notes
        assert {"_v_3", "_v_4", "_v_6"} <= walk.tensor_names(new.graph)
        assert [t.name for t in old.graph.nodes[0].outputs] == ["_v_3"]
        np.testing.assert_array_equal(run(new, sample())["y"], run(old, sample())["y"])

    @pytest.mark.parametrize("version", range(22, 27))
    def test_down(self, version, run):
        body = "<float[2,2,1,1] w = {1,2,3,4}> { a = Conv(x, w) b = MaxPool<kernel_shape=[2,2]>(a) y = Relu(b) }"
        old = model(body, version, ir=10)
        new = convert(old, 21, 10, sample(), run)
        assert new.opset == 21
        np.testing.assert_array_equal(run(new, sample())["y"], run(old, sample())["y"])


class TestStays:
    def test_where_the_outputs_differ(self, run):
        old = model("{ y = Relu(x) }", 17)
        calls = []

        def lying(m: Model, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            calls.append(m.opset)
            y = run(m, inputs)["y"]
            return {"y": y * np.float32(1.01) if m.opset == 21 else y}

        new = convert(old, 21, 10, sample(), lying)
        assert new is old
        assert old.opset == 17
        assert old.notes == [
            'The opset stays 17, not 21: output "y" of the converted model differs on a sample by 0.01 of its range.'
        ]
        assert calls == [17, 21]

    def test_an_old_opset_goes_as_far_as_it_can(self, run):
        def lying(m: Model, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            y = run(m, inputs)["y"]
            return {"y": y + np.float32(m.opset >= 18)}

        new = convert(model("{ y = Relu(x) }", 9), 21, 10, sample(), lying)
        assert new.opset == 17
        assert new.notes[0].startswith(
            'Opset 9 became 17 (21 was not reached: output "y" of the converted model differs'
        )

    def test_the_place_in_the_converters_source_is_left_out(self, run):
        new = convert(
            model("<float[6] w = {1, 2, 3, 4, 5, 6}> { y = RMSNormalization<axis = -1>(x, w) }", 23, ir=11),
            21,
            10,
            sample(),
            run,
        )
        assert new.opset == 23
        assert new.notes == [
            "The opset stays 23, not 21: onnx.version_converter cannot convert it (No Previous Version of "
            "RMSNormalization exists)."
        ]

    def test_where_the_converter_fails(self, run, monkeypatch):
        def fail(*_: object) -> None:
            raise RuntimeError("no adapter\nsecond line")

        monkeypatch.setattr(opset.version_converter, "convert_version", fail)
        old = model("{ y = ReduceSum<axes=[1]>(x) }", 12)
        new = convert(old, 21, 10, sample(), run)
        assert new is old
        assert new.notes == ["The opset stays 12, not 21: onnx.version_converter cannot convert it (no adapter)."]
        same_form = model("{ a = Relu(x) y = Neg(a) }", 12)
        assert convert(same_form, 21, 10, sample(), run).opset == 21  # only the number had to change

    @pytest.mark.parametrize(
        ("edit", "reason"),
        [
            (lambda p: p.graph.output.reverse(), "changed the inputs or outputs"),
            (lambda p: p.graph.node[0].input.__setitem__(2, ""), "lost the scales"),
        ],
    )
    def test_where_the_converter_breaks_the_model(self, run, monkeypatch, edit, reason):
        real = version_converter.convert_version

        def broken(proto: onnx.ModelProto, to: int) -> onnx.ModelProto:
            result = real(proto, to)
            del result.graph.node[:-2]
            edit(result)
            return result

        monkeypatch.setattr(opset.version_converter, "convert_version", broken)
        old = parse("""<ir_version: 7, opset_import: ["": 10]> g (float[1,1,2,2] x) => (float[1,1,4,4] y,
            float[1,1,4,4] z) <float[4] s = {1, 1, 2, 2}> { y = Resize(x, s) z = Neg(y) }""")
        assert convert(old, 21, 10, None, run) is old
        assert reason in old.notes[0]

    def test_an_op_that_onnx_does_not_know(self, run):
        old = model("{ t = Relu(x) y = ReduceSum<axes=[1]>(t) }", 12)
        old.graph.nodes[0].op = "Secret"
        new = convert(old, 21, 10, sample(), lambda m, x: dict(x))
        assert new is old
        assert "cannot convert it" in old.notes[0]

    def test_without_a_sample_one_is_made_up(self, run):
        new = convert(model("{ y = Relu(x) }", 17, shape="N,2,?,6"), 21, 10, None, run)
        assert new.notes == [f"Opset 17 became 21; {SAME}"]

    def test_where_none_can_be_made_up(self, run):
        old = parse('<ir_version: 8, opset_import: ["": 17]> g (string[1] x) => (string[1] y) { y = Identity(x) }')
        new = convert(old, 21, 10, None, run)
        assert new.opset == 17
        assert 'input "x" is not a tensor of numbers' in new.notes[0]

    def test_a_sample_that_does_not_fit_is_the_callers_error(self, run):
        with pytest.raises(ModelError, match="cannot run the model"):
            convert(model("{ y = Relu(x) }", 17), 21, 10, {"x": np.zeros((1, 1), np.float32)}, run)

    def test_nothing_to_do(self, run):
        old = model("{ y = Relu(x) }", 21, ir=10)
        assert convert(old, 21, 10, None, run) is old
        assert old.notes == []


def test_only_the_ir_version(run):
    old = model("{ y = Relu(x) }", 21, ir=11)
    assert convert(old, 21, 10, None, run).ir_version == 10
    old.graph.nodes[0].inputs.append(gs.Constant("c", np.zeros(2, helper.tensor_dtype_to_np_dtype(TensorProto.UINT2))))
    assert convert(old, 21, 10, None, run).ir_version == 13  # 2-bit types came with IR 13


def test_what_the_file_holds_is_kept(run):
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 12]> g (float[4] x) => (float[1] y) { y = ReduceSum<axes=[0]>(x) }'
    )
    proto.metadata_props.add(key="a", value="b")
    proto.graph.doc_string = "doc"
    proto.graph.node[0].doc_string = "node doc"
    proto.graph.node[0].name = "sum"
    proto.graph.node[0].metadata_props.add(key="k", value="v")
    proto.graph.input[0].type.denotation = "IMAGE"
    saved = to_proto(convert(from_proto(proto), 21, 10, None, run))
    assert saved.metadata_props == proto.metadata_props
    assert saved.graph.doc_string == "doc"
    assert saved.graph.input[0] == proto.graph.input[0]
    node = next(n for n in saved.graph.node if n.op_type == "ReduceSum")
    assert (node.name, node.doc_string, node.metadata_props[0].value) == ("sum", "node doc", "v")


def test_overridable_initializers_stay_overridable(run):
    source = """<ir_version: 8, opset_import: ["": 12]> g (float[4] x, float[1] w) => (float[1] y) <float[1] w = {3}> {
        a = ReduceSum<axes=[0]>(x) y = Mul(a, w) }"""
    old = from_proto(parser.parse_model(source), keep_overridable=True)
    new = convert(old, 21, 10, None, run)
    assert new.opset == 21
    proto = to_proto(new)
    assert [i.name for i in proto.graph.initializer].count("w") == 1


def test_weights_on_disk_stay_there(external, run, tmp_path):
    model_ = load(external)
    new = convert(model_, 21, 10, None, run)
    assert new.opset == 21
    assert new.graph.nodes[0].inputs[1].values is model_.graph.nodes[0].inputs[1].values
    save(new, tmp_path / "out.onnx")


def test_large_embedded_weights_do_not_go_through_the_converter(run, monkeypatch):
    seen = []
    real = version_converter.convert_version

    def watch(proto: onnx.ModelProto, to: int) -> onnx.ModelProto:
        seen.append(proto.ByteSize())
        return real(proto, to)

    monkeypatch.setattr(opset.version_converter, "convert_version", watch)
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[9] x) => (float[9] y) { y = MatMul(x, w) }'
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.eye(9, dtype=np.float32).repeat(1000, 0)[:9], "w"))
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((1000, 1000), np.float32), "big"))
    proto.graph.node.append(helper.make_node("Identity", ["big"], ["out"]))
    proto.graph.output.append(helper.make_tensor_value_info("out", 1, [1000, 1000]))
    assert convert(from_proto(proto), 21, 10, None, run).opset == 21
    assert seen[0] < 2000


class TestCompare:
    A = np.array([1.0, -4.0, np.nan, np.inf], np.float32)

    def test_equal(self):
        assert compare({"y": self.A}, {"y": self.A.copy()}) == ""

    def test_within_the_tolerance(self):
        near = self.A + np.float32(3e-5)  # 7.5e-6 of the range 4
        assert compare({"y": self.A}, {"y": near}) == ""
        far = self.A + np.float32(8e-5)
        assert "differs on a sample by 2e-05 of its range" in compare({"y": self.A}, {"y": far})

    @pytest.mark.parametrize(
        ("got", "part"),
        [
            ({}, 'no output "y"'),
            ({"y": A[:3]}, "is float32[3], not float32[4]"),
            ({"y": A.astype(np.float64)}, "is float64[4], not float32[4]"),
            ({"y": np.array([1, -4, 0, np.inf], np.float32)}, "differs on a sample by inf"),
            ({"y": np.array([1, -4, np.nan, -np.inf], np.float32)}, "differs on a sample by inf"),
            ({"y": [1]}, "another type"),
        ],
    )
    def test_differences(self, got, part):
        assert part in compare({"y": self.A}, got)

    def test_nothing_finite(self):
        nan = np.full(2, np.nan, np.float32)
        assert compare({"y": nan}, {"y": nan}) == ""

    def test_integers_are_exact(self):
        a = np.array([1, 2])
        assert compare({"y": a}, {"y": a}) == ""
        assert "differs" in compare({"y": a}, {"y": a + 1})

    def test_sequences(self):
        assert compare({"y": [np.ones(2)]}, {"y": [np.ones(2)]}) == ""
        assert "differs" in compare({"y": [np.ones(2)]}, {"y": [np.zeros(2)]})


def test_made_up_samples():
    m = parse(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,3] x, int64[2] i, bool b) => (float[N,3] y) { y = Relu(x) }'
    )
    made = made_up_sample(m)
    assert {n: (str(v.dtype), v.shape) for n, v in made.items()} == {
        "x": ("float32", (1, 3)),
        "i": ("int64", (2,)),
        "b": ("bool", ()),
    }
    np.testing.assert_array_equal(made["x"], made_up_sample(m)["x"])
    assert {n: v.shape for n, v in made_up_sample(m, 7).items()} == {"x": (7, 3), "i": (2,), "b": ()}
    m.graph.inputs[0].shape = None
    with pytest.raises(ValueError, match="known rank"):
        made_up_sample(m)


BELOW_7 = {
    "Add": "y = Add(x, x)",
    "Mul": "y = Mul<broadcast = 1, axis = 1>(x, b)",
    "Pow": "y = Pow<broadcast = 1>(x, b)",
    "AveragePool": "y = AveragePool<kernel_shape = [1, 1]>(x)",
    "BatchNormalization": "y = BatchNormalization<is_test = 1>(x, b, b, b, b)",
    "Dropout": "y = Dropout<is_test = 1>(x)",
    "PRelu": "y = PRelu(x, b)",
}


def _old(body: str) -> onnx.ModelProto:
    return parser.parse_model(
        f'<ir_version: 3, opset_import: ["": 6]> g (float[1,4,4,4] x, float[4] b) => (float[1,4,4,4] y) {{ {body} }}'
    )


def _runs(proto: onnx.ModelProto, **inputs: np.ndarray) -> np.ndarray:
    return Session(proto.SerializeToString(), level=Level.OFF, threads=1).run(inputs)["y"]


class TestBelow7:
    """Why docs/decisions/0030 refuses them: nothing here can check a conversion, and some are wrong."""

    @pytest.mark.parametrize("op", BELOW_7)
    def test_onnxruntime_has_no_kernel(self, op):
        with pytest.raises(ModelError, match="Could not find an implementation"):
            _runs(_old(BELOW_7[op]))

    def test_the_converter_makes_an_add_that_does_not_load(self):
        made = version_converter.convert_version(_old("y = Add<broadcast = 1, axis = 1>(x, b)"), 7)
        with pytest.raises(ModelError, match="cannot load"):
            _runs(made)

    def test_the_converter_lets_the_slope_of_a_prelu_stand_for_columns(self):
        x, slope = -np.ones((1, 4, 4, 4), np.float32), np.arange(4, dtype=np.float32)
        got = _runs(version_converter.convert_version(_old(BELOW_7["PRelu"]), 7), x=x, b=slope)
        assert np.array_equal(got, x * slope) and not np.array_equal(got, x * slope.reshape(1, 4, 1, 1))
