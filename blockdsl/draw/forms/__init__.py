"""What is written: SVG, HTML, PNG, PDF, text, and the languages of other tools."""
