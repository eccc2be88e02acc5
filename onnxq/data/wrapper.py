"""A data set made of another one, which says the same about itself."""

from __future__ import annotations

from onnxq.data.sample import Dataset


class Wrapper:
    """Tells what `data` tells; a subclass adds length and iteration, and is a Dataset then."""

    def __init__(self, data: Dataset) -> None:
        self.data = data

    @property
    def description(self) -> str:
        return self.data.description

    @property
    def preprocess_summary(self) -> str:
        return self.data.preprocess_summary

    @property
    def labelled(self) -> bool:
        return self.data.labelled

    @property
    def skipped(self) -> list[str]:
        return self.data.skipped
