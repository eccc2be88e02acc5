"""The cache: a changed byte is another key, a damaged file is done again, two processes do no harm."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import SHAPE, save_classifier, save_pictures, save_samples

from onnxq.data.open import open_dataset
from onnxq.data.sample import InputSpec, Sample
from onnxq.errors import CalibrationError
from onnxq.ir.load import load
from onnxq.runtime.session import Session
from onnxq.stats.cache import Cache, CacheWarning, Request, digest, file_digest, folder_digest
from onnxq.stats.engine import calibrate, data_digest

SPECS = (InputSpec(name="image", dtype=np.dtype(np.float32), shape=("N", *SHAPE)),)
NAMES = ["image", "r", "scores"]


def run(folder: Path, cache: Cache | None, **options: Any) -> Any:
    model = load(folder / "m.onnx")
    data = open_dataset(folder / "s.npz", Session(folder / "m.onnx", threads=1).inputs)
    return calibrate(model, NAMES, data, threads=1, cache=cache, **options)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    save_classifier(tmp_path / "m.onnx")
    save_samples(tmp_path / "s.npz", 6)
    return tmp_path


def test_a_second_run_takes_everything_from_the_cache(place: Path) -> None:
    cache = Cache(place / "cache")
    first, second = run(place, cache), run(place, cache)
    assert (first.cached, first.ran) == (False, 6)
    assert (second.cached, second.ran) == (True, 0)
    assert second.statistics == first.statistics == run(place, None).statistics
    assert [p.name for p in (place / "cache" / "entries").iterdir()] == [f"{first.key}.npz"]
    assert not list((place / "cache" / "partial").glob("*"))


def test_every_part_of_the_question_is_in_the_key(place: Path) -> None:
    cache = Cache(place / "cache")
    known = run(place, cache).key
    keys = {
        known,
        run(place, cache, limit=5).key,
        run(place, cache, observers=["minmax"]).key,
        run(place, cache, allow_infinite=["r"]).key,
        run(place, cache, shapes={"r": (1,)}).key,
        run(place, Cache(place / "cache", environment="another CPU")).key,
    }
    save_samples(place / "s.npz", 7)
    keys.add(run(place, cache).key)
    save_samples(place / "s.npz", 6)
    assert run(place, cache).key == known
    save_classifier(place / "m.onnx", seed=5)
    keys.add(run(place, cache).key)
    assert len(keys) == 8


def test_threads_are_not_in_the_key(place: Path) -> None:
    cache = Cache(place / "cache")
    model, data = load(place / "m.onnx"), open_dataset(place / "s.npz", SPECS)
    assert calibrate(model, NAMES, data, threads=2, cache=cache).key == run(place, cache).key
    assert run(place, cache).cached


def test_a_damaged_entry_is_thrown_away_with_a_warning(place: Path) -> None:
    cache = Cache(place / "cache")
    first = run(place, cache)
    entry = cache.entry(first.key)
    entry.write_bytes(entry.read_bytes()[:-200])
    with pytest.warns(CacheWarning, match="a damaged cache entry was thrown away"):
        again = run(place, cache)
    assert (again.cached, again.ran) == (False, 6)
    assert again.statistics == first.statistics
    assert run(place, cache).cached


def test_a_cache_that_cannot_be_written_is_no_error(place: Path) -> None:
    (place / "cache").write_text("a file where the folder should be")
    with pytest.warns(CacheWarning, match="cannot be written"):
        assert run(place, Cache(place / "cache")).ran == 6


def test_what_was_not_used_for_longest_goes_first(place: Path) -> None:
    cache = Cache(place / "cache")
    old, new = run(place, cache), run(place, cache, limit=3)
    for age, key in ((200, old.key), (100, new.key)):
        os.utime(cache.entry(key), (age, age))
    size = cache.entry(old.key).stat().st_size
    run(place, cache)  # used: now it is the younger one
    small = Cache(place / "cache", limit=2 * size + size // 2)
    latest = run(place, small, limit=4)
    assert cache.get(new.key) is None
    assert cache.get(old.key) == old.statistics
    assert cache.get(latest.key) == latest.statistics


def test_nothing_goes_while_there_is_room(place: Path) -> None:
    cache = Cache(place / "cache")
    keys = [run(place, cache, limit=n).key for n in (2, 3, 4)]
    assert all(cache.get(key) for key in keys)


def test_a_changed_picture_changes_the_key_and_a_touched_one_does_not(tmp_path: Path) -> None:
    folder = save_pictures(tmp_path / "pictures", 4)
    key = data_digest(open_dataset(folder, SPECS))
    picture = folder / "picture_2.png"
    status = picture.stat()
    os.utime(picture, (1, 1))
    assert data_digest(open_dataset(folder, SPECS)) == key
    changed = bytearray(picture.read_bytes())
    changed[-20] ^= 1
    picture.write_bytes(changed)
    os.utime(picture, ns=(status.st_atime_ns, status.st_mtime_ns))  # same size, same time
    assert data_digest(open_dataset(folder, SPECS)) != key


def test_settings_and_selection_of_pictures_are_in_the_key(tmp_path: Path) -> None:
    from onnxq.data.preprocess import Preprocess

    folder = save_pictures(tmp_path / "pictures", 4)
    made = [
        open_dataset(folder, SPECS),
        open_dataset(folder, SPECS, limit=2),
        open_dataset(folder, SPECS, skip_bad=True),
        open_dataset(folder, SPECS, Preprocess(mean=(0.5,))),
        open_dataset(folder, (InputSpec(name="image", dtype=np.dtype(np.float32), shape=(2, *SHAPE)),)),
    ]
    assert len({data_digest(one) for one in made}) == 5


def test_pictures_that_are_not_used_do_not_count(tmp_path: Path) -> None:
    folder = save_pictures(tmp_path / "pictures", 4)
    key = data_digest(open_dataset(folder, SPECS, limit=2))  # pictures 0 and 2
    (folder / "picture_1.png").write_bytes(b"other")
    assert data_digest(open_dataset(folder, SPECS, limit=2)) == key


def test_of_a_function_the_arrays_count(tmp_path: Path) -> None:
    source = (
        "import numpy as np\ndef make():\n    for i in range({}):\n        yield {{'image': np.full({}, i, 'f')}}\n"
    )
    keys = []
    for number, (count, shape) in enumerate([(3, (1, 3, 8, 8)), (3, (1, 3, 8, 8)), (4, (1, 3, 8, 8))]):
        (tmp_path / f"data{number}.py").write_text(source.format(count, shape))
        keys.append(data_digest(open_dataset(f"data{number}.py:make", SPECS, base=tmp_path)))
    assert keys[0] == keys[1] != keys[2]


def test_samples_that_tell_nothing_of_themselves_are_not_cached(place: Path) -> None:
    class Plain:
        description, preprocess_summary, labelled = "two samples", "", False
        skipped: tuple[str, ...] = ()

        def __len__(self) -> int:
            return 2

        def __iter__(self) -> Iterator[Sample]:
            for i in range(2):
                yield Sample(index=i, name=str(i), inputs={"image": np.full((1, *SHAPE), i, np.float32)})

    data: Any = Plain()
    done = calibrate(load(place / "m.onnx"), NAMES, data, threads=1, cache=Cache(place / "cache"))
    assert (done.key, done.ran, done.cached) == (None, 2, False)
    assert not (place / "cache").exists()


def test_a_run_that_fails_leaves_no_entry(place: Path) -> None:
    images = np.zeros((3, *SHAPE), np.float32)
    images[2] = np.nan
    np.savez(place / "s.npz", image=images)
    with pytest.raises(CalibrationError, match="NaN in sample 2"):
        run(place, Cache(place / "cache"))
    assert not (place / "cache" / "entries").exists()


def test_samples_that_change_while_they_are_read_are_not_cached(place: Path) -> None:
    class Changing:
        """Writes its own file again when the last sample was read."""

        def __init__(self) -> None:
            self.data: Any = open_dataset(place / "s.npz", SPECS)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.data, name)

        def __len__(self) -> int:
            return len(self.data)

        def part(self, start: int, stop: int) -> Any:
            piece = self.data.part(start, stop)

            class Part:
                def __iter__(self) -> Iterator[Sample]:
                    yield from piece
                    later = time.time()
                    while (place / "s.npz").stat().st_ctime <= later:  # clocks of file systems have steps
                        save_samples(place / "s.npz", 6)

            return Part()

    data: Any = Changing()
    cache = Cache(place / "cache")
    done = calibrate(load(place / "m.onnx"), NAMES, data, threads=1, cache=cache)
    assert done.key is None
    assert done.notes == ("Samples changed while they were read: nothing was kept in the cache.",)
    assert not (place / "cache" / "entries").exists()


def test_a_request_holds_as_long_as_every_byte_does(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"1")
    request = Request(
        files={str(folder / "a.bin"): file_digest(folder / "a.bin")},
        folders={str(folder): folder_digest(folder)},
        functions={},
        entry="e",
    )
    cache = Cache(tmp_path / "cache")
    cache.remember("question", request)
    again = cache.recall("question")
    assert again == request
    assert again is not None and again.holds()
    (folder / "b.bin").touch()
    assert not again.holds()
    (folder / "b.bin").unlink()
    assert again.holds()
    (folder / "a.bin").write_bytes(b"2")
    assert not again.holds()
    (folder / "a.bin").unlink()
    assert not again.holds()
    assert cache.recall("another question") is None


def test_a_damaged_request_is_thrown_away_with_a_warning(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests" / "q.json").write_text("{")
    with pytest.warns(CacheWarning, match="thrown away"):
        assert cache.recall("q") is None
    assert cache.recall("q") is None


def test_a_digest_tells_values_and_types_apart() -> None:
    assert len({digest(v) for v in (1, "1", 1.5, None, [1], [[1]], {"a": 1}, True)}) == 8
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
