"""What client and worker say to each other: one JSON object a line, in UTF-8, over the worker's stdin and stdout.

Every message is a frozen dataclass here, and nowhere else. On the wire it is its fields, with ``type`` and, where it
belongs to a request, ``id``. A request is answered by any number of :class:`Progressed` and :class:`Reported`, and then
by one :class:`Failed` or one "result": the dataclass that the request names as its :attr:`~Request.answer`.

k, j, i are those of the axial stack. Boxes are inclusive pixel bounds ``(i0, j0, i1, j1)`` at full resolution. Arrays
travel as uncompressed NRRD in the client's private folder; the files of the last :data:`RESULTS_KEPT` results of each
request stay, older ones are removed.

    >>> line = encode(Segment(volume="volume.nrrd"), 3)
    >>> decode_request(line)
    (3, Segment(volume='volume.nrrd', slices=None))
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, ClassVar

HEARTBEAT_SECONDS = 1.0
RESULTS_KEPT = 2

Box = tuple[int, int, int, int]


class Stage(str, Enum):
    """What is being done. The library's own names; others are told, too, as text."""

    START = "start"  # the client's own: before there is a worker
    LOAD_MODEL = "load model"
    READ_VOLUME = "read volume"
    CLASSIFY = "classify slices"
    SEGMENT = "segment slices"
    WRITE = "write results"
    ENCODE = "encode slices"
    TRAIN = "train"


class ErrorKind(str, Enum):
    INPUT = "input"  # of the user's; the message says what to do
    MEMORY = "memory"
    DISK = "disk"
    CRASH = "crash"  # the process is gone
    CANCELLED = "cancelled"
    INTERNAL = "internal"
    TIMEOUT = "timeout"


# Requests


@dataclass(frozen=True)
class Request:
    """What a client asks for. ``patience`` is how many seconds it waits without any progress."""

    answer: ClassVar[type]
    patience: ClassVar[float] = 600.0  # a batch of a large backbone on a slow CPU takes minutes


@dataclass(frozen=True)
class Loaded:
    """``structure`` is what the model segments, see :meth:`SAMMixLib.structure.Structure.to_dict`."""

    name: str
    device: str
    device_text: str
    dtype: str
    structure: dict[str, Any]


@dataclass(frozen=True)
class Load(Request):
    """Hold a model, by its name or folder. Nothing is done where it is held already."""

    answer = Loaded
    patience = 300.0
    model: str = "starter"
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int = 8


@dataclass(frozen=True)
class Segmented:
    """``mask`` is uint8 0 and 1 on exactly the volume's grid, ``cam`` uint8 0 to 255 on a grid of its own.

    ``p_liver``, ``predicted_iou`` and ``area_mm2`` have one value for each of the request's slices, in their order;
    ``boxes`` those of each slice where there are any; ``review`` the slices to look at, worst first.
    """

    mask: str
    cam: str
    boxes: dict[int, list[Box]]
    p_liver: list[float]
    predicted_iou: list[float]
    area_mm2: list[float]
    review: list[int]
    slices_total: int
    device: str
    model: str = ""
    volume_ml: float = 0.0
    slice_range: tuple[int, int] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Segment(Request):
    """Segment a volume, a file, or only its ``slices``."""

    answer = Segmented
    volume: str
    slices: list[int] | None = None


@dataclass(frozen=True)
class SliceBoxes:
    """A slice to segment again; ``boxes`` [] is no liver there, None the box of its CAM."""

    k: int
    boxes: list[Box] | None = None


@dataclass(frozen=True)
class Resegmented:
    """``mask`` is uint8 [n, rows, columns]: the axial stack's slices ``slices``, no others, in their order."""

    mask: str
    slices: list[int]
    boxes: dict[int, list[Box]]
    predicted_iou: list[float]
    area_mm2: list[float]


@dataclass(frozen=True)
class Resegment(Request):
    """Segment slices of the last volume again."""

    answer = Resegmented
    patience = 120.0
    slices: list[SliceBoxes]


@dataclass(frozen=True)
class Suggested:
    """The slices most worth labelling next, the best first, each with a reason."""

    slices: list[int]
    reasons: list[str]


@dataclass(frozen=True)
class Suggest(Request):
    """Rank the slices of the last volume that are not ``labelled``."""

    answer = Suggested
    labelled: list[int]
    count: int = 1


@dataclass(frozen=True)
class Trained:
    """``before`` and ``after`` are Dice of the held-out slices (patient, k).

    ``pictures`` is an ``.npz`` in the run folder: of the held-out slices ``images`` int16 [n, S, S] in HU, and uint8
    masks ``reference``, ``before`` and ``after``.
    """

    bundle: str
    before: float
    after: float
    better: bool
    held_out: list[tuple[str, int]]
    pictures: str
    warning: str
    seconds: float


