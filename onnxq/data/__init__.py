"""From what the user names (folders, files, functions) to samples that fit the model, one at a time."""

from onnxq.data.open import open_dataset
from onnxq.data.preprocess import Preprocess, Side
from onnxq.data.sample import Dataset, InputSpec, Sample

__all__ = ["Dataset", "InputSpec", "Preprocess", "Sample", "Side", "open_dataset"]
