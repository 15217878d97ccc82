"""Scores with their intervals, and tables of them."""
