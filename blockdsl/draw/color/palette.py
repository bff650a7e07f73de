"""The colours of a picture, light and dark, as a style sheet that is part of it."""

from __future__ import annotations

from ..widths import FONTS

# Of a hue: the fill, the stroke and the text of what has it; first light, then dark. Fills are told apart without red,
# green or blue receptors too, and in grey those that stand together most: the first and the third and fourth from all.
HUES = (
    (("#aac7fa", "#097acd", "#043863"), ("#2668a0", "#3ca7ff", "#e1ecfe")),  # blue
    (("#f1d8fd", "#8f68a5", "#4a285f"), ("#5f527d", "#a089d5", "#efe7fe")),  # violet
    (("#f7cba7", "#a6692c", "#542e01"), ("#341c00", "#b9865a", "#ffe7d5")),  # amber
    (("#e38f8f", "#c43a4a", "#74011e"), ("#570921", "#e96480", "#fee5e8")),  # rose
    (("#c7fcf3", "#0c867a", "#003f39"), ("#366259", "#55a594", "#baf7e9")),  # teal
    (("#66bfd5", "#018398", "#063d47"), ("#224653", "#5999b2", "#d0f0ff")),  # sky
    (("#f3e49b", "#837900", "#3d3800"), ("#5d5a1b", "#9c972c", "#f3ecc1")),  # olive
    (("#e6ad7e", "#b0640f", "#552d00"), ("#5b3f38", "#b88478", "#fde6e1")),  # brown
    (("#d3ecd1", "#578156", "#163f19"), ("#435d32", "#709e53", "#dbf2cb")),  # green
    (("#f3f7c9", "#717d30", "#313b00"), ("#373c00", "#8f972f", "#eeedc3")),  # yellow
    (("#d1adb9", "#a1667c", "#5a253b"), ("#581d3d", "#d96ca3", "#fee4ef")),  # magenta
    (("#8bb6fa", "#0c7ace", "#033864"), ("#2b315b", "#838ad9", "#eae9fe")),  # slate
)
HEATS = (
    (("#f1f5fa", "#7c90a5", "#51687f"), ("#18212b", "#566a7e", "#a9bccd")),
    (("#d9e7f5", "#6f93b8", "#3f658a"), ("#1b3147", "#4d769e", "#a5c6e6")),
    (("#b9d4ee", "#5f8fbf", "#2b547d"), ("#1e4468", "#5a90c3", "#b4d6f6")),
    (("#93bde4", "#447bb0", "#1c4670"), ("#21588a", "#6ba8df", "#cbe4fb")),
    (("#6aa3d8", "#2c6499", "#0f3355"), ("#216aab", "#86c0f2", "#e4f2ff")),
)
GREY = (("#f4f5f7", "#848e9a", "#56606b"), ("#1c2128", "#6e7781", "#aab4bf"))

_LIGHT = {
    "ground": "#ffffff",
    "text": "#1f2328",
    "muted": "#57606a",
    "line": "#3d444d",
    "stage": "#f8f9fb",
    "border": "#d5dae0",
    "repeat": "#848e99",
    "context": "#7a5fc0",
    "condition": "#946b00",
    "position": "#277a6b",
    "scores": "#c2527a",
    "read": "#962800",
    "kv": "#0b4f8a",
    "values": "#0b4f8a",
}
_DARK = {
    "ground": "#0d1117",
    "text": "#e6edf3",
    "muted": "#9aa4af",
    "line": "#b3bcc6",
    "stage": "#151a21",
    "border": "#2d343d",
    "repeat": "#69737f",
    "context": "#a78bfa",
    "condition": "#d9a04a",
    "position": "#4fb8a3",
    "scores": "#e0789d",
    "read": "#f5d547",
    "kv": "#8fd0ff",
    "values": "#8fd0ff",
}

