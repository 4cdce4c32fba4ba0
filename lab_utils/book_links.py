"""Look at a built book as a browser would: does every link lead somewhere, and does any page reach for the network?

Sphinx checks the references that it makes itself. Links written as plain HTML, and what a theme loads, it does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src")}  # fetched without a click
FOUND_BY_SPHINX_ONLY = {"genindex.html", "search.html", "404.html"}


@dataclass
class Page(HTMLParser):
    """The links, loads and anchors of one page."""

    text: str
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.anchors.update(values[key] for key in ("id", "name") if key in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and {"stylesheet", "preload", "icon"} & set(values.get("rel", "").split()):
            self.loads.append(values.get("href", ""))
        self.loads += [value for key, value in values.items() if (tag, key) in LOADED]


def problems(book: Path) -> list[str]:
    """One line for each link that leads nowhere and each thing that would be fetched from the network."""
    pages = {path.resolve(): Page(path.read_text(errors="replace")) for path in sorted(book.rglob("*.html")) if "_static" not in path.parts}
    return [line for path, page in pages.items() for line in _problems_of(book.resolve(), path, page, pages)]


def _problems_of(book: Path, path: Path, page: Page, pages: dict[Path, Page]) -> list[str]:
    found = []
    name = path.relative_to(book)
    for load in page.loads:
        if urlsplit(load).scheme in ("http", "https") or load.startswith("//"):
            found.append(f"{name}: loads {load} from the network")
        elif not load.startswith("data:") and not (path.parent / unquote(urlsplit(load).path)).exists():
            found.append(f"{name}: loads {load}, which is not there")
    for link in page.links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc or name.name in FOUND_BY_SPHINX_ONLY:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not target.exists():
            found.append(f"{name}: links to {link}, which is not there")
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
            found.append(f"{name}: links to {link}, a place that the page does not have")
    return found
