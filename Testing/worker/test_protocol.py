"""Messages on the wire: there and back unchanged, and refused by name where they are not ours."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

import SAMMixLib
from SAMMixLib.worker.protocol import (
    MESSAGES,
    VERSION,
    ErrorKind,
    Failed,
    Hello,
    Load,
    Progressed,
    ProtocolError,
    Quit,
    Reported,
    Resegment,
    Segment,
    Segmented,
    SliceBoxes,
    Stage,
    Trained,
    decode,
    encode,
)

SEGMENTED = Segmented(
    "m.nrrd", "c.nrrd", 9, {7: [(1, 2, 3, 4)]}, [0.5], [0.9], [12.5], [7], 1.5, (7, 7), "starter", "cpu",
    {"total": 1.0}, ["It looks like no CT."],
)  # fmt: skip


@pytest.mark.parametrize(
    "message",
    [
        Load(),
        Segment("a\nb\u2028 é.nrrd", [1, 2]),
        Resegment([SliceBoxes(1, None), SliceBoxes(2, []), SliceBoxes(3, [(1, 2, 3, 4)])]),
        SEGMENTED,
        Trained("b", 0.9, 0.95, True, [("CT", 4)], "p.npz", "", 1.0),
        Hello(7, {"torch": "2"}, [{"name": "cpu", "text": "CPU"}]),
        Progressed(Stage.CLASSIFY, 1, 2),
        Reported(10, 100, loss=0.5),
        Failed(ErrorKind.DISK, "full"),
        Quit(),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_comes_out_as_it_went_in(message):
    line = encode(message, 3)
    assert line.count(b"\n") == 1 and decode(line) == (3, message)
    assert decode(encode(message)) == (None, message)


def test_what_json_has_not_is_not_sent():
    with pytest.raises(ValueError):
        encode(Reported(1, 2, loss=float("nan")), 1)


@pytest.mark.parametrize("line", [b"", b"{", b"[1]", b"{}", b'{"type": 1}', b"\xff\xfe", b"[" * 100000])
def test_what_is_no_message(line):
    assert decode(line) is None


@pytest.mark.parametrize(
    "line, number, words",
    [
        ('{"type": "fly", "id": 4}', 4, "fly: no such message"),
        ('{"type": "load", "id": "x"}', None, "load: id 'x' is no number"),
        ('{"type": "segment", "id": 4, "volume": "a", "colour": 1}', 4, "segment: unknown field colour"),
        ('{"type": "segment", "id": 4}', 4, "segment: .*volume"),
        ('{"type": "segment", "id": 4, "volume": 3}', 4, "segment: volume: 3 is no str"),
        ('{"type": "segment", "id": 4, "volume": "a", "slices": [1.5]}', 4, "slices: 1.5 is no int"),
        ('{"type": "segment", "id": 4, "volume": "a", "slices": [true]}', 4, "slices: True is no int"),
        ('{"type": "resegment", "id": 4, "slices": [{"k": 1}]}', 4, "slices: .*boxes"),
        ('{"type": "resegment", "id": 4, "slices": [{"k": 1, "boxes": [[1, 2, 3]]}]}', 4, r"boxes: \[1, 2, 3\]"),
        ('{"type": "progressed", "id": 4, "stage": "dream", "done": 1, "total": 2}', 4, "stage: 'dream'"),
        ('{"type": "hello", "protocol": 9, "news": 1}', None, f"hello: version 9 of the protocol, not {VERSION}"),
        ('{"type": "hello", "pid": 1, "versions": {}, "devices": []}', None, "version None of the protocol"),
    ],
)
def test_what_is_not_ours_is_refused_by_name(line, number, words):
    with pytest.raises(ProtocolError, match=words) as refused:
        decode(line.encode())
    assert refused.value.number == number


def test_every_field_says_its_type():
    """What a reader can make of JSON: without a type a field would be taken as it comes."""
    for kind in MESSAGES.values():
        assert all(each.type and each.type != "Any" for each in fields(kind)), kind


def test_the_stages_are_those_that_the_worker_tells():
    """Inference and training name their stages in words; one that is not listed could not be sent."""
    library = Path(SAMMixLib.__file__).parent
    sources = [*(library / "inference").glob("*.py"), *(library / "training").glob("*.py")]
    told = {name for path in sources for name in re.findall(r'progress\(\s*"([^"]+)"', path.read_text("utf-8"))}
    assert told and told <= {stage.value for stage in Stage}
