"""The worker: a process of its own that holds the model, so that torch never runs in Slicer.

:mod:`SAMMixLib.worker.client` starts it and talks to it, :mod:`SAMMixLib.worker.server` is what runs in it.
"""
