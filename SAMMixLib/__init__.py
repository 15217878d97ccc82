"""SAMMixLib: annotation-efficient liver segmentation by SAM-Mix. Importing it loads neither torch nor Slicer."""

__version__ = "0.1.0"
