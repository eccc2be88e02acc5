"""onnxq against onnxruntime.quantization on the same models and samples: `make bench`, explained in docs/bench.md.

    python models/bench.py                          # every fetched model
    python models/bench.py --models fashion-res8,silero-vad/silero_vad --repeats 1
    python models/bench.py --update-yaml --readme   # measures nothing: writes what out/bench/bench.json says

Every quantization is a process of its own on one core, and the methods take turns (A B C, A B C, ...), so that a noisy
neighbour hits all of them. This process itself imports neither onnxq nor ONNX Runtime: it starts, watches and writes.
"""

from __future__ import annotations

import argparse
import datetime
import difflib
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import psutil  # type: ignore[import-untyped]
import yaml
from bench_goals import ALSO, LENGTHS, OURS, report
from bench_process import ONE_THREAD, ROOT, Outcome, one_line, run
from bench_tables import BlockError, markdown, measured, replace_block, update_yaml

MODELS = Path(__file__).resolve().parent
WORKER = MODELS / "bench_worker.py"
EFFORTS = ("effort-default", "effort-fast")
"""`onnxq quantize` as users run it; once each, since they are not compared."""

KINDS = ("plain", "onnxq", "ort-minmax", "ort-percentile", *EFFORTS)
UNJUDGED = ("plain", "effort-fast")
VERSIONS = ("onnxq", "onnx", "onnxruntime", "numpy")
_THREADS_TAKE = 3  # so many times as long: of several threads, one moment is not like the next
_LONG = 3600.0  # seconds: judging all evaluation samples may take much longer than quantizing


