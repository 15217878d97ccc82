"""What Slicer's own process runs. Never torch."""
