"""What client and worker say to each other: one JSON object a line, in UTF-8, over the worker's stdin and stdout.

Every message is a frozen dataclass here, and nowhere else. On the wire it is its fields, with ``type``, the name of the
class in lower case, and, where it belongs to a request, ``id``. A request is answered by any number of
:class:`Progressed` and :class:`Reported`, and then by one :class:`Failed` or one message of the class that stands above
the request. What a side does not know (a message, a field, a version) is refused by name, and nothing is guessed.

k, j, i are those of the axial stack (:class:`SAMMixLib.imaging.volume.AxialStack`). Boxes are inclusive pixel bounds
``(i0, j0, i1, j1)`` at full resolution. Arrays travel as uncompressed NRRD in the client's private folder; the files of
the last :data:`RESULTS_KEPT` results of each request stay, older ones are removed.

    >>> line = encode(Segment("volume.nrrd", [7]), 3)
    >>> line
    b'{"type": "segment", "id": 3, "volume": "volume.nrrd", "slices": [7]}\\n'
    >>> decode(line)
    (3, Segment(volume='volume.nrrd', slices=[7]))
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin, get_type_hints

from SAMMixLib.errors import SAMMixError

VERSION = 3  # of what is said here
HEARTBEAT_SECONDS = 1.0
RESULTS_KEPT = 2

Box = tuple[int, int, int, int]


class Stage(str, Enum):
    """What is being done, in the library's own words (see :data:`SAMMixLib.progress.Progress`)."""

    LOAD = "load model"
    READ = "read volume"
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


