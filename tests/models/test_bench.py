"""The bench: tables, the YAML it writes, children that fail, and one tiny run from end to end."""

from __future__ import annotations

import importlib
import json
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml

MODELS = Path(__file__).resolve().parents[2] / "models"
sys.path.insert(0, str(MODELS))
bench = importlib.import_module("bench")
process = importlib.import_module("bench_process")
tables = importlib.import_module("bench_tables")
goals = importlib.import_module("bench_goals")
worker = importlib.import_module("bench_worker")

SETTINGS = {"repeats": 3, "samples": 64, "memory_limit_gb": 12.0, "timeout": 600.0}
GB = 10**9


def runs(*seconds: float, peak: int, forward: float = 0.0) -> list[dict[str, Any]]:
    return [{"seconds": s, "peak_bytes": peak, "parts": {"work": s - 0.5, "forward": forward}} for s in seconds]


def judged(candidate: float, integer: int = 90) -> dict[str, Any]:
    return {
        "error": "",
        "samples": 2000,
        "metric": {
            "name": "metric.py:Top1",
            "samples": 2000,
            "reference": 0.93,
            "candidate": candidate,
            "drop": 0.93 - candidate,
            "interval": {"low": -0.001, "high": 0.004},
        },
        "sqnr_db": 28.04,
        "bytes": {"fp32": 4_000_000, "int8": 1_000_000},
        "integer_macs": integer,
        "macs": 90,
    }


def speed(speedup: float, *, noisy: bool = False) -> dict[str, Any]:
    return {"speedup": speedup, "speedup_low": speedup - 0.1, "speedup_high": speedup + 0.1, "noisy": noisy}


MEASURED: dict[str, Any] = {
    "settings": SETTINGS,
    "machine": {"cpu": "Example (zen9)", "cores": 2, "memory_gb": 24.9, "system": "Linux x86_64"},
    "versions": {"Python": "3.11.7", "onnxruntime": "1.31.1"},
    "missing": ["magika"],
    "models": {
        "net": {
            "folder": "net",
            "job": "models/net/job.yaml",
            "date": "2026-01-02",
            "commit": "abc",
            "cost": {
                "plain": {
                    "error": "",
                    "runs": runs(1.0, 1.5, 1.2, peak=100_000_000, forward=0.25),
                    "values": {"samples": 64},
                },
                "onnxq": {
                    "error": "",
                    "runs": runs(2.4, 3.0, 2.0, peak=180_000_000),
                    "values": {"samples": 64, "method": "minmax"},
                },
                "ort-minmax": {
                    "error": "",
                    "runs": runs(12.0, 12.0, 13.0, peak=900_000_000),
                    "values": {"samples": 64, "notes": ["quant_pre_process fails"]},
                },
                "ort-percentile": {
                    "error": "ValueError: setting an array | element",
                    "runs": runs(1.0, peak=1),
                    "values": {},
                },
            },
            "quality": {"onnxq": judged(0.929), "ort-minmax": judged(0.93, integer=60)},
            "latency": {
                "1": {"error": "", "candidates": {"onnxq": speed(2.5), "ort-minmax": speed(2.0, noisy=True)}},
                "2": {"error": "killed by SIGSEGV", "candidates": {}},
            },
        }
    },
}


def cells(text: str, method: str) -> list[list[str]]:
    """The rows of all tables whose third column names this method."""
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return [row for row in rows if row[2] == method]


def test_cost_table_gives_medians_spreads_and_multiples() -> None:
    text = tables.markdown(MEASURED)
    plain, ours = cells(text, "plain forward passes")[0], cells(text, "**onnxq** minmax")[0]
    assert plain == ["net", "64", "plain forward passes", "1.20 (1.00–1.50)", "–", "–", "100", "–"]
    # 2.4 s of process / 1.2 s; 1.9 s of work / 0.25 s of forward passes
    assert ours == ["", "64", "**onnxq** minmax", "2.40 (2.00–3.00)", "2.00", "7.60", "180", "80"]
    assert cells(text, "ORT MinMax")[0][3:6] == ["12.0 (12.0–13.0)", "10.0", "46.0"]


