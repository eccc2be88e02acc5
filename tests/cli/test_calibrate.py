"""calibrate, ranges, statistics, and quantize with what they wrote."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny import save_classifier, save_pictures, save_samples

from onnxq.errors import ModelError
from onnxq.runtime.session import Session
from onnxq.stats.ranges import RangeTable
from onnxq.stats.statistics import Statistics


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_classifier(tmp_path / "m.onnx")
    save_samples(tmp_path / "s.npz", 8)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def forbid_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ModelError("a session was opened")

    monkeypatch.setattr(Session, "__init__", refuse)


QUICK = ("--threads", 1, "--no-validate", "--placement", "rules")


@pytest.mark.parametrize("method", ["minmax", "percentile", "mixed"])
def test_quantize_gives_the_same_bytes_by_whichever_way(place: Path, onnxq: Any, method: str) -> None:
    assert onnxq("quantize", "m.onnx", "--calib", "s.npz", "--method", method, *QUICK, "-o", "a.onnx").code == 0
    assert onnxq("calibrate", "m.onnx", "--calib", "s.npz", "--threads", 1, "-o", "s.st.npz").code == 0
    assert onnxq("ranges", "s.st.npz", "--method", method, "-o", "r.json").code == 0
    for name, option in (("b", ("--statistics", "s.st.npz", "--method", method)), ("c", ("--ranges", "r.json"))):
        done = onnxq("quantize", "m.onnx", *option, *QUICK, "-o", f"{name}.onnx")
        assert done.code == 0, done.err
        assert (place / f"{name}.onnx").read_bytes() == (place / "a.onnx").read_bytes()
    workers = onnxq("calibrate", "m.onnx", "--calib", "s.npz", "--no-cache", "--workers", 2, "-o", "w.npz")
    assert workers.code == 0, workers.err
    assert (place / "w.npz").read_bytes() == (place / "s.st.npz").read_bytes()


BODIES = """<ir_version: 10, opset_import: ["": 21]>
g (float[4,8] x, bool c) => (float[4,8] y) {
  [outer] a = MatMul(x, w) s = Sigmoid(a) [inside] y = If (c) <
    then_branch = t () => (float[4,8] p) { [first] b = MatMul(s, w) h = Tanh(b) [second] p = MatMul(h, w) },
    else_branch = e () => (float[4,8] q) { k = Mul(x, x) r = Sigmoid(k) [third] l = MatMul(k, w) q = Add(l, r) }> }"""


def test_ranges_are_those_of_quantize_in_bodies_too(
    tmp_path: Path, onnxq: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reads a tensor, and the bounds of what makes it, travel in the statistics."""
    monkeypatch.chdir(tmp_path)
    model = onnx.parser.parse_model(BODIES)
    random = np.random.default_rng(0)
    weight = random.standard_normal((8, 8)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.save(model, "m.onnx")
    heavy = random.standard_t(2, (12, 4, 8)).astype(np.float32)
    np.savez("s.npz", x=heavy, c=np.arange(12) % 3 == 0)
    assert onnxq("calibrate", "m.onnx", "--calib", "s.npz", "--threads", 1, "-o", "st.npz").code == 0
    workers = onnxq("calibrate", "m.onnx", "--calib", "s.npz", "--no-cache", "--workers", 2, "-o", "w.npz")
    assert workers.code == 0, workers.err
    assert (tmp_path / "w.npz").read_bytes() == (tmp_path / "st.npz").read_bytes()
    assert onnxq("ranges", "st.npz", "--method", "mixed", "-o", "r.json").err == ""
    known = Statistics.load(tmp_path / "st.npz")
    assert known.around["h"].bounds == (-1, 1) and [f.op for f in known.around["k"].feels] == ["Sigmoid", ""]
    files = []
    for option in (("--calib", "s.npz"), ("--statistics", "st.npz"), ("--ranges", "r.json")):
        named = () if option[0] == "--ranges" else ("--method", "mixed")
        done = onnxq("quantize", "m.onnx", *option, *named, *QUICK, "-o", f"{len(files)}.onnx")
        assert done.code == 0, done.err
        files.append((tmp_path / f"{len(files)}.onnx").read_bytes())
    assert files[0] == files[1] == files[2]
    told = json.loads(onnxq("explain", "0.onnx", "--json").out)["ops"]
    assert [o["name"] for o in told if o["integer"] and o["op"] == "MatMul"] == ["outer", "first", "second", "third"]
    structure = {o["name"]: o for o in json.loads(onnxq("explain", "m.onnx", "--json").out)["ops"]}
    assert all(structure[name]["integer"] for name in ("outer", "first", "second", "third"))
    assert "no integer kernel for Tanh" in next(o["reason"] for o in structure.values() if o["op"] == "Tanh")
    replace(known, around={}).save(tmp_path / "old.npz")
    said = onnxq("ranges", "old.npz", "--method", "mixed", "-o", "old.json")
    assert said.code == 0 and said.err.startswith("old.npz does not tell what stands around its tensors")
    old, new = RangeTable.load(tmp_path / "old.json"), RangeTable.load(tmp_path / "r.json")
    assert old.ranges.keys() == new.ranges.keys() and old.ranges != new.ranges


def test_the_summary(place: Path, onnxq: Any) -> None:
    done = onnxq("calibrate", "m.onnx", "--calib", "s.npz", "-o", "st.npz")
    assert re.search(r"^8 samples: 8 run, [\d.]+ samples per second, [\d.]+ s in all$", done.out, re.M)
    assert "\nwidest, by max - min:\n" in done.out
    assert "\nmost outlier-ridden, by max |x| / the magnitude that 99.9 % of the elements do not exceed:\n" in done.out
    told = json.loads(onnxq("calibrate", "m.onnx", "--calib", "s.npz", "--json", "--no-cache").out)
    kept = Statistics.load(place / "st.npz")
    assert (told["samples"], told["ran"], told["cached"], told["tensors"]) == (8, 8, False, len(kept.tensors))
    assert told["model_hash"] == kept.model_hash
    first = told["widest"][0]
    assert first["max"] - first["min"] == max(t.max - t.min for t in kept.tensors.values())
    shown = onnxq("statistics", "show", "st.npz")
    assert shown.out.startswith("8 samples\n")
    assert shown.out.splitlines()[1:] == done.out.splitlines()[2:-1]
    assert json.loads(onnxq("statistics", "show", "st.npz", "--json").out)["widest"] == told["widest"]


def test_the_same_command_again_opens_no_session(place: Path, onnxq: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    save_pictures(place / "pictures", 4)
    for data in ("s.npz", "pictures"):
        command = ("calibrate", "m.onnx", "--calib", data, "-o", "st.npz")
        assert onnxq(*command).code == 0
        first = (place / "st.npz").read_bytes()
        (place / "st.npz").unlink()
        with monkeypatch.context() as patch:
            forbid_sessions(patch)
            again = onnxq(*command, "--threads", 1)
            assert again.code == 0, again.err
            assert "from the cache" in again.out
            assert (place / "st.npz").read_bytes() == first
            other = onnxq(*command, "--calib-samples", 3)
            assert other.sentence == "a session was opened"
            assert onnxq(*command, "--no-cache").sentence == "a session was opened"


@pytest.mark.parametrize("change", ["picture", "more", "model", "weights"])
def test_whatever_changes_is_run_again(place: Path, onnxq: Any, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    model = onnx.load("m.onnx")
    onnx.save(model, "m.onnx", save_as_external_data=True, location="m.data", size_threshold=64)
    folder = save_pictures(place / "pictures", 4)
    command = ("calibrate", "m.onnx", "--calib", "pictures", "--json")
    first = json.loads(onnxq(*command).out)
    assert json.loads(onnxq(*command).out)["cached"]
    if change == "picture":
        (folder / "picture_0.png").write_bytes((folder / "picture_1.png").read_bytes())
    elif change == "more":
        (folder / "picture_9.png").write_bytes((folder / "picture_1.png").read_bytes())
    elif change == "model":
        save_classifier(place / "m.onnx", seed=3)
    else:
        values = bytearray((place / "m.data").read_bytes())
        values[2] ^= 64
        (place / "m.data").write_bytes(values)
    second = json.loads(onnxq(*command).out)
    assert (second["cached"], second["ran"]) == (False, 5 if change == "more" else 4)
    assert second != first


def test_quantize_takes_from_the_cache_what_it_collected_before(place: Path, onnxq: Any, monkeypatch: Any) -> None:
    command = ("quantize", "m.onnx", "--calib", "s.npz", *QUICK, "--json", "-o", "a.onnx")
    noted = "The statistics came from the cache; --no-cache collects them again."
    assert noted not in json.loads(onnxq(*command).out)["notes"]
    first = (place / "a.onnx").read_bytes()

    def refuse(*_: Any, **__: Any) -> None:
        raise ModelError("samples were run")

    monkeypatch.setattr("onnxq.stats.engine.collect", refuse)
    assert noted in json.loads(onnxq(*command).out)["notes"]
    assert (place / "a.onnx").read_bytes() == first
    assert onnxq(*command, "--no-cache").sentence == "samples were run"


def test_a_damaged_entry_is_one_warning(place: Path, onnxq: Any, own_cache: Path) -> None:
    command = ("calibrate", "m.onnx", "--calib", "s.npz", "-o", "st.npz")
    onnxq(*command)
    first = (place / "st.npz").read_bytes()
    (entry,) = (own_cache / "entries").iterdir()
    entry.write_bytes(b"PK")
    with pytest.warns(UserWarning, match="a damaged cache entry was thrown away"):
        again = onnxq(*command)
    assert again.code == 0
    assert (place / "st.npz").read_bytes() == first


def test_function_data_is_cached_by_what_it_makes(place: Path, onnxq: Any) -> None:
    source = "import numpy as np\ndef make():\n    return [np.full((1, 3, 8, 8), i + 1, 'f') for i in range(3)]\n"
    (place / "made.py").write_text(source)
    command = ("calibrate", "m.onnx", "--calib", "made.py:make", "--json")
    assert not json.loads(onnxq(*command).out)["cached"]
    assert json.loads(onnxq(*command).out)["cached"]
    (place / "other.py").write_text(source.replace("i + 1", "i + 2"))
    assert not json.loads(onnxq("calibrate", "m.onnx", "--calib", "other.py:make", "--json").out)["cached"]


def test_two_processes_at_once_do_no_harm(place: Path, onnxq_process: Any, own_cache: Path) -> None:
    def run(name: str) -> Any:
        return onnxq_process("calibrate", "m.onnx", "--calib", "s.npz", "--checkpoint", 0, "-o", name)

    with ThreadPoolExecutor(2) as both:
        done = list(both.map(run, ["a.npz", "b.npz"]))
    assert [d.code for d in done] == [0, 0], [d.err for d in done]
    assert (place / "a.npz").read_bytes() == (place / "b.npz").read_bytes()
    third = run("c.npz")
    assert "from the cache" in third.out
    assert third.complaints == []
    assert (place / "c.npz").read_bytes() == (place / "a.npz").read_bytes()
    assert len(list((own_cache / "entries").glob("*.npz"))) == 1


def test_auto_without_samples_takes_one_method_and_says_so(place: Path, onnxq: Any) -> None:
    onnxq("calibrate", "m.onnx", "--calib", "s.npz", "-o", "all.npz")
    onnxq("calibrate", "m.onnx", "--calib", "s.npz", "--method", "minmax", "-o", "ends.npz")
    for name, method in (("all", "mixed"), ("ends", "minmax")):
        told = json.loads(onnxq("quantize", "m.onnx", "--statistics", f"{name}.npz", *QUICK, "--json").out)
        assert told["method"] == method
        assert any(n.startswith(f"Method {method} was taken") for n in told["notes"])
    done = onnxq("quantize", "m.onnx", "--statistics", "ends.npz", "--method", "mse", *QUICK)
    assert "hold no histogram" in done.sentence
    with_samples = onnxq("quantize", "m.onnx", "--statistics", "ends.npz", "--calib", "s.npz", *QUICK, "--json")
    assert json.loads(with_samples.out)["method"] == "minmax"


def test_without_samples_nothing_is_compared_and_with_them_it_is(place: Path, onnxq: Any) -> None:
    onnxq("calibrate", "m.onnx", "--calib", "s.npz", "-o", "st.npz")
    config = place / "job.yaml"
    config.write_text("model: m.onnx\nstatistics: st.npz\nvalidate: {speed: false}\n")
    alone = json.loads(onnxq("quantize", "--config", "job.yaml", "--json").out)
    assert alone["accuracy"] is None
    assert any(n.startswith("No samples were given") for n in alone["notes"])
    assert alone["calibration"] == "statistics of st.npz"
    judged = json.loads(onnxq("quantize", "--config", "job.yaml", "--eval", "s.npz", "--json").out)
    assert judged["accuracy"]["samples"] == 8


def test_another_model_is_refused(place: Path, onnxq: Any) -> None:
    onnxq("calibrate", "m.onnx", "--calib", "s.npz", "-o", "st.npz")
    onnxq("ranges", "st.npz", "--method", "minmax", "-o", "r.json")
    save_classifier(place / "other.onnx", seed=1)
    said = onnxq("quantize", "other.onnx", "--statistics", "st.npz", *QUICK)
    assert (said.code, "statistics belong to another model" in said.sentence) == (2, True)
    said = onnxq("quantize", "other.onnx", "--ranges", "r.json", *QUICK)
    assert (said.code, "ranges belong to another model" in said.sentence) == (2, True)
    assert not (place / "other.int8.onnx").exists()


def test_an_edited_range_counts_and_a_removed_one_leaves_its_op_float(place: Path, onnxq: Any) -> None:
    onnxq("calibrate", "m.onnx", "--calib", "s.npz", "-o", "st.npz")
    onnxq("ranges", "st.npz", "--method", "minmax", "-o", "r.json")
    plain = json.loads((place / "r.json").read_text())
    plain["ranges"]["image"] = {"min": -255.0, "max": 0}
    (place / "edited.json").write_text(json.dumps(plain, indent=2))
    assert onnxq("quantize", "m.onnx", "--ranges", "edited.json", *QUICK, "-o", "e.onnx").code == 0
    scales = [numpy_helper.to_array(t) for t in onnx.load("e.onnx").graph.initializer]
    assert any(s.dtype == np.float32 and s.size == 1 and float(s) == 1.0 for s in scales)
    del plain["ranges"]["image"]
    (place / "edited.json").write_text(json.dumps(plain))
    told = json.loads(onnxq("quantize", "m.onnx", "--ranges", "edited.json", *QUICK, "--json").out)
    assert any("holds no range for 1 tensors that could be quantized" in n and "image" in n for n in told["notes"])
    plain["ranges"] = {"no such tensor": {"min": 0.0, "max": 1.0}}
    (place / "edited.json").write_text(json.dumps(plain))
    said = onnxq("quantize", "m.onnx", "--ranges", "edited.json", *QUICK)
    assert said.sentence.startswith("what was calibrated holds none of the")


def test_options_that_contradict(place: Path, onnxq: Any) -> None:
    onnxq("calibrate", "m.onnx", "--calib", "s.npz", "-o", "st.npz")
    onnxq("ranges", "st.npz", "--method", "minmax", "-o", "r.json")
    both = onnxq("quantize", "m.onnx", "--statistics", "st.npz", "--ranges", "r.json")
    assert both.sentence.startswith("statistics and ranges are both given")
    method = onnxq("quantize", "m.onnx", "--ranges", "r.json", "--method", "mse")
    assert "leave --method out" in method.sentence
    assert "nothing to calibrate with" in onnxq("calibrate", "m.onnx", "-o", "x.npz").sentence
    assert "there is no statistics file" in onnxq("ranges", "no.npz", "--method", "mse").sentence
    assert "the method auto compares models" in onnxq("ranges", "st.npz", "--method", "auto").sentence
    assert (
        'no setting "percent": did you mean "percentile"?'
        in onnxq("ranges", "st.npz", "--method", "percentile", "--set", "percent=9").sentence
    )
    assert '"percentile" is no setting' in onnxq("ranges", "st.npz", "--method", "mse", "--set", "percentile").sentence


def test_a_group_without_a_command_is_one_sentence(onnxq: Any) -> None:
    assert onnxq("ranges").sentence.startswith("missing command")
    assert onnxq("statistics").sentence.startswith("missing command")
    assert "did you mean 'merge'?" in onnxq("statistics", "merg").sentence.lower()


def test_a_job_file_does_without_the_cache(place: Path, onnxq: Any, own_cache: Path) -> None:
    job = "model: m.onnx\ndata: {calib: {path: s.npz}}\ncalibration: {cache: false}\n"
    (place / "job.yaml").write_text(job)
    for _ in range(2):
        assert not json.loads(onnxq("calibrate", "--config", "job.yaml", "--json").out)["cached"]
    assert not own_cache.exists()
    assert not json.loads(onnxq("calibrate", "--config", "job.yaml", "--cache", "--json").out)["cached"]
    assert json.loads(onnxq("calibrate", "--config", "job.yaml", "--cache", "--json").out)["cached"]


def test_a_cluster_that_is_not_there(place: Path, onnxq: Any) -> None:
    said = onnxq("calibrate", "m.onnx", "--calib", "s.npz", "--cluster", "nonsense://x")
    assert (said.code, said.sentence.startswith("no Dask scheduler answers at nonsense://x")) == (2, True)


def test_ranges_are_printed_and_settings_count(place: Path, onnxq: Any) -> None:
    onnxq("calibrate", "m.onnx", "--calib", "s.npz", "-o", "st.npz")
    (place / "r.json").write_text(onnxq("ranges", "st.npz", "--method", "percentile", "--set", "percentile=90").out)
    read = RangeTable.load(place / "r.json")
    assert (read.method, read.settings) == ("percentile", {"percentile": 90})
    assert set(read.ranges) == set(Statistics.load(place / "st.npz").tensors)


def test_diff_of_ranges_has_the_exit_codes_of_diff(place: Path, onnxq: Any) -> None:
    onnxq("calibrate", "m.onnx", "--calib", "s.npz", "-o", "st.npz")
    onnxq("ranges", "st.npz", "--method", "minmax", "-o", "a.json")
    onnxq("ranges", "st.npz", "--method", "percentile", "--set", "percentile=95", "-o", "b.json")
    same = onnxq("ranges", "diff", "a.json", "a.json")
    assert (same.code, same.out.startswith("no range of ")) == (0, True)
    differs = onnxq("ranges", "diff", "a.json", "b.json")
    assert differs.code == 1
    shares = [float(m) for m in re.findall(r"([\d.]+) %", differs.out)]
    assert shares == sorted(shares, reverse=True)
    assert len(shares) > 1
    rows = json.loads(onnxq("ranges", "diff", "a.json", "b.json", "--json").out)
    assert [round(100 * r["relative"], 2) for r in rows] == shares
    assert onnxq("ranges", "diff", "a.json", "b.json", "--tolerance", 1).code == 0
    some = onnxq("ranges", "diff", "a.json", "b.json", "--tolerance", rows[0]["relative"] - 1e-9)
    assert (some.code, some.out.count("->")) == (1, 1)


def test_merged_halves_are_the_whole(place: Path, onnxq: Any) -> None:
    arrays = np.load(place / "s.npz")["image"]
    np.savez(place / "one.npz", image=arrays[:3])
    np.savez(place / "two.npz", image=arrays[3:])
    for name in ("s", "one", "two"):
        onnxq("calibrate", "m.onnx", "--calib", f"{name}.npz", "--method", "percentile", "-o", f"{name}.st.npz")
    done = onnxq("statistics", "merge", "two.st.npz", "one.st.npz", "-o", "both.npz")
    assert (done.code, done.out.startswith("both.npz: 8 samples, ")) == (0, True)
    assert Statistics.load(place / "both.npz") == Statistics.load(place / "s.st.npz")
    save_classifier(place / "other.onnx", seed=1)
    onnxq("calibrate", "other.onnx", "--calib", "one.npz", "--method", "percentile", "-o", "other.npz")
    said = onnxq("statistics", "merge", "one.st.npz", "other.npz", "-o", "x.npz")
    assert said.sentence.startswith("other.npz does not fit to one.st.npz: statistics of two different models")
    assert not (place / "x.npz").exists()


def recurrent(path: Path) -> None:
    """h' = tanh(x W + h U): input x [1, 4], h [B, 4]; outputs y = h' V and hn = h'. A step of an Elman network."""
    random = np.random.default_rng(0)
    weights = [numpy_helper.from_array(random.normal(0, 0.7, (4, 4)).astype(np.float32), n) for n in ("W", "U", "V")]
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["a"], "a"),
        helper.make_node("MatMul", ["h", "U"], ["b"], "b"),
        helper.make_node("Add", ["a", "b"], ["s"], "s"),
        helper.make_node("Tanh", ["s"], ["hn"], "t"),
        helper.make_node("MatMul", ["hn", "V"], ["y"], "y"),
    ]
    shapes = {"x": [1, 4], "h": ["B", 4], "y": None, "hn": None}
    info = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()}
    graph = helper.make_graph(nodes, "rnn", [info["x"], info["h"]], [info["y"], info["hn"]], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_feedback_of_a_job_file_reaches_the_run(place: Path, onnxq: Any) -> None:
    recurrent(place / "rnn.onnx")
    inputs = np.random.default_rng(1).normal(0, 1, (6, 4)).astype(np.float32)
    np.savez(place / "x.npz", x=inputs)  # no state: zeros
    job = "model: rnn.onnx\ndata: {calib: {path: x.npz}}\ncalibration:\n  method: minmax\n"
    (place / "fed.yaml").write_text(job + "  feedback: {hn: h}\n")
    (place / "bare.yaml").write_text(job)
    session = Session(place / "rnn.onnx", threads=1)
    state, states = np.zeros((1, 4), np.float32), []
    for x in inputs:
        states.append(state)
        state = session.run({"x": x[None], "h": state})["hn"]
    done = onnxq("calibrate", "--config", "fed.yaml", "-o", "fed.npz", "--workers", 2)
    assert done.code == 0, done.err
    assert "the feedback makes each depend on the one before" in done.out
    seen = Statistics.load(place / "fed.npz").tensors["h"]
    assert (seen.min, seen.max) == pytest.approx((np.min(states), np.max(states)), abs=1e-6)
    assert 'lacks the input "h"' in onnxq("calibrate", "--config", "bare.yaml").sentence
    assert json.loads(onnxq("calibrate", "--config", "fed.yaml", "--json").out)["cached"]
    made = onnxq("quantize", "--config", "fed.yaml", *QUICK, "-o", "q.onnx")
    assert made.code == 0, made.err
    np.savez(place / "x.npz", x=inputs[:1], h=np.full((1, 4), 9, np.float32))
    onnxq("calibrate", "--config", "fed.yaml", "-o", "fed.npz")
    assert Statistics.load(place / "fed.npz").tensors["h"].max == 9


def test_feedback_to_nowhere_is_an_error(place: Path, onnxq: Any) -> None:
    recurrent(place / "rnn.onnx")
    np.savez(place / "x.npz", x=np.ones((2, 4), np.float32), h=np.ones((2, 4), np.float32))
    (place / "job.yaml").write_text(
        "model: rnn.onnx\ndata: {calib: {path: x.npz}}\ncalibration: {feedback: {hnn: h}}\n"
    )
    assert (
        'feedback names the output "hnn", which the model lacks: did you mean "hn"?'
        in onnxq("calibrate", "--config", "job.yaml").sentence
    )


SILERO = Path(__file__).resolve().parents[2] / "models" / "silero-vad"


FRAMES = """
import importlib.util, itertools, sys
import numpy as np
found = importlib.util.spec_from_file_location("frames", {path!r})
frames = importlib.util.module_from_spec(found)
found.loader.exec_module(frames)
def stored():
    return list(itertools.islice(frames.calib_vad_half(), 6))
def bare():
    return [{{"input": one["input"]}} for one in stored()]
def zero():
    return [{{"input": one["input"], "state": np.zeros_like(one["state"])}} for one in stored()]
"""


@pytest.mark.skipif(not (SILERO / "build" / "onnx" / "silero_vad_half.onnx").is_file(), reason="make models")
def test_feedback_of_a_real_model(place: Path, onnxq: Any) -> None:
    """The samples of the model are consecutive frames with the state that the model itself had: to be fed the state
    from zero on is the same, to have none is not."""
    (place / "frames.py").write_text(FRAMES.format(path=str(SILERO / "data.py")))
    found = {}
    for name, feedback in (("stored", "{}"), ("bare", "{stateN: state}"), ("zero", "{}")):
        (place / "job.yaml").write_text(
            f"model: {SILERO}/build/onnx/silero_vad_half.onnx\n"
            f"data: {{calib: {{path: 'frames.py:{name}'}}}}\n"
            f"calibration: {{method: minmax, feedback: {feedback}}}\n"
        )
        done = onnxq("calibrate", "--config", "job.yaml", "-o", f"{name}.npz", "--threads", 1)
        assert done.code == 0, done.err
        found[name] = Statistics.load(place / f"{name}.npz")
    assert found["bare"].tensors == found["stored"].tensors
    assert found["zero"].tensors != found["stored"].tensors
