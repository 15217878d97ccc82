"""Thousands of scans on Dask: what to segment, the work on each, the table of results and the page to review them."""
