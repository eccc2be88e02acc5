"""The page that describes every calibrator: `python -m onnxq_calibration.catalogue > calibration/README.md`."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from onnxq import registry

_HEAD = """# Calibrators

A calibrator turns what was seen of a tensor into the range that quantization keeps: `onnxq quantize --method NAME`.
One file per calibrator in `onnxq_calibration/`; each is a frozen dataclass whose fields are its settings. The names
below are registered in `pyproject.toml` under `onnxq.calibrators`. [Write a calibrator](writing.md) shows how to add
one.

All of them read the same statistics, collected in one run over the samples: the exact least and greatest value of each
tensor and, where named below, a histogram with bins of at most 0.8 % of their value. None is best on every model:
min-max keeps outliers and pays with coarse steps, the others cut some. Transformers keep meaning in few large values:
begin with min-max or mse there, and compare with the labelled metric.

This page is generated: `python -m onnxq_calibration.catalogue > calibration/README.md`.
"""


def catalogue() -> str:
    """Markdown: one section per calibrator of this package, by name, with its rule, settings and observers."""
    parts = [_HEAD]
    for name in registry.names(registry.CALIBRATORS):
        calibrator = registry.load(registry.CALIBRATORS, name)
        if calibrator.__module__.startswith("onnxq_calibration."):
            parts.append(_section(name, calibrator))
    return "\n".join(parts)


def _section(name: str, calibrator: type[Any]) -> str:
    rule, _, attributes = inspect.cleandoc(calibrator.__doc__ or "").partition("\n\nAttributes:\n")
    fields = {f.name: f.default for f in dataclasses.fields(calibrator)}
    settings = [f"- `{n}={fields[n]!r}`: {text}" for n, text in _described(attributes)] or ["No settings."]
    observers = ", ".join(calibrator.observers)
    return "\n".join([f"## {name}", "", rule, "", *settings, "", f"Reads: {observers}.", ""])


def _described(attributes: str) -> list[tuple[str, str]]:
    """(name, sentence) of each line of an Attributes section; deeper lines continue the one above."""
    found: list[tuple[str, str]] = []
    for line in inspect.cleandoc(attributes).splitlines():
        name, colon, text = line.partition(": ")
        if line.startswith(" ") or not colon:
            found[-1] = found[-1][0], f"{found[-1][1]} {line.strip()}"
        else:
            found.append((name, text))
    return found


if __name__ == "__main__":
    print(catalogue(), end="")
