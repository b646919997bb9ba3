"""What goes into the text comes out of the page."""

from html import unescape
from pathlib import Path

import pytest

pytest.importorskip("markdown_it")

from sb3_lql.benchmark.comparison.markup import code, text, to_html
from sb3_lql.benchmark.tables import markdown_table

HOSTILE = [
    "w = 500 | <b>bold</b>",
    "<script>alert(1)</script> & &amp;",
    "*a* _b_ **c** ~~d~~ `e` ``f`` $g$",
    "[link](https://example.org) ![image](https://example.org/x.png)",
    "back\\slash \\| pipe",
    "# no heading",
    "`",
    "- no item",
    "1. no item",
    "2) no item",
    "+",
    "-5.0",
]


def body(markdown: str) -> str:
    """What the page shows of a text."""
    return to_html(markdown, "title", Path()).split("<body>\n")[1].split("</body>")[0]


@pytest.mark.parametrize("content", HOSTILE)
def test_text_is_shown_as_it_is_in_a_paragraph_and_in_a_table(content: str) -> None:
    shown = body(text(content))
    assert shown.count("<") == 2
    assert unescape(shown) == f"<p>{content}</p>\n"
    cells = body(markdown_table(["name", "other"], [[text(content), "x"]]))
    assert f"<td>{content}</td>\n<td>x</td>" in unescape(cells)
    assert cells.count("<td>") == 2


@pytest.mark.parametrize("content", [content for content in HOSTILE if "\\" not in content])
def test_code_is_shown_as_it_is_in_a_table(content: str) -> None:
    cells = body(markdown_table(["command", "other"], [[code(content), "x"]]))
    assert f"<td><code>{content}</code></td>\n<td>x</td>" in unescape(cells)
    assert cells.count("<td>") == 2


def test_lines_become_one() -> None:
    assert text("Traceback:\n  line\n") == "Traceback: line"
    assert code("a\nb") == "`a b`"
    assert code("") == ""


def test_page_holds_its_images_and_title(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text("<svg/>")
    page = to_html("![alt text](a.svg)", "<Title>", tmp_path)
    assert '<img src="data:image/svg+xml;base64,PHN2Zy8+" alt="alt text" />' in page
    assert "<title>&lt;Title&gt;</title>" in page