FAMILY = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, 'DejaVu Sans', sans-serif"
CODE = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def style(theme: str = "auto") -> str:
    """The whole style sheet; every rule is of what is inside `.blockdsl`. `theme`: one of THEMES."""
    rules = [f"text{{font-family:{FAMILY};font-size:10.5px}}"]
    for role, (size, bold, monospace) in FONTS.items():
        family = f";font-family:{CODE}" if monospace else ""
        rules.append(f"text.{role}{{font-size:{size:g}px{';font-weight:600' if bold else ''}{family}}}")
    rules += [
        ".edge{fill:none;stroke-width:1.4}",
        ".edge.rail{stroke-width:2}",
        ".edge.scores{stroke-dasharray:3.5 2.5}",
        ".edge.kv{stroke-dasharray:8 3}",
        ".edge.values{stroke-dasharray:1.5 2.5}",
        ".edge.many{stroke-width:4.6}",
        ".core{fill:none;stroke-width:1.8}",
        ".block>rect,.node>rect{stroke-width:1.2}",
        ".block>rect.mark{stroke-width:.8}",
        "rect.mark.badge{stroke-width:1.4}",
        ".block>rect.mark.flow{stroke:none;fill-opacity:1}",
        ".join{stroke-width:1.4}",
        ".sign{fill:none;stroke-width:1.4}",
        ".repeat>rect{fill:none;stroke-width:1.2;stroke-dasharray:2 3;stroke-linecap:round}",
        ".repeat>rect.count{stroke-dasharray:none}",
        ".block:focus{outline:none}",
        ".block:hover>rect,.block:focus>rect{stroke-width:2.2}",
    ]
    shown = _colours(_DARK, 1) if theme == "dark" else _colours(_LIGHT, 0)
    sheet = "".join(f"{_scoped(rule)}\n" for rule in [*rules, *shown])
    if theme != "auto":
        return sheet.rstrip()
    dark = "".join(_scoped(rule) for rule in _colours(_DARK, 1))
    return f"{sheet}@media (prefers-color-scheme:dark){{{dark}}}"


def _scoped(rule: str) -> str:
    """A rule, of the picture alone: a notebook has pictures of others beside it, on one page."""
    selectors, body = rule.split("{", 1)
    return ",".join(f".blockdsl {selector}" for selector in selectors.split(",")) + "{" + body


def _colours(theme: dict[str, str], mode: int) -> list[str]:
    line, ground = theme["line"], theme["ground"]
    rules = [
        f".ground{{fill:{ground}}}",
        f"text{{fill:{theme['text']}}}",
        f"text.note,text.op,text.settings,text.number{{fill:{theme['muted']}}}",
        f".stage>rect{{fill:{theme['stage']};stroke:{theme['border']}}}",
        f".stage>text{{fill:{theme['muted']}}}",
        f".repeat>rect{{stroke:{theme['repeat']}}}",
        f".repeat>rect.count{{fill:{ground}}}",
        f".edge{{stroke:{line}}}",
        f".head{{fill:{line}}}",
        f".join{{fill:{ground};stroke:{line}}}",
        f".sign{{stroke:{line}}}",
        f".block>rect.mark{{fill:{ground};fill-opacity:.75}}",
        ".block>rect.mark.norm{fill-opacity:1}",
        f"rect.mark.badge{{fill:{ground};stroke:{line};fill-opacity:1}}",
    ]
    rules += [f".core{{stroke:{ground}}}"]
    rules += [f".label>circle{{fill:{theme['read']};stroke:none}}", f".label>text{{fill:{theme['read']}}}"]
    rules += [f".read>rect,.read>rect.mark,rect.mark.how{{fill:{ground};stroke:{theme['read']}}}"]
    rules += [f".read>circle,.skip>circle{{stroke:{theme['read']}}}", f".read>text,.skip>text{{fill:{theme['read']}}}"]
    for role in ("context", "condition", "position", "scores", "read", "kv", "values"):
        rules += [f".edge.{role}{{stroke:{theme[role]}}}", f".head.{role}{{fill:{theme[role]}}}"]
        if role in ("context", "condition", "position"):
            rules += [f".node.{role}>rect{{fill:{ground};stroke:{theme[role]}}}"]
            rules += [f".node.{role}>text{{fill:{theme[role]}}}"]
    families = [("hue", HUES), ("heat", HEATS), ("grey", (GREY,))]
    for name, colours in families:
        for i, modes in enumerate(colours):
            fill, stroke, text = modes[mode]
            of = f".{name}-{i}"
            rules.append(f"{of}>rect,rect{of}{{fill:{fill};stroke:{stroke}}}")
            marks = (
                ("code", "mark") if name == "grey" else ("code", "mark", "value", "note")
            )  # muted is too pale on the others
            rules.append(",".join(f"{of}>text.{role}" for role in marks) + f"{{fill:{text}}}")
            rules += [f"{of}>rect.mark{{stroke:{stroke}}}", f".block{of}>rect.mark.flow{{fill:{stroke}}}"]
    return rules
