"""Slice data sets, training sets and the phantom."""
