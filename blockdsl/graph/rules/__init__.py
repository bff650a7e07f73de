"""The rules that a graph keeps, one function each; `graph.lint` says which are judged when."""
