"""Markdown that says what it is given, and HTML of it in one file."""

import base64
import re
from html import escape
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

STYLE = Path(__file__).with_name("report.css")


def text(content: object) -> str:
    """Markdown, on one line, that shows just this."""
    line = re.sub(r"([\\`*_\[\]<>|#~&$])", r"\\\1", " ".join(str(content).split()))
    # At the beginning, what would be the mark of a list
    return re.sub(r"^(\d*)([-+.)])(?=\s|$)", r"\1\\\2", line)


def code(content: str) -> str:
    """Markdown, on one line, that shows this as code; in a table only, since it escapes ``|``."""
    line = " ".join(content.split()).replace("|", r"\|")
    if not line:
        return ""
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def to_html(markdown: str, title: str, folder: Path) -> str:
    """
    A page complete without any other file. HTML in the text is shown, not used; images, whose paths start in
    ``folder``, become part of the page.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    for kind in ("table_open", "table_close"):
        parser.add_render_rule(kind, _table)
    tokens = parser.parse(markdown)
    for token in tokens:
        for child in token.children or []:
            if child.type == "image":
                child.attrSet("src", _data_uri(folder / str(child.attrGet("src"))))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE.read_text()}</style>\n</head>\n<body>\n"
        f"{parser.renderer.render(tokens, parser.options, {})}</body>\n</html>\n"
    )


def _table(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    # Within a box of its own a wide table scrolls, and the page does not
    return '<div class="scroll" tabindex="0"><table>\n' if tokens[index].nesting > 0 else "</table></div>\n"


def _data_uri(path: Path) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"
