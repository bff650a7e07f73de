"""What a model is: the block graph, how it is made, judged, costed and compared."""
