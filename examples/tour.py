"""The language in one screen: patterns, their graph and what it costs, an edit with networkx, a model to train.

Run it: python examples/tour.py
"""

import argparse

import torch

import blockdsl
import xt_blocks

PATTERNS = {
    "GPT-2's order": "(a f)*12",
    "encoder-decoder decoder": "(a c f)*6",
    "GPT-J and PaLM: attention beside feedforward": "(a & f)*12",
    "ALBERT: one layer, twelve times": "(a@x f@y)*12",
    "macaron, half steps around attention": "macaron(6)",
    "sandwich, attention first and feedforward last": "sandwich(6, 16)",
    "character level, shifted tokens": "set rotary_pos_emb, ff_glu; (a>>1 f>>1)*8",
    "three stages with names": "stem: f a f | body: (a(heads=4) f)*6 | head: f(glu)*2",
    "defined once, used twice": "layer = a f/2 f/2; layer*3 | layer*3",
}


def main(argv: list[str] | None = None) -> torch.Tensor:
    """Returns the output of the edited model, (2, 50, 64)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=256, help="features of the stream")
    parser.add_argument("--tokens", type=int, default=1024, help="length at which costs are told")
    args = parser.parse_args(argv)

    print(f"What a pattern costs, at {args.tokens:,} tokens")
    for title, text in PATTERNS.items():
        graph = blockdsl.compile(text, dim=args.dim, heads=8)
        print(f"  {title}: {text}")
        print(f"    {len(graph.nodes('block'))} blocks, {graph.parameters():,} parameters,", end=" ")
        flops, cache = graph.flops(args.tokens), graph.kv_cache_bytes(args.tokens)
        print(f"{flops / 1e9:.1f} GFLOPs, {cache / 2**20:.1f} MiB of cache")

    print("\nA mistake is shown where it is")
    try:
        blockdsl.parse("f a f | attn*6")
    except blockdsl.PatternError as error:
        print(error)

    print("\nA graph")
    graph = blockdsl.compile("(a f)*3", dim=64, heads=4, attn_dim_head=16, causal=True)
    print(graph.to_text())

    print("\nEdited: the first feedforward goes")
    graph.nx.remove_node("f1")
    try:
        graph.lint()
    except blockdsl.GraphError as error:
        print(error)
    graph.nx.add_edge("a0", "a2")  # the stream is closed again
    graph.nx.nodes["a2"]["options"]["heads"] = 8  # one block gets more heads
    graph.nx.add_edge("a0", "f3")  # and another one reads an early stream too
    print(graph.to_text())

    stack = xt_blocks.lower(graph)  # the model is what the graph says
    trained = sum(p.numel() for p in stack.parameters())
    out = stack(torch.randn(2, 50, 64))
    print(f"\nLowered: {trained:,} parameters, as the graph's {graph.parameters():,}; out {tuple(out.shape)}")
    return out


if __name__ == "__main__":
    main()
