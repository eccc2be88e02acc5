"""The file of limits: every fault with its line and column; a job file is taken, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxq.config.gate import DriftLimit, GateSection, MetricLimit, SizeLimit, SpeedLimit
from onnxq.config.gatefile import load_gate_job
from onnxq.errors import ConfigError
from onnxq.validate.gate import Drop


def load(folder: Path, text: str) -> GateSection:
    path = folder / "gate.yaml"
    path.write_text(text)
    return load_gate_job(path, Path("m.onnx")).gate


def fault(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return str(caught.value).replace(f"{folder / 'gate.yaml'}:", "")


def test_a_whole_file(tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text(
        "metric: top1\nmax_drop: 0.01\ndata: eval.npz\nsamples: 100\nthreads: 2\nconfidence: 0.9\n"
        "metrics:\n  - {metric: cer, max_drop: 1%, output: text, settings: {alphabet: abc}}\n"
        "outputs: {y: {min_sqnr_db: 20}}\nspeed: {min_speedup: 1.5}\nmax_latency_ms: 3\nmax_size_ratio: 0.5\n"
        "drift: {baseline: b.json, max_sqnr_drop_db: 3}\npreprocess: {scale: 1/255}\n".replace("1/255", "0.5")
    )
    job = load_gate_job(tmp_path / "gate.yaml", Path("m.onnx"))
    assert job.model == Path("m.onnx") and job.base == tmp_path
    assert job.data.eval is not None and job.data.eval.path == "eval.npz"
    assert (job.validate.metric, job.validate.limit, job.validate.threads) == ("top1", 100, 2)
    gate = job.gate
    assert gate.demands and gate.confidence == 0.9
    assert gate.metrics[0].drop == Drop(0.01, relative=True)
    assert gate.metrics[0].all_settings == {"alphabet": "abc", "output": "text"}
    assert gate.metrics[0].label == "cer of text"
    assert gate.speed_limit == SpeedLimit(min_speedup=1.5, max_latency_ms=3)
    assert gate.size_limit == SizeLimit(max_ratio=0.5)
    assert gate.drift == DriftLimit(baseline=tmp_path / "b.json", max_sqnr_drop_db=3)


def test_zero_is_a_limit_and_an_empty_list_allows_nothing(tmp_path: Path) -> None:
    gate = load(tmp_path, "metrics: [{metric: top1, max_drop: 0}]\nstructure: {ops: []}\nsize: {max_bytes: 0}\n")
    assert gate.metrics[0].drop == Drop(0.0)
    assert gate.structure is not None and gate.structure.ops == ()


def test_a_job_file_is_taken_too(tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text("model: m.onnx\ngate: {metrics: [{metric: top1, max_drop: 0.1}]}\n")
    job = load_gate_job(tmp_path / "gate.yaml", Path("other.onnx"))
    assert job.model == tmp_path / "m.onnx"
    assert job.gate.metrics == (MetricLimit(metric="top1", max_drop=0.1),)


def test_nothing_is_demanded_by_how_alone(tmp_path: Path) -> None:
    assert not load(tmp_path, "seed: 3\nresamples: 500\n").demands


def test_all_faults_at_once(tmp_path: Path) -> None:
    text = """\
metrics:
  - {metric: top1, max_drop: x}
  - {metrik: f1}
size: {max_ration: 1}
speed: {min_speedup: fast}
"""
    lines = fault(tmp_path, text).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["2:30:", "3:6:", "4:8:", "5:22:"]
    assert 'max_drop cannot be read: the limit "x" is not a number of 0 or more' in lines[0]
    assert 'has no key "metrik": did you mean "metric"?' in lines[1]
    assert 'did you mean "max_ratio"?' in lines[2]
    assert 'not the text "fast"' in lines[3]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "metrics: [{metric: top1}]",
            "1:11: metrics[0]: there is no limit in this section: give max_drop or min or max",
        ),
        ("size: {}", "1:7: size: there is no limit in this section: give max_ratio or max_bytes"),
        ("speed: {threads: 2}", "1:8: speed: there is no limit in this section"),
        ("speed: {min_speedup: 1, runs: 5}", "1:31: speed: runs must be at least 6, not 5"),
        ("coverage: {min_integer_macs: 90}", "1:30: coverage: min_integer_macs must be between 0 and 1, not 90"),
        ("portability: {max_drop: 0.1}", "1:14: portability: there is no variant in this section"),
        (
            "portability: {max_drop: 0.1, threads: 2, on_failure: warm}",
            "1:54: portability.on_failure takes one of warn, fail",
        ),
        ("drift: {baseline: b.json}", "1:8: drift: there is no limit in this section"),
        ("confidence: 95", "1:13: confidence must be at least 0.5 and below 1, not 95: write it like 0.95"),
        ("resamples: 10", "1:12: resamples must be at least 200, not 10"),
        ("outputs: {y: {min_agreement: 2}}", "1:30: outputs.y: min_agreement must be between 0 and 1, not 2"),
        ("max_drop: -1", '1:11: max_drop cannot be read: the limit "-1.0" is not a number of 0 or more'),
        ("gate: {max_drop: 1}", '1:1: the file has no key "gate"'),
        ("samples: 0", "1:10: samples must be at least 1, not 0"),
    ],
)
def test_each_fault_has_its_place(tmp_path: Path, text: str, sentence: str) -> None:
    assert fault(tmp_path, text + "\n").startswith(sentence)
