"""The page of the zoo and its pictures, written from the entries."""

from __future__ import annotations

from functools import cache

from blockdsl import zoo

from .options import linked
from .pages import DOCS

PAGE = DOCS / "zoo.md"
PICTURES = DOCS / "pictures" / "zoo"

HEAD = """\
# The zoo

<!-- written by `python -m tests.docs` from blockdsl.zoo -->

Published models as patterns. Each text is a whole model, and its parameters are those that were published.

```python
from blockdsl import zoo

print(zoo.llama3.text)
g = zoo.llama3("70b").graph()
assert g.parameters() == 70_553_706_496
```

On the command line, `zoo:` is in front of the name:

```console
$ blockdsl stats zoo:llama3-70b
```

`blockdsl show zoo:gpt2` draws it, `blockdsl diff zoo:llama2 zoo:llama3` says what differs, and `blockdsl fmt zoo:gpt2` prints
the text. A size follows the name, as in `zoo:gemma3-27b`; without it, it is the first.

`xt_blocks.lower(zoo.gpt2.graph())` is the model with weights yet to be trained; of `zoo.t5`, an encoder and a decoder in
one text, it is an `XTransformer`. With the weights of Hugging Face, [`from_hugging_face`](hugging-face.md) makes it.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *map(_section, zoo.FAMILIES)])


def _section(name: str) -> str:
    entry = zoo.entry(name)
    sizes = ", ".join(f"`{size}` {spoken(entry(size).graph().parameters())}" for size in entry.sizes)
    source = linked(entry.source)
    return f"## {name}\n\n{source} · {sizes}\n\n```pattern\n{entry.text}\n```\n\n![{name}](pictures/zoo/{name}.svg)\n"


def spoken(parameters: int) -> str:
    """`124 M`, `70.6 B`"""
    unit, name = (1e9, "B") if parameters >= 999.5e6 else (1e6, "M")
    return f"{parameters / unit:.3g} {name}"


@cache
def pictures() -> dict[str, str]:
    """File name → SVG, of each family's first size."""
    return {f"{name}.svg": zoo.entry(name).graph().to_svg() for name in zoo.FAMILIES}
