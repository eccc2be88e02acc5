"""What a plugin author runs on a pass or a calibrator, and what we run on ours.

    from onnxq.testing import assert_rewrite, check_pass

    def test_double_transpose() -> None:
        assert_rewrite(MergeTransposes(), before=BEFORE, after=AFTER, rewrites=1, atol=0)

A tolerance has no default: 0 means bit for bit. Every check raises AssertionError with what was expected and what came.
"""

from __future__ import annotations

import dataclasses
import difflib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.sample import InputSpec
from onnxq.encoding import Scheme
from onnxq.ir import hash as ir_hash
from onnxq.ir import save, text
from onnxq.ir.model import Model
from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq.runtime.session import Level, Session
from onnxq.stats.observers import observer_class
from onnxq.stats.statistics import TensorStatistics
from onnxq.targets.target import load_target

_HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
SAMPLES: Mapping[str, str] = {
    "one node": _HEAD + "(float[2,3] x) => (float[2,3] y) { y = Relu(x) }",
    "input to output": _HEAD + "(float[2] x) => (float[2] y) { y = Identity(x) }",
    "diamond": _HEAD
    + """(float[2,2] x) => (float[2,2] y, float[2,2] z) {
        [first] a = Relu(x) [left] b = Sigmoid(a) [right] z = Tanh(a) [join] y = Add(b, z) }""",
    "convolution": _HEAD
    + """(float[1,1,4,4] x) => (float[1,2,2,2] y)
        <float[2,1,3,3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, -1, -2, -3, -4, -5, -6, -7, -8, -9}, float[2] b = {0.5, -0.5}> {
        [conv] c = Conv(x, w, b) [relu] y = Relu(c) }""",
    "branches": _HEAD
    + """(bool c, float[2] x) => (float[2] y) {
        [if] y = If(c) <then_branch = then () => (float[2] t) { [then] t = Relu(x) },
                        else_branch = otherwise () => (float[2] e) { [else] e = Neg(x) }> }""",
    "unnamed and dead": _HEAD
    + """(float[n, 3] x) => (float[n, 3] y) {
        dead = Exp(x) a = Relu(x) y = Relu(a) }""",
}
"""Small graphs on which `check_pass` runs a pass with its default settings."""


def default_context() -> Context:
    """A context with the `cpu` target and nothing else."""
    return Context(target=load_target("cpu"))


def assert_rewrite(
    pass_: Pass,
    before: str,
    after: str,
    *,
    rewrites: int,
    refused: Sequence[str] = (),
    atol: float,
    context: Context | None = None,
    inputs: Mapping[str, NDArray[Any]] | None = None,
) -> Report:
    """Run a pass on `before` and compare with `after`, as text and in ONNX Runtime.

    Args:
        pass_: the pass, with its settings.
        before, after: models in `onnx.parser` syntax; both are brought into canonical text.
        rewrites: what the pass must count.
        refused: for each refusal, in any order, a part of its reason.
        atol: greatest absolute difference between the outputs of both models in ORT without optimizations; 0 means
            bit for bit.
        context: default: the `cpu` target.
        inputs: default: seeded normal numbers (bool and integer inputs: 0 and 1); symbolic dimensions are 2.

    Returns:
        the report of the pass, for further assertions (names, notes).
    """
    context = context or default_context()
    model, original, wanted = text.parse(before), text.parse(before), text.parse(after)
    expected = text.text(wanted.graph)
    hash_before = ir_hash.structural(model.graph)
    report = pass_.run(model.graph, context)
    got = text.text(model.graph)
    _same_text(expected, got, "the rewritten graph is not the expected one")
    assert report.rewrites == rewrites, f"expected {rewrites} rewrites, the pass reports {report.rewrites}"
    changed = ir_hash.structural(model.graph) != hash_before
    assert changed == (rewrites > 0), (
        f"the pass claims {rewrites} rewrites, but the graph {'changed' if changed else 'did not change'}"
    )
    _same_reasons(refused, report)
    _same_results(original, model, atol, inputs)
    again = pass_.run(model.graph, context)
    assert again.rewrites == 0, f"a second run makes {again.rewrites} more rewrites"
    _same_text(got, text.text(model.graph), "a second run changes the graph")
    return report


