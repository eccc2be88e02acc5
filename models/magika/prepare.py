"""Make ``build/calib.npz`` and ``build/eval.npz``: the features of real files, labelled with the class each file is of.

A label is told by where the file comes from, never by the model. Elsewhere than in pygments' examples, which stand in a
folder named after their lexer, it is told by the name's ending: Magika's own catalogue of types says which class has
it, and `TAKEN` which classes a source has for sure. What is ambiguous is left out.

Nothing is random: files stand in the order of the hashes of their features, which mixes types and sources, and every
fifth one calibrates. Both sets are made anew each time, so they never lag behind the labels.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BUILD = Path(__file__).resolve().parent / "build"
CALIBRATION_EVERY = 5
CLASS_AT_MOST = 40
"""Files of one class, so that no class decides the score."""
SHORTEST = 128
"""Bytes within surrounding whitespace. Shorter files are mostly stubs, `int main(void) { return 0; }` is C and C++."""

TAKEN = {
    "ansible": "cs diff ini jinja json markdown pem powershell python shell toml yaml",
    "docutils": "css html javascript latex odt png rst svg xml",
    "fonttools": "otf ttf woff woff2",
    "foolbox": "jpeg png",
    "gensim": "bzip gzip npy pickle tsv",
    "googleapis": "proto",
    "icalendar": "ics",
    "jupytext": "clojure cpp cs go groovy haskell ipynb java javascript julia lua markdown ocaml powershell python r "
    "rust scala shell tcl typescript",
    "matplotlib": "css csv gzip javascript jpeg npy npz pdf png svg ttf",
    "meson": "asm batch c cmake cpp cs diff fortran gzip java javascript json objectivec proto python rust shell swift "
    "toml xml xz",
    "mutagen": "flac midi mp3 mp4 ogg wav",
    "patool": "ace bzip cab chm deb flac gzip iso lha rar rpm sevenzip tar wav xz zip",
    "puremagic": "bmp bzip doc docx flv gif gzip ico iso jpeg mkv mp3 mp4 pcap pebin png ppt pptx psd rar sevenzip svg "
    "swf tar tga tiff wav webp xls xlsx xz zip",
    "pydata": "javascript po scss",
    "sphinx": "css gif javascript jinja latex pdf png po python rst svg toml",
    "vunit": "tcl vhdl",
    "xdis": "pythonbytecode",
}
"""Classes that a source (a folder below ``build/labelled/``) has files of, told by their endings.

Not taken: HTML pages of sphinx, pydata and matplotlib (templates in several languages), C headers (C or C++), plain
text (``.txt`` is reStructuredText, CMake or data as often), patool's ``.vhd`` (a disk) and ``.apk``, ``.jar`` and
``.epub`` (any zip under such a name), meson's ``.ts`` (XML of Qt), ``.cat`` and ``.l``.
"""
NOT_WHAT_THEIR_NAMES_SAY = ("vault", "encrypted", "module_precedence", "bar-0.1.tar.gz")
"""Parts of paths: ansible's encrypted YAML and Python modules that end in .ini, an archive of meson's made by xz."""

LEXERS = {
    "ahk": "autohotkey",
    "aspx-cs": "asp",
    "aspx-vb": "asp",
    "bash": "shell",
    "bat": "batch",
    "ca65": "asm",
    "clojurescript": "clojure",
    "coffee-script": "coffeescript",
    "common-lisp": "lisp",
    "csharp": "cs",
    "delphi": "pascal",
    "docker": "dockerfile",
    "email": "eml",
    "html+handlebars": "handlebars",
    "js": "javascript",
    "lhs": "haskell",
    "make": "makefile",
    "md": "markdown",
    "mime": "eml",
    "nasm": "asm",
    "objective-c": "objectivec",
    "pot": "po",
    "protobuf": "proto",
    "rb": "ruby",
    "registry": "winregistry",
    "rhtml": "erb",
    "splus": "r",
    "tasm": "asm",
    "ts": "typescript",
    "vb.net": "vba",
    "vbscript": "vba",
}
"""Classes of pygments' lexers that Magika calls otherwise; others are taken if they bear the name of a class.

