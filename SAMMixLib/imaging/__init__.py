"""A CT on its own grid: read, resized to the square that the networks see, and written back."""
