"""What was found, for each scan and each state of its segment."""

from __future__ import annotations

import copy

from SAMMixLib.module.case_state import Findings
from SAMMixLib.module.protocols import Case


class Results:
    """Findings by scan and by the version of its segment, with the figures of what that segment holds now.

    An undo brings back what was found before; another segmentation of the scan, or an empty one, has none of it.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Findings] = {}

    def of(self, case: Case | None) -> Findings | None:
        """What is known of the segment as it stands now, its volume measured; None where there is no result.

        A segment that no model made in this sitting (it was drawn, or loaded) has its figures and nothing else.
        """
        if case is None or not case.has_segment():
            return None
        areas = case.areas()
        findings = self._found.get((case.key, case.version))
        if findings is None:
            if not any(areas):
                return None
            findings = Findings.measured(*case.size())
        findings.area_mm2 = dict(enumerate(areas))
        findings.corrected = set(case.corrected_slices())
        return findings

    def keep(self, case: Case, findings: Findings) -> None:
        """Take over what was found in the segment as it was just written."""
        self._found[case.key, case.version] = findings
        self.of(case)

    def copy_of(self, case: Case) -> Findings:
        """As :meth:`of`, for a change that becomes another version; with nothing in it where there is no result."""
        return copy.deepcopy(self.of(case)) or Findings.measured(*case.size())

    def clear(self) -> None:
        """The scene was closed: nothing that was found belongs to anything any more."""
        self._found.clear()
