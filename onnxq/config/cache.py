"""The cache of this machine, as a job asks for it."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from onnxq.pipeline.calibration import CalibrationSection
from onnxq.stats.cache import Cache, default_folder
from onnxq.stats.engine import Resources
from onnxq.stats.parallel import Pool
from onnxq.targets.hardware import detect

_PACKAGES = ("onnxq", "onnxruntime", "onnx", "numpy", "pillow", "tokenizers")
"""What statistics may depend on besides our own source."""


def environment() -> str:
    """Versions and instruction set: statistics are the same to the bit only where these are."""
    cpu = detect()
    found = [f"{package} {_version(package)}" for package in _PACKAGES]
    return " ".join([platform.system(), cpu.name, *sorted(cpu.features), *found])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # not installed, or under another name
        return "none"


def open_cache(calibration: CalibrationSection) -> Cache | None:
    """The cache, unless the job does without."""
    return None if calibration.cache is False else Cache(default_folder(), environment=environment())


def resources(calibration: CalibrationSection) -> Resources:
    """The cache and the workers that the job asks for; one worker is this process."""
    several = calibration.cluster is not None or (calibration.workers or 1) > 1
    pool = Pool(workers=calibration.workers or 1, cluster=calibration.cluster) if several else None
    return Resources(cache=open_cache(calibration), pool=pool)
