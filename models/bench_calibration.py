"""What calibration costs, as a multiple of a plain forward pass over the same samples: `make bench-calibration`.

    python models/bench_calibration.py                                   # the four models of the table
    python models/bench_calibration.py --models fashion-res8 --samples 64 --repeats 1

Every row is a process of its own on one core, its start and the model's load included; the rows take turns (A B C,
A B C, ...), and the median of the repeats is quoted with their range. Models with fewer samples than asked for get
theirs again and again. ONNX Runtime's calibrators are slow: they see fewer samples, and are compared with a plain pass
over as many.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bench_process import ONE_THREAD, ROOT, describe, own_peak, run

if TYPE_CHECKING:
    from onnxq.config.job import Job
    from onnxq.data.sample import Dataset, Sample
    from onnxq.pipeline.manager import Pipeline

MODELS = Path(__file__).resolve().parent
GOALS: dict[str, tuple[float, float]] = {
    "efficientnet-lite0": (1.5, 1.8),
    "yolox-ddddocr": (1.5, 1.8),
    "ppocr-rec": (1.7, 1.8),
    "minilm-l6": (1.35, 1.8),
}
"""Model -> what minmax and full may cost, as a multiple of the plain pass."""

OURS = ("plain", "minmax", "full", "quantize")
PEERS = {"ort-minmax": "MinMax", "ort-percentile": "Percentile", "ort-entropy": "Entropy"}
ROWS = {
    "plain": "plain forward pass",
    "minmax": "onnxq, least and greatest value",
    "full": "onnxq, distributions, too",
    "quantize": "onnxq quantize, all before validation",
    **{kind: f"onnxruntime.quantization, {name}" for kind, name in PEERS.items()},
}
SIZES = (32, 256, 4096)
"""Samples with which the peak memory is looked at."""


class Cycled:
    """`count` samples: those of a data set, from the beginning again where they end."""

    def __init__(self, data: Dataset, count: int) -> None:
        self.data, self.count = data, count
        self.description = f"{count} samples, cycled from {data.description}"
        self.preprocess_summary = data.preprocess_summary
        self.labelled = False
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return self.count

    def pick(self, positions: Sequence[int]) -> Dataset | None:
        """The samples at these positions, without reading the others, if the data set can do that and is long enough.

        The command gets the same from its data set.
        """
        pick = getattr(self.data, "pick", None)
        picked: Dataset | None = pick(positions) if pick is not None and positions[-1] < len(self.data) else None
        return picked

    def __iter__(self) -> Iterator[Sample]:
        index = 0
        while index < self.count:
            for sample in self.data:
                if index == self.count:
                    return
                yield replace(sample, index=index)
                index += 1


# ---------------------------------------------------------------------------------------------------------- one child


def work(kind: str, job: Job, count: int, folder: Path) -> dict[str, Any]:
    """What one child does."""
    from bench_worker import opened

    if kind == "plain":
        from onnxq.runtime.session import Session

        session = Session(job.model, threads=1)
        for sample in Cycled(opened(job, calibration=True, inputs=session.inputs), count):
            session.run(sample.inputs)
        return {}
    data = Cycled(opened(job, calibration=True), count)
    return _peer(kind, job, data, folder) if kind in PEERS else _ours(kind, job, data, folder)


def _ours(kind: str, job: Job, data: Dataset, folder: Path) -> dict[str, Any]:
    from onnxq.pipeline.calibration import over
    from onnxq.pipeline.spec import load_pipeline
    from onnxq.progress import Silent
    from onnxq.stats.engine import Resources

    pipeline = load_pipeline(job.target, job.base)
    if kind == "quantize":
        return _quantized(job, pipeline, data, folder)
    from onnxq.gathering import Gathering
    from onnxq.workbench.planning import ready

    method = "minmax" if kind == "minmax" else "auto"
    calibration = replace(over(job.calibration, pipeline.calibration), method=method, settings={}, threads=1)
    begin = ready(job, data, pipeline, calibration, Resources(), Silent(), Gathering)  # as `onnxq calibrate` does
    begin.provider.gather(begin.graph)
    assert begin.provider.outcome is not None
    return {"tensors": len(begin.provider.outcome.statistics.tensors)}


def _quantized(job: Job, pipeline: Pipeline, data: Dataset, folder: Path) -> dict[str, Any]:
    from onnxq.ir.load import load_float
    from onnxq.ir.save import save
    from onnxq.options import Options
    from onnxq.quantization import quantize_model
    from onnxq.stats.calibrator import make_calibrators
    from onnxq.targets.target import load_target

    calibrators = make_calibrators("auto", {})
    options = Options(target=load_target(job.target), pipeline=pipeline, calibrators=calibrators, threads=1)
    done = quantize_model(load_float(job.model, keep_overridable=False), data, options)
    save(done.model, folder / "int8.onnx")
    return {"stages": dict(done.timing.seconds)}


def _peer(kind: str, job: Job, data: Dataset, folder: Path) -> dict[str, Any]:
    from bench_peer import Reader
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    method = getattr(CalibrationMethod, PEERS[kind])
    calibrator = create_calibrator(
        str(job.model), None, augmented_model_path=str(folder / "augmented.onnx"), calibrate_method=method
    )
    calibrator.set_execution_providers(["CPUExecutionProvider"])
    calibrator.collect_data(Reader(data))
    calibrator.compute_data()
    return {}


def _watch(found: dict[str, int], end: threading.Event) -> None:
    """The largest anonymous memory, seen every 20 ms."""
    status = Path("/proc/self/status")
    while status.is_file() and not end.wait(0.02):
        anonymous = re.search(r"^RssAnon:\s*(\d+) kB", status.read_text(), re.MULTILINE)
        found["anonymous"] = max(found["anonymous"], int(anonymous[1]) * 1024 if anonymous else 0)


def _child(arguments: argparse.Namespace) -> None:
    if hasattr(os, "sched_setaffinity"):  # ORT's calibrators offer no setting for threads: on one core they have one
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    found, end = {"anonymous": 0}, threading.Event()
    watcher = threading.Thread(target=_watch, args=(found, end))
    watcher.start()
    values: dict[str, Any]
    try:
        from bench_worker import load

        with tempfile.TemporaryDirectory() as folder:
            values = work(arguments.child, load(arguments.job, None, None), arguments.samples, Path(folder))
    except BaseException as error:  # the table says which error it was
        values = {"error": describe(error)}
    finally:
        end.set()
        watcher.join()
    arguments.result.write_text(json.dumps({**values, **found, "peak_bytes": own_peak()}))


# --------------------------------------------------------------------------------------------------------- all children


def once(kind: str, job: Path, count: int, *, timeout: float = 900) -> dict[str, Any]:
    """One child: seconds, bytes, error."""
    _say(f"{job.parent.name}: {kind}, {count} samples")
    arguments = ["--child", kind, "--job", str(job), "--samples", str(count)]
    done = run(Path(__file__), arguments, timeout=timeout, memory_limit=12 * 10**9, environment=ONE_THREAD)
    return {"seconds": done.seconds, "peak": done.peak_bytes, "error": done.error, **done.values}


def measure(job: Path, *, samples: int, repeats: int, peer_samples: int, sizes: Sequence[int]) -> dict[str, Any]:
    """Everything about one model."""
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in OURS}
    for _ in range(repeats):
        for kind in OURS:
            runs[kind].append(once(kind, job, samples))
    peers = {kind: [once(kind, job, peer_samples)] for kind in ("plain", *PEERS)} if peer_samples else {}
    memory = {n: {kind: once(kind, job, n) for kind in ("plain", "full")} for n in sizes}
    return {"runs": runs, "peers": peers, "memory": memory, "cached": cached(job)}


def cached(job: Path) -> list[float]:
    """Seconds of `onnxq calibrate`, the same command twice, with a cache that is empty at first."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, **ONE_THREAD, "ONNXQ_CACHE_DIR": folder}
        command = [sys.executable, "-m", "onnxq", "calibrate", "--config", str(job), "-o", f"{folder}/stats.npz"]
        seconds = []
        for _ in range(2):
            _say(f"{job.parent.name}: onnxq calibrate")
            start = time.perf_counter()
            done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                return []
            seconds.append(time.perf_counter() - start)
        return seconds


