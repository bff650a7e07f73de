"""What is done to scores between q·k and the weighted sum of values: one value, made of modifiers, a file each."""
