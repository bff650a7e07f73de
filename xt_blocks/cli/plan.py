"""`blockdsl plan`: what training a model costs on many devices."""

from __future__ import annotations

import argparse
import json
from typing import Any

from blockdsl.errors import UserError

from . import output, picture, source

SEQ_LEN = 1024
"""Tokens of a row, unless they are said."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "plan",
        help="which meshes of devices a model can be trained on, and what each costs",
        description=(
            "What training costs on many devices, counted from the pattern alone: bytes of parameters,\n"
            "gradients, optimiser and activations on a rank, how long a pipeline's ranks wait, and bytes sent.\n"
            "--gpus tries every mesh of so many devices; --mesh tells all about one, with the pattern's cuts.\n\n"
            "A mesh has ranks along pp (pipeline stages), dp (copies with rows of their own), fsdp (the same\n"
            "with shares of the parameters), cp (shares of each row's tokens) and tp (shares of heads and\n"
            "hidden features).\n"
            "The formulas, and what they leave out: docs/scale.md."
        ),
        epilog=(
            "examples:\n  blockdsl plan zoo:llama3-70b --gpus 64 --memory 80GB --seq-len 8192 --batch 1024\n"
            "  blockdsl plan zoo:llama3-70b --mesh pp=4,fsdp=8,tp=2 --seq-len 8192 --batch 1024 -o plan.svg\n"
            '  blockdsl plan "(a f)*12" --dim 768 --set num_tokens=50257,max_seq_len=1024 --gpus 8 --json'
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source.add_graph(parser)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--gpus", type=int, metavar="N", help="how many devices; every mesh of so many is tried")
    where.add_argument("--mesh", metavar="AXES", help="one mesh, as pp=4,fsdp=8,tp=2")
    parser.add_argument("--memory", metavar="SIZE", help="of a device, as 80GB or 80GiB (default: without a limit)")
    parser.add_argument(
        "--reserve", type=float, default=0.1, metavar="SHARE", help="of it, left to what is not counted (default: 0.1)"
    )
    parser.add_argument(
        "--seq-len", type=int, metavar="N", help=f"tokens a row (default: {SEQ_LEN}, or the model's longest row)"
    )
    parser.add_argument("--context-len", type=int, metavar="N", help="tokens of the context (default: as --seq-len)")
    parser.add_argument("--batch", type=int, default=256, metavar="ROWS", help="of a step, of all ranks (default: 256)")
    parser.add_argument("--micro-batch", type=int, metavar="ROWS", help="of a micro-batch (default: as many as fit)")
    parser.add_argument("--precision", default="bf16", help="that blocks compute in: bf16 (default) or fp32")
    parser.add_argument("--optimizer", default="adamw", help="adamw (default), muon or sgd")
    parser.add_argument("--schedule", default="1f1b", help="gpipe, 1f1b (default), interleaved or zero-bubble")
    parser.add_argument(
        "--checkpoint", help="what is computed again: none, block or stage (default: the first of them that fits)"
    )
    parser.add_argument("--all", action="store_true", help="list all meshes, not the best")
    parser.add_argument("--json", action="store_true", help="print JSON")
    picture.add(parser, picture.IMAGES, "the pattern with its cuts")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.mesh is not None and not args.mesh.strip():
        raise UserError("the mesh is empty; give ranks along an axis, as dp=2")
    graphs = source.graphs(args)
    if "" not in graphs:
        raise UserError(f"{' and '.join(graphs)} are two graphs; plan one")
    names = ("memory", "reserve", "context_len", "micro_batch", "precision", "optimizer", "schedule", "checkpoint")
    setup = {name: getattr(args, name) for name in names}
    graph = graphs[""]
    longest = graph.nx.nodes[graph.start]["max_seq_len"] or SEQ_LEN
    seq_len = min(SEQ_LEN, int(longest)) if args.seq_len is None else args.seq_len
    plan = graph.plan(args.mesh, gpus=args.gpus, seq_len=seq_len, batch=args.batch, **setup)
    if picture.is_wanted(args):
        picture.draw(args, plan.cut(), color="stage")
        if args.out == output.STDOUT:
            return 0
    if args.json:
        print(json.dumps(plan.as_json(), indent=1))
        return 0
    print(plan.to_text(every=args.all))
    if args.mesh is not None:
        print(f"\n{plan.cut().to_text()}")
    return 0
