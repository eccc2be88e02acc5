"""Texts for models that take token ids: a folder of .txt files or a file of lines, and a tokenizer.json."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.fit import batch_size, fit_all, unit, wanted_text
from onnxq.data.folder import Folder
from onnxq.data.preprocess import Preprocess
from onnxq.data.sample import InputSpec
from onnxq.data.stream import Item, UnreadableError
from onnxq.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

KNOWN = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
TOKENIZER = "tokenizer.json"
_PAD_TOKENS = ("[PAD]", "<pad>", "<|endoftext|>")


class TextSource:
    """Texts as token ids of shape [1, tokens]; padded to the model's length where that is fixed.

    Args:
        folder: the .txt files, one text each; or a file alone, one text per line (blank lines are passed over).
        specs: the model's inputs, `input_ids` and any of the other three in `KNOWN`.
        settings: `max_length` cuts texts, in tokens.

    Raises:
        DataError: the model takes something else, there is no tokenizer file, or the tokenizers library is missing.
    """

    noun = "texts"
    batchable = True

    def __init__(self, folder: Folder, specs: Sequence[InputSpec], settings: Preprocess) -> None:
        self.where = folder.title
        self._folder = folder
        self._specs = [unit(s, batch_size(specs)) for s in specs]
        self._by_line = folder.kind == "file"
        self._length = _sequence_length(specs, self.where)
        limit = settings.max_length
        if limit is not None and self._length is not None and limit > self._length:
            raise DataError(f"preprocess.max_length is {limit}, but the model takes {self._length} tokens: lower it")
        self._tokenizer, path = _tokenizer(folder, self.where)
        self._rules = path
        cut = limit or self._length
        if cut is not None:
            self._tokenizer.enable_truncation(cut)
        self._pad = _pad_id(self._tokenizer)
        self._tokenizer.no_padding()
        self.summary = f"tokens of {path.name}"
        if cut is not None:
            self.summary += f", at most {cut}"
        if self._length is not None:
            self.summary += f", padded to {self._length}"
        self._count = self._count_lines() if self._by_line else len(folder.files)

    @property
    def labelled(self) -> bool:
        return self._folder.labels is not None

    def __len__(self) -> int:
        return self._count

    def identity(self, wanted: Sequence[int]) -> tuple[str, list[Path]]:
        """See `onnxq.data.stream.Source`."""
        files = self._folder.files if self._by_line else [self._folder.files[index] for index in wanted]
        return repr((self._specs, self.summary)), [self._rules, *(self._folder.path / name for name in files)]

    def items(self, wanted: Sequence[int]) -> Iterator[Item | UnreadableError]:
        if self._by_line:
            yield from self._line_items(set(wanted))
            return
        for index in wanted:
            name, where = self._folder.files[index], self._folder.where(index)
            try:
                text = (self._folder.path / name).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                yield UnreadableError(f"{where} is no text in UTF-8 ({error}): save it again")
                continue
            yield Item(name=name, inputs=self._encode(text, where), label=self._folder.label(index))

    def _line_items(self, wanted: set[int]) -> Iterator[Item]:
        name = self._folder.files[0]
        for position, (number, line) in enumerate(self._lines()):
            if position in wanted:
                yield Item(name=f"{name}:{number}", inputs=self._encode(line, f"{self.where}:{number}"))

    def _lines(self) -> Iterator[tuple[int, str]]:
        """(line number from 1, text) of each line that is not blank."""
        with (self._folder.path / self._folder.files[0]).open(encoding="utf-8") as stream:
            try:
                for number, line in enumerate(stream, start=1):
                    if line.strip():
                        yield number, line.rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise DataError(f"{self.where} is no text in UTF-8 ({error}): save it again") from error

    def _count_lines(self) -> int:
        count = sum(1 for _ in self._lines())
        if count == 0:
            raise DataError(f"{self.where} holds no text, only blank lines: write one text per line")
        return count

    def _encode(self, text: str, where: str) -> dict[str, NDArray[Any]]:
        encoding = self._tokenizer.encode(text)
        ids: list[int] = encoding.ids
        if not ids:
            raise DataError(f"{where} gives no token: write a text or remove it")
        size = self._length or len(ids)
        padding = size - len(ids)
        rows = {
            "input_ids": [*ids, *[self._pad] * padding],
            "attention_mask": [1] * len(ids) + [0] * padding,
            "token_type_ids": [*encoding.type_ids, *[0] * padding],
            "position_ids": list(range(size)),
        }
        arrays = {s.name: np.array([rows[s.name]], dtype=s.dtype) for s in self._specs}
        return fit_all(arrays, self._specs, where)


def _sequence_length(specs: Sequence[InputSpec], where: str) -> int | None:
    """The fixed number of tokens, or None."""
    names = [s.name for s in specs]
    if "input_ids" not in names:
        raise DataError(
            f'{where} holds texts, which feed models with an input "input_ids", but this one takes '
            f"{', '.join(names)}: give arrays or a function"
        )
    length: int | None = None
    for spec in specs:
        if spec.name not in KNOWN:
            raise DataError(
                f'{where} holds texts, but input "{spec.name}" ({wanted_text(spec)}) is none of {", ".join(KNOWN)}: '
                f"give arrays by name or a function"
            )
        if len(spec.shape) != 2 or spec.dtype.kind not in "iu":
            raise DataError(
                f'{where} holds texts, but input "{spec.name}" takes {wanted_text(spec)} and not integers '
                f"[batch, tokens]: give arrays or a function"
            )
        if isinstance(spec.shape[1], int):
            length = spec.shape[1]
    return length


def _tokenizer(folder: Folder, where: str) -> tuple[Tokenizer, Path]:
    places = [folder.path / TOKENIZER, folder.path.parent / TOKENIZER]
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        raise DataError(f"{where} holds texts, but there is no {TOKENIZER} in or beside the folder: put it there")
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise DataError(f"{where} holds texts, which need the tokenizers library: pip install onnxq[text]") from error
    try:
        return Tokenizer.from_file(str(path)), path
    # the library raises a bare Exception for a file that it does not understand
    except Exception as error:
        raise DataError(f"{path.name} for {where} is no tokenizer file ({error}): save it again") from error


def _pad_id(tokenizer: Tokenizer) -> int:
    """The tokenizer's own padding token, else the usual names, else 0; masked by attention_mask anyway."""
    if tokenizer.padding is not None:
        return int(tokenizer.padding["pad_id"])
    for token in _PAD_TOKENS:
        found = tokenizer.token_to_id(token)
        if found is not None:
            return int(found)
    return 0
