"""Which ONNX Runtime this is."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import packages_distributions

from onnxq.runtime import session


@dataclass(frozen=True, kw_only=True)
class Build:
    """An installed ONNX Runtime.

    Attributes:
        package: the distribution that brought it (`onnxruntime`, `onnxruntime-gpu`, ...).
        version: of the library.
        info: what it says of its build.
        providers: execution providers that it was built with, the first ones first; onnxq runs on the CPU's.
    """

    package: str
    version: str
    info: str
    providers: tuple[str, ...]


def build() -> Build:
    """The one that is installed. Builds of several distributions overwrite each other: all of them are named."""
    found = sorted(set(packages_distributions().get("onnxruntime", [])))
    return Build(
        package=", ".join(found) or "unknown",
        version=session.VERSION,
        info=session.BUILD,
        providers=session.PROVIDERS,
    )
