"""A drawn abdomen: a CT with an exact liver mask that needs no patient, for tests, demos and the manual.

Anatomy is written in millimetres of one standard patient: x to the left from the midline, y to posterior from the
middle of the body, z to superior from the porta hepatis. Organs are implicit shapes, arrays of approximate signed
distances in mm (negative inside), painted one over the other like layers. Each seed is another patient: another body
size, other vessels, bowel and noise.
"""

from SAMMixLib.data.phantom.canvas import LABELS, TISSUES
from SAMMixLib.data.phantom.phantom import FIELD_OF_VIEW, Phantom, make_phantom

__all__ = ["FIELD_OF_VIEW", "LABELS", "TISSUES", "Phantom", "make_phantom"]
