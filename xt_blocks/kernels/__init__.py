"""How the large operations are computed: attention, linear layers, the loss."""
