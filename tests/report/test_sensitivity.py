"""Sensitivities as tables, as a plot with its words, and as a page."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from onnxq.report.sensitivity import PLOTTED, _short, alternative, page, sections, svg
from onnxq.sensitivity.result import Effect, OutputNoise, Sensitivity, TensorSensitivity, UnitSensitivity


def _effect(noise: float, drop: float | None = None, *, floating: bool = True) -> Effect:
    one = OutputNoise(
        name="y", floating=floating, signal=1.0, noise=noise, elements=1000, equal=1000 - round(1000 * noise), lost=0
    )
    return Effect(outputs=(one,), noise=noise, score=None if drop is None else 0.5 - drop, drop=drop)


def _found(count: int = 3, *, scored: bool = False, rest: bool = False, floating: bool = True) -> Sensitivity:
    drop = 0.125 if scored else None
    total = sum(range(1, count + 1))
    tensors = tuple(
        TensorSensitivity(
            tensor=f"t{i}",
            kind="weight" if i % 2 else "activation",
            type="int8",
            node=f"n{i}",
            op="Conv" if i else "",
            units=("n0",),
            follows=(),
            alone=_effect((i + 1) / 1000, drop, floating=floating),
            rest=_effect(0.01) if rest else None,
            share=(i + 1) / total,
        )
        for i in range(count)
    )
    unit = UnitSensitivity(node="n0", op="Conv", tensors=("t0",), summed=0.001, owned=0.001)
    return Sensitivity(
        model_hash="m",
        plan_hash="p",
        samples=16,
        data="256 samples of calib.npz",
        tensors=tensors,
        units=(unit,) if count else (),
        total=_effect(0.01, drop, floating=floating),
        eval_samples=64,
        eval_data="2000 samples of eval.npz",
        metric="top1" if scored else "",
        score=0.5 if scored else None,
        notes=("Mind <this>.",),
    )


def _table(found: Sensitivity, title: str, top: int = 20) -> Any:
    return next(s for s in sections(found, top) if s.title.startswith(title))


def test_the_loudest_stand_first_and_the_rest_is_counted() -> None:
    table = _table(_found(5), "Tensors", top=2)
    assert table.title == "Tensors, the loudest 2 of 5"
    assert table.columns == ("tensor", "kind", "op", "share", "alone")
    assert table.rows == (
        ("t4", "activation", "Conv", "33.3 %", "23.0 dB"),
        ("t3", "weight", "Conv", "26.7 %", "24.0 dB"),
    )
    whole = _table(_found(5), "Tensors")
    assert whole.title == "Tensors, the loudest first" and len(whole.rows) == 5
    assert whole.rows[-1][2] == "input"


def test_columns_come_with_what_was_measured() -> None:
    scored = _table(_found(scored=True, rest=True), "Tensors")
    assert scored.columns[-2:] == ("drop", "without it") and scored.rows[0][-2:] == ("+0.125", "20.0 dB")
    assert "drop" not in _table(_found(rest=True), "Tensors").columns


def test_the_overview_says_how_well_noises_add_up() -> None:
    rows = dict(_table(_found(), "Output error").rows)
    assert rows["noise measured on"] == "16 of 256 samples of calib.npz"
    assert rows["all tensors rounded"] == "20.0 dB" and rows["sum of single tensors"] == "22.2 dB"
    assert "top1 in float" not in rows
    assert dict(_table(_found(scored=True), "Output error").rows)["top1, all rounded"] == "0.375"


def test_without_float_outputs_shares_of_elements_are_shown() -> None:
    assert _table(_found(floating=False), "Tensors").rows[0][4] == "0.3 % differ"
    assert dict(_table(_found(floating=False), "Output error").rows)["all tensors rounded"] == "1.0 % differ"


def test_several_outputs_are_told_apart() -> None:
    found = _found()
    other = OutputNoise(name="best", floating=False, signal=0, noise=0, elements=4, equal=3, lost=0)
    both = dataclasses.replace(found, total=dataclasses.replace(found.total, outputs=(*found.total.outputs, other)))
    rows = dict(_table(both, "Output error").rows)
    assert (rows["output y"], rows["output best"]) == ("20.0 dB", "75.0 % equal")
    assert "output y" not in dict(_table(found, "Output error").rows)


def test_a_tensor_that_follows_others_says_so() -> None:
    found = _found()
    first = dataclasses.replace(found.tensors[2], follows=("t1",), share=0.0)
    table = _table(dataclasses.replace(found, tensors=(*found.tensors[:2], first)), "Tensors")
    assert [row[3] for row in table.rows] == ["as before", "33.3 %", "16.7 %"]


def test_nothing_quantized() -> None:
    assert [s.title for s in sections(_found(0), 5)] == ["Output error by tensor", "Notes"]
    assert alternative(_found(0)) == "No tensor adds noise: there are no bars."


def test_the_words_of_the_plot() -> None:
    told = alternative(_found(50))
    assert f"each of {PLOTTED} of 50 quantized tensors" in told
    assert "Largest: t49 (weight) 3.9 %, t48 (activation) 3.8 %" in told
    assert told.endswith("Together they make 95.7 % of the sum.")


def test_the_svg_stands_alone_and_tells_its_figures() -> None:
    found = _found(3)
    text = svg(found)
    root = ET.fromstring(text)
    assert root.attrib["role"] == "img" and root.attrib["aria-label"] == alternative(found)
    space = "{http://www.w3.org/2000/svg}"
    assert root.findtext(f"{space}title") == "Output error by tensor"
    assert root.findtext(f"{space}desc") == alternative(found)
    labels = [e.attrib["aria-label"] for e in root.iter() if "dB alone" in e.attrib.get("aria-label", "")]
    assert labels[0] == "t2 (activation): 50.0 %, 25.2 dB alone" and len(labels) == 3
    assert "prefers-color-scheme: dark" in text and svg(found) == text


def test_the_page_has_the_plot_and_every_tensor() -> None:
    text = page(_found(50, scored=True))
    assert text.count("<svg") == 1 and "Mind &lt;this&gt;." in text
    assert all(f">t{i}</td>" in text for i in range(50))
    assert "+0.125" in text and "+0.125" not in page(_found(50))


def test_long_names_keep_their_ends_and_differ() -> None:
    long = "/model/encoder/layers.0/self_attention/projection/MatMul_output_0"
    assert _short(["short", long]) == ["short", f"…{long[-43:]}"]
    assert len(set(_short([long, f"other{long}", long + "x"]))) == 3


@pytest.mark.parametrize(("share", "told"), [(0.0, "0.0 %"), (0.00001, "< 0.1 %"), (0.5, "50.0 %")])
def test_small_shares_are_not_zero(share: float, told: str) -> None:
    found = _found(1)
    one = dataclasses.replace(found.tensors[0], share=share)
    assert _table(dataclasses.replace(found, tensors=(one,)), "Tensors").rows[0][3] == told


def test_what_was_not_measured_is_said_in_table_plot_and_page() -> None:
    found = _found(3)
    t0, *others = found.tensors
    guessed = dataclasses.replace(t0, alone=None, estimate=0.001)
    found = dataclasses.replace(found, tensors=(guessed, *others), seconds=60.0)
    assert [row[3:] for row in _table(found, "Tensors").rows] == [
        ("50.0 %", "25.2 dB"),
        ("33.3 %", "27.0 dB"),
        ("about 16.7 %", "about 30.0 dB"),
    ]
    assert _table(found, "Ops").rows[0][2] == "about 30.0 dB"
    assert ("single tensors measured", "2 of 3") in sections(found, 20)[0].rows
    assert alternative(found).endswith("1 of 3 tensors were not measured and have no bar.")
    assert "of 2 of 3 quantized tensors" in alternative(found)
    drawn = ET.fromstring(svg(found))
    assert "1 of 3 tensors were not measured and have no bar." in [
        e.text for e in drawn.iter("{http://www.w3.org/2000/svg}text")
    ]
    assert "about 16.7 %" in page(found)
    assert "not measured" not in svg(_found(3)) and "about" not in str(_table(_found(3), "Tensors").rows)
