"""models/fetch.py, without a network: the archives lie in the cache already."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

MODELS = Path(__file__).resolve().parents[2] / "models"
FILES = {"thing/models/a.onnx": b"alpha", "thing/models/b.onnx": b"beta", "thing/readme.txt": b"text"}


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"loaded_{path.parent.name}_{path.stem}".replace("-", "_"), path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


fetch = load(MODELS / "fetch.py")


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def wheel(folder: Path, files: Mapping[str, bytes] = FILES) -> Path:
    folder.mkdir(parents=True)
    path = folder / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def sdist(folder: Path) -> None:
    folder.mkdir(parents=True)
    with tarfile.open(folder / "thing-1.0.tar.gz", "w:gz") as archive:
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("make", [wheel, sdist])
def test_takes_one_file_out_of_an_archive_and_renames_it(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "cache" / "thing-1.0")
    path = fetch.fetch(
        "thing", "1.0", "thing/models/a.onnx", sha(b"alpha"), tmp_path, rename="model.onnx", cache=tmp_path / "cache"
    )
    assert path == tmp_path / "model.onnx"
    assert path.read_bytes() == b"alpha"


def test_takes_several_files_by_pattern_and_nothing_else(tmp_path: Path) -> None:
    wheel(tmp_path / "cache" / "thing-1.0")
    listing = f"{sha(b'alpha')}  a.onnx\n{sha(b'beta')}  b.onnx\n"
    wanted = sha(listing.encode())
    path = fetch.fetch("thing", "1.0", "thing/*.onnx", wanted, tmp_path, rename="all", cache=tmp_path / "cache")
    assert sorted(p.name for p in path.iterdir()) == ["a.onnx", "b.onnx"]


def test_does_nothing_when_the_right_content_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"alpha")
    # There is no cache and no package of this name: any attempt to download would fail.
    fetch.fetch("no-such-thing", "1.0", "thing/models/a.onnx", sha(b"alpha"), tmp_path, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_replaces_other_content(tmp_path: Path) -> None:
    wheel(tmp_path / "cache" / "thing-1.0")
    (tmp_path / "a.onnx").write_bytes(b"stale")
    fetch.fetch("thing", "1.0", "thing/models/a.onnx", sha(b"alpha"), tmp_path, cache=tmp_path / "cache")
    assert (tmp_path / "a.onnx").read_bytes() == b"alpha"


def test_refuses_a_file_of_another_hash_and_writes_nothing(tmp_path: Path) -> None:
    wheel(tmp_path / "cache" / "thing-1.0")
    with pytest.raises(fetch.FetchError, match=r"thing/models/a\.onnx of thing==1\.0 has SHA-256 .* is wanted"):
        fetch.fetch("thing", "1.0", "thing/models/a.onnx", sha(b"other"), tmp_path, cache=tmp_path / "cache")
    assert not (tmp_path / "a.onnx").exists()


def test_refuses_an_archive_of_another_hash(tmp_path: Path) -> None:
    wheel(tmp_path / "cache" / "thing-1.0")
    with pytest.raises(fetch.FetchError, match="correct archive_sha256"):
        fetch.fetch(
            "thing", "1.0", "thing/readme.txt", sha(b"text"), tmp_path, archive_sha256="0", cache=tmp_path / "cache"
        )


def test_names_the_near_file_when_the_member_is_missing(tmp_path: Path) -> None:
    wheel(tmp_path / "cache" / "thing-1.0")
    with pytest.raises(fetch.FetchError, match=r"has no file models/a\.onnx.*did you mean thing/models/a\.onnx\?"):
        fetch.fetch("thing", "1.0", "models/a.onnx", sha(b"alpha"), tmp_path, cache=tmp_path / "cache")


def test_refuses_two_files_of_one_name(tmp_path: Path) -> None:
    wheel(tmp_path / "cache" / "thing-1.0", {"x/a.txt": b"1", "y/a.txt": b"2"})
    with pytest.raises(fetch.FetchError, match="two files of one name"):
        fetch.fetch("thing", "1.0", "*.txt", "0", tmp_path, cache=tmp_path / "cache")


def test_keeps_the_folders_below_the_fixed_part_of_a_pattern(tmp_path: Path) -> None:
    archive = wheel(tmp_path / "cache" / "thing-1.0", {"thing/x/deep/a.txt": b"1", "thing/y/a.txt": b"2"})
    wanted = sha(f"{sha(b'1')}  x/deep/a.txt\n{sha(b'2')}  y/a.txt\n".encode())
    options = {"rename": "all", "tree": True, "cache": tmp_path / "cache"}
    path = fetch.fetch("thing", "1.0", "thing/[xy]*.txt", wanted, tmp_path, **options)
    assert {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*.txt")} == {
        "x/deep/a.txt": b"1",
        "y/a.txt": b"2",
    }
    archive.unlink()
    fetch.fetch("thing", "1.0", "thing/[xy]*.txt", wanted, tmp_path, **options)  # all is there: nothing to open


def test_says_that_a_broken_archive_must_go(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "thing-1.0"
    folder.mkdir(parents=True)
    (folder / "thing-1.0.tar.gz").write_bytes(b"not a tar")
    with pytest.raises(fetch.FetchError, match=r"thing-1\.0\.tar\.gz is no complete wheel or sdist: delete it"):
        fetch.fetch("thing", "1.0", "a", "0", tmp_path, cache=tmp_path / "cache")


def test_an_unknown_model_is_named_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch.main(["no-such-model"]) == 2
    message = capsys.readouterr().err
    assert "no model 'no-such-model'" in message
    assert "ppocr-cls" in message


@pytest.mark.parametrize("name", fetch.names())
def test_every_model_says_where_it_is_from_and_how_it_is_judged(name: str) -> None:
    content = fetch.describe(name)
    assert content["name"] == name
    assert {"source", "licence", "data", "metric", "expected", "preprocessing"} <= content.keys()
    for entry in content["source"]:
        assert len(entry["sha256"]) == 64
        assert {"package", "version", "member"} <= entry.keys()
