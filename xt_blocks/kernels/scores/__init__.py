"""Changes of scores between q·k and the weighted sum of values: a ScoreSpec of modifiers, one file each."""
