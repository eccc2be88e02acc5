"""One door to all kinds of samples: looks at what the user named and hands it to the module that reads such a thing."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from onnxq import registry
from onnxq.data.arrays import ArraySource
from onnxq.data.fit import batch_size
from onnxq.data.folder import ARRAYS, IMAGES, TEXTS, Folder, scan
from onnxq.data.functions import FunctionDataset
from onnxq.data.images import ImageSource
from onnxq.data.preprocess import Preprocess
from onnxq.data.sample import Dataset, InputSpec
from onnxq.data.stream import Source, StreamDataset
from onnxq.data.tensors import TensorSource, data_sets
from onnxq.data.texts import TextSource
from onnxq.errors import DataError, OnnxqError, did_you_mean

_DEFAULT = Preprocess()


def open_dataset(
    path_or_reference: str | Path,
    inputs: Sequence[InputSpec],
    preprocess: Preprocess = _DEFAULT,
    *,
    base: Path = Path(),
    skip_bad: bool = False,
    limit: int | None = None,
) -> Dataset:
    """A re-iterable, streaming data set that fits the model.

    Args:
        path_or_reference: a folder of pictures, of .npy and .npz files, of texts or of ONNX test data sets; a .npy,
            .npz or .txt file; `module:function` or `file.py:function`; a name registered for onnxq.data.
        inputs: what the model takes; an input that starts with a fixed batch of N gets N samples at a time.
        preprocess: for pictures and texts.
        base: the folder that relative paths start from.
        skip_bad: leave damaged files out, and say so in `skipped`.
        limit: at most so many samples: evenly spread over files and what is numbered, the first ones of a stream.

    Raises:
        DataError: nothing there, no samples in it, or samples that do not fit the model (as far as names, headers and
            file lists tell; the rest is checked sample by sample).
        UsageError: a limit below 1; a reference to a function that is not there.
    """
    opened = _opened(path_or_reference, inputs, preprocess, base=base, skip_bad=skip_bad, limit=limit)
    # other processes open it for themselves, whatever their current folder
    opened.recipe = functools.partial(
        open_dataset, path_or_reference, tuple(inputs), preprocess, base=base.resolve(), skip_bad=skip_bad, limit=limit
    )
    return opened


def _opened(
    path_or_reference: str | Path,
    inputs: Sequence[InputSpec],
    preprocess: Preprocess,
    *,
    base: Path,
    skip_bad: bool,
    limit: int | None,
) -> StreamDataset | FunctionDataset:
    text = str(path_or_reference)
    shown = Path(text).expanduser()
    path = base / shown
    if path.is_dir():
        source = _folder_source(path, shown, inputs, preprocess, skip_bad)
    elif path.is_file():
        source = _file_source(path, shown, inputs, preprocess, skip_bad)
    else:
        return _reference(text, inputs, base, limit)
    return StreamDataset(source, batch=batch_size(inputs), limit=limit, skip_bad=skip_bad)


def _folder_source(
    path: Path, shown: Path, inputs: Sequence[InputSpec], preprocess: Preprocess, skip_bad: bool
) -> Source:
    sets = data_sets(path)
    if sets:
        return TensorSource(sets, shown, path, inputs)
    folder = scan(path, shown)
    if folder.kind == "pictures":
        return ImageSource(folder, inputs, preprocess)
    if folder.kind == "texts":
        return TextSource(folder, inputs, preprocess)
    return ArraySource(folder, inputs, skip_bad=skip_bad)


def _file_source(
    path: Path, shown: Path, inputs: Sequence[InputSpec], preprocess: Preprocess, skip_bad: bool
) -> Source:
    suffix = path.suffix.lower()
    alone = Folder.alone(path, shown)
    if suffix in ARRAYS:
        return ArraySource(alone, inputs, skip_bad=skip_bad)
    if suffix in TEXTS:
        return TextSource(alone, inputs, preprocess)
    if suffix in IMAGES:
        raise DataError(f"{shown} is one picture: name the folder of the pictures")
    raise DataError(
        f"{shown} is no data file that onnxq reads: name a folder, a .npy, .npz or .txt file, or module:function"
    )


def _reference(text: str, inputs: Sequence[InputSpec], base: Path, limit: int | None) -> FunctionDataset:
    """The function behind a reference or a registered name."""
    try:
        if ":" in text:
            return FunctionDataset(registry.load_reference(text, base, "data"), text, inputs, limit=limit)
        registered = registry.names(registry.DATA)
        if text in registered:
            return FunctionDataset(registry.load(registry.DATA, text), text, inputs, limit=limit)
    except OnnxqError:
        raise
    # importing the user's module runs his code, which may raise anything; the cause travels along
    except Exception as error:
        raise DataError(f"data {text} cannot be loaded, {type(error).__name__} ({error}): mend the module") from error
    parent = (base / text).parent
    near = [p.name for p in parent.iterdir() if not p.name.startswith(".")] if parent.is_dir() else []
    guess = did_you_mean(Path(text).name, [*near, *registered])
    hint = guess if guess.startswith("did you mean") else "give a folder, a .npy, .npz or .txt file, or module:function"
    raise DataError(f"there is no data at {text}: {hint}")