class BenchError(Exception):
    """A command line that makes no sense; the message is a sentence."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One job file: `name` is its folder's, or `folder/variant` for `job-variant.yaml`."""

    name: str
    folder: str
    job: Path

    @property
    def model(self) -> Path:
        """The float model that the job names."""
        return self.job.parent / str(yaml.safe_load(self.job.read_text())["model"])


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run of the bench was told."""

    kinds: tuple[str, ...] = KINDS
    repeats: int = 3
    samples: int | None = 64
    effort_samples: int | None = 256
    eval_samples: int | None = None
    timeout: float = 600.0
    memory_limit_gb: float = 12.0
    latency_seconds: float = 8.0


def entries(models: Path = MODELS) -> dict[str, Entry]:
    """All job files below `models`, by name."""
    found = {}
    for job in sorted(models.glob("*/job*.yaml")):
        folder, variant = job.parent.name, job.stem.removeprefix("job").removeprefix("-")
        name = f"{folder}/{variant}" if variant else folder
        found[name] = Entry(name=name, folder=folder, job=job)
    return found


def chosen(known: Mapping[str, Entry], names: Sequence[str] = ()) -> list[Entry]:
    """The entries that are meant; no name means all folders, and a folder its job.yaml or, without one, all its jobs.

    Raises:
        BenchError: there is no such folder or job.
    """
    folders = {e.folder for e in known.values()}
    wanted: list[Entry] = []
    for name in names or sorted(folders):
        if name in known:
            wanted.append(known[name])
        elif name in folders:
            wanted += [e for e in known.values() if e.folder == name]
        else:
            near = difflib.get_close_matches(name, [*known, *folders], n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(known)}"
            raise BenchError(f'there is no model "{name}" to measure: {hint}')
    return wanted


def measure(entry: Entry, settings: Settings, out: Path) -> dict[str, Any]:
    """Everything about one job: cost of each kind, quality of each file that came out, speed of them all."""
    folder = out / entry.name
    folder.mkdir(parents=True, exist_ok=True)
    cost = _cost(entry, settings, folder)
    made = {k: folder / f"{k}.onnx" for k, c in cost.items() if k not in UNJUDGED and not c["error"]}
    quality = {}
    for kind, path in made.items():
        _say(f"{entry.name}: judging {kind}")
        limit = [] if settings.eval_samples is None else ["--limit", str(settings.eval_samples)]
        done = _child(entry, settings, ["evaluate", "--candidate", str(path), *limit], timeout=_LONG)
        quality[kind] = {"error": done.error, **done.values}
        if entry.name in ALSO and kind in OURS and not done.error:
            also = ["evaluate", "--candidate", str(path), *limit, "--metric", ALSO[entry.name]]
            quality[kind]["also"] = _child(entry, settings, also, timeout=_LONG).values.get("metric")
    runnable = {k: p for k, p in made.items() if not quality[k]["error"]}
    return {
        "folder": entry.folder,
        "job": _shown(entry.job),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(),
        "cost": cost,
        "quality": quality,
        "latency": {str(n): _latency(entry, settings, runnable, n) for n in sorted({1, _cores()})} if runnable else {},
    }


def _cost(entry: Entry, settings: Settings, folder: Path) -> dict[str, Any]:
    cost: dict[str, Any] = {k: {"error": "", "runs": [], "values": {}} for k in settings.kinds}
    for repeat in range(settings.repeats):
        for kind, one in cost.items():
            if one["error"] or (kind in EFFORTS and repeat):  # it will not get better; it is not compared
                continue
            limit = settings.effort_samples if kind in EFFORTS else settings.samples
            samples = [] if limit is None else ["--samples", str(limit)]
            _say(f"{entry.name}: {kind}, run {repeat + 1} of {settings.repeats}")
            path = folder / f"{kind}.onnx"
            path.unlink(missing_ok=True)
            environment = None if kind in EFFORTS else ONE_THREAD
            done = _child(entry, settings, [kind, *samples, "--out", str(path)], environment=environment)
            one["error"] = done.error or ("" if kind == "plain" or path.is_file() else "it wrote no file")
            values = dict(done.values)
            one["runs"].append(
                {
                    "seconds": done.seconds,
                    "peak_bytes": done.peak_bytes,
                    "parts": values.pop("parts", {}),
                    "stages": values.pop("stages", {}),
                    "sha256": hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None,
                }
            )
            one["values"] = values if kind in EFFORTS else _count(values, cost.get("plain"))
    return cost


def _count(values: dict[str, Any], plain: Mapping[str, Any] | None) -> dict[str, Any]:
    """With the number of samples: plain runs count for those given the same data; None if they cannot tell."""
    known = plain["values"] if plain is not None else {}
    same = values.get("data", known.get("data")) == known.get("data")
    return {**values, "samples": values.get("samples", known.get("samples") if same else None)}


def _latency(entry: Entry, settings: Settings, made: Mapping[str, Path], threads: int) -> dict[str, Any]:
    _say(f"{entry.name}: speed with {threads} thread{'s' if threads > 1 else ''}")
    budget = settings.latency_seconds * (_THREADS_TAKE if threads > 1 else 1)
    arguments = ["latency", "--threads", str(threads), "--budget", str(budget)]
    if entry.name in LENGTHS:
        arguments += ["--length", str(LENGTHS[entry.name])]
    for path in made.values():
        arguments += ["--candidate", str(path)]
    done = _child(entry, settings, arguments, timeout=_LONG)
    if done.error:
        return {"error": done.error, "candidates": {}}
    found = {
        kind: {**one, "over": dict(zip(made, one["over"], strict=True))}
        for kind, one in zip(made, done.values["candidates"], strict=True)
    }
    return {"error": "", "fp32_ms": done.values["fp32_ms"], "candidates": found}


def _child(
    entry: Entry,
    settings: Settings,
    arguments: Sequence[str],
    *,
    timeout: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    return run(
        WORKER,
        [*arguments, "--job", str(entry.job)],
        timeout=timeout or settings.timeout,
        memory_limit=int(settings.memory_limit_gb * 1e9),
        environment=environment,
    )


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpu": _cpu(),
        "cores": _cores(),
        "memory_gb": psutil.virtual_memory().total / 1e9,
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Of Python and the packages that matter."""
    return {"Python": platform.python_version(), **{p: importlib.metadata.version(p) for p in VERSIONS}}


