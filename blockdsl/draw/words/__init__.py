"""What a drawing says, whatever its form: names, captions, options, what differs."""