def table(name: str, found: Mapping[str, Any], samples: int, peer_samples: int) -> str:
    """Markdown."""
    plain = statistics.median(r["seconds"] for r in found["runs"]["plain"])
    lines = [
        f"### {name}, {samples} samples",
        "",
        "| | seconds | of a plain pass | goal | peak anonymous memory above the plain pass |",
        "|---|---|---|---|---|",
    ]
    goals = dict(zip(("minmax", "full"), GOALS.get(name, ()), strict=False))
    if name == "efficientnet-lite0":
        goals["quantize"] = 3.0
    base = max(r.get("anonymous", 0) for r in found["runs"]["plain"])
    for kind, runs in found["runs"].items():
        lines.append(_row(kind, runs, plain, goals.get(kind), base))
    if found["peers"]:
        alone = found["peers"]["plain"][0]
        lines.extend(
            _row(kind, found["peers"][kind], alone["seconds"], None, alone.get("anonymous", 0)) for kind in PEERS
        )
        lines.append(f"\nThe last rows are of {peer_samples} samples, against a plain pass over as many.")
    for count, pair in found["memory"].items():
        above = (pair["full"].get("anonymous", 0) - pair["plain"].get("anonymous", 0)) / 1e6
        lines.append(f"\nWith {count} samples, distributions take {above:.0f} MB more than the plain pass (goal 150).")
    if found["cached"]:
        first, second = found["cached"]
        lines.append(f"\n`onnxq calibrate` on the model's own samples: {first:.1f} s, again {second:.2f} s (goal 1).")
    return "\n".join(lines) + "\n"


