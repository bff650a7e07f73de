"""The language: from text to a checked pattern, and back."""
