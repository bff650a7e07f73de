"""What a GPU must show: that every kernel is right on it, and how fast it is beside others. `python -m tests.gpu --help`."""
