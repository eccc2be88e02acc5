"""Markdown pages under docs/ are followed to the letter: files are written, commands and Python run, output compared.

Fenced blocks, top to bottom, in one folder and one Python namespace:

    sh      commands; each must succeed; `#` begins a remark, `$?` nothing; `> FILE` writes stdout there
    python  run; a first line "# name.py" makes it a file instead
    yaml    a file; its first line is "# name.yaml"
    text    what the block before printed must hold these lines; "..." stands for anything
    json    as text
    toml    parsed
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"# ([\w./-]+\.\w+)\n")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str


def page(name: str) -> str:
    """The text of docs/name."""
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(text: str) -> Iterator[Block]:
    """Top to bottom."""
    for language, body in _BLOCK.findall(text):
        yield Block(language, body)


def follow(text: str, onnxq: Callable[..., Any]) -> dict[str, Any]:
    """Do what a page says in the current folder; gives the namespace of its Python."""
    names: dict[str, Any] = {"__name__": "page"}
    printed = ""
    for block in blocks(text):
        named = _NAME.match(block.text)
        if block.language == "sh":
            printed = "".join(_command(line, onnxq) for line in block.text.splitlines() if line.strip())
        elif block.language in ("yaml", "python") and named is not None:
            Path(named[1]).parent.mkdir(parents=True, exist_ok=True)
            Path(named[1]).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(block.text, "page", "exec"), names)
            printed = out.getvalue()
        elif block.language in ("text", "json"):
            missing = [line for line in block.text.splitlines() if not _holds(printed, line)]
            assert missing == [], f"{missing}\nis not in\n{printed}"
        else:
            assert block.language == "toml", f"a block of {block.language} is neither run nor checked"
            tomllib.loads(block.text)
    return names


def _command(line: str, onnxq: Callable[..., Any]) -> str:
    words = shlex.split(line, comments=True)
    if not words:
        return ""
    assert words[0] == "onnxq", f"only onnxq is run: {line}"
    target = words.pop() if ">" in words else None
    done = onnxq(*(w for w in words[1:] if w != ">"))
    assert done.code == 0, (line, done.out, done.err)
    if target is not None:
        Path(target).write_text(done.out, encoding="utf-8")
    return str(done.out)


def _holds(printed: str, line: str) -> bool:
    """Is there a line like this one? White space may differ, since columns are as wide as their cells."""
    pattern = r".*?".join(r"\s+".join(map(re.escape, part.split())) for part in line.split("..."))
    return any(re.fullmatch(pattern, " ".join(found.split())) for found in printed.splitlines())


def links(name: str) -> list[str]:
    """Relative links of a page that lead nowhere."""
    return [
        link
        for link in re.findall(r"\]\(([^)#]+)(?:#[\w-]*)?\)", page(name))
        if "://" not in link and not (DOCS / link).exists()
    ]
