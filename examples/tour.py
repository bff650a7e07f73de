"""The language in one screen: patterns, what they mean, what they cost.

Run it: python examples/tour.py
"""

import blockdsl

PATTERNS = {
    "GPT-2's order": "(a f)*12",
    "encoder-decoder decoder": "(a c f)*6",
    "GPT-J and PaLM: attention beside feedforward": "(a & f)*12",
    "ALBERT: one layer, twelve times": "(a@x f@y)*12",
    "macaron, half steps around attention": "macaron(6)",
    "sandwich, attention first and feedforward last": "sandwich(6, 16)",
    "character level, shifted tokens": "set rotary_pos_emb, ff_glu; (a>>1 f>>1)*8",
    "three stages with names": "stem: f a f | body: (a f)*6 | head: f*2",
    "defined once, used twice": "layer = a f/2 f/2; layer*3 | layer*3",
}


def main() -> None:
    for title, text in PATTERNS.items():
        graph = blockdsl.compile(text, dim=256, heads=4)
        print(f"{title}: {text}")
        print(f"  {len(graph.nodes('block'))} blocks, {graph.parameters():,} parameters,", end=" ")
        print(
            f"{graph.flops(1024) / 1e9:.1f} GFLOPs and {graph.kv_cache_bytes(1024) / 2**20:.1f} MiB of cache at 1,024"
        )


if __name__ == "__main__":
    main()
