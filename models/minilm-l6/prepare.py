"""Make ``build/model.onnx`` (TorchScript exporter), ``build/model-dynamo.onnx`` (dynamo) and the calibration texts.

Needs torch, onnxscript and transformers (see ``prepare_requires`` in model.yaml). Nothing is random.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import BertModel

BUILD = Path(__file__).resolve().parent / "build"
INPUTS = ["input_ids", "attention_mask", "token_type_ids"]
OUTPUT = "last_hidden_state"
CALIBRATION_DOCUMENTS = 60  # the same split as in data.py
WINDOW = 126  # words; every word is at least one token, so [CLS] and [SEP] make it 128 tokens once cut there


class Encoder(torch.nn.Module):
    """The BERT encoder without its pooler: ids, mask, types [batch, sequence] to states [batch, sequence, 384]."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__()
        self.bert = BertModel.from_pretrained(checkpoint, add_pooling_layer=False)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        result = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        hidden: torch.Tensor = result.last_hidden_state
        return hidden


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two sequences of 16 tokens, the second padded by 6: the exporters trace with it."""
    ids = torch.arange(2000, 2032, dtype=torch.int64).reshape(2, 16)
    mask = torch.ones_like(ids)
    mask[1, 10:] = 0
    return ids, mask, torch.zeros_like(ids)


def export(model: Encoder, path: Path, *, dynamo: bool) -> None:
    """Export with one of torch's two exporters; batch and sequence stay dynamic."""
    partial = path.with_name(path.name + ".part")
    if dynamo:
        batch, sequence = torch.export.Dim("batch", min=1, max=512), torch.export.Dim("sequence", min=2, max=512)
        torch.onnx.export(
            model,
            example(),
            str(partial),
            dynamo=True,
            external_data=False,
            input_names=INPUTS,
            output_names=[OUTPUT],
            dynamic_shapes=({0: batch, 1: sequence},) * 3,
        )
    else:
        torch.onnx.export(
            model,
            example(),
            str(partial),
            dynamo=False,
            opset_version=17,
            input_names=INPUTS,
            output_names=[OUTPUT],
            dynamic_axes={name: {0: "batch", 1: "sequence"} for name in [*INPUTS, OUTPUT]},
        )
    partial.replace(path)


def write_calibration_texts(folder: Path) -> None:
    """One ``.txt`` file a window of 126 words, and ``tokenizer.json`` beside them."""
    background = (BUILD / "lee_background.cor").read_text(encoding="ascii").splitlines()
    evaluation = set((BUILD / "lee.cor").read_text(encoding="latin-1").splitlines())
    assert not evaluation & set(background), "a Lee document is in the background texts"
    words = " ".join(background[:CALIBRATION_DOCUMENTS]).split()
    fresh = folder.with_name(folder.name + ".part")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for number, start in enumerate(range(0, len(words) - WINDOW + 1, WINDOW)):
        (fresh / f"{number:03d}.txt").write_text(" ".join(words[start : start + WINDOW]), encoding="utf-8")
    shutil.copyfile(BUILD / "tokenizer.json", fresh / "tokenizer.json")
    fresh.replace(folder)


def main() -> None:
    """Make what ``build/`` lacks."""
    paths = {BUILD / "model.onnx": False, BUILD / "model-dynamo.onnx": True}
    if not all(path.exists() for path in paths):
        model = Encoder(BUILD / "checkpoint").eval()
        for path, dynamo in paths.items():
            if not path.exists():
                export(model, path, dynamo=dynamo)
    if not (BUILD / "calib-text").exists():
        write_calibration_texts(BUILD / "calib-text")


if __name__ == "__main__":
    main()
