"""The frame of a page for a browser: self-contained, offline, in dark and in light.

What it may load is nothing: its content security policy forbids every request.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from pathlib import Path

_FOLDER = Path(__file__).parent

Part = tuple[str, str, str]
"""Id, title and HTML of a section."""


def style() -> str:
    """The style sheet of all pages; its variables are the colours of the plots."""
    return (_FOLDER / "page.css").read_text(encoding="utf-8")


def frame(
    title: str, parts: Sequence[Part], *, about: str, made_from: str, badge: str = "", tiles: Sequence[str] = ()
) -> str:
    """A page.

    Args:
        title: text; of the window, and the heading.
        parts: top to bottom.
        about: text below the heading.
        made_from: text; what the page was made of.
        badge: HTML in front of the heading.
        tiles: HTML of the figures on top.
    """
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'; img-src data:"
    links = "".join(f'<li><a href="#{name}">{escape(heading)}</a></li>' for name, heading, _ in parts)
    sections = "".join(
        f'<section id="{name}" aria-labelledby="h-{name}"><h2 id="h-{name}">{escape(heading)}</h2>{body}</section>\n'
        for name, heading, body in parts
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="onnxq">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{style()}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header>
<h1>{badge}{escape(title)}</h1>
<p class="soft">{escape(about)}</p>
</header>
<nav aria-label="Parts of the report"><ul>{links}</ul></nav>
<main id="main" tabindex="-1">
<div class="tiles">{"".join(tiles)}</div>
{sections}</main>
<footer><p>Made by onnxq from {escape(made_from)}. Heads of tables sort; marks in
plots tell their values under the pointer, and the tables hold the same figures.</p></footer>
<div id="tip" role="presentation" hidden></div>
<script>{script}</script>
</body>
</html>
"""