class ProtocolError(SAMMixError):
    """A message that is not one of these. ``name`` and ``number`` are its type and id, as far as they are known."""

    def __init__(self, name: str, number: int | None, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name, self.number = name, number


@dataclass(frozen=True)
class Message:
    """One line."""


# To the worker, each under the answer to it


AnswerT = TypeVar("AnswerT", bound=Message)


@dataclass(frozen=True)
class Request(Message, Generic[AnswerT]):
    """What a client asks for. ``patience`` is how many seconds it waits without any progress."""

    patience: ClassVar[float] = 600.0  # a batch of a large backbone on a slow CPU takes minutes


@dataclass(frozen=True)
class Loaded(Message):
    """``structure`` is what the model segments, see :meth:`SAMMixLib.structure.Structure.to_dict`."""

    name: str
    device: str
    dtype: str
    structure: dict[str, Any]


@dataclass(frozen=True)
class Load(Request[Loaded]):
    """Hold a model, by its name or folder. Nothing is done where it is held already."""

    patience = 300.0
    model: str = "starter"
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int = 8


@dataclass(frozen=True)
class Segmented(Message):
    """``mask`` is uint8 0 and 1 on exactly the volume's grid, ``cam`` uint8 0 to 255 on a grid of its own.

    ``p_liver``, ``predicted_iou`` and ``area_mm2`` have one value for each of the request's slices, in their order;
    p(liver) and CAM of thin slices that the classifier skipped are interpolated between those that it saw;
    ``boxes`` those of each slice where there are any; ``review`` the slices to look at, worst first; ``warnings`` what
    speaks against the scan or the result, one line each.
    """

    mask: str
    cam: str
    slices_total: int
    boxes: dict[int, list[Box]]
    p_liver: list[float]
    predicted_iou: list[float]
    area_mm2: list[float]
    review: list[int]
    volume_ml: float
    slice_range: tuple[int, int] | None
    model: str
    device: str
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Segment(Request[Segmented]):
    """Segment a volume, a file, or only its ``slices``."""

    volume: str
    slices: list[int] | None = None


@dataclass(frozen=True)
class SliceBoxes:
    """A slice to segment again; ``boxes`` [] is no liver there, None the box of its CAM."""

    k: int
    boxes: list[Box] | None


@dataclass(frozen=True)
class Resegmented(Message):
    """``mask`` is uint8 [n, rows, columns]: the slices ``slices`` of the axial stack, in their order, and no others."""

    mask: str
    slices: list[int]
    boxes: dict[int, list[Box]]
    predicted_iou: list[float]
    area_mm2: list[float]


@dataclass(frozen=True)
class Resegment(Request[Resegmented]):
    """Segment slices of the last volume again."""

    patience = 120.0
    slices: list[SliceBoxes]


@dataclass(frozen=True)
class Suggested(Message):
    """The slices most worth labelling next, the best first, each with a reason."""

    slices: list[int]
    reasons: list[str]


@dataclass(frozen=True)
class Suggest(Request[Suggested]):
    """Rank the slices of the last volume that are not ``labelled``."""

    labelled: list[int]
    count: int = 1


@dataclass(frozen=True)
class Trained(Message):
    """``before`` and ``after`` are Dice of the ``held_out`` slices (patient, k).

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
class Train(Request[Trained]):
    """Fine-tune ``model`` on the training set in the folder ``slices``; goes on where the folder ``run`` stands."""

    slices: str
    model: str
    preset: str
    seed: int
    run: str
    device: str = "auto"
    dtype: str = "auto"


@dataclass(frozen=True)
class Unloaded(Message):
    """All is gone."""


@dataclass(frozen=True)
class Unload(Request[Unloaded]):
    """Let model and embeddings go, and their memory."""

    patience = 60.0


@dataclass(frozen=True)
class Cancel(Message):
    """End the request with this id, waiting or running."""


@dataclass(frozen=True)
class Quit(Message):
    """End the process at once; the end of stdin without it means that the client is dead."""


# From the worker, besides the answers


@dataclass(frozen=True)
class Hello(Message):
    """Once, when torch is there. ``devices`` have ``name`` and ``text`` each, the best first."""

    pid: int
    versions: dict[str, str]
    devices: list[dict[str, str]]
    protocol: int = VERSION


@dataclass(frozen=True)
class Heartbeat(Message):
    """Every :data:`HEARTBEAT_SECONDS`."""


@dataclass(frozen=True)
class Progressed(Message):
    stage: Stage
    done: int
    total: int


@dataclass(frozen=True)
class Reported(Message):
    """Of a training, after ``step`` of ``steps``: one of the three. A run that is killed goes on from a checkpoint."""

    step: int
    steps: int
    loss: float | None = None
    validation_dice: float | None = None
    checkpoint: bool = False


@dataclass(frozen=True)
class Failed(Message):
    """``message`` is one line for the user, ``log`` the path of the worker's log. Without an id: the last words."""

    kind: ErrorKind
    message: str
    log: str = ""


MESSAGES = {kind.__name__.lower(): kind for kind in (
    Load, Segment, Resegment, Suggest, Train, Unload, Cancel, Quit,
    Hello, Heartbeat, Progressed, Reported, Failed,
    Loaded, Segmented, Resegmented, Suggested, Trained, Unloaded,
)}  # fmt: skip


def encode(message: Message, number: int | None = None) -> bytes:
    """One line. Raises ValueError for NaN, which JSON has not."""
    head = {"type": type(message).__name__.lower()} | ({} if number is None else {"id": number})
    return json.dumps(head | vars(message), allow_nan=False, default=vars).encode() + b"\n"


def decode(line: bytes) -> tuple[int | None, Message] | None:
    """The id and the message in a line; None where it holds no object with a type.

    Raises:
        ProtocolError: a message or a field is unknown, missing or of another type, or of another version.
    """
    try:
        content = json.loads(line)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("type"), str):
        return None
    name, number = content.pop("type"), content.pop("id", None)
    if number is not None and type(number) is not int:
        raise ProtocolError(name, None, f"id {number!r} is no number")
    kind = MESSAGES.get(name)
    try:
        if kind is None:
            raise ValueError("no such message")
        if kind is Hello and content.get("protocol") != VERSION:
            raise ValueError(f"version {content.get('protocol')} of the protocol, not {VERSION}")
        return number, _build(kind, content)
    except ValueError as error:
        raise ProtocolError(name, number, str(error)) from None


_types = cache(get_type_hints)


def _build(kind: type, content: Any) -> Any:
    """The dataclass of these fields. Raises ValueError, which names the field."""
    if not isinstance(content, dict):
        raise ValueError(f"{content!r} is no {kind.__name__}")
    names = {each.name for each in fields(kind)}
    if unknown := sorted(content.keys() - names):
        raise ValueError(f"unknown field {', '.join(unknown)}")
    values = {}
    for name, value in content.items():
        try:
            values[name] = _read(_types(kind)[name], value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    try:
        return kind(**values)
    except TypeError as error:  # says which are missing
        raise ValueError(str(error).partition(" ")[2]) from None


def _read(kind: Any, value: Any) -> Any:
    """A value of the type that a field is annotated with, from what JSON makes of it."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is UnionType:
        return None if value is None else _read(next(each for each in args if each is not NoneType), value)
    if origin is list and isinstance(value, list):
        return [_read(args[0], each) for each in value]
    if origin is tuple and isinstance(value, list) and len(value) == len(args):
        return tuple(_read(each, part) for each, part in zip(args, value, strict=True))
    if origin is dict and isinstance(value, dict):
        return {args[0](key): _read(args[1], each) for key, each in value.items()}
    if isinstance(kind, type) and is_dataclass(kind):
        return _build(kind, value)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{value!r:.80} is no {getattr(kind, '__name__', kind)}")
    return value