def test_quality_table_gives_score_interval_and_speed() -> None:
    text = tables.markdown(MEASURED)
    row = cells(text, "**onnxq** minmax")[1]
    assert row[:7] == [
        "net", "Top1 (2,000)", "**onnxq** minmax", "0.9300", "0.9290", "+0.0010 [-0.0010, +0.0040]", "28.0",
    ]  # fmt: skip
    assert row[7:] == ["2.50 (2.40–2.60)", "fails: `killed by SIGSEGV`", "1.00", "100 %"]
    peer = cells(text, "ORT MinMax")[1]
    assert peer[7] == "2.00 (1.90–2.10) (noisy)"
    assert peer[10] == "66.6 %"


def test_a_failing_peer_is_a_row_with_its_error() -> None:
    cost, quality = cells(tables.markdown(MEASURED), "ORT Percentile")
    assert cost[3] == "fails: `ValueError: setting an array / element`"
    assert quality[3] == "no model (see above)"


def test_every_row_has_as_many_cells_as_the_head() -> None:
    for block in tables.markdown(MEASURED).split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1


def test_a_file_that_does_not_load_is_a_row_with_its_error() -> None:
    found = deepcopy(MEASURED)
    found["models"]["net"]["quality"]["ort-minmax"] = {"error": "ModelError: cannot load"}
    assert cells(tables.markdown(found), "ORT MinMax")[1][3] == "fails: `ModelError: cannot load`"


def test_without_metric_and_macs_there_are_dashes() -> None:
    found = deepcopy(MEASURED)
    found["models"]["net"]["quality"]["onnxq"] |= {"metric": None, "sqnr_db": "inf", "macs": 0}
    row = cells(tables.markdown(found), "**onnxq** minmax")[1]
    assert (row[1], row[3:7], row[10]) == ("none (2,000)", ["–", "–", "–", "inf"], "–")


def test_notes_name_samples_machine_and_what_is_missing() -> None:
    text = tables.markdown(MEASURED)
    assert "at most 64 samples" in text
    assert "Not measured, because not fetched (`make models`): magika." in text
    assert "on 2026-01-02 at commit abc: Example (zen9) (2 cores, 25 GB), Linux x86_64, Python 3.11.7" in text
    assert "ORT on net: `quant_pre_process fails`." in text


def test_files_that_differ_between_runs_are_named() -> None:
    found = deepcopy(MEASURED)
    assert "Not the same file" not in tables.markdown(found)
    for run, digest in zip(found["models"]["net"]["cost"]["ort-minmax"]["runs"], "aab", strict=True):
        run["sha256"] = digest
    assert "Not the same file in every run: ORT MinMax on net." in tables.markdown(found)


def test_update_yaml_keeps_the_rest_byte_for_byte() -> None:
    head = "name: net   # größe\r\nexpected:\n  measured: no\n".encode()
    once = tables.update_yaml(head, tables.measured(MEASURED, "net"))
    assert once.startswith(head)
    assert tables.update_yaml(once, tables.measured(MEASURED, "net")) == once
    assert tables.update_yaml(once + b"  more: 1\nother: 2\n", {"a": 1}).startswith(head + b"measured:")
    figures = yaml.safe_load(once)["measured"]["jobs"]["job.yaml"]
    assert figures["score"] == {
        "metric": "metric.py:Top1",
        "items": 2000,
        "fp32": 0.93,
        "int8": 0.929,
        "drop": 0.001,
        "interval_95": [-0.001, 0.004],
    }
    assert figures["speedup"] == {"threads_1": [2.5, 2.4, 2.6]}
    assert figures["quantize"] == {"seconds": 2.4, "peak_mb": 180}
    assert figures["calibration"] == {"method": "minmax", "samples": 64}
    assert figures["int8_mac_share"] == 1.0


def test_update_yaml_ends_an_unfinished_last_line() -> None:
    assert tables.update_yaml(b"name: net", {"a": 1}).startswith(b"name: net\nmeasured:")


