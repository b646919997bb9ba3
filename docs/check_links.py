"""Check the links within a built site: every page, picture, file and anchor that a page names must be there."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links of a page, and the anchors that others may link to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect."""
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def broken_links(site: Path) -> tuple[list[str], int]:
    """
    :param site: folder of the site
    :return: what does not exist, and how many links there are
    """
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    broken, n_links = [], 0
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            n_links += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            # Anchors of other files than ours, such as those of scripts, are their own business
            if not target.exists() or (anchor and target in pages and anchor not in pages[target].anchors):
                broken.append(f"{path.relative_to(site.resolve())}: {link}")
    return broken, n_links


if __name__ == "__main__":
    found, total = broken_links(Path(sys.argv[1]))
    print("\n".join(found) or f"{total} links within the site, none of them broken")
    sys.exit(bool(found))