def commit() -> str:
    """Short hash, with `+` if a tracked file differs from it; `unknown` outside of git."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    found = git("rev-parse", "--short=12", "HEAD")
    if not found:
        return "unknown"
    return f"{found}+" if git("status", "--porcelain", "--untracked-files=no") else found


def _cpu() -> str:
    """The name that the CPU gives itself, and what archspec takes it for."""
    try:
        import archspec.cpu

        kind = str(archspec.cpu.host().name)
    except ImportError:
        kind = ""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{name} ({kind})" if name and kind else name or kind or platform.processor() or platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def bench(settings: Settings, names: Sequence[str], out: Path, *, append: bool = False) -> dict[str, Any]:
    """Measure, and write bench.json and bench.md after every model, so that what is done stays.

    Raises:
        BenchError: unknown names, or none of the models is there.
    """
    wanted = chosen(entries(), names)
    present = [e for e in wanted if e.model.is_file()]
    missing = [e.name for e in wanted if e not in present]
    if not present:
        raise BenchError(f"no model file of {', '.join(missing)} is there: fetch them with `make models`")
    if missing:
        _say(f"not fetched and left out: {', '.join(missing)} (make models)")
    file = out / "bench.json"
    old: dict[str, Any] = json.loads(file.read_text())["models"] if append and file.is_file() else {}
    found = {
        "settings": {k: list(v) if isinstance(v, tuple) else v for k, v in vars(settings).items()}
        | {"bootstrap_seed": 0},
        "machine": machine(),
        "versions": versions(),
        "missing": [n for n in missing if n not in old],
        "models": old,
    }
    for entry in present:
        old[entry.name] = measure(entry, settings, out)
        found["models"] = {name: old[name] for name in sorted(old)}
        write(found, out)
    return found


def write(found: Mapping[str, Any], out: Path) -> None:
    """bench.json and bench.md."""
    out.mkdir(parents=True, exist_ok=True)
    for name, text in (("bench.json", json.dumps(found, indent=1) + "\n"), ("bench.md", report(found))):
        fresh = out / f"{name}.new"
        fresh.write_text(text)
        fresh.replace(out / name)


def publish(found: Mapping[str, Any], *, into_yaml: bool, readme: Path | None, models: Path = MODELS) -> None:
    """Write the figures where people look for them.

    Raises:
        BlockError: the README has no place for the tables.
    """
    if into_yaml:
        for folder in sorted({e["folder"] for e in found["models"].values()}):
            path, figures = models / folder / "model.yaml", measured(found, folder)
            if figures and path.is_file():
                path.write_bytes(update_yaml(path.read_bytes(), figures))
                _say(f"wrote {_shown(path)}")
    if readme is not None:
        text = readme.read_text() if readme.is_file() else ""
        readme.write_text(replace_block(text, markdown(found), readme.name))
        _say(f"wrote {_shown(readme)}")


def _parser() -> argparse.ArgumentParser:
    default = Settings()
    parser = argparse.ArgumentParser(description="onnxq against onnxruntime.quantization; see docs/bench.md")
    parser.add_argument("--models", default="", help="names separated by commas; default: all that are fetched")
    parser.add_argument(
        "--kinds",
        default=",".join(default.kinds),
        help="what to measure; onnxq-METHOD is onnxq with another calibrator than the job's, effort-* the command as "
        "users run it, for the goals (default: %(default)s)",
    )
    parser.add_argument("--repeats", type=int, default=default.repeats, help="default: %(default)s")
    parser.add_argument("--samples", type=int, default=default.samples, help="to calibrate with; 0: all (%(default)s)")
    parser.add_argument("--effort-samples", type=int, default=default.effort_samples, help="of effort-* (%(default)s)")
    parser.add_argument("--eval-samples", type=int, default=0, help="to judge with; 0: all (default)")
    parser.add_argument("--timeout", type=float, default=default.timeout, help="seconds a process (%(default)s)")
    parser.add_argument("--memory-limit", type=float, default=default.memory_limit_gb, help="GB (%(default)s)")
    parser.add_argument("--latency-seconds", type=float, default=default.latency_seconds, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench", help="default: out/bench")
    parser.add_argument("--append", action="store_true", help="keep the models of an earlier run in the tables")
    parser.add_argument("--update-yaml", action="store_true", help="only write the figures into models/*/model.yaml")
    parser.add_argument("--readme", action="store_true", help="only write the tables into README.md")
    return parser


def _settings(args: argparse.Namespace) -> Settings:
    """
    Raises:
        BenchError: a value that makes no sense.
    """
    kinds = tuple(k for k in args.kinds.split(",") if k)
    odd = [k for k in kinds if k not in KINDS and not k.startswith("onnxq-")]
    if odd or not kinds:
        what = f'kind "{odd[0]}"' if odd else "an empty list of kinds"
        raise BenchError(f"{what} cannot be measured: kinds are {', '.join(KINDS)} and onnxq-METHOD")
    if args.repeats < 1 or min(args.samples, args.effort_samples, args.eval_samples) < 0:
        raise BenchError("--repeats must be at least 1, --samples and those of efforts and eval at least 0 (all)")
    return Settings(
        kinds=kinds,
        repeats=args.repeats,
        samples=args.samples or None,
        effort_samples=args.effort_samples or None,
        eval_samples=args.eval_samples or None,
        timeout=args.timeout,
        memory_limit_gb=args.memory_limit,
        latency_seconds=args.latency_seconds,
    )


def _read(file: Path) -> dict[str, Any]:
    """
    Raises:
        BenchError: there is no such file.
    """
    if not file.is_file():
        raise BenchError(f"{_shown(file)} is not there: run the bench first")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit code 0, or 2 with one sentence."""
    args = _parser().parse_args(arguments)
    out = args.out.resolve()
    try:
        if args.update_yaml or args.readme:
            readme = ROOT / "README.md" if args.readme else None
            publish(_read(out / "bench.json"), into_yaml=args.update_yaml, readme=readme)
            return 0
        found = bench(_settings(args), [n for n in args.models.split(",") if n], out, append=args.append)
    except (BenchError, BlockError) as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return 2
    print(report(found), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
