"""From the numbers of bench.json to what people read: two Markdown tables, the README's block, each model's YAML.

Everything here is a function of the JSON: nothing is measured, nothing is looked up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import yaml

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
_MB = 1e6
_NONE = "–"

Json = Mapping[str, Any]


class BlockError(Exception):
    """A file without the place that was to be written; the message is a sentence."""


def markdown(bench: Json) -> str:
    """Both tables and the notes, ready for a README."""
    models: Json = bench["models"]
    settings: Json = bench["settings"]
    threads = _thread_counts(models)
    cost = ["model", "samples", "method", "seconds", "x plain run", "x forward passes", "peak MB", "above plain MB"]
    quality = ["model", "metric (items)", "method", "fp32", "int8", "drop [95 % interval]", "SQNR dB"]
    quality += [f"speed-up, {n} thread{'s' if n > 1 else ''}" for n in threads] + ["MB", "int8 MACs"]
    parts = [
        "**What quantizing costs** "
        f"(median of {settings['repeats']} interleaved runs, least to most in brackets; one core each)",
        table(cost, [row for name in models for row in _cost_rows(name, models[name])], numbers=3),
        "**What comes out** (speed-up: fp32 time / int8 time, median and quartiles of interleaved runs)",
        table(quality, [row for name in models for row in _quality_rows(name, models[name], threads)], numbers=3),
        *_notes(bench),
    ]
    return "\n\n".join(parts) + "\n"


def _cost_rows(name: str, entry: Json) -> Iterator[list[str]]:
    base = entry["cost"].get("plain", {})
    for kind, found in entry["cost"].items():
        label = _label(kind, found)
        samples = str(found["values"].get("samples") or _NONE)
        if found["error"]:
            yield [name, samples, label, f"fails: {_cell(found['error'])}", *[_NONE] * 4]
            continue
        seconds = [r["seconds"] for r in found["runs"]]
        peaks = [r["peak_bytes"] / _MB for r in found["runs"]]
        row = [name, samples, label, _spread(seconds), _NONE, _NONE, f"{median(peaks):,.0f}", _NONE]
        if kind != "plain" and not kind.startswith("effort-") and base and not base["error"]:
            plain = base["runs"]
            row[4] = _times(median(seconds) / median([r["seconds"] for r in plain]))
            forward = median([r["parts"]["forward"] for r in plain])
            row[5] = _times(median([r["parts"]["work"] for r in found["runs"]]) / forward)
            row[7] = f"{median(peaks) - median([r['peak_bytes'] / _MB for r in plain]):,.0f}"
        yield row


def _quality_rows(name: str, entry: Json, threads: Sequence[int]) -> Iterator[list[str]]:
    for kind, made in entry["cost"].items():
        if kind in ("plain", "effort-fast"):  # not judged
            continue
        label = _label(kind, made)
        if made["error"]:
            yield [name, _NONE, label, "no model (see above)", *[_NONE] * (5 + len(threads))]
            continue
        found = entry["quality"].get(kind, {"error": "not measured"})
        if found["error"]:
            yield [name, _NONE, label, f"fails: {_cell(found['error'])}", *[_NONE] * (5 + len(threads))]
            continue
        score = found["metric"]
        row = [name, f"none ({found['samples']:,})", label, _NONE, _NONE, _NONE]
        if score is not None:
            low, high = score["interval"]["low"], score["interval"]["high"]
            row[1] = f"{_metric_name(score['name'])} ({score['samples']:,})"
            row[3:] = [f"{score['reference']:.4f}", f"{score['candidate']:.4f}"]
            row.append(f"{_signed(score['drop'])} [{_signed(low)}, {_signed(high)}]")
        row.append(_NONE if found["sqnr_db"] is None else f"{float(found['sqnr_db']):.1f}")
        row += [_speed(entry, kind, n) for n in threads]
        row += [f"{found['bytes']['int8'] / _MB:.2f}", _share(found)]
        yield row


def _label(kind: str, cost: Json) -> str:
    """A kind of run as the tables call it."""
    if kind == "plain":
        return "plain forward passes"
    if kind.startswith("effort-"):
        return f"**onnxq quantize** --effort {kind.removeprefix('effort-')}"
    name, _, method = kind.partition("-")
    method = cost["values"].get("method") or method
    if name == "onnxq":
        return f"**onnxq** {method}".rstrip()
    return f"ORT {'MinMax' if method == 'minmax' else method.capitalize()}"


def _speed(entry: Json, kind: str, threads: int) -> str:
    found = entry["latency"].get(str(threads))
    if found is None:
        return _NONE
    if found["error"]:
        return f"fails: {_cell(found['error'])}"
    one = found["candidates"].get(kind)
    if one is None:
        return _NONE
    noisy = " (noisy)" if one["noisy"] else ""
    return f"{one['speedup']:.2f} ({one['speedup_low']:.2f}–{one['speedup_high']:.2f}){noisy}"


def _notes(bench: Json) -> Iterator[str]:
    settings: Json = bench["settings"]
    yield (
        "*seconds*: from the start of the process to its end; *x plain run*: as a multiple of a process that loads "
        "the fp32 model and runs it once over the same samples; *x forward passes*: the work without start and "
        "imports, as a multiple of those runs of the model alone (no loading, no reading of samples); *peak MB*: "
        "largest resident set of the process, libraries included (1 MB = 10^6 bytes); *drop*: fp32 minus int8 score "
        "(turned for error rates), paired bootstrap, 1 point is 0.01; *SQNR*: of the worst output; *int8 MACs*: share "
        "of the multiply-accumulates that ONNX Runtime runs in integer kernels."
    )
    limit = settings["samples"]
    yield (
        f"Calibrated with {'all' if limit is None else f'at most {limit}'} samples: the histogram methods of ORT keep "
        "all activations of all samples in memory. ORT is `quant_pre_process` and `quantize_static` with Q/DQ, u8 "
        f"activations, s8 weights per channel. A process is ended above {settings['memory_limit_gb']:g} GB or after "
        f"{settings['timeout']:g} s."
    )
    said: dict[str, list[str]] = {}
    for name, entry in bench["models"].items():
        for kind, cost in entry["cost"].items():
            for note in cost["values"].get("notes", ()) if kind.startswith("ort-") else ():
                places = said.setdefault(_cell(note), [])
                if name not in places:
                    places.append(name)
    for note, names in said.items():
        yield f"ORT on {', '.join(names)}: {note}."
    unsteady = [
        f"{_label(kind, cost)} on {name}"
        for name, entry in bench["models"].items()
        for kind, cost in entry["cost"].items()
        if len({r.get("sha256") for r in cost["runs"]}) > 1 and not cost["error"]
    ]
    if unsteady:
        yield f"Not the same file in every run: {', '.join(unsteady)}."
    if bench.get("missing"):
        yield f"Not measured, because not fetched (`make models`): {', '.join(bench['missing'])}."
    machine, versions = bench["machine"], bench["versions"]
    dates, commits = (sorted({e[key] for e in bench["models"].values()}) for key in ("date", "commit"))
    yield (
        f"Measured by `make bench` on {', '.join(dates)} at commit {', '.join(commits)}: {machine['cpu']} "
        f"({machine['cores']} cores, {machine['memory_gb']:.0f} GB), {machine['system']}, "
        f"{', '.join(f'{k} {v}' for k, v in versions.items())}."
    )


def replace_block(text: str, block: str, where: str, marks: tuple[str, str] = (BEGIN, END)) -> str:
    """The text with everything between the two marks replaced.

    Raises:
        BlockError: the markers are not both there, once each and in this order.
    """
    begin, end = marks
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if text.count(begin) != 1 or text.count(end) != 1 or not pattern.search(text):
        raise BlockError(
            f"{where} needs the lines {begin} and {end} once each: write them where the tables shall stand"
        )
    return pattern.sub(lambda _: f"{begin}\n{block.strip()}\n{end}", text)


def measured(bench: Json, folder: str) -> dict[str, Any]:
    """What model.yaml says under `measured:` about the runs of onnxq on this folder's jobs; empty if there are none."""
    jobs: dict[str, Any] = {}
    for entry in bench["models"].values():
        if entry["folder"] != folder or "onnxq" not in entry["cost"]:
            continue
        jobs[Path(entry["job"]).name] = _figures(entry)
    if not jobs:
        return {}
    machine = bench["machine"]
    return {
        "machine": f"{machine['cpu']}, {machine['cores']} cores",
        "versions": dict(bench["versions"]),
        "jobs": jobs,
    }


