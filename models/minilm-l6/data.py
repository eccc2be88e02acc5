"""Samples of MiniLM, exactly as fed to the model; ``python models/fetch.py minilm-l6`` fetches what is read here.

A text becomes ``input_ids``, ``attention_mask`` and ``token_type_ids``, each int64 [texts, tokens].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

BUILD = Path(__file__).resolve().parent / "build"
MAX_TOKENS = 128
CALIBRATION_DOCUMENTS = 60  # of the 300 background documents; the same split as in prepare.py
WINDOW = 126  # words
WORDSIM, LEE = 0.0, 1.0  # set ids in a pair's label

Sample = dict[str, NDArray[np.int64]]


@cache
def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(BUILD / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


def _tokens(text: str) -> list[int]:
    ids: list[int] = _tokenizer().encode(text).ids
    return ids


def _batch(sequences: Sequence[Sequence[int]]) -> Sample:
    """Sequences of token ids, padded on the right with 0 to the longest one."""
    ids = np.zeros((len(sequences), max(map(len, sequences))), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def _wordsim() -> list[tuple[str, str, float]]:
    lines = (BUILD / "wordsim353.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line.strip() and not line.startswith("#")]
    return [(first, second, float(score)) for first, second, score in rows]


def _lee() -> tuple[list[str], NDArray[np.float64]]:
    """The 50 documents and their human similarities [50, 50], of which the upper triangle is filled."""
    documents = (BUILD / "lee.cor").read_text(encoding="latin-1").splitlines()
    return documents, np.loadtxt(BUILD / "similarities0-1.txt")


def evaluation() -> Iterator[tuple[Sample, NDArray[np.float64]]]:
    """1,578 pairs; label = [set id, human score, tokens of the first text, tokens of the second]."""
    documents, human = _lee()
    texts = [_tokens(document) for document in documents]
    pairs = [(WORDSIM, _tokens(first), _tokens(second), score) for first, second, score in _wordsim()]
    pairs += [(LEE, texts[i], texts[j], float(human[i, j])) for i, j in combinations(range(len(texts)), 2)]
    for kind, first, second, score in pairs:
        yield _batch([first, second]), np.array([kind, score, len(first), len(second)])


def calibration() -> Iterator[Sample]:
    """The texts of ``build/calib-text``, one sample of 128 tokens each."""
    for path in sorted((BUILD / "calib-text").glob("*.txt")):
        yield _batch([_tokens(path.read_text(encoding="utf-8"))])


def texts1000() -> Iterator[Sample]:
    """1,000 texts of 128 tokens: overlapping windows over the background documents that calibration does not see."""
    background = (BUILD / "lee_background.cor").read_text(encoding="ascii").splitlines()
    words = " ".join(background[CALIBRATION_DOCUMENTS:]).split()
    for start in np.linspace(0, len(words) - WINDOW, 1000).astype(int):
        yield _batch([_tokens(" ".join(words[start : start + WINDOW]))])