@dataclass(frozen=True)
class Train(Request):
    """Fine-tune a model on the training set in the folder ``slices``; goes on where the folder ``run`` stands."""

    answer = Trained
    slices: str
    model: str
    preset: str
    seed: int
    run: str
    device: str = "auto"
    dtype: str = "auto"


@dataclass(frozen=True)
class Unloaded:
    pass


@dataclass(frozen=True)
class Unload(Request):
    """Let model and embeddings go, and their memory."""

    answer = Unloaded
    patience = 60.0


@dataclass(frozen=True)
class Cancel:
    """End the request with this id, waiting or running."""


@dataclass(frozen=True)
class Quit:
    """End the process at once; the end of stdin without it means that the client is dead."""


# From the worker


@dataclass(frozen=True)
class Hello:
    """Once, when torch is there; ``devices`` with ``name`` and ``text`` each, the best first."""

    pid: int
    versions: dict[str, str]
    devices: list[dict[str, str]]


@dataclass(frozen=True)
class Heartbeat:
    pass


@dataclass(frozen=True)
class Progressed:
    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Reported:
    """Figures of a training: ``step``, ``steps``, and ``loss`` or ``validation_dice``."""

    figures: dict[str, float]


@dataclass(frozen=True)
class Failed:
    """``message`` is one line for the user, ``log`` the path of the worker's log."""

    kind: ErrorKind
    message: str
    log: str = ""


@dataclass(frozen=True)
class LogLine:
    """A line of the worker's that was no message."""

    text: str


REQUESTS: dict[str, type] = {
    "load": Load,
    "segment": Segment,
    "resegment": Resegment,
    "suggest": Suggest,
    "train": Train,
    "unload": Unload,
    "cancel": Cancel,
    "quit": Quit,
}
ANSWERS: dict[str, type] = {
    "hello": Hello,
    "heartbeat": Heartbeat,
    "progress": Progressed,
    "report": Reported,
    "error": Failed,
    "log": LogLine,
}
RESULTS = (Loaded, Segmented, Resegmented, Suggested, Trained, Unloaded)
_NAMES = {kind: name for name, kind in (REQUESTS | ANSWERS).items()} | dict.fromkeys(RESULTS, "result")


def encode(message: Any, number: int | None = None) -> bytes:
    """One line. Raises ValueError for NaN, which JSON has not."""
    content = {each.name: getattr(message, each.name) for each in fields(message)}
    head = {"type": _NAMES[type(message)]} | ({} if number is None else {"id": number})
    return json.dumps(head | content, allow_nan=False, default=vars).encode() + b"\n"


def decode_request(line: bytes) -> tuple[int, Any] | None:
    """The id and the request in a line; None where it holds none."""
    content = _content(line)
    kind = REQUESTS.get(content.pop("type", ""))
    number = content.pop("id", None)
    try:
        return (number, _build(kind, content)) if kind and isinstance(number, int) else None
    except (TypeError, ValueError, KeyError):
        return None


def decode_answer(line: bytes, asked: dict[int, type]) -> tuple[int | None, Any]:
    """The id and the message in a line of the worker's; a result is read as its request's answer.

    Args:
        asked: the class of each request that waits, by id.
    """
    content = _content(line)
    name, number = content.pop("type", ""), content.pop("id", None)
    kind = asked[number].answer if name == "result" and number in asked else ANSWERS.get(name)
    try:
        return number, _build(kind, content)
    except (TypeError, ValueError, KeyError, AttributeError):
        if name == "result":
            return number, Failed(ErrorKind.INTERNAL, "The worker's answer cannot be read; restart Slicer.")
        return None, LogLine(line[:1000].decode(errors="replace").strip())


def _content(line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        return {}
    return content if isinstance(content, dict) and isinstance(content.get("type"), str) else {}


def _build(kind: type, content: dict[str, Any]) -> Any:
    """The dataclass of these fields, with the types that JSON has not; fields that it does not know are left out."""
    known = {each.name for each in fields(kind)}
    values = {name: value for name, value in content.items() if name in known}
    if "boxes" in values and isinstance(values["boxes"], dict):
        values["boxes"] = {int(k): _boxes(boxes) for k, boxes in values["boxes"].items()}
    if kind is Resegment:
        values["slices"] = [SliceBoxes(each["k"], _boxes(each["boxes"])) for each in values["slices"]]
    if kind is Failed:
        values["kind"] = ErrorKind(values["kind"])
    if kind is Trained:
        values["held_out"] = [(patient, k) for patient, k in values["held_out"]]
    return kind(**values)


def _boxes(boxes: list[list[int]] | None) -> list[Box] | None:
    return None if boxes is None else [tuple(box) for box in boxes]
