"""Which calibration method is best on which model, and whether `auto` is as good: `make bench-methods`.

    python models/bench_methods.py                         # every fetched model, every method
    python models/bench_methods.py --models fashion-vit,minilm-l6 --methods auto,minmax
    python models/bench_methods.py --eval-samples 300      # fewer labelled samples, evenly spread
    python models/bench_methods.py --judge-on calib        # by labels of calibration samples; nothing is kept
    python models/bench_methods.py --write docs/methods.md # writes what out/methods.json says, measures nothing

Each cell is what `onnxq quantize --config models/NAME/job.yaml --method METHOD --placement rules` makes with all
calibration samples of the job: by rules, all that has an integer kernel is int8, so that methods differ in nothing but
ranges. All forms of a model then see the same labelled samples, so that the scores of two of them can be compared pair
by pair. Nothing is timed, so the machine need not be quiet. A run replaces what out/methods.json said of its models.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bench import Entry, chosen, entries
from bench_process import ROOT
from bench_tables import replace_block

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.config.job import Job
    from onnxq.validate.metrics.base import Metric

METHODS = ("auto", "minmax", "percentile", "entropy", "mse", "mixed")
OUT = ROOT / "out" / "methods.json"

LEVEL = 0.95
"""Of the interval over pairs; where all methods are compared with `auto`, that of all of them together."""

RESAMPLES = 4000
"""Draws of an interval: the tail that belongs to one of five methods holds 20 of them."""


def measure(entry: Entry, methods: Sequence[str], eval_samples: int | None, judge_on: str = "eval") -> dict[str, Any]:
    """What a process of its own says of one model: method -> row; every row {"error": ...} if it fails."""
    folder = OUT.with_suffix("") / entry.name
    folder.mkdir(parents=True, exist_ok=True)
    stats, result = folder / "stats.npz", folder / "result.json"
    calibrate = [sys.executable, "-m", "onnxq", "calibrate", "--config", str(entry.job), "-o", str(stats), "--no-cache"]
    judge = [sys.executable, __file__, "--one", str(entry.job), ",".join(methods), str(folder)]
    judge += ["--judge-on", judge_on, *(["--eval-samples", str(eval_samples)] if eval_samples else [])]
    for command in (calibrate, judge):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            message = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return {method: {"error": message} for method in methods}
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def one(
    job_file: Path, methods: Sequence[str], folder: Path, eval_samples: int | None, judge_on: str = "eval"
) -> dict[str, Any]:
    """Quantize with each method from the same statistics, then judge all forms on the same samples.

    Args:
        judge_on: `eval`, or `calib`: the samples that ranges are taken from, if they have labels.
    """
    from onnxq.config.job import load_job
    from onnxq.driver import quantize

    told = load_job(job_file)
    job = replace(told, validate=replace(told.validate, enabled=False), data=replace(told.data, eval=None))
    job = job.with_overrides(statistics=folder / "stats.npz", placement="rules")
    rows: dict[str, dict[str, Any]] = {}
    files: dict[str, Path] = {}
    for method in methods:
        path = folder / f"{method}.onnx"
        result = quantize(replace(job.with_overrides(method=method), output=path))
        chose = [n for n in result.notes if n.startswith("Method ")]
        assert result.environment is not None
        rows[method] = {"taken": result.method, "notes": chose, "environment": asdict(result.environment)}
        files[method] = path
    judged = replace(told, data=replace(told.data, eval=told.data.calib)) if judge_on == "calib" else told
    return _judged(judged.with_overrides(eval_limit=eval_samples), rows, files)


def _judged(job: Job, rows: dict[str, dict[str, Any]], files: Mapping[str, Path]) -> dict[str, Any]:
    """Scores and SQNR into the rows; files of the same bytes run once."""
    from onnxq.driver import evaluation_data, job_metric
    from onnxq.runtime.session import Session
    from onnxq.validate.outputs import OutputSums
    from onnxq.validate.records import Records

    metric = job_metric(job)
    name = job.validate.metric or ""
    same = {m: next(k for k, p in files.items() if p.read_bytes() == path.read_bytes()) for m, path in files.items()}
    sessions = {m: Session(files[m], threads=1) for m in dict.fromkeys(same.values())}
    float_model = Session(job.model, threads=1)
    sums = {m: {o: OutputSums() for o in float_model.outputs} for m in sessions}
    records = {m: Records(name, metric) for m in sessions} if metric is not None else {}
    count = 0
    for sample in evaluation_data(job, job.model):
        count += 1
        exact = float_model.run(sample.inputs)
        for method, session in sessions.items():
            got = session.run(sample.inputs, float_model.outputs)
            for output, total in sums[method].items():
                total.add(exact[output], got[output], sample.name, None)
            if method in records:
                records[method].add(exact, got, sample)
    scores = {m: r.result(resamples=0) for m, r in records.items()}
    for method, row in rows.items():
        form = same[method]
        sqnr = [o.sqnr_db for o in (t.result(n) for n, t in sums[form].items()) if o.sqnr_db is not None]
        score = scores.get(form)
        row.update(samples=count, sqnr_db=min(sqnr) if sqnr else None, metric=name or None)
        row.update(
            fp32=score.reference if score else None,
            score=score.candidate if score else None,
            higher_is_better=score.higher_is_better if score else True,
        )
    if metric is not None and "auto" in rows and best_single(rows):
        kept = {form: found.arrays()[1] for form, found in records.items()}
        rows["auto"]["behind"] = compared(metric, rows, same, kept)
    return rows


def compared(
    metric: Metric, rows: Mapping[str, Mapping[str, Any]], same: Mapping[str, str], kept: Mapping[str, NDArray[Any]]
) -> dict[str, Any]:
    """By how much the best single method is better than `auto`, and which ones are by more than chance.

    Args:
        rows: by method.
        same: method -> form; methods of equal bytes share one.
        kept: records by form, on the same samples.
    """
    from onnxq.validate.statistics import difference_interval

    def ends(method: str, level: float) -> tuple[float, float]:
        found = difference_interval(metric, kept[same[method]], kept[same["auto"]], resamples=RESAMPLES, level=level)
        return (found.low, found.high) if metric.higher_is_better else (-found.high, -found.low)

    others = {same[m]: m for m in rows if same[m] != same["auto"]}
    level = 1 - (1 - LEVEL) / max(len(others), 1)
    best = best_single(rows)
    low, high = ends(best, LEVEL)
    ahead = [m for m in others.values() if ends(m, level)[0] > 0]
    return {"method": best, "low": low, "high": high, "others": len(others), "ahead": ahead}


def best_single(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The single method with the best score, of equal ones that with the best SQNR; empty if there is none."""
    able = [m for m, r in rows.items() if m != "auto" and "error" not in r]
    return max(able, key=lambda m: _key(rows[m]), default="")


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: a row per model, a column per method: score (SQNR in dB); the best single score in bold."""
    methods = [m for m in METHODS if any(m in row for row in found.values())]
    head = ["model", "metric", "samples", "fp32", *methods, "best single less auto", "ahead of auto"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, row in found.items():
        first = next((r for r in row.values() if "error" not in r), None)
        if first is None:
            continue
        best = _key(row[best_single(row)]) if best_single(row) else (-math.inf, -math.inf)
        cells = [_cell(m, row.get(m), best) for m in methods]
        fp32 = "" if first["fp32"] is None else f"{first['fp32']:.4f}"
        lead = [name, first["metric"] or "SQNR", str(first["samples"]), fp32]
        lines.append("| " + " | ".join([*lead, *cells, _behind(row), _ahead(row)]) + " |")
    return "\n".join(lines)


def _behind(row: Mapping[str, Any]) -> str:
    """By how much the best single method is better than `auto`, with the interval over pairs."""
    auto = row.get("auto", {})
    told = auto.get("behind")
    if not told:
        return ""
    gap = row[told["method"]]["score"] - auto["score"]
    gap = gap if auto["higher_is_better"] else -gap
    return f"{gap:.4f} ({told['low']:.4f} to {told['high']:.4f})"


def _ahead(row: Mapping[str, Any]) -> str:
    """The methods that are better than `auto` by more than chance, all of them compared (Bonferroni: each interval at
    1 - 0.05 / number of forms that differ from auto's). "chance" stands for the best where only that keeps it out.
    """
    told = row.get("auto", {}).get("behind")
    if not told or "ahead" not in told:
        return ""
    if told["ahead"]:
        return ", ".join(told["ahead"])
    return f"none (chance, as the best of {told['others']})" if told["low"] > 0 else "none"


def _key(row: Mapping[str, Any]) -> tuple[float, float]:
    score = row["score"] if row["score"] is not None else 0.0
    sign = 1.0 if row.get("higher_is_better", True) else -1.0
    return (sign * score, row["sqnr_db"] if row["sqnr_db"] is not None else 0.0)


def _cell(method: str, row: Mapping[str, Any] | None, best: tuple[float, float]) -> str:
    if row is None:
        return ""
    if "error" in row:
        return "failed"
    score = "" if row["score"] is None else f"{row['score']:.4f}"
    db = "" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f} dB"
    text = f"{score} ({db})" if score and db else score or db
    if method == "auto":
        return f"{text} [{row['taken']}]"
    return f"**{text}**" if _key(row) == best else text


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="", help="names, separated by commas")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--eval-samples", type=int)
    parser.add_argument("--judge-on", choices=("eval", "calib"), default="eval")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into the page's block and stop")
    parser.add_argument("--one", nargs=3, metavar=("JOB", "METHODS", "FOLDER"), help=argparse.SUPPRESS)
    told = parser.parse_args(arguments)
    if told.one:
        job, methods, folder = told.one
        rows = one(Path(job), methods.split(","), Path(folder), told.eval_samples, told.judge_on)
        (Path(folder) / "result.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        return 0
    found: dict[str, dict[str, Any]] = json.loads(OUT.read_text()) if OUT.is_file() else {}
    if told.write:
        page = told.write.read_text(encoding="utf-8")
        told.write.write_text(replace_block(page, block(found), str(told.write)), encoding="utf-8")
        return 0
    OUT.parent.mkdir(exist_ok=True)
    for entry in chosen(entries(), [n for n in told.models.split(",") if n]):
        if not entry.model.is_file():
            print(f"{entry.name}: not fetched (make models)", file=sys.stderr)
            continue
        print(entry.name, file=sys.stderr, flush=True)
        found[entry.name] = measure(entry, told.methods.split(","), told.eval_samples, told.judge_on)
        for reason in {row["error"] for row in found[entry.name].values() if "error" in row}:
            print(f"{entry.name}: {reason}", file=sys.stderr)
        if told.judge_on == "eval":
            OUT.write_text(json.dumps(found, indent=1))
    print(table(found))
    return 0


def block(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The table and what it was measured with."""
    row = next(r for rows in found.values() for r in rows.values() if "error" not in r)
    told = row["environment"]
    versions = ", ".join(f"{k} {v}" for k, v in told["packages"].items())
    return f"{table(found)}\n\nMeasured by `make bench-methods`: {told['cpu']}, Python {told['python']}, {versions}."


if __name__ == "__main__":
    sys.exit(main())
