"""The tree of errors: every leaf has its exit code, every sentence helper says what it should."""

from __future__ import annotations

import inspect

import pytest

from onnxq import errors
from onnxq.errors import OnnxqError, did_you_mean

EXIT_CODES = {
    "UsageError": 2,
    "UnknownNameError": 2,
    "ConfigError": 2,
    "ModelError": 2,
    "DataError": 2,
    "CalibrationError": 2,
    "PassError": 2,
    "MetricError": 2,
    "OutputError": 2,
    "VerdictError": 1,
}


def leaves() -> dict[str, type[OnnxqError]]:
    found = inspect.getmembers(
        errors, lambda o: inspect.isclass(o) and issubclass(o, OnnxqError) and o is not OnnxqError
    )
    return dict(found)


def test_every_leaf_has_an_exit_code() -> None:
    assert {name: cls.exit_code for name, cls in leaves().items()} == EXIT_CODES


@pytest.mark.parametrize("name", sorted(EXIT_CODES))
def test_leaves_are_documented_and_carry_their_sentence(name: str) -> None:
    cls = leaves()[name]
    assert cls.__doc__
    assert str(cls("what, where, what to do")) == "what, where, what to do"
    assert all(finer.exit_code == cls.exit_code for finer in cls.__subclasses__())


def test_the_nearest_name_is_proposed() -> None:
    assert did_you_mean("entorpy", ["minmax", "entropy"]) == 'did you mean "entropy"?'


def test_far_names_get_the_sorted_list() -> None:
    assert did_you_mean("zzz", ["minmax", "entropy"]) == "known are entropy, minmax"


def test_nothing_known() -> None:
    assert did_you_mean("zzz", []) == "none is known here"
