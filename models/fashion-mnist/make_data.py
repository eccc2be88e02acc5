"""Read Fashion-MNIST and write the two small sets that are committed beside this file.

Why: the whole data set (30 MB) is a Debian package; tests and the demo need a part of it on any machine.

* ``calib.npz``: ``image`` float32 [256, 1, 28, 28] in [0, 1], from the TRAIN split;
* ``eval.npz``: ``image`` float32 [2000, 1, 28, 28] in [0, 1] and ``label`` int64 [2000], from the TEST split.

Both are stratified by class (counts differ by one at most) and drawn with a fixed seed. No picture is in both:
the two splits of Fashion-MNIST might share one, so that is checked on the pixels, not assumed. Needs numpy only:

    python models/fashion-mnist/make_data.py
"""

from __future__ import annotations

import argparse
import gzip
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).resolve().parent
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
CALIB_ITEMS = 256
EVAL_ITEMS = 2000

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def read_idx(path: Path) -> Pixels:
    """Return the uint8 array of a gzipped IDX file: magic 00 00 08 <rank>, <rank> big-endian int32 sizes, the data."""
    raw = gzip.decompress(path.read_bytes())
    zero, kind, rank = struct.unpack(">HBB", raw[:4])
    if zero != 0 or kind != 8:
        raise ValueError(f"{path} is no IDX file of unsigned bytes; give the folder of Fashion-MNIST's four .gz files")
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def read_split(folder: Path, split: str) -> tuple[Pixels, Labels]:
    """Return (pictures uint8 [N, 1, 28, 28], labels int64 [N]) of ``split``, which is "train" or "t10k"."""
    images = read_idx(folder / f"{split}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{split}-labels-idx1-ubyte.gz")
    return images[:, None], labels.astype(np.int64)


def to_float(images: Pixels) -> npt.NDArray[np.float32]:
    """Scale bytes to float32 in [0, 1]: the only preprocessing that the three models want."""
    return images.astype(np.float32) / np.float32(255)


def stratified(labels: Labels, items: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return ``items`` shuffled indices with equal class counts; the classes that get one more are drawn, too."""
    base, extra = divmod(items, len(CLASSES))
    favoured = set(rng.permutation(len(CLASSES))[:extra].tolist())
    parts = [
        rng.permutation(np.flatnonzero(labels == index))[: base + (index in favoured)] for index in range(len(CLASSES))
    ]
    return rng.permutation(np.concatenate(parts))


def write(folder: Path, out: Path, seed: int) -> None:
    """Write ``calib.npz`` and ``eval.npz`` into ``out``; raise ValueError if one picture is in both."""
    rng = np.random.default_rng(seed)
    train_images, train_labels = read_split(folder, "train")
    test_images, test_labels = read_split(folder, "t10k")
    calib = train_images[stratified(train_labels, CALIB_ITEMS, rng)]
    chosen = stratified(test_labels, EVAL_ITEMS, rng)
    evaluation = test_images[chosen]
    shared = {picture.tobytes() for picture in calib} & {picture.tobytes() for picture in evaluation}
    if shared:
        raise ValueError(f"{len(shared)} pictures are in both sets with seed {seed}; take another --seed")
    np.savez_compressed(out / "calib.npz", image=to_float(calib))
    np.savez_compressed(out / "eval.npz", image=to_float(evaluation), label=test_labels[chosen])


def main() -> None:
    parser = argparse.ArgumentParser(description="Write calib.npz and eval.npz from Fashion-MNIST.")
    parser.add_argument("--data", type=Path, default=DEBIAN_FOLDER, help="folder of the four .gz files (%(default)s)")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (beside this script)")
    parser.add_argument("--seed", type=int, default=2, help="seed of the draw (%(default)s)")
    options = parser.parse_args()
    write(options.data, options.out, options.seed)


if __name__ == "__main__":
    main()
