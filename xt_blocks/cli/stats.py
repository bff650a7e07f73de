"""`blockdsl stats`: what a pattern costs."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from blockdsl.errors import UserError

from . import source

if TYPE_CHECKING:
    from blockdsl.graph.costs import Cost


_LONGEST = 10**12  # tokens; the figures of longer rows are beyond what a float can tell


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "stats",
        help="count parameters, FLOPs and cache bytes",
        description=(
            "A table of a pattern's costs by stage: blocks, parameters (tied ones once), forward FLOPs a token\n"
            "and key-value cache bytes a token. An encoder runs once over the context; its FLOPs are counted too."
        ),
        epilog=(
            'examples:\n  blockdsl stats "(a f)*12" --dim 768 --heads 12 --seq-len 1024\n'
            '  blockdsl stats "(a f)*96" --dim 12288 --heads 96 --set num_tokens=50257,max_seq_len=2048 --dtype float16'
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source.add_graph(parser)
    parser.add_argument("--seq-len", type=int, default=1024, metavar="N", help="tokens a row (default: 1024)")
    parser.add_argument("--context-len", type=int, metavar="N", help="tokens of the context (default: as --seq-len)")
    parser.add_argument("--dtype", default="float32", help="type of the cache (default: float32)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from blockdsl.graph.costs import Cost, by_stage, row_length, sizes
    from blockdsl.registry.state import item_bytes

    if max(args.seq_len, args.context_len or 0) > _LONGEST:
        raise UserError(f"--seq-len and --context-len are at most {_LONGEST:,}")
    item, counted = item_bytes(args.dtype), {}
    for name, graph in source.graphs(args).items():
        seq_len = row_length(graph, args.seq_len)
        rows = by_stage(graph, sizes(seq_len, 1, args.context_len))
        total = sum((cost for _, cost in rows), Cost())
        counted[name] = (
            _as_json(graph.pattern, seq_len, rows, total, item)
            if args.json
            else _table([*rows, ("total", total)], seq_len, item)
        )
    if args.json:
        print(json.dumps(counted.get("", counted), indent=1))
    else:
        print("\n\n".join(f"{name}\n{table}" if name else str(table) for name, table in counted.items()))
    return 0


def _per_token(cost: Cost, seq_len: int, item: int) -> dict[str, Any]:
    tokens = max(seq_len, 1)
    return {
        "blocks": cost.blocks,
        "parameters": cost.parameters,
        "active_parameters": cost.active,
        "flops_per_token": cost.flops / tokens,
        "kv_bytes_per_token": cost.cache_bytes(item) / tokens,
    }


def _as_json(text: str, seq_len: int, rows: list[tuple[str, Cost]], total: Cost, item: int) -> dict[str, Any]:
    return {
        "pattern": text,
        "seq_len": seq_len,
        "stages": [{"stage": name, **_per_token(cost, seq_len, item)} for name, cost in rows],
        "total": _per_token(total, seq_len, item),
    }


def _table(rows: list[tuple[str, Cost]], seq_len: int, item: int) -> str:
    titles = {
        "blocks": "blocks",
        "parameters": "parameters",
        "active_parameters": "active",
        "flops_per_token": "FLOPs/token",
        "kv_bytes_per_token": "KV bytes/token",
    }
    if not any(cost.idle for _, cost in rows):
        del titles["active_parameters"]
    head = ("stage", *titles.values())
    cells: list[tuple[str, ...]] = [head]
    for name, cost in rows:
        numbers = _per_token(cost, seq_len, item)
        cells.append((name, *(f"{round(numbers[title]):,}" for title in titles)))
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in cells
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], f"at {seq_len:,} tokens a row"])
