"""One tree of errors: every failure a user can cause is a leaf here, a sentence (what, where, what to do) and an exit
code.

Exit codes of the command line: 0 done, 1 the verdict is no (gate, `--strict`), 2 bad usage or bad input, 3 the gate
cannot tell.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class OnnxqError(Exception):
    """Root of the tree. `str(error)` is one sentence for the user."""

    exit_code: ClassVar[int] = 2


class UsageError(OnnxqError):
    """An option or a combination of options that makes no sense."""


class UnknownNameError(OnnxqError):
    """A name (pass, method, target, metric, key) that nobody registered."""


class ConfigError(OnnxqError):
    """A YAML file that does not follow its schema; lists every fault as `file:line:column: sentence`."""


class ModelError(OnnxqError):
    """A model that cannot be read, is invalid, or that ONNX Runtime refuses."""


class DataError(OnnxqError):
    """A data folder or sample that does not fit the model."""


class CalibrationError(OnnxqError):
    """Statistics that cannot be collected or turned into ranges (NaN, Inf, stale hash)."""


class PassError(OnnxqError):
    """A pass that failed or broke its promise; says which pass, after which others."""


class MetricError(OnnxqError):
    """A metric that raised; says for which sample."""


class OutputError(OnnxqError):
    """A file that cannot be written."""


class VerdictError(OnnxqError):
    """The work was done and the answer is no: `--strict` or a gate."""

    exit_code: ClassVar[int] = 1


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The tail of a sentence about an unknown name: the nearest known one, or the list of all.

    >>> did_you_mean("entorpy", ["minmax", "entropy"])
    'did you mean "entropy"?'
    >>> did_you_mean("zzz", ["minmax", "entropy"])
    'known are entropy, minmax'
    """
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}"?'
    return "known are " + ", ".join(choices) if choices else "none is known here"
