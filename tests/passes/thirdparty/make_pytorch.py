"""Train a small network with fake quantization in PyTorch and write it as its exporters do; the files are committed.

    python make_pytorch.py        # where torch, torchao, onnxscript and onnx are installed

* `pytorch-qat.onnx`: torch.ao FakeQuantize, uint8 data, int8 weights per channel, the TorchScript exporter;
* `pytorch-qat-narrow.onnx`: the same with 7-bit data (quant_max=127, PyTorch's default for x86): Clip behind each Q. Nothing is folded while
  exporting, so zero points are computed in the graph (Cast);
* `pytorch-pt2e.onnx`: torchao's PT2E flow with the X86 quantizer, the newer exporter.

(torch.export, and with it the newer exporter, knows no fake_quantize op: torch 2.13.)

Trained on the committed pictures of Fashion-MNIST; what counts is the form of the graphs, not their accuracy.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    FakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    disable_observer,
)

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[2] / "models" / "fashion-mnist" / "eval.npz"
BATCH, EPOCHS = 50, 3


def data_quantizer(most: int = 255) -> FakeQuantize:
    """uint8, one scale."""
    return FakeQuantize(MovingAverageMinMaxObserver, quant_min=0, quant_max=most, dtype=torch.quint8)


def weight_quantizer() -> FakeQuantize:
    """int8, symmetric, a scale per output channel."""
    return FakeQuantize(
        MovingAveragePerChannelMinMaxObserver,
        quant_min=-128,
        quant_max=127,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
    )


class Block(nn.Module):
    """Conv or Linear on fake-quantized data with a fake-quantized weight."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, most: int) -> None:
        super().__init__()
        self.layer, self.data, self.weight = layer, data_quantizer(most), weight_quantizer()

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight(self.layer.weight), self.layer.bias
        if isinstance(self.layer, nn.Conv2d):
            y = nn.functional.conv2d(x, weight, bias, self.layer.stride, self.layer.padding)
            return self.data(torch.relu(y))
        return self.data(nn.functional.linear(x, weight, bias))


class Net(nn.Module):
    """Two convs, a residual one, MaxPool, a Linear over positions (MatMul of rank 3), Flatten, a Linear."""

    def __init__(self, most: int = 255) -> None:
        super().__init__()
        self.image = data_quantizer(most)
        self.first = Block(nn.Conv2d(1, 8, 3, 2, 1), most)
        self.second = Block(nn.Conv2d(8, 8, 3, 1, 1), most)
        self.sum = data_quantizer(most)
        self.pool = nn.MaxPool2d(2)
        self.mix = Block(nn.Linear(8, 12), most)
        self.head = Block(nn.Linear(12 * 49, 10), most)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.image(x))
        x = self.sum(x + self.second(x))
        x = self.pool(x).flatten(2).transpose(1, 2)
        x = self.mix(x)
        return self.head(x.flatten(1))


class Plain(nn.Module):
    """The same without fake quantization, for PT2E, which puts in its own."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.first, self.second = net.first.layer, net.second.layer
        self.pool, self.mix, self.head = net.pool, net.mix.layer, net.head.layer

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = x + torch.relu(self.second(x))
        x = self.pool(x).flatten(2).transpose(1, 2)
        return self.head(self.mix(x).flatten(1))


def train(net: nn.Module) -> None:
    """A few epochs: enough for weights and ranges that are none of a fresh network."""
    data = np.load(DATA)
    images, labels = torch.from_numpy(data["image"]), torch.from_numpy(data["label"])
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(1)
    net.train()
    for epoch in range(EPOCHS):
        right = 0
        for index in torch.randperm(len(images), generator=generator).split(BATCH):
            logits = net(images[index])
            loss = nn.functional.cross_entropy(logits, labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            right += int((logits.argmax(1) == labels[index]).sum())
        print(f"epoch {epoch + 1}: {right / len(images):.3f} right")
    net.eval()


def export(net: nn.Module, name: str, *, dynamo: bool, opset: int, fold: bool = True) -> None:
    """Write a model whose batch is symbolic, without traces of this machine."""
    path = HERE / name
    example = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    names = {"input_names": ["image"], "output_names": ["logits"], "opset_version": opset}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = ({0: torch.export.Dim("batch")},)
            program = torch.onnx.export(net, (example,), dynamo=True, dynamic_shapes=shapes, **names)
            proto = program.model_proto
        else:
            axes = {"image": {0: "batch"}, "logits": {0: "batch"}}
            torch.onnx.export(
                net, (example,), str(path), dynamo=False, dynamic_axes=axes, do_constant_folding=fold, **names
            )
            proto = onnx.load(path)
    for node in proto.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    proto.graph.ClearField("metadata_props")
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info, *proto.graph.initializer):
        value.ClearField("metadata_props")
    for function in proto.functions:
        for node in function.node:
            node.ClearField("doc_string")
            node.ClearField("metadata_props")
    onnx.checker.check_model(proto)
    onnx.save(proto, path)
    ops = sorted({n.op_type for n in proto.graph.node})
    print(f"{name}: {path.stat().st_size} bytes, {len(proto.graph.node)} nodes: {', '.join(ops)}")


def pt2e(net: nn.Module) -> nn.Module:
    """torchao's flow: export, prepare, calibrate, convert."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    example = torch.rand(2, 1, 28, 28)
    shapes = ({0: torch.export.Dim("batch", min=2)},)
    module = torch.export.export(net, (example,), dynamic_shapes=shapes).module()
    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(module, quantizer)
    prepared(torch.from_numpy(np.load(DATA)["image"][:256]))
    return convert_pt2e(prepared)


def main() -> None:
    torch.manual_seed(1)
    torch.set_num_threads(1)
    net = Net()
    train(net)
    net.apply(disable_observer)
    export(net, "pytorch-qat.onnx", dynamo=False, opset=13)
    narrow = Net(most=127)
    train(narrow)
    narrow.apply(disable_observer)
    export(narrow, "pytorch-qat-narrow.onnx", dynamo=False, opset=17, fold=False)
    export(pt2e(Plain(net).eval()), "pytorch-pt2e.onnx", dynamo=True, opset=18)


if __name__ == "__main__":
    main()
