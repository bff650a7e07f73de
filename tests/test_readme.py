"""Every code block of the README runs, and what it shows is what comes out.

The console blocks' outputs, the tables of options and the pictures are in the README; after a change on purpose,
`python tests/test_readme.py` writes them anew. The two install commands are run by .ci/run, word for word.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PICTURES = ROOT / "examples" / "pictures"
OPTIONS = re.compile(
    r"(?<=<!-- options: written by tests/test_readme.py -->\n).*?(?=<!-- end of options -->)", re.DOTALL
)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [body for name, body in BLOCK.findall(README.read_text(encoding="utf-8")) if name == language]


def output_of(command: str) -> str:
    """What a console command prints, errors included."""
    words = shlex.split(command)
    if words[0] == "python":
        argv = [sys.executable, *words[1:]]
    else:
        argv = [sys.executable, "-c", "import sys; from xt_blocks.cli import main; sys.exit(main())", *words[1:]]
        assert words[0] == "blockdsl"
    run = subprocess.run(
        argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, env=utf8(), timeout=120
    )
    return run.stdout.decode()


def utf8() -> dict[str, str]:
    import os

    return os.environ | {"PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("source", blocks("python"), ids=range(len(blocks("python"))))
def test_python_block_runs(source: str) -> None:
    exec(compile(source, "README.md", "exec"), {})


@pytest.mark.parametrize("shown", blocks("console"), ids=range(len(blocks("console"))))
def test_console_block_shows_what_is_printed(shown: str) -> None:
    command, _, output = shown.partition("\n")
    assert output == output_of(command.removeprefix("$ "))


def test_there_are_no_other_blocks_than_these_and_the_two_commands() -> None:
    languages = [name for name, _ in BLOCK.findall(README.read_text(encoding="utf-8"))]
    assert set(languages) == {"python", "console", "sh"}
    assert [block.strip() for block in blocks("sh")] == [
        "python -m pip install -c constraints.txt . && blockdsl train",
        "python -m pip install -c constraints.txt '.[test]' && python -m pytest",
    ]
    assert len(blocks("python")) >= 4
    assert len(blocks("console")) >= 4


def option_tables() -> str:
    """The reference as one Markdown table an area, from a process that has no kinds but the built-in ones."""
    entries = json.loads(output_of("blockdsl options --json"))
    parts = []
    for area, group in itertools.groupby(entries, key=lambda entry: entry["area"]):
        rows = [
            f"### {area.capitalize()}",
            "",
            "| keyword | pattern | what it does | paper |",
            "| --- | --- | --- | --- |",
        ]
        for entry in group:
            papers = ", ".join(map(linked, entry["papers"]))
            keyword = f"`{entry['keyword']}`" if entry["keyword"] else ""
            rows.append(f"| {keyword} | `{escaped(entry['pattern'])}` | {escaped(entry['doc'], '*')} | {papers} |")
        parts.append("\n".join([*rows, "", ""]))
    return "\n" + "".join(parts)


def escaped(text: str, signs: str = "") -> str:
    """As a cell of a table has it, these signs taken as they stand too."""
    return re.sub(f"[|{re.escape(signs)}]", r"\\\g<0>", text)


def linked(paper: str) -> str:
    """`RealFormer, arXiv:2012.11747` with a link behind the identifier."""
    sites = {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}
    return re.sub(r"(arXiv|doi):([^\s,]+)", lambda found: f"[{found[0]}]({sites[found[1]]}{found[2]})", paper)


def test_the_tables_of_options_are_those_of_the_reference() -> None:
    (shown,) = OPTIONS.findall(README.read_text(encoding="utf-8"))
    assert shown == option_tables(), "python tests/test_readme.py writes them anew"
    assert "| `attn_sparse_topk` | `a(sparse_topk=8)` |" in shown
    assert "[arXiv:2104.09864](https://arxiv.org/abs/2104.09864)" in shown


def pictures() -> dict[str, str]:
    """The README's pictures by the name of their file."""
    import blockdsl
    from blockdsl.draw import side_by_side

    tokens = {"num_tokens": 37000, "max_seq_len": 1024}
    encoder = blockdsl.compile("(a f)*6", dim=512, return_only_embed=True, **tokens)
    decoder = blockdsl.compile("(a c f)*6", dim=512, causal=True, **tokens)
    gpt2 = {"dim": 768, "heads": 12, "causal": True, "num_tokens": 50257, "max_seq_len": 1024, "tie_embedding": True}
    return {
        "decoder.svg": blockdsl.compile("(a f)*12", **gpt2).to_svg(),
        "stages.svg": blockdsl.compile("f a f | a*6 f*6 | sandwich(6)", dim=512).to_svg(),
        "encoder_decoder.svg": side_by_side({"encoder": encoder, "decoder": decoder}),
    }


def test_the_pictures_are_those_that_are_drawn() -> None:
    shown = re.findall(r"!\[[^]]+\]\(examples/pictures/(\w+\.svg)\)", README.read_text(encoding="utf-8"))
    drawn = pictures()
    assert sorted(shown) == sorted(drawn) == sorted(path.name for path in PICTURES.iterdir())
    for name, svg in drawn.items():
        stored = (PICTURES / name).read_text(encoding="utf-8")
        assert stored == svg + "\n", f"{name}: python tests/test_readme.py draws it anew"


def refresh() -> None:
    """Write the console blocks' outputs and the tables of options into the README, and draw the pictures."""
    PICTURES.mkdir(exist_ok=True)
    for name, svg in pictures().items():
        (PICTURES / name).write_text(svg + "\n", encoding="utf-8")

    def fresh(found: re.Match[str]) -> str:
        if found[1] != "console":
            return found[0]
        command = found[2].partition("\n")[0]
        return f"```console\n{command}\n{output_of(command.removeprefix('$ '))}```"

    text = BLOCK.sub(fresh, README.read_text(encoding="utf-8"))
    tables = option_tables()
    README.write_text(OPTIONS.sub(lambda _: tables, text), encoding="utf-8")


if __name__ == "__main__":
    refresh()
