"""The classifier R of the paper."""
