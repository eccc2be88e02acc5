"""Real picture files, decoded and prepared, against arrays computed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from onnxq.data import InputSpec, Preprocess, Side, open_dataset
from onnxq.errors import DataError

RNG = np.random.default_rng(7)
PLAIN = Preprocess(scale=1)


def picture(height: int, width: int) -> NDArray[np.uint8]:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(values: NDArray[Any], path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
    return path


def first(folder: Path, spec: InputSpec, preprocess: Preprocess = PLAIN) -> NDArray[Any]:
    sample = next(iter(open_dataset(folder, [spec], preprocess)))
    return sample.inputs[spec.name]


def test_nchw_with_the_default_scale(tmp_path: Path, spec: Any) -> None:
    values = picture(5, 7)
    save(values, tmp_path / "a.png")
    got = first(tmp_path, spec("N", 3, 5, 7), Preprocess())
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got[0], values.transpose(2, 0, 1).astype(np.float32) * np.float32(1 / 255))


def test_nhwc_mean_and_std_per_channel_in_bgr(tmp_path: Path, spec: Any) -> None:
    values = picture(5, 7)
    save(values, tmp_path / "a.png")
    settings = Preprocess(color="bgr", mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    got = first(tmp_path, spec(1, 5, 7, 3), settings)
    bgr = values[:, :, ::-1].astype(np.float32) / 255
    np.testing.assert_allclose(got[0], (bgr - [0.1, 0.2, 0.3]) / [0.5, 0.25, 2.0], atol=1e-6)


def test_one_mean_serves_all_channels(tmp_path: Path, spec: Any) -> None:
    values = picture(2, 2)
    save(values, tmp_path / "a.png")
    got = first(tmp_path, spec(1, 3, 2, 2), Preprocess(scale=1, mean=(127.0,), std=(128.0,)))
    np.testing.assert_array_equal(got[0], (values.transpose(2, 0, 1).astype(np.float32) - 127) / 128)


@pytest.mark.parametrize("shape", [("N", 1, 4, 6), ("N", 4, 6, 1)])
def test_gray_model_gets_the_luma_of_a_colour_picture(tmp_path: Path, spec: Any, shape: tuple[Any, ...]) -> None:
    values = picture(4, 6)
    save(values, tmp_path / "a.png")
    got = first(tmp_path, spec(*shape))
    assert got.shape == (1, *shape[1:])
    luma = values.astype(np.float64) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(got.reshape(4, 6), luma, atol=1)


def test_gray_on_three_channels_repeats_it(tmp_path: Path, spec: Any) -> None:
    save(picture(4, 6), tmp_path / "a.png")
    got = first(tmp_path, spec(1, 3, 4, 6), Preprocess(scale=1, color="gray"))
    np.testing.assert_array_equal(got[:, 0], got[:, 1])
    np.testing.assert_array_equal(got[:, 0], got[:, 2])


def test_types_of_the_model(tmp_path: Path, spec: Any) -> None:
    values = picture(4, 6)
    save(values, tmp_path / "a.png")
    half = first(tmp_path, spec(1, 3, 4, 6, dtype="float16"), Preprocess())
    assert half.dtype == np.float16
    np.testing.assert_allclose(half[0], values.transpose(2, 0, 1) / 255, atol=1e-3)
    raw = first(tmp_path, spec(1, 4, 6, 3, dtype="uint8"), Preprocess())
    assert raw.dtype == np.uint8
    np.testing.assert_array_equal(raw[0], values)


def test_rank_three_has_no_batch_axis(tmp_path: Path, spec: Any) -> None:
    values = picture(4, 6)
    save(values, tmp_path / "a.png")
    np.testing.assert_array_equal(first(tmp_path, spec(3, 4, 6)), values.transpose(2, 0, 1))


def test_alpha_and_transparent_palette_are_seen_on_white(tmp_path: Path, spec: Any) -> None:
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0] = [10, 20, 30, 255]
    save(rgba, tmp_path / "a.png")
    two = Image.new("P", (2, 2), 0)
    two.putpalette([1, 2, 3, 9, 9, 9])
    two.putpixel((1, 1), 1)
    two.save(tmp_path / "b.png", transparency=1)
    a, b = (s.inputs["x"][0] for s in open_dataset(tmp_path, [spec(1, 3, 2, 2)], PLAIN))
    np.testing.assert_array_equal(a[:, 0, 0], [10, 20, 30])
    np.testing.assert_array_equal(a[:, 1, 1], [255, 255, 255])
    np.testing.assert_array_equal(b[:, 1, 1], [255, 255, 255])
    np.testing.assert_array_equal(b[:, 0, 0], [1, 2, 3])


def test_opaque_palette_and_gif(tmp_path: Path, spec: Any) -> None:
    values = np.zeros((4, 4, 3), np.uint8)
    values[:2] = [255, 0, 0]
    frame = Image.fromarray(values).quantize(2)
    frame.save(tmp_path / "a.png")
    frame.save(tmp_path / "b.gif", save_all=True, append_images=[Image.new("RGB", (4, 4), "blue")])
    for sample in open_dataset(tmp_path, [spec(1, 4, 4, 3)], PLAIN):
        np.testing.assert_array_equal(sample.inputs["x"][0], values)


def test_sixteen_bits_become_eight_by_257(tmp_path: Path, spec: Any) -> None:
    wide = np.array([[0, 257, 32896, 65535]], np.uint16)
    save(wide, tmp_path / "a.png")
    np.testing.assert_array_equal(first(tmp_path, spec(1, 1, 1, 4)).ravel(), [0, 1, 128, 255])


@pytest.mark.parametrize("channels", [1, 3])
def test_cmyk_jpeg(tmp_path: Path, spec: Any, channels: int) -> None:
    Image.new("RGB", (16, 16), (200, 30, 60)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    got = first(tmp_path, spec(1, 16, 16, channels))
    want = [200, 30, 60] if channels == 3 else [200 * 0.299 + 30 * 0.587 + 60 * 0.114]
    np.testing.assert_allclose(got[0, 8, 8], want, atol=4)


def test_exif_orientation_is_honoured(tmp_path: Path, spec: Any) -> None:
    values = picture(4, 6)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    got = first(tmp_path, spec(1, "H", "W", 3))
    np.testing.assert_array_equal(got[0], np.rot90(values, k=-1))


def test_free_height_and_width_keep_the_native_size(tmp_path: Path, spec: Any) -> None:
    save(picture(4, 6), tmp_path / "a.png")
    save(picture(9, 3), tmp_path / "b.png")
    dataset = open_dataset(tmp_path, [spec("N", 3, "H", "W")])
    assert [s.inputs["x"].shape for s in dataset] == [(1, 3, 4, 6), (1, 3, 9, 3)]
    assert dataset.preprocess_summary == "anyxany RGB, NCHW, scale 1/255"


@pytest.mark.parametrize(
    ("shape", "settings", "want"),
    [
        ((1, 3, 8, 10), {}, (1, 3, 8, 10)),
        ((1, 3, 8, "W"), {}, (1, 3, 8, 16)),
        ((1, 3, "H", 10), {}, (1, 3, 5, 10)),
        ((1, 3, "H", "W"), {"resize": 10}, (1, 3, 10, 20)),
        ((1, 3, "H", "W"), {"resize": (7, 9)}, (1, 3, 7, 9)),
        ((1, 3, "H", "W"), {"resize": Side(width=10)}, (1, 3, 5, 10)),
        ((1, 3, "H", "W"), {"crop": (4, 6)}, (1, 3, 4, 6)),
        ((1, 3, 8, 8), {"resize": 10}, (1, 3, 8, 8)),
        ((1, 3, 8, 8), {"resize": Side(height=9)}, (1, 3, 8, 8)),
        ((1, 3, 8, 8), {"crop": 8}, (1, 3, 8, 8)),
        ((1, 3, 8, "W"), {"resize": Side(height=8)}, (1, 3, 8, 16)),
    ],
)
def test_sizes(
    tmp_path: Path, spec: Any, shape: tuple[Any, ...], settings: dict[str, Any], want: tuple[int, ...]
) -> None:
    save(picture(20, 40), tmp_path / "a.png")
    assert first(tmp_path, spec(*shape), Preprocess(**settings)).shape == want


def test_shorter_side_then_centre_crop(tmp_path: Path, spec: Any) -> None:
    values = picture(10, 16)
    save(values, tmp_path / "a.png")
    got = first(tmp_path, spec(1, 6, 6, 3), Preprocess(scale=1, resize=10))
    np.testing.assert_array_equal(got[0], values[2:8, 5:11])


def test_interpolation_is_obeyed(tmp_path: Path, spec: Any) -> None:
    values = np.zeros((1, 2, 3), np.uint8)
    values[0, 1] = 100
    save(values, tmp_path / "a.png")
    nearest = first(tmp_path, spec(1, 1, 4, 3), Preprocess(scale=1, interpolation="nearest", layout="nhwc"))
    np.testing.assert_array_equal(nearest[0, 0, :, 0], [0, 0, 100, 100])
    bilinear = first(tmp_path, spec(1, 1, 4, 3), Preprocess(scale=1, layout="nhwc"))
    np.testing.assert_array_equal(bilinear[0, 0, :, 0], [0, 25, 75, 100])


def test_summary_for_reports(tmp_path: Path, spec: Any) -> None:
    save(picture(9, 9), tmp_path / "a.png")
    settings = Preprocess(resize=9, mean=(0.485, 0.456, 0.406), std=(0.229,))
    assert open_dataset(tmp_path, [spec(1, 3, 8, 8)], settings).preprocess_summary == (
        "8x8 RGB, NCHW, shorter side resized to 9, centre crop 8x8, scale 1/255, mean 0.485 0.456 0.406, std 0.229"
    )
    raw = open_dataset(tmp_path, [spec(1, 8, 8, 1, dtype="uint8")])
    assert raw.preprocess_summary == "8x8 gray, NHWC, values 0 to 255"
    double = open_dataset(tmp_path, [spec(1, 1, 8, 8)], Preprocess(scale=0.5))
    assert double.preprocess_summary == "8x8 gray, NCHW, scale 0.5"


def test_a_fixed_batch_joins_pictures_and_drops_the_rest(tmp_path: Path, spec: Any) -> None:
    for i in range(7):
        save(np.full((2, 2, 3), i, np.uint8), tmp_path / "0" / f"{i}.png")
    dataset = open_dataset(tmp_path, [spec(3, 2, 2, 3)], PLAIN)
    samples = list(dataset)
    assert len(dataset) == len(samples) == 2
    assert samples[1].inputs["x"][:, 0, 0, 0].tolist() == [3, 4, 5]
    assert samples[1].name == "0/3.png to 0/5.png"
    assert samples[1].label.tolist() == [0, 0, 0]
    assert dataset.description == f"2 batches of 3 pictures of {tmp_path}, remainder of 1 left out"


def test_a_batch_needs_one_size(tmp_path: Path, spec: Any, refuses: Any) -> None:
    save(picture(4, 6), tmp_path / "a.png")
    save(picture(9, 3), tmp_path / "b.png")
    dataset = open_dataset(tmp_path, [spec(2, 3, "H", "W")])
    with refuses(
        "b.png has shape [1, 3, 9, 3] and a.png [1, 3, 4, 6], but the model takes batches of 2, "
        "which need one size: resize them"
    ):
        list(dataset)


def test_truncated_jpeg_is_named_and_skipped_on_demand(tmp_path: Path, spec: Any) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        save(picture(64, 64), tmp_path / name)
    whole = (tmp_path / "b.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "d.png").write_bytes(b"no picture")
    x = spec(1, 3, 64, 64)
    with pytest.raises(DataError, match=rf"^{tmp_path}/b.jpg is no readable picture \(image file is truncated"):
        list(open_dataset(tmp_path, [x]))
    dataset = open_dataset(tmp_path, [x], skip_bad=True)
    assert [(s.index, s.name) for s in dataset] == [(0, "a.jpg"), (2, "c.jpg")]
    assert [s.split(" is ")[0] for s in dataset.skipped] == [f"{tmp_path}/b.jpg", f"{tmp_path}/d.png"]
    assert len(dataset) == 2
    assert len(list(dataset)) == 2
    assert len(dataset.skipped) == 2


def test_all_bad_is_an_error_even_when_skipping(tmp_path: Path, spec: Any) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    dataset = open_dataset(tmp_path, [spec(1, 3, 8, 8)], skip_bad=True)
    with pytest.raises(
        DataError, match=rf"^nothing of {tmp_path} can be used, the first reason of 1: {tmp_path}/a.png"
    ):
        list(dataset)


def test_a_batch_takes_the_next_good_picture_for_a_bad_one(tmp_path: Path, spec: Any) -> None:
    for i in range(5):
        save(np.full((2, 2, 3), i, np.uint8), tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes(b"")
    dataset = open_dataset(tmp_path, [spec(2, 2, 2, 3)], PLAIN, skip_bad=True)
    assert [s.inputs["x"][:, 0, 0, 0].tolist() for s in dataset] == [[0, 2]]
    assert len(dataset) == 1


def test_values_of_32_bits_have_no_known_range(tmp_path: Path, spec: Any, refuses: Any) -> None:
    save(np.zeros((2, 2), np.float32), tmp_path / "a.tiff")
    with refuses(f"{tmp_path}/a.tiff has 32-bit values (mode F), whose range is unknown: store it as .npy, scaled"):
        list(open_dataset(tmp_path, [spec(1, 1, 2, 2)]))


def test_a_picture_below_the_crop(tmp_path: Path, spec: Any, refuses: Any) -> None:
    save(picture(5, 9), tmp_path / "a.png")
    with refuses(f"{tmp_path}/a.png is [5, 9] high and wide, less than the crop [8, 8]: set resize"):
        list(open_dataset(tmp_path, [spec(1, 3, 8, 8)], Preprocess(crop=8)))


def test_a_picture_of_the_wrong_size_is_named(tmp_path: Path, spec: Any, refuses: Any) -> None:
    save(picture(9, 5), tmp_path / "a.png")
    with refuses(
        f'{tmp_path}/a.png has shape [1, 3, 7, 4], but input "x" takes [1, 3, 4, W]: give samples of that shape'
    ):
        list(open_dataset(tmp_path, [spec(1, 3, 4, "W")], Preprocess(resize=4)))


TAKES = 'input "x" takes float32'


@pytest.mark.parametrize(
    ("shape", "settings", "sentence"),
    [
        ((1, 10), {}, f"{{0}} holds pictures, but {TAKES} [1, 10], which is no picture: give .npy or .npz files"),
        (
            (1, 7, 5, 9),
            {},
            f"{TAKES} [1, 7, 5, 9], 7 channels in layout nchw: pictures have 1 or 3, set layout or give arrays",
        ),
        (
            (1, 1, 5, 9),
            {"color": "bgr"},
            f"preprocess asks for color bgr, but {TAKES} [1, 1, 5, 9], one channel: leave color out or write gray",
        ),
        (
            (1, 1, 5, 9),
            {"mean": (0.5, 0.5, 0.5)},
            f"preprocess has 3 values of mean, but {TAKES} [1, 1, 5, 9]: give one or 1",
        ),
        (
            (1, 3, 5, 9),
            {"resize": (5, 8)},
            f"preprocess.resize gives pictures of 5x8 (height x width), but {TAKES} [1, 3, 5, 9]: change resize",
        ),
        (
            (1, 3, 5, 9),
            {"resize": 20, "crop": 5},
            f"preprocess.crop gives pictures of 5x5 (height x width), but {TAKES} [1, 3, 5, 9]: change crop",
        ),
        (
            (1, 3, 5, "W"),
            {"resize": Side(height=6)},
            f"preprocess.resize gives pictures of 6xany (height x width), but {TAKES} [1, 3, 5, W]: change resize",
        ),
    ],
)
def test_settings_against_the_model(
    tmp_path: Path, spec: Any, refuses: Any, shape: tuple[Any, ...], settings: dict[str, Any], sentence: str
) -> None:
    save(picture(5, 9), tmp_path / "a.png")
    with refuses(sentence.format(tmp_path), DataError):
        open_dataset(tmp_path, [spec(*shape)], Preprocess(**settings))


def test_models_that_take_no_pictures(tmp_path: Path, spec: Any, refuses: Any) -> None:
    save(picture(5, 9), tmp_path / "a.png")
    with refuses(
        f'{tmp_path} holds pictures, which feed a model of one input, and this one has "a", "b": give .npz files'
    ):
        open_dataset(tmp_path, [spec(1, 3, 5, 9, name="a"), spec(1, 3, 5, 9, name="b")])
    with refuses(
        f'{tmp_path} holds pictures, but input "x" takes int64 [1, 3, 5, 9]: pictures become floats or uint8, '
        f"give .npy or .npz files"
    ):
        open_dataset(tmp_path, [spec(1, 3, 5, 9, dtype="int64")])
    with refuses(
        'preprocess has mean or std, but input "x" takes uint8 [1, 3, 5, 9], which gets the values 0 to 255: '
        "leave them out"
    ):
        open_dataset(tmp_path, [spec(1, 3, 5, 9, dtype="uint8")], Preprocess(mean=(1.0,)))
