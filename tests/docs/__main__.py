"""Write what is generated: outputs of console blocks, the page of the options, figures, pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import figures, gallery, options, pages, pictures


def generated() -> dict[Path, str]:
    """Each generated file, and each page that has generated parts, as it should be."""
    svgs = {pictures.PICTURES / name: svg + "\n" for name, svg in pictures.pictures().items()}
    svgs |= {gallery.PICTURES / name: svg + "\n" for name, svg in gallery.pictures().items()}
    parts: dict[Path, Callable[[str], str]] = {
        figures.SPEED: figures.with_figures,
        pages.README: figures.with_readme_figures,
    }
    texts = {}
    for page in pages.pages():
        if page in (options.PAGE, gallery.PAGE):
            continue
        text = parts.get(page, str)(page.read_text(encoding="utf-8"))
        texts[page] = pages.with_outputs(text)
    written = {options.PAGE: options.page(), gallery.PAGE: pages.with_outputs(gallery.page())}
    return svgs | texts | written


def main() -> None:
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
