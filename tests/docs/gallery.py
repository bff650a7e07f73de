"""The page of the zoo and its pictures, written from the entries."""

from __future__ import annotations

from functools import cache

from blockdsl import zoo
from blockdsl.draw import side_by_side

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

`xt_blocks.lower(zoo.gpt2.graph())` is the model with weights yet to be trained, and
`xt_blocks.XTransformer.from_graphs(zoo.t5.graphs())` that of an encoder and a decoder. With the weights of Hugging Face,
[`from_hugging_face`](hugging-face.md) makes it.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *map(_section, zoo.FAMILIES)])


def _section(name: str) -> str:
    entry = zoo.entry(name)
    sizes = ", ".join(f"`{size}` {spoken(_parameters(f'{name}-{size}'))}" for size in entry.sizes)
    texts = "\n\n".join(f"```text\n{text}\n```" for text in entry.texts.values())
    source = linked(entry.source)
    return f"## {name}\n\n{source} · {sizes}\n\n{texts}\n\n![{name}](pictures/zoo/{name}.svg)\n"


def _parameters(name: str) -> int:
    graphs = zoo.entry(name).graphs()
    total = sum(graph.parameters() for graph in graphs.values())
    if [graph.reads for graph in graphs.values()] == ["tokens", "tokens"]:  # which have one embedding
        total -= int(graphs["decoder"].model_options()["num_tokens"]) * graphs["decoder"].dim
    return total


def spoken(parameters: int) -> str:
    """`124 M`, `70.6 B`"""
    unit, name = (1e9, "B") if parameters >= 999.5e6 else (1e6, "M")
    return f"{parameters / unit:.3g} {name}"


@cache
def pictures() -> dict[str, str]:
    """File name → SVG, of each family's first size."""
    drawn = {}
    for name in zoo.FAMILIES:
        graphs = zoo.entry(name).graphs()
        drawn[f"{name}.svg"] = graphs[""].to_svg() if "" in graphs else side_by_side(graphs)
    return drawn