def _figures(entry: Json) -> dict[str, Any]:
    cost = entry["cost"]["onnxq"]
    quality = entry["quality"].get("onnxq", {"error": "not measured"})
    error = cost["error"] or quality["error"]
    figures: dict[str, Any] = {"date": entry["date"], "commit": entry["commit"]}
    if error:
        return {**figures, "error": error}
    figures["calibration"] = {"method": cost["values"]["method"], "samples": cost["values"]["samples"]}
    if (score := quality["metric"]) is not None:
        figures["score"] = {
            "metric": score["name"],
            "items": score["samples"],
            "fp32": round(score["reference"], 6),
            "int8": round(score["candidate"], 6),
            "drop": round(score["drop"], 6),
            "interval_95": [round(score["interval"]["low"], 6), round(score["interval"]["high"], 6)],
        }
    if quality["sqnr_db"] is not None:
        figures["sqnr_db"] = round(float(quality["sqnr_db"]), 2)
    figures["speedup"] = {
        f"threads_{n}": [round(one[k], 3) for k in ("speedup", "speedup_low", "speedup_high")]
        for n, found in entry["latency"].items()
        if (one := found.get("candidates", {}).get("onnxq")) is not None
    }
    figures["bytes"] = dict(quality["bytes"])
    if quality.get("macs"):
        figures["int8_mac_share"] = round(quality["integer_macs"] / quality["macs"], 4)
    figures["quantize"] = {
        "seconds": round(median([r["seconds"] for r in cost["runs"]]), 2),
        "peak_mb": round(median([r["peak_bytes"] for r in cost["runs"]]) / _MB),
    }
    return figures


