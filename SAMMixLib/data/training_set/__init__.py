"""A training set on disk: labelled slices of one structure, from any number of scans and sittings.

=====================  ================================================================================================
``training_set.json``  the card: schema, name, structure
``journal.jsonl``      what was done, in order: one JSON object a line, appended, never changed
``slices/``            ``.npz`` files, each named by the SHA-256 of its content: ``image`` int16 [n, h, w] in HU,
                       ``mask`` uint8 [n, h, w] where there is one, ``slice`` int [n], ``label`` bool [n], ``patient``,
                       ``spacing`` [2] in mm (row, column)
``.lock``              held by whoever appends to the journal; empty
=====================  ================================================================================================

Slices are those of the axial stack at full resolution. What an ``add`` returned is on the disk: the slices are there,
under their name, before the journal tells of them. A process that is killed leaves at most a last line without its
end, which counts for nothing and goes with the next line that is written.
"""

from SAMMixLib.data.training_set.card import CARD
from SAMMixLib.data.training_set.journal import Entry
from SAMMixLib.data.training_set.labelled import LabelledSlices, patient_name, patient_name_in_steps
from SAMMixLib.data.training_set.training_set import TrainingSet

__all__ = ["CARD", "Entry", "LabelledSlices", "TrainingSet", "patient_name", "patient_name_in_steps"]
