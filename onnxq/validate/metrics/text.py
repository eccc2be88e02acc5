"""Scores of models that write or weigh text: exact match, character and word error rate, perplexity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from onnxq.validate.metrics.base import Outputs

Text = str | tuple[int, ...]
"""Characters, or the numbers of tokens."""


def read_output(outputs: Outputs, output: str = "", alphabet: str = "") -> Text:
    """What the model says.

    * An output of text: that text (several elements: joined by spaces).
    * An output of integers: token numbers, those below 0 left out.
    * Float scores [steps, classes] or [1, steps, classes]: greedy CTC decoding (Graves et al., 2006): the best class of
      each step, repeats and the blank, class 0, dropped.

    Args:
        output: name of the output; empty: the first.
        alphabet: character of each token number; for CTC, where 0 is the blank, of the classes from 1 on.

    Raises:
        ValueError: there is no such output, it has another form, or a number lies outside the alphabet.
    """
    if not outputs or (output and output not in outputs):
        raise ValueError(f'the model has no output "{output}", it has {", ".join(outputs)}')
    array = np.asarray(outputs[output] if output else next(iter(outputs.values())))
    if array.dtype.kind in "OSU":
        return " ".join(_plain(v) for v in array.reshape(-1))
    first = 0
    if array.dtype.kind in "iu":
        numbers = array.reshape(-1)
        numbers = numbers[numbers >= 0]
    elif array.dtype.kind == "f" and array.ndim >= 2 and all(d == 1 for d in array.shape[:-2]):
        best = array.reshape(array.shape[-2:]).argmax(axis=1)
        fresh = np.append(True, best[1:] != best[:-1])
        numbers, first = best[fresh & (best != 0)], 1
    else:
        raise ValueError(
            f"an output {array.dtype.name} {list(array.shape)} is neither text, tokens nor scores of steps"
        )
    tokens = tuple(int(n) for n in numbers)
    if not alphabet:
        return tokens
    try:
        return "".join(alphabet[t - first] for t in tokens)
    except IndexError:
        raise ValueError(f"token {max(tokens)} lies outside the alphabet of {len(alphabet)} characters") from None


def read_label(label: Any, *, text: bool) -> Text:
    """The label in the form of the output.

    Raises:
        ValueError: it is missing, or text where the output is token numbers (or the other way round).
    """
    if label is None:
        raise ValueError("the sample has no label")
    array = np.asarray(label)
    if text:
        if array.dtype.kind not in "OSU":
            raise ValueError(f"the label {label} is no text, as the output is")
        return " ".join(_plain(v) for v in array.reshape(-1))
    if array.dtype.kind not in "iu":
        raise ValueError(f'the label "{label}" is text and the output is token numbers: give the setting alphabet')
    return tuple(int(n) for n in array.reshape(-1) if n >= 0)


def edits(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Levenshtein distance: fewest insertions, deletions and substitutions that turn one sequence into the other.

    >>> edits("kitten", "sitting"), edits("a b c".split(), "a c".split())
    (3, 1)
    """
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """Reads output and label in one form.

    Attributes:
        output: name of the output; empty: the first.
        alphabet: see `read_output`.
    """

    output: str = ""
    alphabet: str = ""
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def pair(self, outputs: Outputs, label: Any) -> tuple[Text, Text]:
        """What the model says, and what is right."""
        said = read_output(outputs, self.output, self.alphabet)
        return said, read_label(label, text=isinstance(said, str))


@dataclass(frozen=True, kw_only=True)
class ExactMatch(_Reading):
    """Share of samples whose text (or sequence of tokens) is the labelled one, without any mistake."""

    higher_is_better: ClassVar[bool] = True

    def record(self, outputs: Outputs, label: Any) -> Sequence[float]:
        """[1.0] or [0.0]."""
        said, right = self.pair(outputs, label)
        return [float(said == right)]

    def score(self, records: NDArray[np.float64]) -> float:
        """Mean, 0 to 1."""
        return float(records[:, 0].mean())


@dataclass(frozen=True, kw_only=True)
class _ErrorRate(_Reading, ABC):
    """Edits over the length of what is right, both summed over all samples; lower is better, may exceed 1."""

    higher_is_better: ClassVar[bool] = False

    @abstractmethod
    def units(self, text: Text) -> Sequence[Any]:
        """What is counted."""

    def record(self, outputs: Outputs, label: Any) -> Sequence[float]:
        """[edits, length of the label]."""
        said, right = (self.units(t) for t in self.pair(outputs, label))
        return [float(edits(said, right)), float(len(right))]

    def score(self, records: NDArray[np.float64]) -> float:
        """Rate."""
        return float(self.of_sums(records.sum(axis=0)))

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rates from column sums [..., 2]; without any label text, 0 or infinite."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(sums[..., 0] == 0, 0.0, sums[..., 0] / sums[..., 1])


@dataclass(frozen=True, kw_only=True)
class Cer(_ErrorRate):
    """Character error rate (for token numbers: token error rate)."""

    def units(self, text: Text) -> Sequence[Any]:
        """Characters."""
        return text


@dataclass(frozen=True, kw_only=True)
class Wer(_ErrorRate):
    """Word error rate; words are what blanks separate."""

    def units(self, text: Text) -> Sequence[Any]:
        """Words."""
        if isinstance(text, str):
            return text.split()
        raise ValueError("wer needs text, and the output is token numbers: give the setting alphabet, or use cer")


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """exp of the mean negative log-likelihood per token; lower is better.

    Attributes:
        output: name of the output with the logits [..., steps, vocabulary]; empty: the first float output.
        shift: the label holds the input's tokens, of which step i predicts number i + 1; False: step i predicts
            number i of the label.
    """

    output: str = ""
    shift: bool = False
    higher_is_better: ClassVar[bool] = False

    def record(self, outputs: Outputs, label: Any) -> Sequence[float]:
        """[sum of negative log-likelihoods, tokens]; labels below 0 are left out."""
        logits = self._logits(outputs)
        if label is None:
            raise ValueError("the sample has no label: perplexity needs the tokens")
        tokens = np.asarray(label).reshape(-1)
        if tokens.dtype.kind not in "iu":
            raise ValueError(f"the label {label} is no sequence of token numbers")
        if self.shift:
            logits, tokens = logits[:-1], tokens[1:]
        if len(tokens) != len(logits):
            raise ValueError(f"{len(logits)} steps of scores but {len(tokens)} tokens")
        known = tokens >= 0
        logits, tokens = logits[known], tokens[known]
        if tokens.size and tokens.max() >= logits.shape[1]:
            raise ValueError(f"token {int(tokens.max())} is not among the {logits.shape[1]} of the output")
        top = logits.max(axis=1, keepdims=True, initial=-np.inf)
        whole = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
        return [float((whole - logits[np.arange(len(tokens)), tokens]).sum()), float(len(tokens))]

    def score(self, records: NDArray[np.float64]) -> float:
        """1 or more."""
        return float(self.of_sums(records.sum(axis=0)))

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Perplexities from column sums [..., 2]; NaN without tokens."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.asarray(np.exp(sums[..., 0] / sums[..., 1]))

    def _logits(self, outputs: Outputs) -> NDArray[np.float64]:
        for name, value in outputs.items():
            array = np.asarray(value)
            if (not self.output or name == self.output) and array.dtype.kind == "f" and array.ndim >= 2:
                return array.reshape(-1, array.shape[-1]).astype(np.float64)
        shapes = ", ".join(f"{n} {list(np.shape(v))}" for n, v in outputs.items())
        raise ValueError(f"perplexity needs scores [steps, vocabulary]; the outputs are {shapes}")


def _plain(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