def check_pass(pass_class: type[Pass]) -> None:
    """Does a class keep the contract of passes?

    Form and stages; on `SAMPLES`: honest counts, idempotence, determinism, names of inputs and outputs, and meaning.
    """
    name = pass_class.__name__
    _check_form(pass_class)
    assert issubclass(pass_class, Pass), f"{name} must derive from onnxq.pipeline.base.Pass"
    _check_documented(pass_class)
    for field in ("takes", "gives"):
        assert isinstance(getattr(pass_class, field), Stage), f"{name}.{field} must be a Stage"
    assert isinstance(pass_class.needs, frozenset), f"{name}.needs must be a frozenset of names"
    pass_ = _default(pass_class)
    assert isinstance(pass_, Pass)
    if pass_.takes is not Stage.FLOAT or pass_.needs:
        return  # the built-in samples are float graphs without a plan
    for title, source in SAMPLES.items():
        where = f'{name} on the sample "{title}"'
        original, model, twin = text.parse(source), text.parse(source), text.parse(source)
        report = pass_.run(model.graph, default_context())
        assert isinstance(report, Report), f"{where}: run returned {type(report).__name__}, not a Report"
        got, start = text.text(model.graph), text.text(original.graph)
        assert (got != start) == (report.rewrites > 0), (
            f"{where}: {report.rewrites} rewrites are claimed, the text says otherwise"
        )
        pass_.run(twin.graph, default_context())
        _same_text(got, text.text(twin.graph), f"{where}: two runs on equal graphs differ")
        assert pass_.run(model.graph, default_context()).rewrites == 0, f"{where}: a second run makes more rewrites"
        _same_text(got, text.text(model.graph), f"{where}: a second run changes the graph")
        for kind in ("inputs", "outputs"):
            old = [(t.name, np.dtype(t.dtype)) for t in getattr(original.graph, kind)]
            new = [(t.name, np.dtype(t.dtype)) for t in getattr(model.graph, kind)]
            assert old == new, f"{where}: the {kind} of the graph were {old} and are {new}"
        _same_results(original, model, 1e-5, None)


def check_calibrator(calibrator_class: type[Any]) -> None:
    """Does a class keep the contract of calibrators?

    Form, and ranges that are finite, ordered, inside [min, max] (0 included) and deterministic.
    """
    name = calibrator_class.__name__
    _check_form(calibrator_class)
    _check_documented(calibrator_class)
    observers = getattr(calibrator_class, "observers", None)
    assert isinstance(observers, tuple) and observers, f"{name}.observers must name at least one observer"
    assert all(isinstance(o, str) for o in observers), f"{name}.observers must be names of observers"
    calibrator = _default(calibrator_class)
    random = np.random.default_rng(0)
    tensors: dict[str, NDArray[np.float32]] = {
        "normal": random.standard_normal(4096).astype(np.float32),
        "heavy tails": (random.standard_normal(4096) ** 5).astype(np.float32),
        "positive": np.abs(random.standard_normal(4096)).astype(np.float32) + np.float32(1),
        "negative": -np.abs(random.standard_normal(4096)).astype(np.float32) - np.float32(1),
        "constant": np.full(100, 3.25, np.float32),
        "negative constant": np.full(100, -3.25, np.float32),
        "zero": np.zeros(100, np.float32),
        "one element": np.array([0.1], np.float32),
        "tiny": (random.standard_normal(4096) * 1e-30).astype(np.float32),
        "huge": (random.standard_normal(4096) * 1e30).astype(np.float32),
    }
    for scheme in (Scheme(type="uint8", symmetric=False), Scheme(type="int8", symmetric=True)):
        for title, values in tensors.items():
            where = f'{name}, {scheme.type}, tensor "{title}"'
            pair = []
            for _ in range(2):
                made = {o: observer_class(o)() for o in sorted({*observers, "minmax"})}
                for observer in made.values():
                    observer.update(values)
                pair.append(calibrator.range(TensorStatistics(name="t", observers=made), scheme))
            low, high = (float(v) for v in pair[0])
            assert np.isfinite([low, high]).all(), f"{where}: the range [{low}, {high}] is not finite"
            assert low <= high, f"{where}: the range [{low}, {high}] is upside down"
            least, most = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
            if scheme.symmetric:
                most = max(most, -least)
                least = -most
            slack = 1e-6 * max(abs(least), abs(most))
            assert least - slack <= low and high <= most + slack, (
                f"{where}: [{low}, {high}] leaves the observed [{least}, {most}]"
            )
            assert pair[0] == pair[1], f"{where}: two runs give {pair[0]} and {pair[1]}"


