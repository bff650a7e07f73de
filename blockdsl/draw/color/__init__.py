"""The colours of a picture: of kinds, of measurements, light and dark."""
