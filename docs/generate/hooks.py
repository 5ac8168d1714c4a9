"""What mkdocs cannot do alone: reference pages from the code, pages from outside docs/, a site that stands alone."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
from reference import PAGES, ROOT

# Pages of the repository that the site shows too, with their place in it.
SHOWN = {
    "results/README.md": "project/results.md",
    "benchmarks/README.md": "project/benchmarks.md",
    "manifests/README.md": "project/manifests.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "README.md": "index.md",  # which says the same in fewer words
}
# Any other file that a page links to lies below this folder of the site.
FILES = "files"
_LINK = re.compile(r"(?<=\]\()([^)#\s:]+)(#[^)\s]*)?(?=\))")
_FENCE = re.compile(r"(^```.*?^```$)", re.M | re.S)
_LOADED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)")
_ORIGIN = {place: name for name, place in SHOWN.items() if place != "index.md"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """A folder in the navigation stands for all of its pages that are not named themselves."""
    named = set(re.findall(r"[\w/-]+\.md", repr(config.nav)))
    config.nav = _filled(config.nav, Path(config.docs_dir), named)
    return config


def _filled(nav: Any, docs: Path, named: set[str]) -> Any:
    if isinstance(nav, dict):
        return {title: _filled(part, docs, named) for title, part in nav.items()}
    if not isinstance(nav, list):
        return nav
    parts: list[Any] = []
    for part in nav:
        if isinstance(part, str) and part.endswith("/"):
            found = sorted(p.relative_to(docs).as_posix() for p in (docs / part).glob("*.md"))
            parts += [p for p in found if p not in named]
        else:
            parts.append(_filled(part, docs, named))
    return parts


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository and every file that a page links to."""
    for name, place in SHOWN.items():
        if place == "index.md":
            continue
        files.append(File.generated(config, place, content=(ROOT / name).read_text(encoding="utf-8")))
    linked = {name for f in files.documentation_pages() for name in _linked(f.content_string, _origin(f))}
    for name in sorted(linked):
        files.append(File.generated(config, f"{FILES}/{name}", content=(ROOT / name).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Links as they stand in the repository become links within the site; reference pages get their lists."""
    if page.file.src_uri in PAGES:
        markdown = f"{markdown}\n{PAGES[page.file.src_uri]()}"
    origin = _origin(page.file)
    here = PurePosixPath(page.file.src_uri).parent

    def moved(match: re.Match[str]) -> str:
        place = _place(match[1], origin)
        return match[0] if place is None else os.path.relpath(place, here) + (match[2] or "")

    return "".join(t if t.startswith("```") else _LINK.sub(moved, t) for t in _FENCE.split(markdown))


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """A hospital reads this without the internet: nothing may be loaded from elsewhere."""
    if found := _LOADED.search(output):
        raise PluginError(f"{page.file.src_uri}: a page that loads nothing from elsewhere, got {found[1]}")
    return output


def _origin(file: File) -> PurePosixPath:
    """The folder in the repository that the links of a page are relative to."""
    name = _ORIGIN.get(file.src_uri)
    return PurePosixPath("docs", file.src_uri).parent if name is None else PurePosixPath(name).parent


def _linked(markdown: str, origin: PurePosixPath) -> Iterator[str]:
    """The files outside docs/ that a page links to and that the site does not show as pages."""
    for text in _FENCE.split(markdown):
        for match in _LINK.finditer("" if text.startswith("```") else text):
            name = _name(match[1], origin)
            if name not in SHOWN and not name.startswith("docs/") and (ROOT / name).is_file():
                yield name


def _name(target: str, origin: PurePosixPath) -> str:
    return os.path.normpath(origin / target)


def _place(target: str, origin: PurePosixPath) -> str | None:
    """Where the site has what a page links to; None if it is left as it is, and checked by mkdocs."""
    name = _name(target, origin)
    if (ROOT / name).is_dir() and name != "docs":
        name = f"{name}/README.md" if (ROOT / name / "README.md").is_file() else name
    if name in ("docs", "docs/index.md"):
        return "index.md"
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    if name in SHOWN:
        return SHOWN[name]
    return f"{FILES}/{name}" if (ROOT / name).is_file() else None
