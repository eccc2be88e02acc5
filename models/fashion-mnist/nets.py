"""The three networks, small enough to be committed (under 500,000 parameters each), rich enough to be worth quantizing.

All take ``image`` float32 [batch, 1, 28, 28] in [0, 1] and give ``logits`` float32 [batch, 10].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Conv without bias and the BatchNormalization that one of the two exports folds into it."""
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class ResidualBlock(nn.Module):
    """Two 3x3 convs and a shortcut; the shortcut is a 1x1 conv where the shape changes, else the input itself."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv_bn(inputs, outputs, 3, stride), nn.ReLU(), *conv_bn(outputs, outputs, 3))
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv_bn(inputs, outputs, 1, stride))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


class Res8(nn.Module):
    """Eight weighted layers deep: stem, three residual blocks, classifier.

    Nearly all multiplications are 3x3 convs with 32 to 96 channels at 28x28 and 14x14, which is where int8 kernels pay.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(1, 32, 3), nn.ReLU())
        self.blocks = nn.Sequential(ResidualBlock(32, 32, 1), ResidualBlock(32, 64, 2), ResidualBlock(64, 96, 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))


class SqueezeExcite(nn.Module):
    """Per-channel gate from the global average: x * hard_sigmoid(expand(relu(squeeze(mean(x)))))."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 or 5x5 depthwise conv, squeeze-excite if late, linear 1x1 projection; Add if shapes agree."""

    def __init__(self, inputs: int, outputs: int, *, expand: int, stride: int, kernel: int = 3, late: bool) -> None:
        super().__init__()
        hidden = inputs * expand
        layers: list[nn.Module] = [*conv_bn(inputs, hidden, 1), nn.Hardswish() if late else nn.ReLU6()]
        layers += [*conv_bn(hidden, hidden, kernel, stride, groups=hidden), nn.Hardswish() if late else nn.ReLU6()]
        if late:
            layers.append(SqueezeExcite(hidden, hidden // 4))
        self.body = nn.Sequential(*layers, *conv_bn(hidden, outputs, 1))
        self.residual = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class MobileNet(nn.Module):
    """Inverted residuals: ReLU6 in the early blocks, hard-swish and squeeze-excite in the last two."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(1, 16, 3), nn.ReLU6())
        self.blocks = nn.Sequential(
            InvertedResidual(16, 32, expand=3, stride=2, late=False),
            InvertedResidual(32, 32, expand=3, stride=1, late=False),
            InvertedResidual(32, 32, expand=3, stride=1, late=False),
            InvertedResidual(32, 64, expand=4, stride=2, late=False),
            InvertedResidual(64, 64, expand=3, stride=1, late=False),
            InvertedResidual(64, 64, expand=3, stride=1, kernel=5, late=True),
            InvertedResidual(64, 64, expand=3, stride=1, kernel=5, late=True),
        )
        self.head = nn.Sequential(*conv_bn(64, 192, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1))
        self.classifier = nn.Linear(192, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.head(self.blocks(self.stem(x))), 1))


class Attention(nn.Module):
    """Multi-head self-attention written out: MatMul, scale, Softmax, MatMul, as the exporters then show it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_width = width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        tokens, width = x.shape[1], x.shape[2]
        split = self.qkv(x).reshape(-1, tokens, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4)
        query, key, value = split[0], split[1], split[2]
        weights = torch.softmax(query @ key.transpose(-2, -1) * self.head_width**-0.5, dim=-1)
        return self.out((weights @ value).transpose(1, 2).reshape(-1, tokens, width))


class Encoder(nn.Module):
    """Pre-norm transformer block: LayerNorm, attention, Add, LayerNorm, Linear, GELU, Linear, Add."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """4x4 patches (49 tokens) from two strided convs, width 96, 4 blocks of 4 heads, mean over the tokens.

    Two convs instead of one patch conv, because that needs fewer epochs.
    """

    def __init__(self, width: int = 96, depth: int = 4, heads: int = 4, hidden: int = 192) -> None:
        super().__init__()
        self.patches = nn.Sequential(nn.Conv2d(1, 32, 3, 2, 1), nn.GELU(), nn.Conv2d(32, width, 3, 2, 1))
        self.position = nn.Parameter(torch.randn(1, 49, width) * 0.02)
        self.blocks = nn.Sequential(*(Encoder(width, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.classifier(self.norm(self.blocks(tokens)).mean(dim=1))
