"""Settings are checked when they are made, and read strictly from plain mappings."""

from __future__ import annotations

from typing import Any

import pytest

from onnxq.data import Preprocess, Side
from onnxq.errors import UsageError


def test_every_setting_from_a_mapping() -> None:
    made = Preprocess.from_mapping(
        {
            "color": "bgr",
            "resize": [256, 320],
            "crop": 224,
            "interpolation": "bicubic",
            "scale": 1,
            "mean": [0.5, 0.4, 0.3],
            "std": 0.25,
            "layout": "nhwc",
            "max_length": 12,
        }
    )
    assert made == Preprocess(
        color="bgr",
        resize=(256, 320),
        crop=224,
        interpolation="bicubic",
        scale=1,
        mean=(0.5, 0.4, 0.3),
        std=(0.25,),
        layout="nhwc",
        max_length=12,
    )
    assert Preprocess.from_mapping({}) == Preprocess()
    assert Preprocess.from_mapping({"resize": {"width": 320}}).resize == Side(width=320)


def test_a_side_keeps_the_aspect_and_never_vanishes() -> None:
    assert Side(height=48).size(height=96, width=400) == (48, 200)
    assert Side(width=10).size(height=3, width=1000) == (1, 10)


@pytest.mark.parametrize(
    ("mapping", "sentence"),
    [
        ({"meen": [0.5]}, 'preprocess has no setting "meen": did you mean "mean"?'),
        ({"resize": {"heigth": 3}}, 'resize has no setting "heigth": did you mean "height"?'),
        ({"resize": {}}, "a resize by side names either height or width, one of them"),
        ({"resize": {"height": 3, "width": 4}}, "a resize by side names either height or width, one of them"),
        ({"resize": {"height": 0}}, "resize.height must be a whole number of at least 1, not 0"),
        ({"resize": {"width": True}}, "resize.width must be a whole number of at least 1, not True"),
        ({"resize": 0}, "resize must be a whole number of at least 1, not 0"),
        ({"resize": "224"}, "resize must be a whole number of at least 1, not '224'"),
        ({"resize": [1, 2, 3]}, "resize must be one number or [height, width], not [1, 2, 3]"),
        ({"crop": [224, -1]}, "crop must be a whole number of at least 1, not -1"),
        ({"color": "rbg"}, "color must be one of rgb, bgr, gray, not 'rbg': did you mean \"rgb\"?"),
        ({"layout": "chw"}, "layout must be one of nchw, nhwc, not 'chw': did you mean \"nchw\"?"),
        ({"interpolation": None}, "interpolation must be one of nearest, bilinear, bicubic, not None: known are "),
        ({"scale": 0}, "scale must be a number other than 0, not 0"),
        ({"scale": "1/255"}, "scale must be a number other than 0, not '1/255'"),
        ({"mean": "0.5"}, "mean must be a list of numbers, not '0.5'"),
        ({"mean": [True]}, "mean must be a list of numbers, not (True,)"),
        ({"std": [1.0, float("nan")]}, "std must be a list of numbers, not (1.0, nan)"),
        ({"std": [1.0, 0.0]}, "std must not hold 0, which is divided by: [1.0, 0.0]"),
        ({"max_length": 0}, "max_length must be a whole number of at least 1, not 0"),
    ],
)
def test_refused(mapping: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        Preprocess.from_mapping(mapping)
    assert str(caught.value).startswith(sentence)
