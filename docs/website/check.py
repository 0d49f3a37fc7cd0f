"""What a built site has to keep: links lead somewhere, search finds, it is whole."""

import html.parser
import json
import pathlib
import sys
import urllib.parse
from collections.abc import Iterator

from docs.website import rooms

# What a stranger types first.
SEARCHED = ("temperature", "false negatives", "resume")
# Elements that fetch what they name, by the attribute that names it.
FETCHES = {"script": "src", "img": "src", "iframe": "src", "source": "src"}
FETCHED_LINKS = {"stylesheet", "preload", "preconnect", "icon", "modulepreload"}


class Page(html.parser.HTMLParser):
    """The anchors of a page, where it leads, and what a browser fetches for it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {key: value or "" for key, value in attrs}
        self.anchors.update(named[key] for key in ("id", "name") if key in named)
        if "href" in named:
            self.links.append(named["href"])
        if tag == "link" and FETCHED_LINKS & set(named.get("rel", "").split()):
            self.fetched.append(named.get("href", ""))
        if tag in FETCHES and FETCHES[tag] in named:
            self.links.append(named[FETCHES[tag]])
            self.fetched.append(named[FETCHES[tag]])


def outside(link: str) -> bool:
    """Whether a link leaves the site."""
    return bool(urllib.parse.urlsplit(link).scheme) or link.startswith("//")


def faults(site: pathlib.Path) -> Iterator[str]:
    """Looks through all pages of a site.

    Args:
      site: the folder that was built.

    Yields:
      A line for each link or anchor that leads nowhere, and each thing that a page
      fetches from elsewhere.
    """
    pages = {
        path.resolve(): Page(path.read_text(encoding="utf-8"))
        for path in sorted(site.rglob("*.html"))
    }
    if not pages:
        yield f"{site} has no pages"
    for path, page in pages.items():
        here = path.relative_to(site.resolve())
        for link in page.fetched:
            if outside(link) and not link.startswith("data:"):
                yield f"{here} fetches {link}"
        if here.name == "404.html":
            continue  # its links begin at the root of wherever it is served
        for link in page.links:
            if outside(link):
                continue
            parts = urllib.parse.urlsplit(link)
            name = urllib.parse.unquote(parts.path)
            aim = (path.parent / name).resolve() if name else path
            aim = aim / "index.html" if aim.is_dir() else aim
            fragment = urllib.parse.unquote(parts.fragment)
            if not aim.exists():
                yield f"{here} links to {link}, which is not there"
            elif fragment and aim in pages and fragment not in pages[aim].anchors:
                yield f"{here} links to {link}, which has no such anchor"


def found(site: pathlib.Path, words: str) -> list[str]:
    """Asks the index of the search.

    Args:
      site: the folder that was built.
      words: all of which a section has to hold.

    Returns:
      Where the sections are, those first that have the words in their title.
    """
    index = json.loads((site / "search.json").read_text(encoding="utf-8"))
    wanted = words.lower().split()
    titled, holding = [], []
    for item in index["items"]:
        title, text = item["title"].lower(), item["text"].lower()
        if all(word in title for word in wanted):
            titled.append(item["location"])
        elif all(word in title + " " + text for word in wanted):
            holding.append(item["location"])
    return titled + holding


def unshown(site: pathlib.Path, package: pathlib.Path) -> list[str]:
    """Compares the reference with what is public.

    Args:
      site: the folder that was built.
      package: the folder of the package.

    Returns:
      The public names, with their modules, that no page of the reference explains.
    """
    pages = (site / "reference").rglob("*.html")
    shown = [Page(path.read_text(encoding="utf-8")).anchors for path in pages]
    public = rooms.public(package).items()
    names = [f"{room}.{name}" for room, names in public for name in names]
    return [name for name in names if not any(name in anchors for anchors in shown)]


def main(site: pathlib.Path, package: pathlib.Path | None = None) -> int:
    """Prints what is wrong with a site.

    Args:
      site: the folder that was built.
      package: the folder of the package that the reference explains; None: there is
        no reference.

    Returns:
      The number of faults.
    """
    wrong = list(faults(site))
    wrong += [
        f"search finds no {words!r}" for words in SEARCHED if not found(site, words)
    ]
    if package is not None:
        wrong += [f"the reference lacks {name}" for name in unshown(site, package)]
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong:
        print(f"{site}: every link leads somewhere, nothing is fetched, search finds")
    return len(wrong)
