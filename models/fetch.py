"""Fetch the real models: pinned packages from the package index, unpacked into ``models/<name>/build/``.

Nothing large and nothing with a licence of its own is committed; each ``models/<name>/model.yaml`` says instead where
every file comes from, by package, version, path inside the package and SHA-256::

    source:
      - package: rapidocr
        version: 3.10.0
        member: rapidocr/models/some.onnx   # path inside the wheel or sdist; `*` takes several files
        sha256: 0123...                     # of that file; of several: see `digest`
        as: model.onnx                      # optional: name below build/ (several: a folder)
        tree: true                          # optional: several keep their folders below the pattern's fixed part
        archive_sha256: 4567...             # optional: of the wheel or sdist itself
        sdist: true                         # optional: take the sdist although there is a wheel
    prepare_requires: [torch==2.13.0]       # optional: prepare.py runs in models/.venv-torch, which gets these

Command line: ``python models/fetch.py [NAME ...]`` fetches the named models (all of them without a name) and then runs
``models/<name>/prepare.py`` where there is one. Files that are there with the right hash are left alone.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

MODELS = Path(__file__).resolve().parent
CACHE = MODELS / ".cache"
VENV = MODELS / ".venv-torch"


class FetchError(Exception):
    """A model could not be fetched; the message says which package and what to do."""


@contextmanager
def _opened(path: Path) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """The names of all files in a wheel (zip) or sdist (tar), and a function that reads one."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as wheel:
            yield [info.filename for info in wheel.infolist() if not info.is_dir()], wheel.read
        return
    with tarfile.open(path) as sdist:

        def read(name: str) -> bytes:
            stream = sdist.extractfile(name)
            assert stream is not None, f"{name} is a regular file"
            return stream.read()

        yield [member.name for member in sdist.getmembers() if member.isfile()], read


def digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 (hex) of one file's content, or of several files' ``sha256sum`` listing sorted by name.

    The listing has one line ``<sha256>  <name below the target folder>`` a file, each ended by a newline.
    """
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    listing = "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes))
    return hashlib.sha256(listing.encode()).hexdigest()


def _is_there(target: Path, sha256: str) -> bool:
    if target.is_file():
        return digest({target.name: target.read_bytes()}) == sha256
    files = {p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*") if p.is_file()}
    return bool(files) and digest(files) == sha256


def _below(name: str, member: str, *, tree: bool) -> str:
    """Where a file that matched the pattern ``member`` goes below the target folder."""
    if not tree:
        return Path(name).name
    fixed = re.split(r"[*?\[]", member)[0].rpartition("/")[0]
    return name.removeprefix(f"{fixed}/")


def _archive(package: str, version: str, archive_sha256: str | None, cache: Path, *, sdist: bool = False) -> Path:
    """The wheel or sdist of ``package==version``, downloaded into ``cache`` unless it is there already."""
    folder = cache / (f"{package}-{version}-sdist" if sdist else f"{package}-{version}")
    found = sorted(p for p in folder.glob("*") if p.name.endswith((".whl", ".zip", ".tar.gz")))
    if not found:
        folder.mkdir(parents=True, exist_ok=True)
        # Into a folder of its own first: a broken download must not be taken for the archive next time.
        with tempfile.TemporaryDirectory(dir=cache) as fresh:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", fresh, f"{package}=={version}"]
            command += ["--no-binary", package] if sdist else []
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise FetchError(
                    f"pip could not download {package}=={version} ({last}): check the network and the package index "
                    f"that pip is set up for, or put its wheel or sdist into {folder} by hand."
                )
            found = [path.replace(folder / path.name) for path in Path(fresh).iterdir()]
    if archive_sha256 is not None:
        actual = hashlib.sha256(found[0].read_bytes()).hexdigest()
        if actual != archive_sha256:
            raise FetchError(
                f"{found[0]} has SHA-256 {actual} where {archive_sha256} is wanted for {package}=={version}: delete it "
                "and fetch again, or correct archive_sha256 in model.yaml."
            )
    return found[0]


def fetch(
    package: str,
    version: str,
    member: str,
    sha256: str,
    into: Path,
    *,
    rename: str | None = None,
    archive_sha256: str | None = None,
    sdist: bool = False,
    tree: bool = False,
    cache: Path = CACHE,
) -> Path:
    """Bring one file (with ``*`` in ``member``: several) out of a package into the folder ``into``; returns its path.

    With ``*`` the files go into the folder ``into / rename``, flat unless ``tree``, and that folder is returned. Does
    nothing, and does not download, when the right content is there already. Raises FetchError.
    """
    several = "*" in member
    target = into / (rename or ("files" if several else Path(member).name))
    if _is_there(target, sha256):
        return target
    path = _archive(package, version, archive_sha256, cache, sdist=sdist)
    try:
        with _opened(path) as (everything, read):
            names = fnmatch.filter(everything, member) if several else [name for name in everything if name == member]
            files = {_below(name, member, tree=tree): read(name) for name in names}
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise FetchError(f"{path} is no complete wheel or sdist: delete it and fetch again.") from error
    if not names:
        near = [name for name in everything if name.endswith(Path(member).name)]
        hint = f"; did you mean {near[0]}?" if near else "."
        raise FetchError(f"{path.name} has no file {member}: correct `member` in model.yaml{hint}")
    if len(files) < len(names):
        raise FetchError(f"{member} in {path.name} matches two files of one name: narrow the pattern in model.yaml.")
    actual = digest(files)
    if actual != sha256:
        raise FetchError(
            f"{member} of {package}=={version} has SHA-256 {actual} where {sha256} is wanted: delete {path} and fetch "
            "again, or correct sha256 in model.yaml."
        )
    for name, data in files.items():
        out = target / name if several else target
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_name(out.name + ".part")
        partial.write_bytes(data)
        partial.replace(out)
    return target


def describe(name: str) -> dict[str, object]:
    """What ``models/<name>/model.yaml`` says."""
    try:
        import yaml
    except ImportError as error:
        raise FetchError(f"PyYAML is not installed for {sys.executable}: run this with .venv/bin/python.") from error
    path = MODELS / name / "model.yaml"
    if not path.is_file():
        known = ", ".join(names()) or "none"
        raise FetchError(f"There is no model {name!r} (no {path}): give one of {known}.")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise FetchError(f"{path} must be a mapping with a `source:` list: see models/fetch.py.")
    return content


def names() -> list[str]:
    """Every folder below ``models/`` that has a ``model.yaml``."""
    return sorted(path.parent.name for path in MODELS.glob("*/model.yaml"))


def _list(content: Mapping[str, object], key: str) -> list[object]:
    value = content.get(key) or []
    if not isinstance(value, list):
        raise FetchError(f"`{key}` in model.yaml must be a list, but is {value!r}.")
    return value


def fetch_sources(name: str) -> list[Path]:
    """Fetch all that ``source:`` of one model lists into ``models/<name>/build/``; returns the paths in that order."""
    build = MODELS / name / "build"
    paths: list[Path] = []
    for entry in _list(describe(name), "source"):
        known = {"package", "version", "member", "sha256", "as", "archive_sha256", "sdist", "tree"}
        wanted = {"package", "version", "member", "sha256"}
        if not isinstance(entry, dict) or not wanted <= entry.keys() <= known:
            raise FetchError(f"A source in models/{name}/model.yaml needs {sorted(wanted)} but is {entry!r}.")
        text = {key: str(value) for key, value in entry.items()}
        paths.append(
            fetch(
                text["package"],
                text["version"],
                text["member"],
                text["sha256"],
                build,
                rename=text.get("as"),
                archive_sha256=text.get("archive_sha256"),
                sdist=entry.get("sdist") is True,
                tree=entry.get("tree") is True,
            )
        )
    return paths


def _python_with(requirements: Sequence[str], venv: Path = VENV) -> Path:
    """The interpreter of ``models/.venv-torch`` with these requirements installed; made once, topped up when needed."""
    python = venv / "bin" / "python"
    stamp = venv / "installed.txt"
    installed = set(stamp.read_text().split("\n")) if stamp.is_file() else set()
    missing = [requirement for requirement in requirements if requirement not in installed]
    if not missing:
        return python
    print(f"installing {', '.join(missing)} into {venv.name} ...", flush=True)
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    command = [str(python), "-m", "pip", "install", "-q", *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise FetchError(
            f"pip could not install {', '.join(missing)} ({last}): check the network and the package index, or make "
            f"the virtualenv {venv} by hand and list what it has in {stamp}, one requirement a line."
        )
    stamp.write_text("\n".join(sorted(installed | set(requirements))))
    return python


def prepare(name: str) -> None:
    """Run ``models/<name>/prepare.py`` (if there is one) in its own folder; it makes what ``build/`` still lacks."""
    script = MODELS / name / "prepare.py"
    if not script.is_file():
        return
    requirements = [str(item) for item in _list(describe(name), "prepare_requires")]
    python = str(_python_with(requirements)) if requirements else sys.executable
    print(f"{name}: preparing ...", flush=True)
    done = subprocess.run([python, str(script)], cwd=script.parent, check=False)
    if done.returncode:
        raise FetchError(f"models/{name}/prepare.py failed with exit code {done.returncode}: its message stands above.")


def main(arguments: Sequence[str] | None = None) -> int:
    """``python models/fetch.py [NAME ...]``: 0 when all are there, 2 after a FetchError (one sentence on stderr)."""
    parser = argparse.ArgumentParser(description="Fetch and prepare the real models.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="folders below models/ (default: all)")
    parser.add_argument("--no-prepare", action="store_true", help="fetch only, do not run prepare.py")
    options = parser.parse_args(arguments)
    try:
        for name in options.names or names():
            paths = fetch_sources(name)
            print(f"{name}: {len(paths)} sources are in models/{name}/build", flush=True)
            if not options.no_prepare:
                prepare(name)
    except FetchError as error:
        print(f"models/fetch.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