def _row(kind: str, runs: Sequence[Mapping[str, Any]], plain: float, goal: float | None, base: int) -> str:
    error = next((r["error"] for r in runs if r["error"]), "")
    if error:
        return f"| {ROWS[kind]} | {error} | | | |"
    seconds = sorted(r["seconds"] for r in runs)
    middle = statistics.median(seconds)
    spread = f" ({seconds[0]:.2f} to {seconds[-1]:.2f})" if len(seconds) > 1 else ""
    memory = (max(r.get("anonymous", 0) for r in runs) - base) / 1e6
    wanted = f"{goal:g}" if goal is not None else ""
    return f"| {ROWS[kind]} | {middle:.2f}{spread} | {middle / plain:.2f} | {wanted} | {memory:.0f} MB |"


def _compile() -> None:
    """Bytecode, as pip makes it when it installs a package: else each process that may not write it compiles anew."""
    for folder in ("onnxq", "passes", "calibration", "models"):
        compileall.compile_dir(str(ROOT / folder), quiet=2)


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Measure, print, write out/bench/calibration.json and .md."""
    parser = argparse.ArgumentParser(description="What calibration costs, as a multiple of a plain forward pass")
    parser.add_argument("--models", default=",".join(GOALS), help="folders (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument(
        "--peer-samples", type=int, default=16, help="for ONNX Runtime's calibrators; 0: leave them out"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-of", default="efficientnet-lite0", help="models whose memory is looked at")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="samples for that (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the last run into the page's block and stop")
    for name, kind in (("--child", str), ("--job", Path), ("--result", Path)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child:
        _child(given)
        return 0
    from bench import entries, machine, versions

    if given.write:
        from bench_tables import replace_block

        page = given.write.read_text(encoding="utf-8")
        block = (given.out / "calibration.md").read_text(encoding="utf-8")
        given.write.write_text(replace_block(page, block, str(given.write)), encoding="utf-8")
        return 0
    _compile()
    found: dict[str, Any] = {"machine": machine(), "versions": versions(), "models": {}}
    told = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    text = [f"Measured by `make bench-calibration`: {found['machine']['cpu']}, {told}.", ""]
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.models.split(","):
        job = MODELS / name / "job.yaml"
        if not entries()[name].model.is_file():
            _say(f"{name}: not fetched (make models)")
            continue
        sizes = [int(n) for n in given.sizes.split(",") if n] if name in given.memory_of.split(",") else []
        one = measure(job, samples=given.samples, repeats=given.repeats, peer_samples=given.peer_samples, sizes=sizes)
        found["models"][name] = one
        text.append(table(name, one, given.samples, given.peer_samples))
        print(text[-1], flush=True)
        (given.out / "calibration.json").write_text(json.dumps(found, indent=1))
        (given.out / "calibration.md").write_text("\n".join(text))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
