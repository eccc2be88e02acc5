"""Python as a source: what may be yielded, read again and again, and every refusal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxq import registry
from onnxq.data import open_dataset
from onnxq.data.functions import FunctionDataset
from onnxq.errors import DataError, ModelError, UsageError

ROW = np.ones((1, 2), np.float32)


def made(source: Any, *specs: Any, **options: Any) -> FunctionDataset:
    return FunctionDataset(source, "f", specs, **options)


def test_a_file_beside_the_job(tmp_path: Path, spec: Any) -> None:
    (tmp_path / "source.py").write_text(
        textwrap.dedent("""
        import numpy as np
        def samples():
            for i in range(3):
                yield {"x": np.full((1, 2), i, np.float32)}, i * 10
        """)
    )
    dataset = open_dataset("source.py:samples", [spec("N", 2)], base=tmp_path)
    for _ in range(2):
        assert [(s.index, s.name, s.label, s.inputs["x"].tolist()) for s in dataset] == [
            (i, f"source.py:samples[{i}]", i * 10, [[i, i]]) for i in range(3)
        ]
    assert dataset.labelled
    assert len(dataset) == 3
    assert dataset.description == "3 samples of source.py:samples"
    assert dataset.preprocess_summary == "as the function gives it"
    assert dataset.skipped == []
    absolute = open_dataset(f"{tmp_path}/source.py:samples", [spec("N", 2)], limit=2)
    assert [s.label for s in absolute] == [0, 10]
    assert len(absolute) == 2


def test_a_registered_name(spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "names", lambda group: ["corpus"] if group == registry.DATA else [])
    monkeypatch.setattr(registry, "load", lambda group, name: lambda: [ROW])
    assert len(list(open_dataset("corpus", [spec("N", 2)]))) == 1
    with pytest.raises(DataError, match=r'^there is no data at corpsu: did you mean "corpus"\?$'):
        open_dataset("corpsu", [spec("N", 2)])


class Numbered:
    """As a map-style data set of PyTorch: no iterator, and an index past the end is an error of its own."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, number: int) -> Any:
        if number >= 10:
            raise KeyError(number)
        return ROW * number, number


@pytest.mark.parametrize("source", [Numbered(), Numbered, lambda: list(map(Numbered().__getitem__, range(10)))])
def test_of_what_is_numbered_a_limit_spreads(source: Any, spec: Any) -> None:
    """Data are often sorted by class or recording; of a stream only the first ones are sure to exist."""
    few = made(source, spec("N", 2), limit=4)
    assert [(s.index, s.name, s.label) for s in few] == [(at, f"f[{at}]", at) for at in (0, 2, 5, 7)]
    assert len(few) == 4 and few.description == "4 samples of f"
    whole = made(source, spec("N", 2))
    assert [s.label for s in whole] == list(range(10)) and len(whole) == 10
    assert few.digest() == made(source, limit=4).digest() != whole.digest()
    assert [s.label for s in made(lambda: iter(Numbered()[at] for at in range(10)), spec("N", 2), limit=4)] == [
        0,
        1,
        2,
        3,
    ]


def test_every_form_of_an_element(spec: Any) -> None:
    one, two = spec("N", 2), spec("N", name="y", dtype="int64")
    assert [s.inputs["x"].shape for s in made(lambda: [ROW, {"x": ROW}, [[1.0, 2.0]]], one)] == [(1, 2)] * 3
    assert [s.label for s in made(lambda: [(ROW, "a"), ({"x": ROW}, "b")], one)] == ["a", "b"]
    (both,) = made(lambda: [{"y": np.array([1]), "x": ROW}], one, two)
    assert list(both.inputs) == ["x", "y"]
    assert not made(lambda: [(ROW, None)], one).labelled


def test_a_length_is_taken_or_counted_once(spec: Any) -> None:
    calls = []

    def function() -> Iterator[Any]:
        calls.append(1)
        yield from [ROW] * 4

    dataset = made(function, spec("N", 2))
    assert (len(dataset), len(dataset), len(calls)) == (4, 4, 1)
    assert len(made(lambda: [ROW] * 4, spec("N", 2), limit=3)) == 3
    counted = made(function, spec("N", 2), limit=3)
    assert len(list(counted)) == 3
    calls.clear()
    assert (len(counted), calls) == (3, [])


