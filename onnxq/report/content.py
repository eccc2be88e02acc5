"""What a report says, as tables and lines of text; `terminal` decides how that looks. Nothing is measured here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from onnxq.report import account, gate, repairs
from onnxq.report.section import Section
from onnxq.validate.accuracy import Accuracy, MetricResult
from onnxq.validate.coverage import Coverage, OpCoverage
from onnxq.validate.gate import Sizes
from onnxq.validate.latency import Latency
from onnxq.validate.result import Result
from onnxq.validate.summary import ModelSummary, TensorSummary

NAMES_SHOWN = 2
OPS_SHOWN = 3
_SOURCE = ": it comes from "
"""What stands in a reason before the float op that an operand comes from."""
HEAVY_SHOWN = 20
WORST_SHOWN = 5


def sections(result: Result) -> Iterator[Section]:
    """The report, top to bottom."""
    yield from _head(result)
    if result.model is not None:
        yield from _model(result.model)
    rows = [*_sizes(result.sizes), *_latencies(result.latency), *_metric(result.accuracy)]
    if rows:
        yield Section(
            title="Float against int8", columns=("", "float", "int8", "change"), rows=tuple(rows), numbers=_ints(1, 2)
        )
    if result.accuracy is not None:
        yield _outputs(result.accuracy)
    found = result.coverage or (result.model.coverage if result.model is not None else None)
    if found is not None and (result.model is None or result.model.quantized):
        yield from _coverage(found)
    if result.model is not None and found is not None:
        yield from _heavy(found)
    yield from _layers(result)
    yield from account.sections(result.account)
    yield from _forms(result)
    yield from repairs.sections(result.repairs)
    yield from _passes(result)
    if result.seconds:
        total = sum(result.seconds.values())
        rows = [(stage, f"{s:.2f} s") for stage, s in result.seconds.items()]
        yield Section(title="Time", rows=(*rows, ("all", f"{total:.2f} s")), numbers=_ints(1))
    notes = _notes(result)
    if notes:
        yield Section(title="Notes", rows=tuple((n,) for n in notes))
    yield from _environment(result)
    if result.verdict is not None:
        yield from gate.sections(result.verdict)


def _layers(result: Result) -> Iterator[Section]:
    """The tensors whose own rounding and clipping cost most."""
    if result.layers is None or not result.layers.tensors:
        return
    worst = sorted(result.layers.tensors, key=lambda t: t.own_sqnr_db)[:WORST_SHOWN]
    rows = [
        (
            t.tensor,
            t.op,
            decibels(t.own_sqnr_db),
            decibels(t.sqnr_db),
            f"{t.clipped:.3%}",
            f"{t.low:.3g} to {t.high:.3g}",
        )
        for t in worst
    ]
    heads = ("tensor", "made by", "adds", "up to here", "clipped", "range")
    yield Section(title="Tensors that add most error", columns=heads, rows=tuple(rows), numbers=_ints(2, 3, 4))


def _forms(result: Result) -> Iterator[Section]:
    """What ran against what before one form was chosen; what was only predicted is in the page."""
    rows = [
        (
            point.label,
            "-" if point.seconds is None else f"{point.seconds * 1e3:.3g} ms",
            "-" if point.speedup is None else f"{point.speedup:.2f}",
            "-" if point.drop is None else f"{point.drop:.4g}",
            decibels(point.sqnr_db),
            ", ".join([*(["chosen"] if point.chosen else []), *([] if point.timed else ["time by costs"])]),
        )
        for point in result.pareto
        if point.timed or point.drop is not None or point.sqnr_db is not None
    ]
    heads = ("form", "one run", "times as fast", "drop", "SQNR", "")
    if rows:
        yield Section(title="Forms that were tried", columns=heads, rows=tuple(rows), numbers=_ints(1, 2, 3, 4))


def count(value: float) -> str:
    """Large whole numbers for reading.

    >>> [count(v) for v in (950, 12_345, 892_481, 3_200_000, 4.1e9)]
    ['950', '12.3 k', '892 k', '3.20 M', '4.10 G']
    """
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{_three(value / factor)} {unit}"
    return f"{value:.0f}"


def _three(value: float) -> str:
    """Three significant digits."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:#.3g}"


