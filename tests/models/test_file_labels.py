"""How a file's class is known from where it comes (models/magika/prepare.py), on a few made-up files."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

PREPARE = Path(__file__).resolve().parents[2] / "models" / "magika" / "prepare.py"
ENDINGS = {
    "c": {"c"},
    "gradle": {"gradle"},
    "groovy": {"groovy"},
    "ini": {"ini"},
    "makefile": set[str](),
    "matlab": {"m"},
    "objectivec": {"m", "mm"},
    "python": {"py", "pyi"},
    "shell": {"sh"},
    "verilog": {"v"},
    "yaml": {"yaml", "yml"},
}
CONFIG = {
    "beg_size": 4,
    "mid_size": 0,
    "end_size": 3,
    "use_inputs_at_offsets": False,
    "padding_token": 256,
    "block_size": 512,
}


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("loaded_magika_prepare", PREPARE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


prepare = load()


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("pygments/bash/doif.sh", "shell"),  # the lexer's name is not Magika's
        ("pygments/make/Makefile", "makefile"),
        ("pygments/objective-c/objc_example.m", "objectivec"),  # the ending alone would not tell
        ("pygments/groovy/test.gradle", None),  # folder and ending name two classes
        ("pygments/c/example.c.output", None),
        ("pygments/verilog/example_coq.v", None),
        ("pygments/apl/test.apl", None),  # no class of the model
        ("meson/objc/1 simple/prog.m", "objectivec"),  # meson has no Matlab
        ("ansible/lib/a/plugin.py", "python"),
        ("ansible/test/lib/vault.yml", None),
        ("ansible/test/module_precedence/ping.ini", None),
        ("ansible/test/a/b.c", None),  # not among what is taken from there
        ("ansible/README", None),
    ],
)
def test_the_class_of_a_file(path: str, wanted: str | None) -> None:
    known = {name: set[str]() for names in prepare.TAKEN.values() for name in names.split()} | ENDINGS
    assert prepare.label(path, known) == wanted


def test_items_are_mixed_capped_and_without_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = sorted({name for names in prepare.TAKEN.values() for name in names.split()} | set(ENDINGS))
    catalogue = {name: {"extensions": sorted(ENDINGS.get(name, ()))} for name in classes}
    (tmp_path / "config.min.json").write_text(json.dumps(CONFIG | {"target_labels_space": classes}))
    (tmp_path / "content_types_kb.min.json").write_text(json.dumps(catalogue))
    folder = tmp_path / "labelled" / "ansible"
    folder.mkdir(parents=True)
    for number in range(prepare.CLASS_AT_MOST + 20):
        (folder / f"{number}.py").write_bytes(f"  {number:03}".encode() + b"#" * 200 + b"\n")
        (folder / f"{number}.sh").write_bytes(b"#" * 200 + f"{number % 5:03}".encode())
    (folder / "short.yml").write_bytes(b"a: 1\n" + b" " * 200)
    monkeypatch.setattr(prepare, "BUILD", tmp_path)
    prepare.main()
    sets = {role: dict(np.load(tmp_path / f"{role}.npz")) for role in ("calib", "eval")}
    labels = np.concatenate([one["label"] for one in sets.values()])
    counts = {classes[index]: int(count) for index, count in zip(*np.unique(labels, return_counts=True), strict=True)}
    assert counts == {"python": prepare.CLASS_AT_MOST, "shell": 5}
    assert len(sets["calib"]["label"]) == 9 and set(sets["calib"]) == {"bytes", "label"}
    rows = {row.tobytes() for one in sets.values() for row in one["bytes"]}
    assert len(rows) == len(labels)
    first = sets["eval"]["bytes"][sets["eval"]["label"] == classes.index("python")][0]
    assert bytes(first[:3].tolist()).isdigit() and bytes(first[3:].tolist()) == b"####"  # both ends are stripped
