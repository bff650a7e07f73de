"""Where things stand in a picture: from parts of a graph to boxes and lines with coordinates."""
