"""The tabs of the module's panel: Qt widgets of ``SAMMix.ui``, wired to session and case. Runs in Slicer only."""
