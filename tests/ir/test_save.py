"""Saving: atomic, byte-identical, streamed, checked."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import psutil
import pytest
from onnx import helper, numpy_helper, parser

from onnxq.errors import OutputError, PassError
from onnxq.ir import save as saving
from onnxq.ir.files import check_writable
from onnxq.ir.load import from_proto, load
from onnxq.ir.model import Model
from onnxq.ir.save import runnable, save, to_bytes, to_proto, weight_bytes

SOURCE = """<ir_version: 8, opset_import: ["": 17, "unused": 3]> g (float[2,3] x) => (float[2,3] y)
    <float[3] w = {1, 2, 3}> { h = Add(x, w) y = Relu(h) }"""


def small() -> Model:
    return from_proto(parser.parse_model(SOURCE))


def large(rows: int = 300) -> Model:
    """Weights of 1.2 MB at 300 rows, streamed."""
    rng = np.random.default_rng(0)
    w = gs.Constant("w", rng.standard_normal((rows, 1000)).astype(np.float32))
    b = gs.Constant("b", rng.standard_normal(1000).astype(np.float32))
    x, h = gs.Variable("x", np.float32, (2, rows)), gs.Variable("h")
    y = gs.Variable("y", np.float32, (2, 1000))
    nodes = [gs.Node("MatMul", "m", inputs=[x, w], outputs=[h]), gs.Node("Add", "a", inputs=[h, b], outputs=[y])]
    return Model(graph=gs.Graph(nodes, [x], [y], name="g"), opset=17, ir_version=8)


class TestBytes:
    def test_equals_protobufs_own_serialization(self):
        model = large()
        parsed = onnx.ModelProto.FromString(to_bytes(model))
        plain = to_proto(model)
        for proto in (parsed, plain):
            proto.graph.initializer.sort(key=lambda t: t.name)
        assert parsed == plain

    def test_file_equals_bytes(self, tmp_path):
        for model in (small(), large()):
            save(model, tmp_path / "a.onnx")
            assert (tmp_path / "a.onnx").read_bytes() == to_bytes(model)

    def test_second_round_trip_changes_nothing(self, tmp_path):
        save(large(), tmp_path / "a.onnx")
        save(load(tmp_path / "a.onnx"), tmp_path / "b.onnx")
        assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()

    def test_same_under_any_hash_seed(self, tmp_path):
        save(large(), tmp_path / "a.onnx", embed_limit=1000)
        code = (
            "import hashlib, sys; from onnxq.ir.load import load; from onnxq.ir.save import save, to_bytes\n"
            "from onnxq.ir.hash import model_hash; from onnxq.ir.text import text\n"
            "m = load(sys.argv[1]); save(m, sys.argv[2], embed_limit=1000)\n"
            "print(model_hash(m), hashlib.sha256(to_bytes(m) + text(m).encode()).hexdigest())"
        )
        printed, files = [], []
        for seed in ("1", "2"):
            (tmp_path / seed).mkdir()
            out = tmp_path / seed / "b.onnx"
            command = [sys.executable, "-c", code, str(tmp_path / "a.onnx"), str(out)]
            done = subprocess.run(
                command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
            )
            printed.append(done.stdout)
            files.append((out.read_bytes(), out.with_name("b.onnx.data").read_bytes()))
        assert printed[0] == printed[1]
        assert files[0] == files[1]

    def test_only_domains_in_use(self):
        assert [(i.domain, i.version) for i in to_proto(small()).opset_import] == [("", 17)]

    def test_domains_are_sorted_behind_onnx(self):
        model = small()
        for domain in ("my", "com.microsoft"):
            last = model.graph.nodes[-1].outputs[0]
            out = gs.Variable(f"{domain}_out", np.float32, (2, 3))
            model.graph.nodes.append(gs.Node("F", inputs=[last], outputs=[out], domain=domain))
        assert [i.domain for i in to_proto(model).opset_import] == ["", "com.microsoft", "my"]

    def test_attribute_kinds_come_from_the_schema(self):
        model = small()
        node = model.graph.nodes[-1]
        node.op, node.attrs = "LeakyRelu", {"alpha": 1}
        attribute = to_proto(model).graph.node[-1].attribute[0]
        assert (attribute.type, attribute.f) == (onnx.AttributeProto.FLOAT, 1.0)
        node.op, node.attrs = "Cast", {"to": np.float32}
        attribute = to_proto(model).graph.node[-1].attribute[0]
        assert (attribute.type, attribute.i) == (onnx.AttributeProto.INT, 1)

    def test_inner_value_info_is_dropped_and_on_demand_kept(self):
        proto = parser.parse_model(SOURCE)
        proto.graph.value_info.append(helper.make_tensor_value_info("h", 1, [2, 3]))
        model = from_proto(proto)
        assert not to_proto(model).graph.value_info
        assert [v.name for v in to_proto(model, value_info=True).graph.value_info] == ["h"]

    def test_lists_in_attributes(self):
        model = small()
        node = model.graph.nodes[-1]
        node.op, node.domain = "Any", "my"
        node.attrs = {
            "i": [1, np.int64(2)],
            "f": [1, 2.5],
            "s": ["a", b"b"],
            "none": [],
            "t": np.zeros((1, 2)),
            "b": True,
        }
        got = {a.name: onnx.helper.get_attribute_value(a) for a in to_proto(model).graph.node[-1].attribute}
        assert np.array_equal(numpy_helper.to_array(got.pop("t")), np.zeros((1, 2)))
        assert got == {"i": [1, 2], "f": [1.0, 2.5], "s": [b"a", b"b"], "none": [], "b": 1}

    def test_two_constants_of_one_name(self):
        model = small()
        model.graph.nodes[1].op = "Add"
        model.graph.nodes[1].inputs.append(gs.Constant("w", np.zeros(3, np.float32)))
        with pytest.raises(PassError, match='two different constants are called "w"'):
            to_bytes(model)

    def test_equal_constants_of_one_name_are_one(self):
        model = small()
        model.graph.nodes[1].op = "Add"
        model.graph.nodes[1].inputs.append(gs.Constant("w", np.array([1, 2, 3], np.float32)))
        assert [i.name for i in to_proto(model).graph.initializer] == ["w"]

    def test_too_large_for_bytes(self, monkeypatch):
        monkeypatch.setattr(saving, "EMBED_LIMIT", 10)
        with pytest.raises(OutputError, match="above 2 GB"):
            to_bytes(small())

    def test_weight_bytes_counts_a_shared_tensor_once(self):
        model = small()
        model.graph.nodes[1].op = "Add"
        model.graph.nodes[1].inputs.append(model.graph.nodes[0].inputs[1])
        assert weight_bytes(model) == 12


class TestExternal:
    def test_round_trip(self, tmp_path, run, run_file):
        model = large()
        path = tmp_path / "m.onnx"
        save(model, path, embed_limit=1_000_000)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
        assert path.stat().st_size < 10_000
        x = {"x": np.random.default_rng(3).standard_normal((2, 300)).astype(np.float32)}
        np.testing.assert_array_equal(run_file(path, x)["y"], run(model, x)["y"])
        again = load(path)
        assert isinstance(again.graph.nodes[0].inputs[1].values, np.memmap)
        np.testing.assert_array_equal(again.graph.nodes[0].inputs[1].values, model.graph.nodes[0].inputs[1].values)

    def test_over_its_own_source(self, external, run, run_file):
        x = {"x": np.ones((2, 512), np.float32)}
        before = run_file(external, x)["y"]
        model = load(external)
        save(model, external, embed_limit=1000)
        np.testing.assert_array_equal(run_file(external, x)["y"], before)
        save(load(external), external, embed_limit=1000)
        np.testing.assert_array_equal(run_file(external, x)["y"], before)

    def test_offsets_are_aligned(self, tmp_path):
        model = large(301)
        model.graph.nodes[1].inputs[1].values = np.ones(20000, np.float32)[:1000].repeat(20).reshape(20, 1000)
        model.graph.outputs[0].shape = (20, 1000)
        save(model, tmp_path / "m.onnx", embed_limit=1000)
        proto = onnx.load(tmp_path / "m.onnx", load_external_data=False)
        offsets = [int(e.value) for t in proto.graph.initializer for e in t.external_data if e.key == "offset"]
        assert len(offsets) == 2
        assert all(o % 4096 == 0 for o in offsets)

    def test_runnable_links_the_source(self, external, run_file):
        model = load(external)
        x = {"x": np.ones((2, 512), np.float32)}
        with runnable(model, embed_limit=1000) as path:
            assert isinstance(path, Path)
            names = sorted(p.name for p in path.parent.iterdir())
            assert names == ["model.onnx", "model.onnx.data", "source0.data"]
            assert (path.parent / "source0.data").samefile(external.parent / "weights.bin")
            np.testing.assert_array_equal(run_file(path, x)["y"], run_file(external, x)["y"])
        assert not path.parent.exists()

    def test_runnable_copies_where_it_cannot_link(self, external, run_file, monkeypatch):
        def refuse(*_: object) -> None:
            raise OSError("no links here")

        monkeypatch.setattr(os, "link", refuse)
        x = {"x": np.ones((2, 512), np.float32)}
        with runnable(load(external), embed_limit=1000) as path:
            assert sorted(p.name for p in path.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
            np.testing.assert_array_equal(run_file(path, x)["y"], run_file(external, x)["y"])

    def test_runnable_writes_a_changed_weight(self, external, run_file):
        model = load(external)
        weight = model.graph.nodes[0].inputs[1]
        weight.values = weight.values * np.float32(2)
        x = {"x": np.ones((2, 512), np.float32)}
        model.graph.nodes[1].inputs[1].values = np.zeros(1024, np.float32)
        with runnable(model, embed_limit=1000) as path:
            got = run_file(path, x)["y"]
        original = load(external)
        original.graph.nodes[1].inputs[1].values = np.zeros(1024, np.float32)
        with runnable(original, embed_limit=1000) as path:
            np.testing.assert_array_equal(got, run_file(path, x)["y"] * 2)

    def test_a_part_of_a_map_is_not_mistaken_for_the_whole(self, external, run_file):
        model = load(external)
        weight = model.graph.nodes[0].inputs[1]
        whole = np.array(weight.values)
        weight.values = weight.values[256:]
        model.graph.inputs[0].shape = (2, 256)
        x = np.ones((2, 256), np.float32)
        model.graph.nodes[1].inputs[1].values = np.zeros(1024, np.float32)
        with runnable(model, embed_limit=1000) as path:
            np.testing.assert_allclose(run_file(path, {"x": x})["y"], x @ whole[256:], rtol=1e-4, atol=1e-4)


class TestFailures:
    def test_unknown_ranks_are_no_fault_but_others_beside_them_are(self, tmp_path):
        """ONNX Runtime runs models whose inputs have no shape, and exporters write them; onnx.checker refuses them."""
        model = small()
        model.graph.inputs[0].shape = model.graph.outputs[0].shape = None
        for n, external in enumerate((False, True)):
            save(model, tmp_path / f"{n}.onnx", **({"embed_limit": 0} if external else {}))
            assert (tmp_path / f"{n}.onnx").exists()
            assert not list(tmp_path.glob("*.ranked"))
        model.graph.nodes[1].op = "NoSuchOp"
        with pytest.raises(OutputError, match=r"onnx.checker refuses .*NoSuchOp"):
            save(model, tmp_path / "bad.onnx")
        assert not list(tmp_path.glob("bad*"))

    def test_refused_by_the_checker_leaves_nothing(self, tmp_path):
        model = small()
        model.graph.nodes[1].op = "NoSuchOp"
        with pytest.raises(OutputError, match=r"was not written: onnx.checker refuses .*NoSuchOp"):
            save(model, tmp_path / "m.onnx")
        assert list(tmp_path.iterdir()) == []

    def test_failure_keeps_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "m.onnx"
        save(small(), path)
        before = path.read_bytes()

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\)"):
            save(large(), path)
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]

    def test_interrupt_leaves_nothing(self, tmp_path, monkeypatch):
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(saving, "_check", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save(small(), tmp_path / "m.onnx")
        assert list(tmp_path.iterdir()) == []

    def test_folder_as_path(self, tmp_path):
        with pytest.raises(OutputError, match=r"is a folder; give the path of the file to write"):
            check_writable(tmp_path)

    def test_folder_missing(self, tmp_path):
        with pytest.raises(OutputError, match=r"the folder .*no does not exist; create it first"):
            check_writable(tmp_path / "no" / "m.onnx")

    def test_folder_that_takes_no_files(self):
        with pytest.raises(OutputError, match=r"takes no files|read-only"):
            check_writable("/proc/m.onnx")

    def test_read_only_file(self, tmp_path, monkeypatch):
        path = tmp_path / "m.onnx"
        path.write_bytes(b"")
        monkeypatch.setattr(os, "access", lambda *_: False)
        with pytest.raises(OutputError, match="it is read-only; remove it"):
            check_writable(path)

    def test_folder_that_takes_no_more_folders(self, tmp_path, monkeypatch):
        def refuse(**_: object) -> str:
            raise OSError(122, "Disk quota exceeded")

        monkeypatch.setattr(saving.tempfile, "mkdtemp", refuse)
        with pytest.raises(OutputError, match=r"cannot be written \(Disk quota exceeded\)"):
            save(small(), tmp_path / "m.onnx")

    def test_undefined_input_is_refused(self, tmp_path):
        model = from_proto(parser.parse_model(SOURCE.replace("Relu(h)", "Add(h, nowhere)")))
        with pytest.raises(OutputError, match="nowhere"):
            save(model, tmp_path / "m.onnx")

    def test_good_path_leaves_no_trace(self, tmp_path):
        check_writable(tmp_path / "m.onnx")
        assert list(tmp_path.iterdir()) == []


def test_memory_map_is_not_materialised(tmp_path):
    """Load, hash, save and link a model with a 400 MB weight; anonymous memory of the process stays far below that."""
    rows, columns = 10_000, 10_000
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(rows * columns * 4)  # a hole: costs no disk
    w = onnx.TensorProto(name="w", data_type=1, dims=[rows, columns], data_location=onnx.TensorProto.EXTERNAL)
    w.external_data.add(key="location", value="w.bin")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, [1, rows])],
        [helper.make_tensor_value_info("y", 1, [1, columns])],
        [w],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    code = (
        "import sys, resource\n"
        "from onnxq.ir.load import load; from onnxq.ir.save import save, runnable\n"
        "from onnxq.ir.hash import model_hash\n"
        "from onnxq.ir.hash import structural\n"
        "def anonymous():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return next(int(l.split()[1]) for l in lines if l.startswith('RssAnon')) // 1024\n"
        "start = anonymous(); m = load(sys.argv[1]); structural(m.graph); model_hash(m)\n"
        "save(m, sys.argv[2], embed_limit=1000)\n"
        "with runnable(m, embed_limit=1000): pass\n"
        "print(anonymous() - start)"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux to read anonymous memory")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.onnx"), str(tmp_path / "out.onnx")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 100
    (tmp_path / "w.bin").unlink()
    (tmp_path / "out.onnx.data").unlink()


@pytest.mark.slow
def test_over_two_gigabytes(tmp_path, run_file):
    """3 GB of weights in an external file: loaded, hashed, saved and run; the files go at the end."""
    if psutil.disk_usage(str(tmp_path)).free < 10 << 30 or psutil.virtual_memory().available < 8 << 30:
        pytest.skip("needs 10 GB of disk and 8 GB of memory")
    side = 16_384
    rng = np.random.default_rng(0)
    with (tmp_path / "w.bin").open("wb") as file:
        for _ in range(3):
            row = rng.standard_normal(side).astype(np.float32) / 128
            for shift in range(side):
                file.write(np.roll(row, shift).tobytes())
    nodes, tensors = [], []
    for i in range(3):
        w = onnx.TensorProto(name=f"w{i}", data_type=1, dims=[side, side], data_location=onnx.TensorProto.EXTERNAL)
        for key, value in (("location", "w.bin"), ("offset", str(i * side * side * 4))):
            w.external_data.add(key=key, value=value)
        tensors.append(w)
        nodes.append(helper.make_node("MatMul", [f"t{i}", f"w{i}"], [f"t{i + 1}"]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("t0", 1, [1, side])],
        [helper.make_tensor_value_info("t3", 1, [1, side])],
        tensors,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    try:
        model = load(tmp_path / "m.onnx")
        assert weight_bytes(model) > 1 << 31
        x = {"t0": rng.standard_normal((1, side)).astype(np.float32)}
        expected = run_file(tmp_path / "m.onnx", x)["t3"]
        with runnable(model) as path:
            np.testing.assert_array_equal(run_file(path, x)["t3"], expected)
        save(model, tmp_path / "out.onnx")
        digest = hashlib.sha256()
        with (tmp_path / "out.onnx.data").open("rb") as a, (tmp_path / "w.bin").open("rb") as b:
            while chunk := a.read(1 << 24):
                digest.update(chunk)
                assert chunk == b.read(1 << 24)
        np.testing.assert_array_equal(run_file(tmp_path / "out.onnx", x)["t3"], expected)
    finally:
        for path in tmp_path.iterdir():
            if path.is_file():
                path.unlink()