def random_inputs(
    specs: Sequence[InputSpec], given: Mapping[str, NDArray[Any]] | None = None
) -> dict[str, NDArray[Any]]:
    """Seeded inputs: normal for floats, 0 and 1 for integers and bools; symbolic dimensions are 2."""
    random = np.random.default_rng(0)
    inputs: dict[str, NDArray[Any]] = {}
    for spec in specs:
        shape = tuple(d if isinstance(d, int) else 2 for d in spec.shape)
        if given is not None and spec.name in given:
            inputs[spec.name] = given[spec.name]
        elif spec.dtype.kind == "f":
            inputs[spec.name] = random.standard_normal(shape).astype(spec.dtype)
        else:
            inputs[spec.name] = random.integers(0, 2, shape).astype(spec.dtype)
    return inputs


def _check_form(cls: type[Any]) -> None:
    parameters = getattr(cls, "__dataclass_params__", None)
    assert dataclasses.is_dataclass(cls) and parameters is not None, f"{cls.__name__} must be a dataclass"
    assert parameters.frozen, f"{cls.__name__} must be frozen: @dataclass(frozen=True, kw_only=True)"
    loose = [f.name for f in dataclasses.fields(cls) if f.init and not f.kw_only]
    assert not loose, (
        f"{cls.__name__} must be keyword-only: @dataclass(frozen=True, kw_only=True); {loose} are positional"
    )


def _check_documented(cls: type[Any]) -> None:
    words = (cls.__doc__ or "").strip()
    written = words and not words.startswith(f"{cls.__name__}(")  # what @dataclass puts where nothing is
    assert written, f"{cls.__name__} needs a docstring whose first line says what it does"


def _default(cls: type[Any]) -> Any:
    try:
        return cls()
    except TypeError as error:
        raise AssertionError(f"every setting of {cls.__name__} needs a default: {error}") from error


def _same_text(expected: str, got: str, what: str) -> None:
    if expected != got:
        lines = difflib.unified_diff(expected.splitlines(), got.splitlines(), "expected", "got", lineterm="", n=100)
        raise AssertionError(what + ":\n" + "\n".join(lines))


def _same_reasons(expected: Sequence[str], report: Report) -> None:
    left = [r.reason for r in report.refusals]
    for part in expected:
        match = next((reason for reason in left if part in reason), None)
        assert match is not None, f'no refusal says "{part}"; left are {left}'
        left.remove(match)
    assert not left, f"these refusals were not expected: {left}"


def _same_results(original: Model, rewritten: Model, atol: float, given: Mapping[str, NDArray[Any]] | None) -> None:
    first, second = (Session(save.to_bytes(m), level=Level.OFF, threads=1) for m in (original, rewritten))
    with tempfile.TemporaryDirectory(prefix="onnxq-") as folder:
        save.save(rewritten, Path(folder) / "model.onnx")  # runs onnx.checker
    assert first.inputs == second.inputs, f"inputs were {first.inputs} and are {second.inputs}"
    assert first.outputs == second.outputs, f"outputs were {first.outputs} and are {second.outputs}"
    inputs = random_inputs(first.inputs, given)
    old, new = first.run(inputs), second.run(inputs)
    for name, value in old.items():
        assert value.dtype == new[name].dtype, f"output {name} was {value.dtype} and is {new[name].dtype}"
        assert value.shape == new[name].shape, f"output {name} had shape {value.shape} and has {new[name].shape}"
        if atol == 0 or value.dtype.kind not in "f":
            same = (
                value.tolist() == new[name].tolist()
                if value.dtype.kind == "O"
                else value.tobytes() == new[name].tobytes()
            )
            assert same, f"output {name} is not the same bit for bit: {value} and {new[name]}"
        else:
            np.testing.assert_allclose(new[name], value, rtol=0, atol=atol, err_msg=f"output {name}")
