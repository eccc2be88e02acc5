"""The goals of the bench: each met and missed, by figures on both sides of its limit."""

from __future__ import annotations

import importlib
import json
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnxq import driver
from onnxq.config.job import Job
from onnxq.validate.result import Account, Cause, Lost, Result

MODELS = Path(__file__).resolve().parents[2] / "models"
sys.path.insert(0, str(MODELS))
bench = importlib.import_module("bench")
goals = importlib.import_module("bench_goals")
tables = importlib.import_module("bench_tables")
worker = importlib.import_module("bench_worker")

SCORE = "score within"
SLOWER = "never below"
PEER = "times ONNX Runtime's own"
NEAR = "of the kernel limit"
FORETOLD = "predicted within"


def account(*, near: float, rest: float, off: float, predicted: float | None = 1.0, threads: int = 1) -> dict[str, Any]:
    """Of a run of 1 ms."""
    return {
        "form": "placed 1", "threads": threads, "limit_ms": near, "measured_ms": 1.0, "predicted_ms": predicted,
        "nearness": near, "deviation": off,
        "causes": [
            {"name": "conversions", "ms": 1 - near - rest, "parts": 2, "largest": ["x"]},
            {"name": "not explained by the profile", "ms": rest, "parts": 0, "largest": []},
        ],
    }  # fmt: skip


def judged(drop: float, *, name: str = "top1", reference: float = 0.8, items: int = 2000) -> dict[str, Any]:
    metric = {
        "name": name, "samples": items, "reference": reference, "candidate": reference - drop, "drop": drop,
        "interval": {"low": drop - 0.002, "high": drop + 0.002},
    }  # fmt: skip
    return {
        "error": "", "samples": items, "metric": metric, "sqnr_db": 30.0, "bytes": {"fp32": 4, "int8": 1},
        "integer_macs": 9, "macs": 9,
    }  # fmt: skip


def cost(*, seconds: float = 50.0, **values: Any) -> dict[str, Any]:
    stages = {"place": 20.0, "calibrate": 10.0, "save": 0.1, "validate": 5.0}
    run = {"seconds": seconds, "peak_bytes": 10**8, "parts": {"work": seconds - 1}, "stages": stages, "sha256": "a"}
    return {"error": "", "runs": [run], "values": {"method": "minmax", "samples": 256, **values}}


def speeds(**candidates: float) -> dict[str, Any]:
    one = {
        k.replace("_", "-"): {"speedup": v, "speedup_low": v, "speedup_high": v, "noisy": False}
        for k, v in candidates.items()
    }
    return {"error": "", "candidates": one}


def entry(**changes: Any) -> dict[str, Any]:
    """A model that meets everything."""
    made = {
        "folder": "net", "job": "models/net/job.yaml", "date": "2026-01-02", "commit": "abc",
        "cost": {
            "ort-minmax": cost(),
            "effort-default": cost(account=[account(near=0.9, rest=0.01, off=0.05)]),
            "effort-fast": cost(seconds=15.0),
        },
        "quality": {"effort-default": judged(0.004), "ort-minmax": judged(0.009)},
        "latency": {"1": speeds(effort_default=2.2, ort_minmax=2.0), "2": speeds(effort_default=1.5, ort_minmax=1.4)},
    }  # fmt: skip
    return {**made, **changes}


def verdicts(model: dict[str, Any], goal: str, name: str = "net") -> list[str]:
    return [line.verdict for line in goals.lines({"models": {name: model}}) if goal in line.goal]


def test_a_model_that_meets_everything() -> None:
    assert verdicts(entry(), SCORE) == [goals.MET]
    assert verdicts(entry(), SLOWER) == verdicts(entry(), PEER) == [goals.MET, goals.MET]
    assert verdicts(entry(), NEAR) == verdicts(entry(), FORETOLD) == [goals.MET]


@pytest.mark.parametrize(
    ("quality", "verdict"),
    [
        (judged(0.005), goals.MET),
        (judged(0.0051), goals.MISSED),
        (judged(-0.1), goals.MET),
        (judged(0.0045, name="metric.py:LetterF1"), goals.MISSED),  # half a percent of 0.8 is 0.004
        (judged(0.0039, name="metric.py:PairSpearman"), goals.MET),
        (judged(0.04, name="metric.py:PairSpearman", reference=10.0), goals.MET),
        ({**judged(0.0), "metric": None}, goals.OPEN),
        ({"error": "killed"}, goals.OPEN),
    ],
)
def test_scores(quality: dict[str, Any], verdict: str) -> None:
    assert verdicts(entry(quality={"effort-default": quality}), SCORE) == [verdict]


def test_few_items_are_said() -> None:
    model = entry(quality={"effort-default": judged(0.0, items=350)})
    (line,) = (line for line in goals.lines({"models": {"net": model}}) if SCORE in line.goal)
    assert "only 350 items" in line.found