def test_a_failed_run_of_ours_is_written_as_error() -> None:
    found = deepcopy(MEASURED)
    found["models"]["net"]["cost"]["onnxq"]["error"] = "DataError: no samples"
    assert tables.measured(found, "net")["jobs"]["job.yaml"] == {
        "date": "2026-01-02",
        "commit": "abc",
        "error": "DataError: no samples",
    }


def test_a_folder_that_was_not_measured_has_no_figures() -> None:
    assert tables.measured(MEASURED, "other") == {}


def test_publish_writes_yaml_and_readme(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "model.yaml").write_text("name: net\n")
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n")
    bench.publish(MEASURED, into_yaml=True, readme=readme, models=tmp_path)
    assert "seconds: 2.4" in (tmp_path / "net" / "model.yaml").read_text()
    text = readme.read_text()
    assert text == f"before\n<!-- bench -->\n{tables.markdown(MEASURED).strip()}\n<!-- /bench -->\nafter\n"
    bench.publish(MEASURED, into_yaml=False, readme=readme, models=tmp_path)
    assert readme.read_text() == text


@pytest.mark.parametrize("text", ["", "<!-- bench -->", "<!-- /bench --><!-- bench -->", "<!-- bench -->" * 2])
def test_a_readme_without_the_place_is_an_error(text: str) -> None:
    with pytest.raises(tables.BlockError, match=r"README.md needs the lines <!-- bench --> and <!-- /bench --> once"):
        tables.replace_block(text, "new", "README.md")


