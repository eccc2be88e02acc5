from __future__ import annotations

import io
from dataclasses import replace

import pytest

from onnxq.report import terminal
from onnxq.report.content import count, decibels, grouped, size
from onnxq.validate.gate import GateVerdict, Sizes
from onnxq.validate.result import Result


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


PHRASES = [
    "onnxq quantize", "256 samples of calib.npz", "892 kB", "253 kB", "3.53 times smaller", "1.23 ms", "0.500 ms",
    "0.9305", "0.9295",
    "30.2 dB", "equal", "99.50%", "99.00% of elements", "3.00 M of 4.00 M", "75.0%", "12 Tanh", "it was asked for",
    "Gate: FAIL", "speed-up: below the limit", "A note on accuracy.", "A [bold]note[/bold] of the run",
    "fold-batchnorm", "two consumers", "1.50 s", "Some CPU", "com.microsoft 1", "float32 [n, 3, ?]", "out.data",
    "3 Conv, 1 Relu", "Tensors that add most error", "13.0 dB", "12.5 dB", "25.000%", "-1 to 1.55",
    "kernel limit, 1 thread", "0.600 ms, 60 % reached (1.00 ms measured, all int8)",
    "conversions 0.250 ms (x), float Tanh 0.120 ms (act0), not explained by the profile 0.030 ms",
    "0.950 ms before it ran, 5.0 % less than measured",
]  # fmt: skip


def squeezed(text: str) -> str:
    """Cells that were folded over lines can't be found as phrases: compare without white space."""
    return "".join(text.split())


def test_plain_lines_say_everything(full: Result) -> None:
    text = terminal.plain(full)
    for phrase in PHRASES:
        assert phrase in text
    assert "\x1b" not in text
    assert not [c for c in text if ord(c) > 127]
    assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_wide_tables_say_everything(full: Result) -> None:
    text = terminal.render(full, width=200)
    for phrase in PHRASES:
        assert phrase in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 200


def test_narrow_tables_lose_nothing(full: Result) -> None:
    text = terminal.render(full, width=80)
    assert max(map(len, text.splitlines())) <= 80
    letters = sorted(c for c in squeezed(text) if c != "─")
    assert letters == sorted(c for c in squeezed(terminal.render(full, width=300)) if c != "─")


def test_the_metric_line(full: Result) -> None:
    line = "drop 0.001 (95 % interval of the drop: -0.0005 to 0.0025), McNemar p = 0.25"
    assert line in terminal.plain(full)
    assert full.accuracy is not None
    assert full.accuracy.metric is not None
    for drop, phrase in ((0.0, "no change (95"), (-0.002, "gain 0.002 (95")):
        changed = replace(full, accuracy=replace(full.accuracy, metric=replace(full.accuracy.metric, drop=drop)))
        assert phrase in terminal.plain(changed)


def test_noise_is_said(full: Result) -> None:
    text = terminal.plain(full)
    assert "2.47 times as fast (2.40 to 2.50), noisy" in text
    assert "The machine was busy when latency with 2 threads was measured" in text.replace("\n ", "")
    assert "latency with 1 thread: the machine was busy" not in text


def test_a_limit_on_samples_is_said(full: Result) -> None:
    assert full.accuracy is not None
    assert "validated on   2000 samples of eval.npz" in terminal.plain(full)
    part = replace(full, accuracy=replace(full.accuracy, samples=100))
    assert "validated on   100 of 2000 samples of eval.npz" in terminal.plain(part)


def test_reasons_are_grouped_with_the_heaviest_first(full: Result) -> None:
    assert full.coverage is not None
    groups = grouped(full.coverage.float_ops)
    assert [(reason, len(ops)) for reason, ops in groups] == [
        ("it was asked for", 1),
        ("ONNX Runtime has no integer kernel for Tanh", 12),
    ]
    assert "act0, act1, ..." in terminal.plain(full)