def test_slower_than_float_with_one_number_of_threads_is_missed_there() -> None:
    model = entry(latency={"1": speeds(effort_default=1.3), "2": speeds(effort_default=0.99)})
    assert verdicts(model, SLOWER) == [goals.MET, goals.MISSED]
    assert verdicts(entry(latency={}), SLOWER) == [goals.OPEN]


def test_the_peer_counts_only_where_it_keeps_its_score() -> None:
    slow = {"1": speeds(effort_default=2.09, ort_minmax=2.0)}
    assert verdicts(entry(latency=slow), PEER) == [goals.MISSED]
    lossy = {"effort-default": judged(0.0), "ort-minmax": judged(0.011)}
    assert verdicts(entry(latency=slow, quality=lossy), PEER) == []
    faster = entry(latency={"1": speeds(effort_default=2.15, ort_minmax=2.0, ort_percentile=2.1)})
    faster["cost"]["ort-percentile"] = cost()
    assert verdicts(faster, PEER) == [goals.MET]  # the faster one has no score
    faster["quality"]["ort-percentile"] = judged(0.001)
    assert verdicts(faster, PEER) == [goals.MISSED]


def test_turns_in_which_both_ran_say_more_than_two_speedups() -> None:
    fast = speeds(effort_default=2.0, ort_minmax=2.0)
    over = {"ratio": 1.06, "low": 1.04, "high": 1.08, "level": 0.95, "method": "median"}
    fast["candidates"]["effort-default"]["over"] = {"ort-minmax": over}
    model = entry(latency={"2": fast})
    assert verdicts(model, PEER) == [goals.MET]
    found = [line.found for line in goals.lines({"models": {"net": model}}) if PEER in line.goal]
    assert found == ["2.00 to 2.00: 1.06 [1.04, 1.08] times, 2 threads"]
    fast["candidates"]["effort-default"]["over"]["ort-minmax"] = {**over, "ratio": 1.04, "low": "-inf", "high": "inf"}
    assert verdicts(model, PEER) == [goals.MISSED]


def test_beside_a_peer_stands_what_the_kernel_limit_would_reach() -> None:
    model = entry(latency={"1": speeds(effort_default=2.04, ort_minmax=2.0)})
    found = [line.found for line in goals.lines({"models": {"net": model}}) if PEER in line.goal]
    assert found == ["2.04 to 2.00: 1.02 times, 1 thread (at the kernel limit 1.13)"]


@pytest.mark.parametrize(
    ("near", "rest", "verdict"),
    [(0.85, 0.1, goals.MET), (0.5, 0.05, goals.MET), (0.5, -0.06, goals.MISSED), (0.84, 0.06, goals.MISSED)],
)
def test_the_limit_is_near_or_what_is_lost_is_named(near: float, rest: float, verdict: str) -> None:
    model = entry(cost={"effort-default": cost(account=[account(near=near, rest=rest, off=0.0)])})
    assert verdicts(model, NEAR) == [verdict]


@pytest.mark.parametrize(
    ("off", "verdict"), [(0.149, goals.MET), (-0.149, goals.MET), (0.16, goals.MISSED), (-0.16, goals.MISSED)]
)
def test_predictions(off: float, verdict: str) -> None:
    model = entry(cost={"effort-default": cost(account=[account(near=0.9, rest=0.0, off=off)])})
    assert verdicts(model, FORETOLD) == [verdict]
    assert verdicts(entry(cost={"onnxq": cost()}, quality={}, latency={}), FORETOLD) == [goals.OPEN]


@pytest.mark.parametrize(("name", "least"), goals.SPEEDS.items())
def test_the_speeds_of_single_models(name: str, least: float) -> None:
    fast, slow = (entry(latency={"1": speeds(effort_default=v)}) for v in (least, least - 0.01))
    goal = f"{least:g} times float"
    assert verdicts(fast, goal, name) == [goals.MET]
    assert verdicts(slow, goal, name) == [goals.MISSED]
    assert verdicts(fast, goal, "net") == []


def test_speed_at_the_price_of_the_score_does_not_count() -> None:
    lossy = entry(latency={"1": speeds(effort_default=9.0)}, quality={"effort-default": judged(0.0101)})
    assert verdicts(lossy, "drop at most 0.01", "ppocr-rec") == [goals.MISSED]
    assert verdicts(lossy, "2 times float", "minilm-l6") == [goals.MET]  # it has a goal of its own for the score


@pytest.mark.parametrize(("drop", "verdict"), [(0.005, goals.MET), (0.0051, goals.MISSED)])
def test_word_similarity(drop: float, verdict: str) -> None:
    quality = {**judged(0.0), "also": judged(drop, name="metric.py:WordSimSpearman")["metric"]}
    assert verdicts(entry(quality={"effort-default": quality}), "WordSimSpearman", "minilm-l6") == [verdict]
    assert verdicts(entry(), "WordSimSpearman", "minilm-l6") == [goals.OPEN]