def test_a_folder_means_its_job_or_all_of_them() -> None:
    known = bench.entries()
    names = [e.name for e in bench.chosen(known)]
    assert "fashion-res8" in names and "fashion-res8/bn" not in names
    assert [n for n in names if n.startswith("silero-vad/")] == [e.name for e in bench.chosen(known, ["silero-vad"])]
    assert len({e.folder for e in bench.chosen(known)}) == 11
    assert [e.job.name for e in bench.chosen(known, ["fashion-res8/bn"])] == ["job-bn.yaml"]
    assert known["fashion-res8"].model.is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--models", "fashion-res9"], 'there is no model "fashion-res9" to measure: did you mean "fashion-res8"?'),
        (["--models", "zzz"], 'there is no model "zzz" to measure: known are '),
        (["--kinds", "plain,tflite"], 'kind "tflite" cannot be measured: kinds are plain, onnxq,'),
        (["--kinds", ""], "an empty list of kinds cannot be measured"),
        (["--repeats", "0"], "--repeats must be at least 1"),
        (["--update-yaml"], "bench.json is not there: run the bench first"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main([*arguments, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and sentence in error and error.count("\n") == 1


def test_models_that_are_not_fetched_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("model: nowhere.onnx\n")
    entry = bench.Entry(name="net", folder="net", job=job)
    monkeypatch.setattr(bench, "entries", lambda: {"net": entry})
    with pytest.raises(bench.BenchError, match="no model file of net is there: fetch them with `make models`"):
        bench.bench(bench.Settings(), [], tmp_path)


CHILDREN = {
    "done": ("write({'peak_bytes': 7, 'error': '', 'found': 1})", ""),
    "said": ("write({'error': 'ValueError: a\\n  b'})", "ValueError: a b"),
    "left": ("print('the last words'); sys.exit(3)", "exit code 3 and no result: the last words"),
    "died": ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
    "big": ("held = bytearray(b'x') * 400_000_000; signal.pause()", "ended by the bench: more than 0.3 GB of memory"),
    "slow": ("signal.pause()", "ended by the bench: not done after 0.5 s"),
}


@pytest.mark.parametrize("name", CHILDREN)
def test_whatever_becomes_of_a_child_is_said_in_one_line(name: str, tmp_path: Path) -> None:
    body, error = CHILDREN[name]
    script = tmp_path / "child.py"
    script.write_text(
        "import json, os, signal, sys\n"
        f"def write(values):\n    open(sys.argv[-1], 'w').write(json.dumps(values))\n{body}\n"
    )
    done = process.run(script, [], timeout=0.5 if name == "slow" else 60.0, memory_limit=300_000_000)
    assert done.error == error
    assert done.seconds > 0
    if name == "done":
        assert (done.peak_bytes, dict(done.values)) == (7, {"found": 1})
    if name == "big":
        assert done.peak_bytes > 300_000_000


def test_messages_are_short_and_free_of_paths() -> None:
    shown = process.one_line(f"Fail: {MODELS}/a.onnx\n at /build/src/core/graph.cc:12 in\t../out/x or and/or 1/2")
    assert shown == "Fail: a.onnx at graph.cc:12 in x or and/or 1/2"
    refused = "[ONNXRuntimeError] : 10 : INVALID_GRAPH : Load model from /a/b.onnx failed:This is an invalid model."
    assert process.one_line(refused) == "INVALID_GRAPH : This is an invalid model."
    assert len(process.one_line("x" * 1000)) == 300


def test_an_error_without_a_message_says_where() -> None:
    def refuse() -> None:
        raise AssertionError

    with pytest.raises(AssertionError) as caught:
        refuse()
    assert process.describe(caught.value).startswith("AssertionError in refuse, test_bench.py:")
    assert process.describe(KeyError("a")) == "KeyError: 'a'"


def test_a_text_is_repeated_until_it_is_long_enough() -> None:
    inputs = {
        "ids": np.array([[101, 7, 102]]),
        "mask": np.ones((1, 3), np.int64),
        "image": np.zeros((1, 3), np.float32),
    }
    long = worker.lengthened(inputs, 7)
    assert long["ids"].tolist() == [[101, 7, 102, 101, 7, 102, 101]]
    assert long["mask"].shape == (1, 7) and long["image"] is inputs["image"]


def test_rounds_are_interleaved() -> None:
    order: list[tuple[int, str]] = []
    models = [lambda x, k=k: order.append((k, x)) for k in range(3)]
    times, inner = worker.interleave(models, ["a", "b"], 0.05)
    assert times.shape[1] == 3 and len(times) >= 5 and (times > 0).all()
    timed = order[9 :: inner + inner * (inner > 1)]  # after three warm-up runs of each; as many go before each group
    assert [x for _, x in timed[:6]] == ["a"] * 3 + ["b"] * 3
    assert sorted(timed[:6]) == [(0, "a"), (0, "b"), (1, "a"), (1, "b"), (2, "a"), (2, "b")]
    assert len({tuple(k for k, _ in timed[at : at + 3]) for at in range(0, 15, 3)}) > 1


def test_values_that_json_does_not_know_are_written_as_text() -> None:
    found = worker.plain_json({1: (np.float32(0.5), np.int64(3)), "p": Path("a"), "i": float("inf"), "n": None})
    assert found == {"1": [0.5, 3], "p": "a", "i": "inf", "n": None}
    json.dumps(found, allow_nan=False)


def entry_of(folder: Path, sizes: list[int]) -> Any:
    """A job of a tiny model whose height is free, calibrated on one array for each height."""
    weight = onnx.numpy_helper.from_array(np.ones((2, 1, 3, 3), np.float32), "w")
    graph = onnx.parser.parse_graph("g (float[1, 1, h, 8] x) => (float[1, 2, k, 6] y) { c = Conv(x, w) y = Relu(c) }")
    graph.initializer.append(weight)
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), folder / "m.onnx"
    )
    (folder / "calib").mkdir()
    for i, height in enumerate(sizes):
        array = np.linspace(-1, 1, height * 8, dtype=np.float32).reshape(1, 1, height, 8)
        np.save(folder / "calib" / f"{i}.npy", array)
    (folder / "job.yaml").write_text("model: m.onnx\ndata: {calib: {path: calib}}\n")
    return bench.Entry(name="tiny", folder="tiny", job=folder / "job.yaml")


def test_a_peer_that_raises_is_reported_and_not_asked_again(tmp_path: Path) -> None:
    entry = entry_of(tmp_path, [8, 9, 11])
    settings = bench.Settings(kinds=("plain", "ort-percentile"), repeats=2, latency_seconds=0.01)
    found = bench.measure(entry, settings, tmp_path / "out")
    plain, peer = found["cost"]["plain"], found["cost"]["ort-percentile"]
    assert plain["error"] == "" and plain["values"]["samples"] == 3 and len(plain["runs"]) == 2
    assert peer["error"].startswith("ValueError: ") and len(peer["runs"]) == 1
    assert found["quality"] == {} and found["latency"] == {}


def test_the_same_peer_succeeds_on_samples_of_one_shape(tmp_path: Path) -> None:
    entry = entry_of(tmp_path, [8, 8, 8])
    settings = bench.Settings(kinds=("plain", "ort-percentile"), repeats=1, samples=2, latency_seconds=0.01)
    found = bench.measure(entry, settings, tmp_path / "out")
    assert [c["error"] for c in found["cost"].values()] == ["", ""]
    assert [c["values"]["samples"] for c in found["cost"].values()] == [2, 2]
    assert found["quality"]["ort-percentile"]["sqnr_db"] > 20
    assert found["quality"]["ort-percentile"]["metric"] is None


def test_preprocessing_that_fails_is_done_without_symbolic_shapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = importlib.import_module("bench_peer")
    genuine, calls = peer.quant_pre_process, []

    def preprocess(model: str, output: str, **settings: bool) -> None:
        calls.append(settings)
        if not settings:
            raise RuntimeError("Incomplete symbolic shape inference")
        genuine(model, output, **settings)

    monkeypatch.setattr(peer, "quant_pre_process", preprocess)
    job = worker.load(entry_of(tmp_path, [8, 8]).job, None, None)
    found = peer.quantize("ort-minmax", job.model, worker.opened(job, calibration=True), tmp_path / "q.onnx")
    assert calls == [{}, {"skip_symbolic_shape": True}]
    assert found["samples"] == 2
    assert found["notes"][0].startswith("quant_pre_process fails (RuntimeError: Incomplete symbolic shape inference)")
    ops = [n.op_type for n in onnx.load(tmp_path / "q.onnx").graph.node]
    assert "QuantizeLinear" in ops and "DequantizeLinear" in ops


def test_from_the_command_line_to_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--models", "fashion-res8", "--kinds", "plain,onnxq,ort-minmax", "--repeats", "1", "--samples", "8"]
    arguments += ["--eval-samples", "20", "--latency-seconds", "0.05", "--out", str(tmp_path)]
    assert bench.main(arguments) == 0
    found = json.loads((tmp_path / "bench.json").read_text())
    entry = found["models"]["fashion-res8"]
    assert [c["error"] for c in entry["cost"].values()] == ["", "", ""]
    assert len({c["values"]["data"] for c in entry["cost"].values()}) == 1
    assert {c["values"]["samples"] for c in entry["cost"].values()} == {8}
    ours = entry["quality"]["onnxq"]
    assert ours["error"] == "" and ours["metric"]["samples"] == 20 and ours["sqnr_db"] > 10
    assert 0 < ours["integer_macs"] <= ours["macs"]
    assert set(entry["latency"]["1"]["candidates"]) == {"onnxq", "ort-minmax"}
    over = {kind: one["over"] for kind, one in entry["latency"]["1"]["candidates"].items()}
    assert over["onnxq"]["onnxq"]["ratio"] == over["ort-minmax"]["ort-minmax"]["ratio"] == 1.0
    there, back = (over[a][b]["ratio"] for a, b in (("onnxq", "ort-minmax"), ("ort-minmax", "onnxq")))
    assert there * back == pytest.approx(1.0, rel=0.2)  # medians of few turns
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "bench.md").read_text() == goals.report(found)
    assert printed.startswith(tables.markdown(found))
    assert len(cells(printed, f"**onnxq** {entry['cost']['onnxq']['values']['method']}")) == 2
    assert tables.measured(found, "fashion-res8")["jobs"]["job.yaml"]["score"]["items"] == 20