def size(value: float) -> str:
    """Bytes for reading.

    >>> size(1_234_567), size(900)
    ('1.23 MB', '900 B')
    """
    return f"{count(value)}B" if value >= 1e3 else f"{value:.0f} B"


def decibels(value: float | None) -> str:
    """dB with one digit."""
    if value is None:
        return "-"
    return "equal" if value == math.inf else f"{value:.1f} dB"


def _head(result: Result) -> Iterator[Section]:
    rows = []
    if result.command == "inspect":  # the table of the model names the file
        return
    if result.reference is not None:
        rows.append(("float model", str(result.reference)))
    if result.candidate is not None:
        rows.append(("int8 model", str(result.candidate)))
    if result.target is not None:
        rows.append(("target", result.target))
    if result.method is not None:
        rows.append(("method", result.method))
    if result.calibration is not None:
        rows.append(("calibrated on", result.calibration))
    if result.accuracy is not None:
        samples, data = result.accuracy.samples, result.accuracy.data
        rows.append(("validated on", data if data.startswith(f"{samples} ") else f"{samples} of {data}"))
    if rows:
        yield Section(title=f"onnxq {result.command}", rows=tuple(rows))


def _sizes(sizes: Sizes | None) -> Iterator[tuple[str, ...]]:
    if sizes is not None:
        yield "size", size(sizes.reference), size(sizes.candidate), _smaller(sizes.ratio)


def _smaller(ratio: float) -> str:
    return f"{_times(1 / ratio)} smaller" if ratio <= 1 else f"{_times(ratio)} larger"


def _latencies(latencies: Sequence[Latency]) -> Iterator[tuple[str, ...]]:
    for one in latencies:
        change = f"{_times(one.speedup)} as fast ({one.speedup_low:.2f} to {one.speedup_high:.2f})"
        noisy = ", noisy" if one.noisy else ""
        yield (
            f"latency, {_threads(one)}",
            f"{_three(one.reference_ms)} ms",
            f"{_three(one.candidate_ms)} ms",
            change + noisy,
        )


def _threads(latency: Latency) -> str:
    return "1 thread" if latency.threads == 1 else f"{latency.threads} threads"


def _metric(accuracy: Accuracy | None) -> Iterator[tuple[str, ...]]:
    if accuracy is None or accuracy.metric is None:
        return
    metric = accuracy.metric
    yield metric.name, _score(metric.reference), _score(metric.candidate), _change(metric)


def _change(metric: MetricResult) -> str:
    word = "drop" if metric.drop > 0 else "gain" if metric.drop < 0 else "no change"
    size_of = f" {_score(abs(metric.drop))}" if metric.drop else ""
    text = (
        f"{word}{size_of} (95 % interval of the drop: {_score(metric.interval.low)} to {_score(metric.interval.high)})"
    )
    if metric.mcnemar_p is not None:
        text += f", McNemar p = {metric.mcnemar_p:.2g}"
    return text


def _outputs(accuracy: Accuracy) -> Section:
    rows = []
    for o in accuracy.outputs:
        agreement = "-" if o.top1_agreement is None else f"{o.top1_agreement:.2%}"
        if o.agreement is not None:
            agreement = f"{o.agreement:.2%} of elements"
        difference = "-" if o.max_abs is None else f"{o.max_abs:.3g} of {o.absmax:.3g}"
        cosine = "-" if o.cosine is None else f"{o.cosine:.5f}"
        rows.append((o.name, decibels(o.sqnr_db), cosine, difference, agreement))
    heads = ("output", "SQNR", "cosine", "largest difference", "agreement")
    return Section(title="Outputs, int8 against float", columns=heads, rows=tuple(rows), numbers=_ints(1, 2, 3, 4))


