"""Which calibration method is best on which model, and whether `auto` is as good: `make bench-methods`.

    python models/bench_methods.py                         # every fetched model, every method
    python models/bench_methods.py --models fashion-vit,minilm-l6 --methods auto,minmax
    python models/bench_methods.py --write docs/methods.md # writes what out/methods.json says, measures nothing

Each cell is what `onnxq quantize --config models/NAME/job.yaml --method METHOD` makes with all samples of the job;
nothing is timed, so the machine need not be quiet.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bench import Entry, chosen, entries
from bench_process import ROOT
from bench_tables import replace_block

METHODS = ("auto", "minmax", "percentile", "entropy", "mse", "mixed")
OUT = ROOT / "out" / "methods.json"


def measure(entry: Entry, method: str, eval_samples: int | None) -> dict[str, Any]:
    """Labelled score and SQNR of one method on one model; {"error": ...} if the command fails."""
    with tempfile.TemporaryDirectory(prefix="onnxq-methods-") as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, __file__, "--one", str(entry.job), method, str(report)]
        command += ["--eval-samples", str(eval_samples)] if eval_samples else []
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
        found = json.loads(report.read_text())
    accuracy = found["accuracy"]
    sqnr = [o["sqnr_db"] for o in accuracy["outputs"] if o["sqnr_db"] is not None]
    metric = accuracy["metric"]
    return {
        "taken": found["method"],
        "samples": accuracy["samples"],
        "metric": metric["name"] if metric else None,
        "fp32": metric["reference"] if metric else None,
        "score": metric["candidate"] if metric else None,
        "sqnr_db": min(sqnr) if sqnr else None,
        "environment": found["environment"],
    }


def one(job: Path, method: str, report: Path, eval_samples: int | None) -> None:
    """In a process of its own: quantize and judge, without measuring speed."""
    from onnxq.config.job import load_job
    from onnxq.driver import quantize
    from onnxq.report.json import dumps

    told = load_job(job).with_overrides(method=method, eval_limit=eval_samples, speed=False)
    result = quantize(replace(told, output=report.with_name("out.onnx")))
    report.write_text(dumps(result), encoding="utf-8")


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: a row per model, a column per method: score (SQNR in dB); the best single score in bold."""
    methods = [m for m in METHODS if any(m in row for row in found.values())]
    lines = ["| model | metric | fp32 | " + " | ".join(methods) + " |", "|---|---|---|" + "---|" * len(methods)]
    for name, row in found.items():
        first = next((r for r in row.values() if "error" not in r), None)
        if first is None:
            continue
        single = [_key(r) for m, r in row.items() if m != "auto" and "error" not in r]
        best = max(single, default=(-math.inf, -math.inf))
        cells = [_cell(m, row.get(m), best) for m in methods]
        fp32 = "" if first["fp32"] is None else f"{first['fp32']:.4f}"
        lines.append(f"| {name} | {first['metric'] or 'SQNR'} | {fp32} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _key(row: Mapping[str, Any]) -> tuple[float, float]:
    return (row["score"] if row["score"] is not None else 0.0, row["sqnr_db"] if row["sqnr_db"] is not None else 0.0)


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
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into the page's block and stop")
    parser.add_argument("--one", nargs=3, metavar=("JOB", "METHOD", "REPORT"), help=argparse.SUPPRESS)
    told = parser.parse_args(arguments)
    if told.one:
        job, method, report = told.one
        one(Path(job), method, Path(report), told.eval_samples)
        return 0
    if told.write:
        found = json.loads(OUT.read_text())
        page = told.write.read_text(encoding="utf-8")
        told.write.write_text(replace_block(page, block(found), str(told.write)), encoding="utf-8")
        return 0
    found: dict[str, dict[str, Any]] = {}
    OUT.parent.mkdir(exist_ok=True)
    for entry in chosen(entries(), [n for n in told.models.split(",") if n]):
        if not entry.model.is_file():
            print(f"{entry.name}: not fetched (make models)", file=sys.stderr)
            continue
        for method in told.methods.split(","):
            print(f"{entry.name}: {method}", file=sys.stderr, flush=True)
            found.setdefault(entry.name, {})[method] = measure(entry, method, told.eval_samples)
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
