"""The command on a small pair of models: verdicts, exit codes, and what each section says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxq.validate.latency import summarize

TOP1 = "metrics:\n  - {metric: top1, max_drop: 0.2}\n"


def checks(outcome: Any) -> dict[str, dict[str, Any]]:
    return {c["name"]: c for c in json.loads(outcome.out)["verdict"]["checks"]}


def test_a_good_model_passes_and_every_section_has_its_say(gate: Any, tmp_path: Path) -> None:
    limits = (
        TOP1
        + "  - {metric: f1, max_drop: 30%}\n  - {metric: agreement, min: 0.5}\n"
        + "outputs: {scores: {min_sqnr_db: 5, min_cosine: 0.9, min_agreement: 0.5}}\n"
        + "size: {max_ratio: 5, max_bytes: 100000}\nmemory: {max_bytes: 1000000000, max_ratio: 1000}\n"
        + "load: {max_ms: 100000, max_ratio: 100000, runs: 6}\n"
        + "coverage: {min_integer_macs: 0.5, no_new_float: true}\n"
        + "structure: {target: cpu, same_interface: true, no_face_to_face: true, domains: [ai.onnx]}\n"
        + "portability: {max_drop: 0.2, min_sqnr_db: 10, optimizations: true, threads: 2, saturation: true}\n"
    )
    done = gate(limits, "--json")
    assert done.code == 0, done.out + done.err
    verdict = json.loads(done.out)["verdict"]
    assert (verdict["schema"], verdict["outcome"], verdict["exit_code"]) == ("onnxq.verdict/1", "pass", 0)
    assert {c["group"] for c in verdict["checks"]} == {
        "accuracy", "size", "memory", "load", "coverage", "structure", "portability"
    }  # fmt: skip
    found = checks(done)
    assert found["drop of top1"]["interval"]["method"] == "tango"
    assert found["drop of f1"]["interval"]["method"] == "bootstrap"
    assert found["top-1 agreement of scores"]["interval"]["method"] == "clopper-pearson"
    assert {n for n in found if n.endswith(("off", "threads"))} == {
        "top1, optimizations off", "SQNR, optimizations off", "top1, 2 threads", "SQNR, 2 threads",
    }  # fmt: skip
    assert found["top1, 2 threads"]["measured"] == 0.0


def test_a_wrong_scale_fails_and_its_layer_is_named(gate: Any, spoilt: Path) -> None:
    done = gate("metrics: [{metric: top1, max_drop: 0.05}]\n", candidate=spoilt)
    assert done.code == 1
    assert "Gate: FAIL" in done.out and "over the limit of 0.05" in done.out
    causes = done.out.split("Where it comes from")[1]
    assert "relu: its uint8 encoding alone leaves" in causes.splitlines()[1]
    assert "of its values lie beyond the range" in " ".join(causes.split())


def test_twenty_samples_do_not_tell_even_if_no_answer_differs(gate: Any, pair: Any) -> None:
    """The same file twice: the interval has a width, and the sentence says how many samples would do."""
    limits = (
        "metrics: [{metric: top1, max_drop: 0.01}, {metric: f1, max_drop: 0.01}, {metric: cosine, max_drop: 0.01}]\n"
    )
    done = gate(limits, "--samples", 20, "--json", candidate=pair.reference)
    assert done.code == 3
    for check in checks(done).values():
        assert check["outcome"] == "inconclusive" and check["measured"] == 0.0, check["name"]
        assert check["interval"]["low"] < 0.01 < check["interval"]["high"]
    assert checks(done)["drop of top1"]["samples_needed"] == 381
    assert "about 381 samples like these would" in checks(done)["drop of top1"]["sentence"]


def test_with_as_many_samples_as_it_asked_for_it_decides(gate: Any, pair: Any) -> None:
    limits = "metrics: [{metric: top1, max_drop: 0.01}]\n"
    assert gate(limits, "--samples", 381, candidate=pair.reference).code == 0
    assert gate(limits, "--samples", 380, candidate=pair.reference).code == 3


def test_ten_runs_give_one_verdict(gate: Any) -> None:
    limits = "metrics: [{metric: top1, max_drop: 0.05}, {metric: f1, max_drop: 0.05}]\n"
    limits += "outputs: {scores: {min_sqnr_db: 20}}\n"
    found = [json.loads(gate(limits, "--samples", 150, "--json").out)["verdict"] for _ in range(10)]
    assert all(f == found[0] for f in found)


def test_warnings_do_not_fail(gate: Any, spoilt: Path) -> None:
    limits = "portability: {min_sqnr_db: 200, threads: 2, optimizations: true, on_failure: %s}\n"
    warned = gate(limits % "warn", "--json")
    outcomes = {c["outcome"] for c in checks(warned).values()}
    assert warned.code == 0 and "warn" in outcomes and "fail" not in outcomes
    assert gate(limits % "fail").code == 1


def test_inside_a_relative_limit_the_share_is_said(gate: Any) -> None:
    done = gate("metrics: [{metric: top1, max_drop: 30%}]\n")
    assert "within the limit of 30 % of the float score, which is 0.3" in done.out


def test_a_metric_that_raises_names_itself_and_the_sample(gate: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def picky(outputs, label):\n"
        "    if label == 3:\n        raise RuntimeError('three is too much')\n    return 1.0\n"
    )
    done = gate("metrics: [{metric: mine.py:picky, max_drop: 0.1}]\n")
    assert done.code == 2
    assert 'metric "mine.py:picky" fails on sample ' in done.sentence
    assert "(index " in done.sentence and "RuntimeError: three is too much" in done.sentence


def test_errors_are_judged_as_right_answers_are(gate: Any, tmp_path: Path, spoilt: Path) -> None:
    """An error rate is top1 turned round: same drop, interval, counts and number of samples."""
    (tmp_path / "wrong.py").write_text(
        "class Wrong:\n    higher_is_better = False\n"
        "    def record(self, outputs, label): return [float(outputs['scores'][0].argmax() != label)]\n"
        "    def score(self, records): return float(records.mean())\n"
    )
    for limit in (0.001, 0.9):
        limits = "".join(f"  - {{metric: {name}, max_drop: {limit:g}}}\n" for name in ("top1", "wrong.py:Wrong"))
        for candidate in (None, spoilt):
            one, two = checks(gate(f"metrics:\n{limits}", "--samples", 60, "--json", candidate=candidate)).values()
            for key in ("outcome", "samples_needed", "details"):
                assert one[key] == two[key], key
            assert one["measured"] == pytest.approx(two["measured"])
            assert one["interval"]["low"] == pytest.approx(two["interval"]["low"], abs=1e-9)


def test_a_metric_of_a_file_and_its_own_class(gate: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "class Margin:\n"
        "    higher_is_better = True\n"
        "    def record(self, outputs, label):\n"
        "        s = np.sort(outputs['scores'][0]); return [float(s[-1] - s[-2])]\n"
        "    def score(self, records): return float(records.mean())\n"
    )
    done = gate("metrics: [{metric: mine.py:Margin, max_drop: 50%}]\n", "--json")
    assert done.code == 0, done.out
    assert checks(done)["drop of mine.py:Margin"]["interval"]["method"] == "bootstrap"


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ("size: {max_ratio: 1}\noutputs: {logit: {min_sqnr_db: 1}}", 'limits the output "logit", which is not there'),
        ("metrics: [{metric: top2, max_drop: 1}]", 'there is no metric "top2": did you mean'),
        (
            "metrics: [{metric: sqnr, max_drop: 1}]",
            "whose own score has no bound, so it has no drop: limit it with min",
        ),
        ("max_drop: 0.1", "--max-drop needs a metric and labelled evaluation data"),
        ("portability: {max_drop: 0.1, threads: 2}", "portability.max_drop needs a metric"),
        ("drift: {max_sqnr_drop_db: 3}", "there is no committed baseline: give drift.baseline or --compare"),
        ("drift: {max_sqnr_drop_db: 3, baseline: b.json}", "write it with onnxq gate ... --update-baseline"),
        ("structure: {target: cpo}", 'there is no target "cpo"'),
        ("seed: 1", "the gate has no limit to check"),
    ],
)
def test_limits_that_make_no_sense_for_this_model(gate: Any, limits: str, sentence: str) -> None:
    done = gate(limits + "\n", "--samples", 20)
    assert done.code == 2
    assert sentence in done.sentence


def test_output_that_is_not_finite_fails(gate: Any, pair: Any, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(pair.reference)
    bias = next(t for t in model.graph.initializer if t.name == "b2")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.array([np.nan, 0, 0, 0], np.float32), "b2"))
    onnx.save(model, tmp_path / "nan.onnx")
    done = gate("outputs: {scores: {min_sqnr_db: -100}}\n", "--samples", 20, candidate=tmp_path / "nan.onnx")
    assert done.code == 1
    assert "elements that are not finite" in done.out


def test_speed_is_judged_from_what_was_measured(gate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Timings of this machine are nobody's business here: the measurement is replaced."""
    asked: dict[str, Any] = {}

    def measured(*_: Any, **how: Any) -> Any:
        asked.update(how)
        times = np.stack([np.full(50, 0.002), np.full(50, 0.001)], axis=1)
        return summarize(times, threads=how["threads"], inner=1, seconds=1.0, level=how["level"])

    monkeypatch.setattr("onnxq.gating.run.measure", measured)
    assert gate("speed: {min_speedup: 1.9, max_latency_ms: 1.1, threads: 2, runs: 50, warmup: 7}\n").code == 0
    assert (asked["threads"], asked["runs"], asked["warmup"], asked["level"]) == (2, 50, 7, 0.95)
    failed = gate("min_speedup: 2.1\nconfidence: 0.9\n")
    assert failed.code == 1 and "speed-up at 1 thread: 2 times (90 % interval 2 to 2)" in failed.out
    assert (asked["threads"], asked["level"]) == (1, 0.9)


