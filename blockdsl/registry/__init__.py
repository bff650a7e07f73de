"""What can be written: options, block kinds, position schemes and settings, each declared once."""
