"""Does an array fit an input of the model? One place for the rule and for the sentence that says no."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.sample import InputSpec
from onnxq.errors import DataError, did_you_mean

Shape = tuple[int | str | None, ...]


def show(shape: Sequence[int | str | None]) -> str:
    """A shape for a sentence: `[N, 3, 224, ?]`."""
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"


def shape_fits(shape: Sequence[int], wanted: Shape) -> bool:
    """Same rank, and equal where `wanted` is an int. () takes every shape: ORT says () for "rank unknown", too."""
    if not wanted:
        return True
    return len(shape) == len(wanted) and all(
        not isinstance(w, int) or w == s for s, w in zip(shape, wanted, strict=True)
    )


def wanted_text(spec: InputSpec) -> str:
    """What an input takes, for a sentence: `float32 [N, 3, 224, 224]`."""
    return f"{_type_name(spec.dtype)} {show(spec.shape)}"


def fit(array: NDArray[Any], spec: InputSpec, where: str) -> NDArray[Any]:
    """The array in the input's type, C-contiguous, if its shape fits.

    Raises:
        DataError: shape or type do not fit; says which they are and which are wanted.
    """
    if not shape_fits(array.shape, spec.shape):
        raise DataError(
            f'{where} has shape {show(array.shape)}, but input "{spec.name}" takes {show(spec.shape)}: '
            f"give samples of that shape"
        )
    return cast(array, spec, where)


def cast(array: NDArray[Any], spec: InputSpec, where: str) -> NDArray[Any]:
    """The array in the input's type: float to float and integer to integer if every value survives, else an error.

    (`ascontiguousarray` would turn a scalar into rank 1, hence `asarray`.)

    Raises:
        DataError: another kind of type, or a value outside the type's range.
    """
    want = spec.dtype
    refusal = check_types(array.dtype, spec, where)
    if refusal is not None:
        raise refusal
    if want.kind == "O" or (array.dtype == want and array.dtype.isnative):
        return np.asarray(array, dtype=want, order="C")
    with np.errstate(over="ignore"):
        result = array.astype(want)
    # numpy compares signed with unsigned integers exactly
    lost = np.isinf(result) & np.isfinite(array) if want.kind == "f" else result != array
    if lost.any():
        value = array[lost].flat[0]
        raise DataError(
            f'{where} holds the value {value}, outside of {want}, which input "{spec.name}" takes: '
            f"store values of that type"
        )
    return np.asarray(result, order="C")


def check_types(dtype: np.dtype[Any], spec: InputSpec, where: str) -> DataError | None:
    """The error if arrays of this type are never cast to the input's type; None if they may be."""
    want = spec.dtype
    if want.kind == "O":
        return None if dtype.kind in "UO" else _wrong_type(dtype, spec, where, "give an array of strings")
    if dtype == want:
        return None
    if dtype.kind == want.kind == "f" or (dtype.kind in "iu" and want.kind in "iu"):
        return None
    if dtype.kind in "iu" and want.kind == "f":
        return _wrong_type(dtype, spec, where, "scale the values as the model expects and store them as float32")
    return _wrong_type(dtype, spec, where, f"store them as {_type_name(want)}")


def fit_all(arrays: Mapping[str, NDArray[Any]], specs: Sequence[InputSpec], where: str) -> dict[str, NDArray[Any]]:
    """Every input fitted, in the model's order; a symbol that stands in several dimensions has one value in a sample.

    Raises:
        DataError: an input is missing or unknown, does not fit, or two of them disagree about a symbol.
    """
    known = [s.name for s in specs]
    for name in arrays:
        if name not in known:
            raise DataError(f'{where} holds "{name}", which is no input of the model: {did_you_mean(name, known)}')
    result: dict[str, NDArray[Any]] = {}
    symbols: dict[str, tuple[int, str]] = {}
    for spec in specs:
        if spec.name not in arrays:
            raise DataError(f'{where} lacks the input "{spec.name}": {did_you_mean(spec.name, arrays)}')
        label = f'{where}, array "{spec.name}",' if len(specs) > 1 else where
        array = result[spec.name] = fit(arrays[spec.name], spec, label)
        for size, dim in zip(array.shape, spec.shape, strict=False):
            # "?" is what Paddle's exporter writes for any unknown size, height and width alike: no common symbol.
            if not isinstance(dim, str) or dim == "?":
                continue
            before, owner = symbols.setdefault(dim, (size, spec.name))
            if before != size:
                raise DataError(
                    f'{where} is at odds with itself: dimension "{dim}" is {before} in input "{owner}" and {size} in '
                    f'input "{spec.name}", give both the same size'
                )
    return result


def batch_size(specs: Sequence[InputSpec]) -> int:
    """The fixed batch of a model whose inputs all start with the same int; else 1 (free, or no batch)."""
    leads = {s.shape[0] if s.shape else None for s in specs}
    lead = leads.pop() if len(leads) == 1 else None
    return lead if isinstance(lead, int) and lead > 1 else 1


def unit(spec: InputSpec, batch: int) -> InputSpec:
    """The input as one sample fills it: batch 1 where the model has a fixed batch."""
    if batch == 1 or not spec.shape:
        return spec
    return InputSpec(name=spec.name, dtype=spec.dtype, shape=(1, *spec.shape[1:]))


def _type_name(dtype: np.dtype[Any]) -> str:
    return "string" if dtype.kind in "OU" else str(dtype)


def _wrong_type(dtype: np.dtype[Any], spec: InputSpec, where: str, advice: str) -> DataError:
    return DataError(
        f'{where} has type {_type_name(dtype)}, but input "{spec.name}" takes {_type_name(spec.dtype)}: {advice}'
    )