def _coverage(found: Coverage) -> Iterator[Section]:
    share = "unknown" if math.isnan(found.mac_share) else f"{found.mac_share:.1%}"
    rows = [
        ("multiply-accumulates", f"{count(found.integer_macs)} of {count(found.macs)}", share),
        ("heavy operators", f"{found.heavy_total - len(found.heavy_float)} of {found.heavy_total}", ""),
        ("all operators", f"{found.integer_ops} of {len(found.ops)}", ""),
        ("Q/DQ conversions that run", str(found.conversions), ""),
    ]
    yield Section(title="In integer kernels of ONNX Runtime", rows=tuple(rows), numbers=_ints(1, 2))
    groups = grouped(found.float_ops)
    if groups:
        heads = ("operators", "MACs", "reason", "such as")
        table = [
            (
                f"{len(ops)} {_some(sorted({o.op for o in ops}))}",
                count(macs) if (macs := sum(o.macs or 0 for o in ops)) else "-",
                reason,
                ", ".join(o.name for o in ops[:NAMES_SHOWN]) + (", ..." if len(ops) > NAMES_SHOWN else ""),
            )
            for reason, ops in groups
        ]
        yield Section(title="Left in float", columns=heads, rows=tuple(table), numbers=_ints(1))


def _some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are.

    >>> _some(["Add", "Cast", "Conv", "Gather", "Slice"]), _some(["Add", "Cast"])
    ('Add, Cast, Conv, 2 more', 'Add, Cast')
    """
    more = len(names) - OPS_SHOWN
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:OPS_SHOWN])}, {more} more"


def grouped(ops: Sequence[OpCoverage]) -> list[tuple[str, list[OpCoverage]]]:
    """Float operators by reason; those with the most multiply-accumulates first, then the most operators."""
    found: dict[str, list[OpCoverage]] = {}
    for op in ops:
        found.setdefault(_pattern(op.reason).partition(_SOURCE)[0], []).append(op)
    groups = [(_common(sorted({o.reason for o in same})), same) for same in found.values()]
    return sorted(groups, key=lambda g: (-sum(o.macs or 0 for o in g[1]), -sum(o.heavy for o in g[1]), -len(g[1])))


def _common(reasons: Sequence[str]) -> str:
    """One reason for several that are alike.

    >>> _common(["its input is float: it comes from Add", "its input is float: it comes from Split"])
    'its input is float: it comes from Add, Split'
    """
    patterns = sorted({_pattern(r) for r in reasons})
    if len(reasons) == 1 or len(patterns) == 1:
        return reasons[0] if len(reasons) == 1 else patterns[0]
    sources = sorted({p.partition(_SOURCE)[2].split(" ")[0] for p in patterns})
    return patterns[0].partition(_SOURCE)[0] + _SOURCE + _some(sources)


def _heavy(found: Coverage) -> Iterator[Section]:
    heavy = sorted((o for o in found.ops if o.heavy), key=lambda o: -(o.macs or 0))
    if not heavy:
        return
    rows = [(o.name, o.op, o.kernel, o.form, "-" if o.macs is None else count(o.macs)) for o in heavy[:HEAVY_SHOWN]]
    more = len(heavy) - len(rows)
    title = f"Heavy operators, {len(rows)} largest of {len(heavy)}" if more else "Heavy operators"
    yield Section(
        title=title, columns=("name", "operator", "kernel", "type", "MACs"), rows=tuple(rows), numbers=_ints(4)
    )


def _model(model: ModelSummary) -> Iterator[Section]:
    external = f", of which external: {', '.join(model.external)}" if model.external else ""
    domains = "".join(f", {d} {v}" for d, v in model.domains.items())
    rows = [
        ("file", str(model.path)),
        ("size", size(model.bytes) + external),
        ("opset", f"{model.opset}{domains} (IR {model.ir_version})"),
        ("producer", model.producer or "unknown"),
        ("kind", "quantized" if model.quantized else "float"),
        ("multiply-accumulates", count(model.coverage.macs) if model.coverage and model.coverage.macs else "unknown"),
        ("parameters", f"{count(model.parameters)} in {size(model.weight_bytes)}"),
        *((f"input {i.name}", _tensor(i)) for i in model.inputs),
        *((f"output {o.name}", _tensor(o)) for o in model.outputs),
    ]
    yield Section(title="Model", rows=tuple(rows))
    nodes = ", ".join(f"{n} {op}" for op, n in model.nodes.items())
    yield Section(title=f"{sum(model.nodes.values())} nodes", rows=((nodes,),))


def _tensor(tensor: TensorSummary) -> str:
    return f"{tensor.dtype} [{', '.join('?' if d is None else str(d) for d in tensor.shape)}]"


def _passes(result: Result) -> Iterator[Section]:
    rewritten: dict[str, int] = {}
    refusals: dict[str, dict[str, int]] = {}
    for name, rewrites, why in result.passes:  # a pass may stand in a pipeline more than once
        rewritten[name] = rewritten.get(name, 0) + rewrites
        for reason, n in why.items():
            # what is refused each time is the same thing, seen again
            refusals.setdefault(name, {})[reason] = max(n, refusals.get(name, {}).get(reason, 0))
    ran = [(name, str(rewrites)) for name, rewrites in rewritten.items() if rewrites]
    if ran:
        yield Section(title="Passes", columns=("pass", "rewrites"), rows=tuple(ran), numbers=_ints(1))
    refused = [(name, str(n), reason) for name, why in refusals.items() for reason, n in _alike(why)]
    if refused:
        heads = ("pass", "times", "why not")
        yield Section(title="Rewrites that were refused", columns=heads, rows=tuple(refused), numbers=_ints(1))


def _alike(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Reasons that differ only in names and numbers are one, most frequent first."""
    found: dict[str, list[str]] = {}
    for reason in sorted(counts):
        found.setdefault(_pattern(reason), []).append(reason)
    merged = [(p if len(same) > 1 else same[0], sum(counts[r] for r in same)) for p, same in found.items()]
    return sorted(merged, key=lambda m: (-m[1], m[0]))