Of dialects only those are here whose endings the catalogue lists (vb, cljs, lhs) and the syntaxes of assemblers.
"""
OTHER_LEXERS = ("verilog",)
"""Lexers of a class's name whose example is not of that class: that of verilog is Coq, as its name says."""


def features(content: bytes, config: Mapping[str, Any]) -> NDArray[np.int32]:
    """The model's input for one file, int32 [begin + end]: stripped bytes, padded after the begin, before the end."""
    padding, block = config["padding_token"], config["block_size"]
    result = np.full(config["beg_size"] + config["end_size"], padding, dtype=np.int32)
    begin = content[:block].lstrip()[: config["beg_size"]]
    end = content[-block:].rstrip()[-config["end_size"] :]
    result[: len(begin)] = np.frombuffer(begin, dtype=np.uint8)
    if end:
        result[-len(end) :] = np.frombuffer(end, dtype=np.uint8)
    return result


def label(path: str, endings: Mapping[str, set[str]]) -> str | None:
    """The class of the file ``<source>/<path inside it>``, or None where that is not known for sure."""
    source, *folders, name = path.split("/")
    ending = name.rpartition(".")[2]
    having = {one for one, its in endings.items() if ending in its}
    if source == "pygments":
        lexer = folders[0]
        found = LEXERS.get(lexer, lexer)
        # An `.output` is what the lexer makes of an example; groovy/test.gradle has the ending of another class.
        sure = found in endings and lexer not in OTHER_LEXERS and ending != "output"
        return found if sure and (found in having or not having) else None
    if any(part in path for part in NOT_WHAT_THEIR_NAMES_SAY):
        return None
    taken = having.intersection(TAKEN[source].split())
    return taken.pop() if len(taken) == 1 else None


def labelled(space: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """Every fetched file that is known to be of a class of `space`, in the order of the paths."""
    catalogue = json.loads((BUILD / "content_types_kb.min.json").read_text(encoding="utf-8"))
    endings = {name: set(catalogue[name]["extensions"]) for name in space}
    root = BUILD / "labelled"
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        found = label(path.relative_to(root).as_posix(), endings)
        if found is not None:
            yield path, found


def items() -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Features [files, 2048] and labels of the files that count, mixed; repeated ones and short ones are left out."""
    config = json.loads((BUILD / "config.min.json").read_text(encoding="utf-8"))
    assert config["mid_size"] == 0 and not config["use_inputs_at_offsets"], "another layout than the one made here"
    rows: dict[bytes, tuple[NDArray[np.int32], str]] = {}
    for path, found in labelled(config["target_labels_space"]):
        content = path.read_bytes()
        if len(content.strip()) >= SHORTEST:
            row = features(content, config)
            rows.setdefault(hashlib.sha256(row.tobytes()).digest(), (row, found))
    so_far: Counter[str] = Counter()
    kept: list[tuple[bytes, NDArray[np.int32], str]] = []
    for key, (row, found) in sorted(rows.items()):
        so_far[found] += 1
        if so_far[found] <= CLASS_AT_MOST:
            # By the other end of the hash: by this one, the classes with the most files would come first.
            kept.append((key[::-1], row, found))
    kept.sort()
    index = {name: number for number, name in enumerate(config["target_labels_space"])}
    return np.stack([row for _, row, _ in kept]), np.array([index[found] for _, _, found in kept], dtype=np.int64)


def main() -> None:
    """Make both sets."""
    samples, labels = items()
    calibrating = np.arange(len(samples)) % CALIBRATION_EVERY == 0
    for role, chosen in (("calib", calibrating), ("eval", ~calibrating)):
        partial = BUILD / "part.npz"
        np.savez_compressed(partial, bytes=samples[chosen], label=labels[chosen])
        partial.replace(BUILD / f"{role}.npz")


if __name__ == "__main__":
    main()