def test_reasons_that_differ_only_in_names_are_one(full: Result) -> None:
    assert full.coverage is not None
    head = full.coverage.ops[1]
    ops = [replace(head, name=f"n{i}", reason=f"its input x_{i} is float: it comes from Tanh act{i}") for i in range(3)]
    assert [(r, len(o)) for r, o in grouped(ops)] == [("its input ... is float: it comes from Tanh ...", 3)]
    assert grouped(ops[:1])[0][0] == "its input x_0 is float: it comes from Tanh act0"
    other = replace(head, reason="its input y_0 is float: it comes from Erf act0")
    assert grouped([*ops, other])[0][0] == "its input ... is float: it comes from Erf, Tanh"
    unlike = replace(head, reason="no sample reached y_0, so its range is unknown")
    assert len(grouped([*ops, unlike])) == 2
    why = {"the result of Add Add.1 is read elsewhere": 1, "the result of Add Add.22 is read elsewhere": 2}
    text = terminal.plain(replace(full, passes=(("fold", 0, why),)))
    assert "fold      3  the result of Add ... is read elsewhere" in text


def test_unmapped_operators_are_confessed(full: Result) -> None:
    assert full.coverage is not None
    lost = replace(full.coverage.ops[1], kernel="unmapped")
    text = terminal.plain(replace(full, coverage=replace(full.coverage, ops=(lost,))))
    assert "were not found, which is a fault of onnxq: head" in text
    assert "fault of onnxq" not in terminal.plain(full)


def test_a_float_model_has_no_coverage_table(full: Result) -> None:
    assert full.model is not None
    only = Result(command="inspect", model=full.model)
    assert "Left in float" in terminal.plain(only)
    plain = terminal.plain(replace(only, model=replace(full.model, quantized=False)))
    assert "Left in float" not in plain
    assert "multiply-accumulates" in plain


def test_long_tables_of_heavy_operators_are_cut(full: Result) -> None:
    assert full.model is not None
    many = tuple(replace(full.model.coverage.ops[0], name=f"conv{i}", macs=i) for i in range(25))
    text = terminal.plain(
        Result(command="inspect", model=replace(full.model, coverage=replace(full.model.coverage, ops=many)))
    )
    assert "Heavy operators, 20 largest of 25" in text
    assert "conv24" in text
    assert "conv4 " not in text


def test_show_chooses_by_the_stream(full: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setenv("TERM", "xterm-256color")
    pipe, screen, grey = io.StringIO(), Tty(), Tty()
    terminal.show(full, pipe)
    terminal.show(full, screen)
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.show(full, grey)
    assert pipe.getvalue() == terminal.plain(full)
    assert "\x1b[1;31m" in screen.getvalue()
    assert "─" in grey.getvalue()
    assert "\x1b" not in grey.getvalue()
    assert max(map(len, grey.getvalue().splitlines())) <= 90


def test_passed_gate(full: Result) -> None:
    assert full.verdict is not None
    text = terminal.render(replace(full, verdict=GateVerdict(passed=True, checks=full.verdict.checks[:1])), width=100)
    assert "Gate: pass" in text
    assert "FAIL" not in text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999, "999"), (1000, "1.00 k"), (99_950, "100 k"), (5e6, "5.00 M"), (12e9, "12.0 G")]
)
def test_counts(value: float, text: str) -> None:
    assert count(value) == text


def test_units() -> None:
    assert (size(900), size(1_234_567)) == ("900 B", "1.23 MB")
    assert (decibels(None), decibels(float("inf")), decibels(20.04)) == ("-", "equal", "20.0 dB")


def test_larger_is_not_smaller(full: Result) -> None:
    assert full.sizes is not None
    grown = replace(full, sizes=Sizes(reference=100, candidate=250))
    assert "2.50 times larger" in terminal.plain(grown)
    assert "times larger" not in terminal.plain(full)


def test_a_pass_that_ran_twice_is_one_row(full: Result) -> None:
    twice = replace(full, passes=(("fold", 2, {"because": 3}), ("other", 1, {}), ("fold", 5, {"because": 3})))
    lines = [" ".join(line.split()) for line in terminal.plain(twice).splitlines()]
    assert lines.count("fold 7") == 1
    assert lines.count("fold 3 because") == 1


def test_many_operators_of_one_reason_are_cut(full: Result) -> None:
    assert full.coverage is not None
    names = ["Add", "Conv", "LSTM", "Pad", "Slice", "Sqrt"]
    ops = tuple(replace(full.coverage.ops[1], name=f"n{i}", op=op, reason="the same") for i, op in enumerate(names))
    text = terminal.plain(replace(full, coverage=replace(full.coverage, ops=ops)))
    assert "6 Add, Conv, LSTM, 3 more" in text