def test_seconds() -> None:
    name = goals.TIMED
    assert verdicts(entry(), "under", name) == [goals.MET, goals.MET]
    slow = entry()
    slow["cost"] |= {"effort-default": cost(seconds=90.0), "effort-fast": cost(seconds=20.5)}
    assert verdicts(slow, "under", name) == [goals.MISSED, goals.MISSED]
    assert verdicts(entry(cost={"onnxq": cost()}), "under", name) == [goals.OPEN, goals.OPEN]
    (default, _) = (line for line in goals.lines({"models": {name: slow}}) if "under" in line.goal)
    assert default.found == "90.0 s (place 20.0 s, calibrate 10.0 s, validate 5.0 s)"


def document(model: dict[str, Any]) -> dict[str, Any]:
    return {
        "settings": {"repeats": 1, "samples": 64, "memory_limit_gb": 12.0, "timeout": 600.0},
        "machine": {"cpu": "Example", "cores": 2, "memory_gb": 24.9, "system": "Linux"},
        "versions": {"Python": "3"},
        "missing": [],
        "models": {"net": model},
    }


def test_the_report_has_the_tables_the_limit_and_the_goals() -> None:
    text = goals.report(document(entry()))
    assert text.startswith(tables.markdown(document(entry())).rstrip("\n"))
    assert "| net | 1 | placed 1 | 0.900 | 1.000 | 90 % | +5.0 % | +1.0 % | conversions 0.090 ms |" in text
    assert "**Goals**: 7 met, 0 missed, 0 not measured" in text
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1
    assert "**onnxq quantize** --effort fast" in text
    only = goals.report(document(entry(cost={"onnxq": cost()}, quality={}, latency={})))
    assert "How near the kernel limit" not in only and "not measured" in only


def test_without_the_command_as_users_run_it_the_compared_one_is_judged() -> None:
    model = entry(cost={"onnxq": cost()}, quality={"onnxq": judged(0.1)}, latency={"1": speeds(onnxq=0.5)})
    assert verdicts(model, SCORE) == verdicts(model, SLOWER) == [goals.MISSED]
    failed = entry()
    failed["cost"]["effort-default"]["error"] = "killed"
    failed["cost"]["onnxq"] = cost()
    failed["quality"]["onnxq"] = judged(0.0)
    assert verdicts(failed, SCORE) == [goals.MET] and verdicts(failed, NEAR) == [goals.OPEN]


def test_the_command_as_users_run_it_gets_no_labels_and_all_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Job] = []
    found = Account(
        form="placed 1", threads=1, timed=True, limit_ms=0.5, measured_ms=1.0, predicted_ms=None, profiled_ms=1.0,
        causes=(Cause(name="rest", ms=0.5),), lost=(Lost(cause="rest", name="n", op="Add", ms=0.5),),
    )  # fmt: skip

    def quantize(job: Job) -> Result:
        seen.append(job)
        return Result(
            command="quantize", method="minmax", calibration="3 samples", seconds={"place": 1.0}, account=(found,)
        )

    monkeypatch.setattr(driver, "quantize", quantize)
    job = worker.load(MODELS / "fashion-res8" / "job.yaml", 8, None, threads=None)
    values = json.loads(json.dumps(worker.effort("fast", job, tmp_path / "o.onnx", worker.Clock({}))))
    (given,) = seen
    assert given.data.eval is None and given.validate.metric is None and given.validate.enabled
    assert (given.placement.effort, given.calibration.threads, given.calibration.cache) == ("fast", None, False)
    assert given.data.calib is not None and given.data.calib.limit == 8
    assert values["account"][0]["nearness"] == 0.5 and "lost" not in values["account"][0]


def test_the_command_as_users_run_it_is_run_once_with_its_own_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def child(_: Any, __: Any, arguments: list[str], **options: Any) -> Any:
        asked.append([*arguments, "bound" if options.get("environment") else "free"])
        if "--out" in arguments:
            Path(arguments[-1]).write_bytes(b"model")
        return replace(done, values={"metric": None} if arguments[0] == "evaluate" else {"samples": 3})

    done = bench.Outcome(seconds=1.0, peak_bytes=1)
    monkeypatch.setattr(bench, "_child", child)
    settings = bench.Settings(kinds=("onnxq", "effort-default", "effort-fast"), repeats=2, effort_samples=99)
    one = bench.Entry(name="minilm-l6", folder="minilm-l6", job=tmp_path / "job.yaml")
    monkeypatch.setattr(bench, "_latency", lambda *_: {"error": "", "candidates": {}})
    found = bench.measure(one, settings, tmp_path)
    runs = [a for a in asked if "--out" in a]
    assert [(a[0], a[2], a[-1]) for a in runs] == [
        ("onnxq", "64", "bound"), ("effort-default", "99", "free"), ("effort-fast", "99", "free"),
        ("onnxq", "64", "bound"),
    ]  # fmt: skip
    assert set(found["quality"]) == {"onnxq", "effort-default"}  # fast is not judged
    assert [a[-2] for a in asked if "--metric" in a] == ["metric.py:WordSimSpearman"] * 2
    assert deepcopy(found)["quality"]["onnxq"]["also"] is None
