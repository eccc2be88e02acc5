"""Train, export and measure fashion-res8, fashion-mobilenet and fashion-vit; write their ONNX files and ``model.yaml``.

Run it where torch, onnx, onnxscript and onnxruntime are installed (the versions used are in each ``model.yaml``):

    python models/fashion-mnist/train.py                    # all three
    python models/fashion-mnist/train.py res8 --epochs 12   # one of them

The seed fixes the initial weights, the order of the pictures and their augmentation, and torch's deterministic kernels
are asked for. Sums of floats still depend on the CPU's instruction set and the number of threads, so another machine
gives another model of the same kind: the committed files count, and ``model.yaml`` holds their hashes and their top-1.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import make_data
import numpy as np
import onnx
import onnxruntime as ort
import torch
from nets import MobileNet, Res8, ViT
from torch import Tensor, nn

MODELS = make_data.HERE.parent
SIZE_LIMIT = 2_000_000  # bytes per ONNX file: they live in the repository
BATCH = 128


@dataclass(frozen=True, kw_only=True)
class Export:
    """One ONNX file: its name, its opset, which of torch's exporters writes it, and if BatchNormalization is folded."""

    file: str
    opset: int
    dynamo: bool
    fold: bool


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained, how long, and which files it becomes. ``rate`` is the peak learning rate.

    ``half``: bfloat16 arithmetic, twice as fast on a CPU that has it, except for depthwise convs, where it is slower.
    """

    net: Callable[[], nn.Module]
    exercises: str
    epochs: int
    rate: float
    sgd: bool
    half: bool
    exports: tuple[Export, ...]


RECIPES = {
    "res8": Recipe(
        net=Res8,
        exercises="residual CNN: 3x3 convs with 32 to 96 channels, shortcut Adds, ReLU, GlobalAveragePool, Gemm",
        epochs=10,
        rate=0.2,
        sgd=True,
        half=True,
        exports=(
            Export(file="model.onnx", opset=17, dynamo=False, fold=True),
            Export(file="model-bn.onnx", opset=17, dynamo=False, fold=False),
        ),
    ),
    "mobilenet": Recipe(
        net=MobileNet,
        exercises="inverted residuals: depthwise convs, ReLU6 as Clip, hard-swish, squeeze-excite, residual Adds",
        epochs=7,
        rate=0.2,
        sgd=True,
        half=False,
        exports=(
            Export(file="model.onnx", opset=13, dynamo=False, fold=True),
            Export(file="model-bn.onnx", opset=11, dynamo=False, fold=False),
        ),
    ),
    "vit": Recipe(
        net=ViT,
        exercises="transformer: MatMul, Softmax, LayerNorm and GELU, whole (model.onnx) and decomposed (model-ts.onnx)",
        epochs=8,
        rate=0.002,
        sgd=False,
        half=True,
        exports=(
            Export(file="model.onnx", opset=20, dynamo=True, fold=True),
            Export(file="model-ts.onnx", opset=13, dynamo=False, fold=True),
        ),
    ),
}


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip half of the pictures [N, 1, 28, 28] left-right and shift each by up to 2 pixels; black moves in."""
    count, size = images.shape[0], images.shape[-1]
    flip = torch.rand(count, generator=generator) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(-1), images)
    padded = nn.functional.pad(images, (2, 2, 2, 2))[:, 0]
    offset = torch.randint(0, 5, (2, count, 1), generator=generator) + torch.arange(size)
    rows, columns = offset[0][:, :, None], offset[1][:, None, :]
    return padded[torch.arange(count)[:, None, None], rows, columns][:, None]


