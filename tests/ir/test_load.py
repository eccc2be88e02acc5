"""Loading: versions, damaged files, external data, what graphsurgeon would lose, scoping."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from onnxq.errors import ModelError
from onnxq.ir import walk
from onnxq.ir.load import from_proto, is_quantized, load
from onnxq.ir.save import save, to_bytes, to_proto
from onnxq.ir.text import text

RELU = '<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }'


def refuses(path: Path, pattern: str) -> None:
    with pytest.raises(ModelError, match=pattern) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


class TestBadFiles:
    def test_missing(self, tmp_path):
        refuses(tmp_path / "no.onnx", "does not exist")

    def test_folder_names_the_model_inside(self, tmp_path):
        (tmp_path / "m.onnx").write_bytes(b"")
        refuses(tmp_path, re.escape(f'is a folder, not a model; did you mean "{tmp_path / "m.onnx"}"?'))

    def test_folder_without_model(self, tmp_path):
        refuses(tmp_path, "is a folder, not a model; give the path")

    def test_empty(self, tmp_path):
        path = tmp_path / "m.onnx"
        path.write_bytes(b"")
        refuses(path, "is empty")

    @pytest.mark.parametrize(
        "data", [b"hello world, this is text", b"\x89PNG\r\n\x1a\n" + bytes(50), bytes(100), b"PK\3\4"]
    )
    def test_not_onnx(self, tmp_path, data):
        path = tmp_path / "m.onnx"
        path.write_bytes(data)
        refuses(path, "is not an ONNX file")

    def test_ort_format_and_lfs_pointer(self, tmp_path):
        path = tmp_path / "m.onnx"
        path.write_bytes(b"\x10\0\0\0ORTM" + bytes(40))
        refuses(path, "ORT format")
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        refuses(path, "git lfs pull")

    @pytest.mark.parametrize("part", [0.2, 0.5, 0.9, 0.99])
    def test_truncated(self, write, part):
        path = write(RELU)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * part)])
        refuses(path, "is truncated|is not an ONNX file")

    def test_truncated_in_the_weights(self, tmp_path):
        model = parser.parse_model(RELU)
        model.graph.initializer.append(numpy_helper.from_array(np.ones(10000, np.float32), "w"))
        data = model.SerializeToString()
        path = tmp_path / "m.onnx"
        path.write_bytes(data[:5000])
        refuses(path, r"is truncated: it has 5000 bytes of \d+ or more")

    def test_opset_above_range(self, write):
        refuses(write(RELU.replace("17", "27")), "uses opset 27, but 7 to 26 can be read; export it with another opset")

    @pytest.mark.parametrize("opset", [1, 6])
    def test_opset_below_range(self, write, opset):
        said = (
            f"uses opset {opset}, but ONNX Runtime, .* runs none below 7 in full; .* or convert it with onnx.version_"
        )
        refuses(write(RELU.replace("17", str(opset))), said)

    @pytest.mark.parametrize("ir", [2, 14])
    def test_ir_out_of_range(self, write, ir):
        refuses(write(RELU.replace("ir_version: 8", f"ir_version: {ir}")), f"IR version {ir}, but 3 to 13")

    def test_over_two_gigabytes_in_one_file(self, tmp_path):
        path = tmp_path / "m.onnx"
        with path.open("wb") as file:
            file.truncate(1 << 31)  # a hole: costs no disk
        refuses(path, "is 2147483648 bytes long, but an ONNX file ends at 2 GB")

    def test_unreadable(self, write, monkeypatch):
        path = write(RELU)

        def refuse(_: Path) -> bytes:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "read_bytes", refuse)
        refuses(path, r"cannot be read \(Permission denied\); check its permissions")

    def test_no_opset(self, tmp_path):
        model = parser.parse_model(RELU)
        del model.opset_import[:]
        path = tmp_path / "m.onnx"
        path.write_bytes(model.SerializeToString())
        refuses(path, "does not say which version")

    def test_values_that_do_not_fit_the_shape(self, tmp_path):
        model = parser.parse_model(RELU.replace("Relu(x)", "Add(x, w)"))
        model.graph.initializer.append(TensorProto(name="w", data_type=1, dims=[3], raw_data=bytes(8)))
        path = tmp_path / "m.onnx"
        path.write_bytes(model.SerializeToString())
        refuses(path, 'data of tensor "w" does not fit')


class TestVersions:
    @pytest.mark.parametrize("opset", range(7, 27))
    def test_every_opset(self, write, run, opset):
        model = load(write(RELU.replace("17", str(opset))))
        assert model.opset == model.graph.opset == opset
        x = np.array([[-1, 0, 2], [3, -4, 5]], np.float32)
        np.testing.assert_array_equal(run(model, {"x": x})["y"], np.maximum(x, 0))

    @pytest.mark.parametrize("ir", range(3, 14))
    def test_every_ir_round_trips(self, tmp_path, run_file, ir):
        source = f"""<ir_version: {ir}, opset_import: ["": 8]> g (float[2] x) => (float[2] y)
            <float[2] w = {{1, 2}}> {{ y = Add(x, w) }}"""
        proto = parser.parse_model(source)
        if ir == 3:
            proto.graph.input.append(helper.make_tensor_value_info("w", 1, [2]))
        model = from_proto(proto)
        save(model, tmp_path / "out.onnx")
        np.testing.assert_array_equal(
            run_file(tmp_path / "out.onnx", {"x": np.ones(2, np.float32)})["y"], np.array([2, 3], np.float32)
        )
        assert onnx.load(tmp_path / "out.onnx").ir_version == ir

    def test_ir3_lists_initializers_as_inputs_but_they_were_never_overridable(self):
        proto = parser.parse_model(
            '<ir_version: 3, opset_import: ["": 8]> g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}>'
            "{ y = Add(x, w) }"
        )
        model = from_proto(proto)
        assert [t.name for t in model.graph.inputs] == ["x"]
        assert model.meta.overridable == []
        assert [i.name for i in onnx.ModelProto.FromString(to_bytes(model)).graph.input] == ["x", "w"]

    def test_only_another_domain(self, run):
        scaler = helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[1.0], scale=[2.0])
        graph = helper.make_graph(
            [scaler],
            "g",
            [helper.make_tensor_value_info("x", 1, [1, 1])],
            [helper.make_tensor_value_info("y", 1, [1, 1])],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("ai.onnx.ml", 2)], ir_version=8)
        model = from_proto(proto)
        assert run(model, {"x": np.array([[3]], np.float32)})["y"] == 4


class TestOverridable:
    SOURCE = """<ir_version: 8, opset_import: ["": 17]> g (float[2] x, float[2] w) => (float[2] y)
        <float[2] w = {1, 2}> { y = Add(x, w) }"""

    def test_becomes_constant_and_is_said(self):
        model = from_proto(parser.parse_model(self.SOURCE))
        assert model.meta.overridable == ["w"]
        assert [i.name for i in to_proto(model).graph.input] == ["x"]
        assert model.notes == [
            '1 initializer that could be fed as an input became constant ("w"); --keep-overridable keeps them.'
        ]

    def test_kept(self, tmp_path, run_file):
        model = from_proto(parser.parse_model(self.SOURCE), keep_overridable=True)
        assert model.notes == []
        path = tmp_path / "out.onnx"
        save(model, path)
        x = np.zeros(2, np.float32)
        np.testing.assert_array_equal(run_file(path, {"x": x})["y"], [1, 2])
        np.testing.assert_array_equal(run_file(path, {"x": x, "w": np.full(2, 7, np.float32)})["y"], [7, 7])

    def test_kept_though_unused(self, tmp_path):
        source = self.SOURCE.replace("Add(x, w)", "Relu(x)")
        model = from_proto(parser.parse_model(source), keep_overridable=True)
        save(model, tmp_path / "out.onnx")
        assert [i.name for i in onnx.load(tmp_path / "out.onnx").graph.input] == ["x", "w"]


class TestExternalData:
    def test_mapped_or_read(self, external):
        model = load(external)
        constants = {t.name: t for n in model.graph.nodes for t in n.inputs if isinstance(t, gs.Constant)}
        assert isinstance(constants["w"].values, np.memmap)
        assert not isinstance(constants["b"].values, np.memmap)
        raw = (external.parent / "weights.bin").read_bytes()
        assert constants["b"].values.tobytes() == raw[:4096]
        assert constants["w"].values.tobytes() == raw[4096:]
        with pytest.raises(ValueError, match="read-only"):
            constants["w"].values[0, 0] = 1

    def test_same_result_as_the_file(self, external, run, run_file):
        x = {"x": np.random.default_rng(0).standard_normal((2, 512)).astype(np.float32)}
        np.testing.assert_array_equal(run(load(external), x)["y"], run_file(external, x)["y"])

    def test_missing_is_named(self, external):
        (external.parent / "weights.bin").unlink()
        refuses(external, 'external data file "weights.bin" with the values of tensor "w" is missing')

    def test_truncated_is_named(self, external):
        data = external.parent / "weights.bin"
        data.write_bytes(data.read_bytes()[:-1])
        refuses(external, 'file "weights.bin" ends after 2101247 bytes, but tensor "w" needs bytes 4096 to 2101248')

    @pytest.mark.parametrize(
        ("key", "value", "pattern"),
        [
            ("location", "../weights.bin", "not a path below the folder"),
            ("location", "/weights.bin", "not a path below the folder"),
            ("location", "onnxq:0", "is missing"),
            ("length", "12", "takes 2097152 bytes, but its external data says 12"),
            ("offset", "abc", "that is no number"),
        ],
    )
    def test_bad_entries(self, external, key, value, pattern):
        proto = onnx.load(external, load_external_data=False)
        for entry in proto.graph.initializer[0].external_data:
            if entry.key == key:
                entry.value = value
        external.write_bytes(proto.SerializeToString())
        refuses(external, pattern)


class TestNothingIsLost:
    def test_metadata(self, tmp_path):
        proto = parser.parse_model(RELU)
        proto.producer_name, proto.producer_version, proto.domain = "pytorch", "2.1", "org.example"
        proto.model_version, proto.doc_string, proto.graph.doc_string = 42, "about", "the graph"
        proto.metadata_props.add(key="b", value="2")
        proto.metadata_props.add(key="a", value="1\nline")
        proto.graph.metadata_props.add(key="g", value="3")
        proto.graph.node[0].doc_string = "where in the source"
        proto.graph.node[0].metadata_props.add(key="n", value="4")
        proto.graph.input[0].doc_string = "an image"
        proto.graph.input[0].type.denotation = "IMAGE"
        save(from_proto(proto), tmp_path / "out.onnx")
        saved = onnx.load(tmp_path / "out.onnx")
        proto.metadata_props.sort(key=lambda p: p.key)
        proto.graph.node[0].ClearField("domain")  # the parser sets it to the empty string
        assert saved == proto

    def test_quantization_annotation_of_tensors_that_exist(self):
        proto = parser.parse_model(RELU)
        for name in ("y", "gone"):
            proto.graph.quantization_annotation.add(tensor_name=name)
        assert [a.tensor_name for a in to_proto(from_proto(proto)).graph.quantization_annotation] == ["y"]

    def test_sequence_and_optional_types(self, run):
        model = from_proto(
            parser.parse_model(
                '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (seq(float[2]) s)'
                "{ s = SequenceConstruct(x, x) }"
            )
        )
        assert to_proto(model).graph.output[0].type.HasField("sequence_type")
        assert len(run(model, {"x": np.ones(2, np.float32)})["s"]) == 2

    def test_rare_attributes(self):
        node = helper.make_node("Custom", ["x"], ["y"], domain="my")
        node.attribute.append(helper.make_attribute("empty", [], attr_type=onnx.AttributeProto.FLOATS))
        node.attribute.append(onnx.AttributeProto(name="raw", type=onnx.AttributeProto.STRING, s=b"\xff\xfe"))
        node.attribute.append(helper.make_attribute("kind", helper.make_tensor_type_proto(1, [2])))
        node.attribute.append(helper.make_attribute("t", numpy_helper.from_array(np.arange(3))))
        proto = parser.parse_model(RELU)
        proto.opset_import.add(domain="my", version=5)
        del proto.graph.node[:]
        proto.graph.node.append(node)
        saved = to_proto(from_proto(proto))
        assert saved.graph.node[0] == node
        assert {i.domain: i.version for i in saved.opset_import} == {"": 17, "my": 5}

    def test_element_types(self, tmp_path):
        names = ["BFLOAT16", "FLOAT16", "INT4", "UINT4", "INT2", "UINT2", "FLOAT8E4M3FN", "FLOAT8E5M2", "FLOAT4E2M1"]
        names += ["UINT16", "UINT64", "BOOL", "DOUBLE", "COMPLEX64", "INT8"]
        proto = parser.parse_model(RELU.replace("ir_version: 8", "ir_version: 13").replace("17", "25"))
        for name in names:
            kind = getattr(TensorProto, name)
            array = np.array([0, 1, 1], dtype=helper.tensor_dtype_to_np_dtype(kind))
            proto.graph.initializer.append(numpy_helper.from_array(array, name))
            proto.graph.node.append(helper.make_node("Identity", [name], [f"out_{name}"]))
            proto.graph.output.append(helper.make_tensor_value_info(f"out_{name}", kind, [3]))
        proto.graph.initializer.append(numpy_helper.from_array(np.array(["a", "ü"], dtype=object), "s"))
        proto.graph.node.append(helper.make_node("Identity", ["s"], ["out_s"]))
        proto.graph.output.append(helper.make_tensor_value_info("out_s", TensorProto.STRING, [2]))
        save(from_proto(proto), tmp_path / "out.onnx")
        saved = {i.name: i for i in onnx.load(tmp_path / "out.onnx").graph.initializer}
        for before in proto.graph.initializer:
            after = saved[before.name]
            assert after.data_type == before.data_type
            assert numpy_helper.to_array(after).tolist() == numpy_helper.to_array(before).tolist()

    def test_sparse_initializer_becomes_dense(self, run):
        for indices in (np.array([1, 5]), np.array([[0, 1], [1, 2]])):
            proto = parser.parse_model(RELU.replace("Relu(x)", "Add(x, w)"))
            values = numpy_helper.from_array(np.array([10, 20], np.float32), "w")
            sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(indices.astype(np.int64), "i"), [2, 3])
            proto.graph.sparse_initializer.append(sparse)
            model = from_proto(proto)
            assert model.notes == ["1 sparse initializer became dense, as ONNX Runtime does on load."]
            y = run(model, {"x": np.zeros((2, 3), np.float32)})["y"]
            np.testing.assert_array_equal(y, [[0, 10, 0], [0, 0, 20]])

    def test_odd_names(self, tmp_path, run_file):
        names = ["a b", 'q"uote', "ü/✓", "back\\slash", "new\nline", "x:0"]
        nodes = [helper.make_node("Relu", [a], [b], name=b) for a, b in itertools.pairwise(names)]
        graph = helper.make_graph(
            nodes,
            "g r",
            [helper.make_tensor_value_info(names[0], 1, [1])],
            [helper.make_tensor_value_info(names[-1], 1, [1])],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        save(from_proto(proto), tmp_path / "ü m.onnx")
        assert run_file(tmp_path / "ü m.onnx", {"a b": np.ones(1, np.float32)})["x:0"] == 1


class TestFunctions:
    def test_overloads_are_inlined(self, run):
        functions = []
        for overload, op in (("a", "Relu"), ("b", "Neg")):
            function = helper.make_function(
                "local", "f", ["x"], ["y"], [helper.make_node(op, ["x"], ["y"])], [helper.make_opsetid("", 17)]
            )
            function.overload = overload
            functions.append(function)
        calls = [helper.make_node("f", ["x"], [out], domain="local") for out in ("p", "q")]
        for call, overload in zip(calls, ("a", "b"), strict=True):
            call.overload = overload
        graph = helper.make_graph(
            [*calls, helper.make_node("Sum", ["p", "q", "w"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", 1, [2000])],
            [helper.make_tensor_value_info("y", 1, [2000])],
            [numpy_helper.from_array(np.full(2000, 5, np.float32), "w")],
        )
        imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
        model = from_proto(helper.make_model(graph, functions=functions, opset_imports=imports, ir_version=10))
        assert [n.op for n in model.graph.nodes] == ["Relu", "Neg", "Sum"]
        assert model.notes == ["2 local functions inlined."]
        x = np.arange(-1000, 1000, dtype=np.float32)
        np.testing.assert_array_equal(run(model, {"x": x})["y"], np.maximum(x, 0) - x + 5)
        assert [i.domain for i in to_proto(model).opset_import] == [""]


def test_a_function_that_cannot_be_inlined():
    proto = parser.parse_model(RELU.replace("Relu(x)", "local.f(x)"))
    proto.opset_import.add(domain="local", version=1)
    function = helper.make_function(
        "local",
        "f",
        ["x"],
        ["y"],
        [helper.make_node("f", ["x"], ["y"], domain="local")],
        [helper.make_opsetid("local", 1)],
    )
    proto.functions.append(function)  # calls itself
    with pytest.raises(ModelError, match="the model: a local function cannot be inlined") as caught:
        from_proto(proto)
    assert "\n" not in str(caught.value)


def test_what_is_left_out_is_said():
    proto = parser.parse_model(RELU)
    proto.training_info.add()
    proto.configuration.add(name="two devices", num_devices=2)
    notes = from_proto(proto).notes
    assert notes == ["Training information was left out.", "Multi-device configurations were left out."]


def test_strings_that_are_not_utf8(tmp_path):
    proto = parser.parse_model(RELU)
    proto.graph.initializer.append(
        TensorProto(name="s", data_type=TensorProto.STRING, dims=[2], string_data=[b"\xff", b"a"])
    )
    proto.graph.node.append(helper.make_node("Identity", ["s"], ["t"]))
    proto.graph.output.append(helper.make_tensor_value_info("t", TensorProto.STRING, [2]))
    save(from_proto(proto), tmp_path / "m.onnx")
    assert list(onnx.load(tmp_path / "m.onnx").graph.initializer[0].string_data) == [b"\xff", b"a"]


def test_initializer_and_input_as_outputs(tmp_path, run_file):
    source = """<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y, float[2] w, float[2] x)
        <float[2] w = {1, 2}> { y = Neg(x) }"""
    model = from_proto(parser.parse_model(source))
    save(model, tmp_path / "m.onnx")
    got = run_file(tmp_path / "m.onnx", {"x": np.ones(2, np.float32)})
    assert {n: v.tolist() for n, v in got.items()} == {"y": [-1, -1], "w": [1, 2], "x": [1, 1]}
    assert "const w = float32[2] {1.0, 2.0}" in text(model)
    assert to_bytes(model.copy()) == to_bytes(model)


CAPTURE = """<ir_version: 8, opset_import: ["": 17]> g (float[4] x, bool c) => (float[4] y)
    <float[4] w = {1, 2, 3, 4}, float[4] only = {5, 5, 5, 5}, float[4] both = {9, 9, 9, 9}> {
    t = Add(x, both)
    y = If (c) <
        then_branch = a () => (float[4] p) { q = Add(t, w) p = Mul(q, both) },
        else_branch = b () => (float[4] r) { s = Sub(t, w) r = Mul(s, only) }>
}"""


class TestSubgraphs:
    def test_captured_initializers_are_written_once(self, run):
        model = from_proto(parser.parse_model(CAPTURE))
        saved = to_proto(model).graph
        assert sorted(i.name for i in saved.initializer) == ["both", "w"]
        branches = {a.name: a.g for a in saved.node[1].attribute}
        assert [i.name for i in branches["else_branch"].initializer] == ["only"]
        assert not branches["then_branch"].initializer
        x = np.arange(4, dtype=np.float32)
        w = np.arange(1, 5, dtype=np.float32)
        np.testing.assert_array_equal(run(model, {"x": x, "c": np.array(True)})["y"], (x + 9 + w) * 9)
        np.testing.assert_array_equal(run(model, {"x": x, "c": np.array(False)})["y"], (x + 9 - w) * 5)

    def test_captured_tensors_are_the_same_objects(self):
        model = from_proto(parser.parse_model(CAPTURE))
        inner = [g for path, g in walk.graphs(model.graph) if path]
        assert inner[0].nodes[0].inputs[1] is inner[1].nodes[0].inputs[1]
        assert inner[0].nodes[0].inputs[0] is model.graph.nodes[0].outputs[0]

    def test_inner_initializer_hides_the_outer_one(self):
        # ONNX forbids it, exporters do it: the inner values are meant
        proto = parser.parse_model(CAPTURE)
        branch = next(a.g for a in proto.graph.node[1].attribute if a.name == "then_branch")
        branch.initializer.append(numpy_helper.from_array(np.full(4, 100, np.float32), "w"))
        model = from_proto(proto)
        inner = {path[0].split("/")[1]: g for path, g in walk.graphs(model.graph) if path}
        assert inner["then_branch"].nodes[0].inputs[1].values.tolist() == [100] * 4
        assert inner["else_branch"].nodes[0].inputs[1].values.tolist() == [1, 2, 3, 4]

    def test_unsorted_nodes(self, run):
        proto = parser.parse_model(
            '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] z) { y = Relu(x) z = Neg(y) }'
        )
        proto.graph.node.reverse()
        model = from_proto(proto)
        assert [n.op for n in model.graph.nodes] == ["Relu", "Neg"]
        assert model.notes == ["Nodes were put in topological order."]
        assert run(model, {"x": np.ones(2, np.float32)})["z"].tolist() == [-1, -1]


def test_is_quantized():
    source = """<ir_version: 10, opset_import: ["": 21]> g (float[2] x, bool c) => (float[2] y)
        <float s = {0.5}, uint8 z = {0}> {
        y = If(c) <then_branch = a () => (float[2] p) { q = QuantizeLinear(x, s, z) p = DequantizeLinear(q, s, z) },
                   else_branch = b () => (float[2] r) { r = Relu(x) }> }"""
    assert is_quantized(from_proto(parser.parse_model(source)).graph) == ["DequantizeLinear", "QuantizeLinear"]
    assert is_quantized(from_proto(parser.parse_model(RELU)).graph) == []