def test_no_sample(gate: Any, tmp_path: Path) -> None:
    (tmp_path / "none.py").write_text("def none():\n    return iter(())\n")
    done = gate("metrics: [{metric: cosine, min: 0.5}]\n", "--data", f"{tmp_path / 'none.py'}:none")
    assert done.code == 2 and "sample" in done.sentence


def test_a_metric_that_cannot_score(gate: Any, tmp_path: Path) -> None:
    (tmp_path / "sick.py").write_text(
        "class Sick:\n    higher_is_better = True\n    label_free = True\n"
        "    def record(self, outputs, label): return [0.5]\n"
        "    def score(self, records): raise RuntimeError('no')\n"
    )
    done = gate("metrics: [{metric: sick.py:Sick, min: 0.5}]\n", "--samples", 20)
    assert done.code == 2
    assert done.sentence == 'metric "sick.py:Sick" cannot score its 20 records: no'


def test_layers_that_are_only_bounded_leave_the_verdict_open(gate: Any, pair: Any, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(pair.candidate)
    conv = next(n for n in model.graph.node if n.op_type == "Conv")
    for attribute in list(conv.attribute):
        if attribute.name == "pads":
            conv.attribute.remove(attribute)
    conv.attribute.append(onnx.helper.make_attribute("auto_pad", "SAME_UPPER"))
    onnx.save(model, tmp_path / "same.onnx")
    limits = "portability: {min_sqnr_db: 3, saturation: true, on_failure: %s}\n"
    done = gate(limits % "fail", "--samples", 50, "--json", candidate=tmp_path / "same.onnx")
    worst = checks(done)["worst case of u8 x s8"]
    assert worst["outcome"] == "inconclusive" and "not all could be simulated" in worst["sentence"]
    assert "1 layers that may saturate are bounded, not simulated" in json.loads(done.out)["notes"][0]
    warned = gate(limits % "warn", "--samples", 50, "--json", candidate=tmp_path / "same.onnx")
    assert checks(warned)["worst case of u8 x s8"]["outcome"] == "warn"
    floats = gate(limits % "fail", "--samples", 50, "--json", candidate=pair.reference)
    assert "no layer with u8 data" in checks(floats)["worst case of u8 x s8"]["sentence"]


def test_files_that_the_gate_writes(gate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: Any) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    done = gate(
        "metrics: [{metric: top1, max_drop: 0.01}]\n",
        "--samples",
        20,
        "--junit",
        tmp_path / "j.xml",
        "--summary",
        summary,
    )
    assert done.code == 3
    assert "::warning file=" in done.err and "title=onnxq gate%3A drop of top1::" in done.err
    assert summary.read_text().startswith("before\n## ❔ onnxq gate: inconclusive")
    assert 'errors="1"' in (tmp_path / "j.xml").read_text()
    refused = gate("size: {max_ratio: 9}\n", "--junit", pair.candidate)
    assert refused.code == 2 and "is a model, which would be replaced" in refused.sentence
    nowhere = gate("size: {max_ratio: 9}\n", "--summary", tmp_path / "no" / "s.md")
    assert nowhere.code == 2 and "does not exist" in nowhere.sentence


def test_outputs_that_a_limit_does_not_fit(onnxq: Any, tmp_path: Path) -> None:
    """An output of integers, and one of floats that are no class scores."""
    import onnx
    from onnx import helper

    nodes = [helper.make_node("Cast", ["x"], ["whole"], to=7), helper.make_node("Relu", ["x"], ["wide"])]
    outputs = [
        helper.make_tensor_value_info("whole", 7, ("n", 3, 4)),
        helper.make_tensor_value_info("wide", 1, ("n", 3, 4)),
    ]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", 1, ("n", 3, 4))], outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(30, 3, 4)).astype(np.float32))
    given = (
        "gate",
        "--baseline",
        tmp_path / "m.onnx",
        "--candidate",
        tmp_path / "m.onnx",
        "--data",
        tmp_path / "d.npz",
    )
    for limits, sentence in (
        ("outputs: {whole: {min_cosine: 1}}", 'limits the output "whole", which is not float: use exact-match instead'),
        ("outputs: {wide: {min_agreement: 1}}", 'the agreement of "wide", which does not look like class scores'),
        ("min_agreement: 0.5", "the model has no float output they apply to"),
    ):
        (tmp_path / "gate.yaml").write_text(limits + "\n")
        done = onnxq(*given, "--config", tmp_path / "gate.yaml")
        assert done.code == 2 and sentence in done.sentence
    (tmp_path / "gate.yaml").write_text("min_cosine: 0.1\nmin_sqnr_db: 5\n")
    assert onnxq(*given, "--config", tmp_path / "gate.yaml").code == 0


def test_what_needs_no_samples_asks_for_none(pair: Any, onnxq: Any, tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text(
        "size: {max_ratio: 9}\nstructure: {same_interface: true}\ncoverage: {min_integer_macs: 0}\n"
    )
    given = ("gate", "--baseline", pair.reference, "--candidate", pair.candidate, "--config", tmp_path / "gate.yaml")
    assert onnxq(*given, "--report", tmp_path / "r.json").code == 0
    for limits in (
        "min_cosine: 0.5",
        "speed: {min_speedup: 1}",
        "memory: {max_ratio: 9}",
        "drift: {max_sqnr_drop_db: 1}",
    ):
        (tmp_path / "gate.yaml").write_text(limits + "\n")
        done = onnxq(*given)
        assert done.code == 2 and "there is nothing to compare the models on: give --data" in done.sentence
    wrong = onnxq(*given, "--data", tmp_path / "nowhere")
    assert wrong.code == 2 and "nowhere" in wrong.sentence
