"""MRML nodes only: the volume, the liver segment and what is drawn over them. Knows neither torch nor Qt."""
