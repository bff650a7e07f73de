"""The graph is the program: change it with networkx, lower it, and the model is what it says.

Run it: python examples/edit_graph.py
"""

import torch

import blockdsl
import xt_blocks


def main() -> None:
    graph = blockdsl.compile("(a f)*4", dim=64, heads=4, attn_dim_head=16, causal=True)

    graph.nx.remove_node("f3")  # the second feedforward goes; the stream is closed again behind it
    try:
        graph.lint()
    except blockdsl.GraphError as error:
        print(error)
    graph.nx.add_edge("a2", "a4")

    graph.nx.nodes["a4"]["options"]["heads"] = 8  # one block gets more heads
    graph.nx.add_edge("a0", "f7")  # and the last one reads an early stream too

    print(graph)
    stack = xt_blocks.lower(graph)
    print("out:", tuple(stack(torch.randn(2, 50, 64)).shape))


if __name__ == "__main__":
    main()