def batches(images: Tensor, labels: Tensor, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of shuffled, augmented batches; an incomplete last batch is left out."""
    order = torch.randperm(len(images), generator=generator)
    for start in range(0, len(order) - BATCH + 1, BATCH):
        index = order[start : start + BATCH]
        yield augment(images[index], generator), labels[index]


def train(net: nn.Module, recipe: Recipe, epochs: int, seed: int, images: Tensor, labels: Tensor) -> None:
    """Train in place: one-cycle schedule, label smoothing 0.05; weights stay float32."""
    generator = torch.Generator().manual_seed(seed)
    optimizer: torch.optim.Optimizer
    if recipe.sgd:
        optimizer = torch.optim.SGD(net.parameters(), recipe.rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    else:
        optimizer = torch.optim.AdamW(net.parameters(), recipe.rate, weight_decay=0.05)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=steps, pct_start=0.25)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
    net.train()
    for epoch in range(epochs):
        begin, total = time.perf_counter(), 0.0
        for batch, wanted in batches(images, labels, generator):
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.half):
                logits = net(batch.contiguous(memory_format=torch.channels_last))
            loss = criterion(logits.float(), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * BATCH / len(images)
        print(f"  epoch {epoch + 1:2}/{epochs}: loss {total:.4f}, {time.perf_counter() - begin:.0f} s", flush=True)
    net.eval()


def export(net: nn.Module, spec: Export, path: Path) -> None:
    """Write ``net`` as ONNX with a symbolic batch, check it, and keep it under ``SIZE_LIMIT``."""
    example = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    names = {"input_names": ["image"], "output_names": ["logits"], "opset_version": spec.opset}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the TorchScript exporter is deprecated, and wanted here
        if spec.dynamo:
            program = torch.onnx.export(
                net, (example,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},), **names
            )
            proto = program.model_proto
        else:
            torch.onnx.export(
                net,
                (example,),
                str(path),
                dynamo=False,
                dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
                # PRESERVE keeps BatchNormalization nodes; the net is in eval mode, so they stay inference nodes.
                training=torch.onnx.TrainingMode.EVAL if spec.fold else torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=spec.fold,
                **names,
            )
            proto = onnx.load(path)
    # Both exporters leave traces of the machine (file names in stack traces): they are no part of the model.
    for node in proto.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    proto.graph.ClearField("metadata_props")
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info, *proto.graph.initializer):
        value.ClearField("metadata_props")
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    if path.stat().st_size >= SIZE_LIMIT:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes; make the net smaller (limit {SIZE_LIMIT})")


def top1(path: Path) -> tuple[float, int, np.ndarray]:
    """Return (top-1, number of items, logits [items, 10]) of an ONNX file on ``eval.npz``, run by ONNX Runtime."""
    data = np.load(make_data.HERE / "eval.npz")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    chunks = np.split(data["image"], range(100, len(data["image"]), 100))
    logits = np.concatenate([session.run(["logits"], {"image": chunk})[0] for chunk in chunks])
    return float((logits.argmax(1) == data["label"]).mean()), len(logits), logits


def package_version() -> str:
    """Return the installed version of Debian's data package, or a sentence that it is not installed."""
    command = ["dpkg-query", "--show", "--showformat=${Version}", "dataset-fashion-mnist"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "not installed; another copy of the data was used"


def describe(name: str, recipe: Recipe, epochs: int, seed: int, score: float, items: int) -> str:
    """Return the text of ``model.yaml``."""
    folder = MODELS / f"fashion-{name}"
    hashes = {spec.file: hashlib.sha256((folder / spec.file).read_bytes()).hexdigest() for spec in recipe.exports}
    lines = [
        "# Written by ../fashion-mnist/train.py: do not edit.",
        f"name: fashion-{name}",
        f'exercises: "{recipe.exercises}"',
        "source: []  # nothing to fetch: trained by us, committed",
        "trained:",
        "  package: dataset-fashion-mnist  # of Debian",
        f'  version: "{package_version()}"',
        "  script: ../fashion-mnist/train.py",
        f'  torch: "{torch.__version__}"',
        f"  seed: {seed}",
        f"  epochs: {epochs}",
        "exports:",
        *(
            f"  {spec.file}: {{exporter: {'dynamo' if spec.dynamo else 'torchscript'}, opset: {spec.opset}}}"
            for spec in recipe.exports
        ),
        "sha256:",
        *(f"  {file}: {digest}" for file, digest in hashes.items()),
        'licence: "MIT: data by Zalando SE (../fashion-mnist/LICENSE.md), weights trained on it by the script"',
        'preprocessing: "none: the arrays are float32 [items, 1, 28, 28] in [0, 1] already"',
        "data: {calib: ../fashion-mnist/calib.npz, eval: ../fashion-mnist/eval.npz}",
        "metric: top1",
        "expected:",
        f"  # fp32, ONNX Runtime {ort.__version__}, CPU; the same for both files",
        f"  eval: {{top1: {score:.4f}, items: {items}}}",
    ]
    return "\n".join(lines) + "\n"


def make(name: str, options: argparse.Namespace) -> None:
    """Train (or take ``--state``), export, measure and describe one model."""
    recipe, epochs = RECIPES[name], options.epochs or RECIPES[name].epochs
    folder = MODELS / f"fashion-{name}"
    torch.manual_seed(options.seed)
    net = recipe.net().to(memory_format=torch.channels_last)
    state = options.state and options.state / f"{name}-seed{options.seed}-epochs{epochs}.pt"
    print(f"{name}: {sum(p.numel() for p in net.parameters())} parameters, {epochs} epochs", flush=True)
    if state and state.exists():
        net.load_state_dict(torch.load(state))
        net.eval()
    else:
        images, labels = make_data.read_split(options.data, "train")
        train(net, recipe, epochs, options.seed, torch.from_numpy(make_data.to_float(images)), torch.from_numpy(labels))
        if state:
            torch.save(net.state_dict(), state)
    net = net.to(memory_format=torch.contiguous_format)
    results = []
    for spec in recipe.exports:
        path = folder / spec.file
        export(net, spec, path)
        score, items, logits = top1(path)
        results.append((score, items, logits))
        print(f"  {spec.file}: top-1 {score:.4f} on {items} items, {path.stat().st_size} bytes", flush=True)
    (score, items, logits), (other_score, _, other_logits) = results
    np.testing.assert_allclose(other_logits, logits, rtol=0, atol=1e-4)  # two exports of one net
    if other_score != score:
        raise ValueError(f"the two exports of {name} have top-1 {score} and {other_score}; they should be one net")
    (folder / "model.yaml").write_text(describe(name, recipe, epochs, options.seed, score, items))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and export the three Fashion-MNIST models.")
    parser.add_argument("models", nargs="*", default=list(RECIPES), help=f"any of {', '.join(RECIPES)} (all)")
    parser.add_argument("--epochs", type=int, help="epochs (default: each model's own number)")
    parser.add_argument("--seed", type=int, default=1, help="seed of weights, order and augmentation (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (%(default)s)")
    parser.add_argument("--data", type=Path, default=make_data.DEBIAN_FOLDER, help="data folder (%(default)s)")
    parser.add_argument("--state", type=Path, help="folder of weights: taken if there, else written after training")
    options = parser.parse_args()
    unknown = sorted(set(options.models) - set(RECIPES))
    if unknown:
        parser.error(f"unknown model {unknown[0]!r}; choose from {', '.join(RECIPES)}")
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    for name in options.models:
        make(name, options)


if __name__ == "__main__":
    main()