def update_yaml(content: bytes, figures: Mapping[str, Any]) -> bytes:
    """The file with `measured:` as its last key; what stands before that line stays byte for byte."""
    text = yaml.safe_dump(dict(figures), sort_keys=False, allow_unicode=True, default_flow_style=None, width=140)
    lines = ["measured:  # written by `python models/bench.py --update-yaml`; speedup is median and quartiles"]
    lines += [f"  {line}" for line in text.splitlines()]
    found = re.search(rb"^measured:", content, re.MULTILINE)
    head = content[: found.start()] if found else content
    if head and not head.endswith(b"\n"):
        head += b"\n"
    return head + ("\n".join(lines) + "\n").encode()


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int = 1_000) -> str:
    """Markdown; columns from `numbers` on are aligned right, a model's name stands in its first row only."""
    lines = [_line(head), _line(["---" if i < numbers else "---:" for i in range(len(head))])]
    last = ""
    for row in rows:
        lines.append(_line(["" if row[0] == last else row[0], *row[1:]]))
        last = row[0]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str, longest: int = 160) -> str:
    """One line without bars, backquoted so that `<`, `_` and `*` in it stay what they are."""
    text = " ".join(text.replace("|", "/").replace("`", "'").split())
    return f"`{text if len(text) <= longest else text[: longest - 1].rstrip() + '…'}`"


def _spread(values: Sequence[float]) -> str:
    digits = 1 if median(values) >= 10 else 2
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def _times(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}"


def _signed(value: float) -> str:
    return "0.0000" if abs(value) < 5e-5 else f"{value:+.4f}"


def _metric_name(name: str) -> str:
    return name.rpartition(":")[2]


def _share(found: Json) -> str:
    if not found.get("macs"):
        return _NONE
    share = found["integer_macs"] / found["macs"]
    # 99.96 % is not all of them
    return "100 %" if found["integer_macs"] == found["macs"] else f"{math.floor(share * 1000) / 10:.1f} %"


def _thread_counts(models: Json) -> list[int]:
    return sorted({int(n) for entry in models.values() for n in entry["latency"]})