def test_a_reiterable_object_itself(spec: Any) -> None:
    dataset = made([ROW, ROW], spec("N", 2))
    assert len(list(dataset)) == len(list(dataset)) == len(dataset) == 2


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (iter([ROW]), "f is an iterator, which can be read only once: name the function that makes it"),
        ((r for r in [ROW]), "f is an iterator, which can be read only once: name the function that makes it"),
        (7, "f is of type int: name a function that yields samples"),
    ],
)
def test_sources_refused(spec: Any, refuses: Any, source: Any, sentence: str) -> None:
    with refuses(sentence):
        made(source, spec("N", 2))


def _broken() -> Iterator[Any]:
    yield ROW
    raise KeyError("k")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (lambda: 7, "f returns something of type int: it must yield samples"),
        (list, "f yields no sample: it must yield at least one"),
        (lambda: 1 // 0, "f failed with ZeroDivisionError (integer division or modulo by zero): mend the function"),
        (_broken, "f failed with KeyError ('k'): mend the function"),
        (lambda: [(ROW, 1), ROW], "sample 1 of f has no label, unlike the first one: label all samples or none"),
        (lambda: [ROW, (ROW, 1)], "sample 1 of f has a label, unlike the first one: label all samples or none"),
        (lambda: [{"y": ROW}], 'sample 0 of f holds "y", which is no input of the model: known are x'),
        (lambda: [{}], 'sample 0 of f lacks the input "x": none is known here'),
        (
            lambda: [ROW[0]],
            'sample 0 of f has shape [2], but input "x" takes [N, 2]: give samples of that shape',
        ),
        (
            lambda: [[[1, 2], [3]]],
            "sample 0 of f holds a list that is no array (setting an array element with a sequence.",
        ),
    ],
)
def test_elements_refused(spec: Any, source: Any, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        list(made(source, spec("N", 2)))
    assert str(caught.value).startswith(sentence)


class _NoArray:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise RuntimeError("on the moon")


def test_strings_and_things_that_are_no_arrays(spec: Any, refuses: Any) -> None:
    with refuses("sample 0 of f holds a _NoArray that is no array (on the moon): yield arrays"):
        list(made(lambda: [_NoArray()], spec("N", 2)))
    (sample,) = made(lambda: [np.array(["a", "b"])], spec("N", dtype="object"))
    assert sample.inputs["x"].tolist() == ["a", "b"]
    with refuses('sample 0 of f has type float32, but input "x" takes string: give an array of strings'):
        list(made(lambda: [ROW], spec("N", 2, dtype="object")))


def test_two_inputs_need_a_dict(spec: Any, refuses: Any) -> None:
    with refuses("sample 0 of f is of type ndarray, but the model has 2 inputs (x, y): yield a dict of arrays by name"):
        list(made(lambda: [ROW], spec("N", 2), spec("N", name="y")))


def test_errors_of_the_tree_pass_through(spec: Any) -> None:
    def early() -> Any:
        raise ModelError("early")

    def late() -> Iterator[Any]:
        raise ModelError("late")
        yield

    for source in (early, late):
        with pytest.raises(ModelError, match=f"^{source.__name__}$"):
            list(made(source, spec("N", 2)))


def test_references_refused(tmp_path: Path, spec: Any, refuses: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_source.py").write_text("1 // 0")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "fine.py").write_text("def samples(): return []")
    x = spec("N", 2)
    with refuses(
        "data broken_source:f cannot be loaded, ZeroDivisionError (integer division or modulo by zero): "
        "mend the module",
        DataError,
    ):
        open_dataset("broken_source:f", [x], base=tmp_path)
    with refuses(f'data "gone.py:f": there is no file {tmp_path}/gone.py', UsageError):
        open_dataset("gone.py:f", [x], base=tmp_path)
    with pytest.raises(UsageError, match=r'fine\.py has no "sampels", did you mean "samples"'):
        open_dataset("fine.py:sampels", [x], base=tmp_path)
    with refuses("limit must be at least 1, not 0", UsageError):
        open_dataset("fine.py:samples", [x], base=tmp_path, limit=0)
