"""The generated catalogue is up to date, and what "Write a calibrator" says works."""

from __future__ import annotations

import dataclasses
import re
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxq import registry
from onnxq.encoding import Scheme
from onnxq.stats import Calibrator, TensorStatistics, make_observer
from onnxq_calibration.catalogue import catalogue

FOLDER = Path(__file__).parents[2] / "calibration"
PAGE = (FOLDER / "writing.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def page() -> Iterator[dict[str, Any]]:
    """The names that the page's Python defines, run as one module."""
    module = types.ModuleType("page")
    sys.modules["page"] = module  # where the dataclass decorator looks annotations up
    try:
        exec(compile("\n".join(blocks("python")), "writing.md", "exec"), module.__dict__)
        yield module.__dict__
    finally:
        del sys.modules["page"]


def test_the_catalogue_is_up_to_date() -> None:
    assert (FOLDER / "README.md").read_text() == catalogue()


def test_the_catalogue_names_every_calibrator_and_setting() -> None:
    text = catalogue()
    for name in ("entropy", "minmax", "mse", "percentile"):
        assert f"## {name}\n" in text
        for setting in dataclasses.fields(registry.load(registry.CALIBRATORS, name)):
            assert f"- `{setting.name}={setting.default!r}`: " in text
    assert "](writing.md)" in text


def test_the_test_of_the_page_passes(page: dict[str, Any]) -> None:
    page["test_contract"]()


def test_the_calibrator_of_the_page_does_what_it_says(page: dict[str, Any]) -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, 50_000).astype(np.float32)
    made = {o: make_observer(o) for o in page["Sigma"].observers}
    for observer in made.values():
        observer.update(values)
    calibrator: Calibrator = page["Sigma"](sigmas=2.0)
    low, high = calibrator.range(TensorStatistics("t", made), Scheme(type="uint8", symmetric=False))
    assert (low, high) == pytest.approx((-3.0, 5.0), abs=0.1)


def test_the_entry_point_of_the_page_names_the_class(page: dict[str, Any]) -> None:
    (source,) = blocks("toml")
    ((name, target),) = tomllib.loads(source)["project"]["entry-points"][registry.CALIBRATORS].items()
    assert target.endswith(f":{page['Sigma'].__name__}")
    assert f"--method {name}" in PAGE