_TYPE = re.compile(r"(?:u?int|b?float)[0-9]+[,.;:]?")
"""A type: it is the same in all reasons of a kind."""


def _pattern(reason: str) -> str:
    """A reason without what is special to one node: words with a digit, a slash, an underscore or a dot inside that
    are no types.

    >>> _pattern('its operand relu_2.tmp_0 is float: it comes from HardSwish Div@2_HardSwish')
    'its operand ... is float: it comes from HardSwish ...'
    >>> _pattern('measured here: 0.006 ms in float, 0.003 ms in int8, less than the conversions around it cost')
    'measured here: ... ms in float, ... ms in int8, less than the conversions around it cost'
    """
    return re.sub(r"\S*(?:[0-9/_]|\.\w)\S*", lambda word: word[0] if _TYPE.fullmatch(word[0]) else "...", reason)


def _notes(result: Result) -> list[str]:
    notes = list(result.notes)
    if result.model is not None:
        notes.extend((*result.model.notes, *(result.model.coverage.notes if result.model.coverage else ())))
    if result.accuracy is not None:
        notes.extend(result.accuracy.notes)
    if result.coverage is not None:
        notes.extend(result.coverage.notes)
        if result.coverage.unmapped:
            names = ", ".join(result.coverage.unmapped)
            notes.append(f"The kernels of these operators were not found, which is a fault of onnxq: {names}.")
    for one in result.latency:
        if one.noisy:
            notes.append(
                f"The machine was busy when latency with {_threads(one)} was measured: read the ratio with care."
            )
    return list(dict.fromkeys(_sentence(note) for note in notes))


def _sentence(note: str) -> str:
    """A note as a sentence.

    >>> _sentence("weights use 7 bits, as asked"), _sentence("bad/2.png is no picture"), _sentence("It is.")
    ('Weights use 7 bits, as asked.', 'bad/2.png is no picture.', 'It is.')
    """
    first = note.split(" ", 1)[0]
    start = note[:1].upper() + note[1:] if first.isalpha() and first.islower() else note
    return start if start.endswith((".", "?", "!")) else start + "."


def _environment(result: Result) -> Iterator[Section]:
    env = result.environment
    if env is None:
        return
    packages = ", ".join(f"{n} {v}" for n, v in env.packages.items())
    features = f" ({', '.join(env.features)})" if env.features else ""
    cores = "1 core" if env.cores == 1 else f"{env.cores} cores"
    text = f"{env.cpu}{features}, {cores}, {env.platform}, Python {env.python}, {packages}"
    yield Section(title="Measured on", rows=((text,),))


def _times(value: float) -> str:
    return f"{value:.2f} times"


def _score(value: float) -> str:
    return f"{value + 0.0:.5g}"


def _ints(*values: int) -> frozenset[int]:
    return frozenset(values)
