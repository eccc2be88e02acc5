"""Make ``build/model.onnx`` and the labelled pictures of EfficientNet-Lite0 out of the fetched packages.

Needs torch and Pillow (see ``prepare_requires`` in model.yaml). Leaves alone what is there already; delete ``build/``
to start afresh. Everything random comes from one seed per picture, so two runs on one machine make the same pixels.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter

BUILD = Path(__file__).resolve().parent / "build"
SIDE = 224
# Every fourth of the 20 pictures calibrates; the other 15 are the evaluation, so no picture is in both.
CALIBRATION_CROPS = {0: 52, 4: 51, 8: 51, 12: 51, 16: 51}
EVALUATION_CROPS = 70


def export(path: Path) -> None:
    """Load the published weights into the published code and export it with the TorchScript exporter, opset 17."""
    sys.path.insert(0, str(BUILD))
    from efficientnet_lite_pytorch import EfficientNet  # the fetched package code

    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(BUILD / "weights.pth", map_location="cpu", weights_only=True))
    model.eval()
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, SIDE, SIDE),),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
    )


def whole(picture: Image.Image) -> Image.Image:
    """The undistorted picture as the network's authors feed it: shortest side 256, bicubic, centre 224 x 224."""
    scaled = picture.resize((256, 256), Image.Resampling.BICUBIC)
    return scaled.crop((16, 16, 16 + SIDE, 16 + SIDE))


def distort(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """One mildly distorted 224 x 224 view: 70 to 100 % of each side, flip, light, contrast, blur, noise, JPEG."""
    width, height = (round(side * random.uniform(0.7, 1.0)) for side in picture.size)
    left = int(random.integers(0, picture.width - width + 1))
    top = int(random.integers(0, picture.height - height + 1))
    view = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    if random.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    view = ImageEnhance.Brightness(view).enhance(random.uniform(0.8, 1.2))
    view = ImageEnhance.Contrast(view).enhance(random.uniform(0.8, 1.2))
    if random.random() < 0.3:
        view = view.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 1.0)))
    if random.random() < 0.3:
        noise = random.normal(0.0, random.uniform(1.0, 6.0), size=(SIDE, SIDE, 3))
        view = Image.fromarray(np.clip(np.rint(np.asarray(view) + noise), 0, 255).astype(np.uint8))
    if random.random() < 0.3:
        packed = io.BytesIO()
        view.save(packed, "JPEG", quality=int(random.integers(60, 96)))
        view = Image.open(packed).convert("RGB")
    return view


def write_folder(folder: Path, views: list[tuple[str, int, Image.Image]]) -> None:
    """Save the views as JPEG of quality 95 with a ``labels.csv`` (header ``file,label``), which is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, _, view in views:
        view.save(folder / name, "JPEG", quality=95, subsampling=0)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "label"])
        rows.writerows((name, label) for name, label, _ in views)


def make_data() -> None:
    """Write ``calib`` (256 views of 5 pictures), ``eval`` (1,050 of the other 15), ``clean`` (those 15 undistorted)."""
    calibration: list[tuple[str, int, Image.Image]] = []
    evaluation: list[tuple[str, int, Image.Image]] = []
    clean: list[tuple[str, int, Image.Image]] = []
    for index, path in enumerate(sorted((BUILD / "pictures").glob("imagenet_*.jpg"))):
        found = re.fullmatch(r"imagenet_\d+_(\d+)\.jpg", path.name)
        assert found is not None, f"{path.name} does not carry its class index"
        label = int(found[1])
        picture = Image.open(path).convert("RGB")
        random = np.random.default_rng([20, index])
        into = calibration if index in CALIBRATION_CROPS else evaluation
        for view in range(CALIBRATION_CROPS.get(index, EVALUATION_CROPS)):
            into.append((f"{index:02d}-{view:03d}.jpg", label, distort(picture, random)))
        if index not in CALIBRATION_CROPS:
            clean.append((path.name, label, whole(picture)))
    for folder, views in (("calib", calibration), ("eval", evaluation), ("clean", clean)):
        write_folder(BUILD / folder, views)


def main() -> None:
    """Make what ``build/`` lacks."""
    if not (BUILD / "model.onnx").exists():
        partial = BUILD / "model.onnx.part"
        export(partial)
        partial.replace(BUILD / "model.onnx")
    if not all((BUILD / name / "labels.csv").exists() for name in ("calib", "eval", "clean")):
        make_data()


if __name__ == "__main__":
    main()
