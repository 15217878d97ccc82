"""A trained model on disk, and how it is built."""
