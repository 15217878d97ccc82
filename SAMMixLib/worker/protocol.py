"""What client and server say to each other: one JSON object a line, in UTF-8, over the server's stdin and stdout.

Client to server, each with ``type`` and ``id`` (of the client's choice, rising):

==============  =====================================================================================================
``load``        ``model`` (name or folder), ``device``, ``dtype``, ``batch_size`` (all optional)
                -> ``name``, ``device``, ``device_text``, ``dtype``, ``structure`` (what it segments, see
                :meth:`SAMMixLib.structure.Structure.to_dict`). Nothing is done where that model is loaded.
``segment``     ``volume`` (path), ``slices`` (list of k, or null for all)
                -> ``mask``, ``cam`` (paths), ``boxes`` {k: [[i0, j0, i1, j1], ...]} where there are any;
                ``p_liver``, ``predicted_iou``, ``area_mm2`` (one value for each of ``slices``, in their order);
                ``volume_ml``, ``slice_range``, ``review`` [k] (worst first), ``slices_total``,
                ``model``, ``device``, ``seconds`` {stage: s}, ``warnings``
``resegment``   ``slices`` [{``k``, ``boxes``}] of the last volume; boxes [] is no liver there, null its CAM's box
                -> ``mask`` (path), the slices ``slices`` [k] and no others; ``boxes`` {k: ...} of each of them;
                ``predicted_iou``, ``area_mm2`` (one value for each)
``suggest``     ``labelled`` [k], ``count``, of the last volume
                -> ``slices`` [k] of those that are not labelled, the most worth labelling first; ``reasons``, one each
``train``       ``slices`` (folder of a training set), ``model`` (to start from), ``preset``, ``seed``, ``run``
                (folder), ``device``, ``dtype`` (optional)
                -> ``bundle`` (path), ``before``, ``after`` (Dice of the held-out slices), ``better``,
                ``held_out`` [[patient, k]], ``pictures`` (path), ``warning``, ``seconds``. Meanwhile ``report`` comes.
                After an end of any other kind the same request goes on where the run folder stands.
``unload``      model and embeddings go, and their memory -> nothing
``quit``        the process ends at once, whatever it does; the end of stdin without it means that the client is dead
``cancel``      ends the request with this ``id``, waiting or running
==============  =====================================================================================================

Server to client:

==============  =====================================================================================================
``hello``       once, when torch is there: ``pid``, ``versions``, ``devices`` [{``name``, ``text``}], the best first
``heartbeat``   every :data:`HEARTBEAT_SECONDS`
``progress``    ``id``, ``stage``, ``done``, ``total``
``report``      ``id``, ``figures`` {``step``, ``steps``, and ``loss`` or ``validation_dice``} of a training
``result``      ``id`` and what is said above
``error``       ``id``, ``kind`` (of :data:`ERROR_KINDS`), ``message`` (one line for the user), ``log`` (path)
``log``         ``text``: a line that was no message
==============  =====================================================================================================

k, j, i are those of the axial stack (:class:`SAMMixLib.imaging.volume.AxialStack`). Boxes are inclusive pixel bounds at
full resolution. Arrays travel as uncompressed NRRD in the client's private folder: ``mask`` is uint8 0 and 1 on exactly
the volume's grid (of ``resegment`` [n, rows, columns] of the axial stack), ``cam`` uint8 0 to 255 on its own grid
(:meth:`SAMMixLib.imaging.volume.AxialStack.maps_to_image`). The files of the last :data:`RESULTS_KEPT` results of each
request stay; older ones are removed. ``pictures`` is an ``.npz`` in the run folder: of the held-out slices ``images``
int16 [n, S, S] in HU, and uint8 masks ``reference``, ``before`` and ``after``.
"""

from __future__ import annotations

import json
from typing import Any

ERROR_KINDS = ("input", "memory", "disk", "crash", "cancelled", "internal", "timeout")
HEARTBEAT_SECONDS = 1.0
RESULTS_KEPT = 2

Message = dict[str, Any]


def encode(message: Message) -> bytes:
    """One line. Raises ValueError for NaN, which JSON has not."""
    return json.dumps(message, allow_nan=False).encode() + b"\n"


def decode(line: bytes) -> Message | None:
    """The message in a line, None where it holds none."""
    try:
        message = json.loads(line)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        return None
    return message if isinstance(message, dict) and isinstance(message.get("type"), str) else None
