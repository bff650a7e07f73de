"""A model over many processes: torch.distributed, for block graphs."""
