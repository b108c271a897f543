"""What an ONNX graph refers to, found in its bytes before any engine reads them.

A graph may name files for its tensors (`external_data`) and operators of other libraries; an engine
would open the files, wherever they are. Ours does neither. ONNX is a protocol buffer, so a walk
over its fields is enough, and neither `onnx` nor an engine is asked. Field numbers are those of
onnx.proto, the encoding that of https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cvsct.core.errors import ModelError

DOMAINS = ("", "ai.onnx")
"""Names of the standard's own operators."""
MAX_DEPTH = 8
"""Of graphs in operators of graphs; ours have none."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

_PARTS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 8: "opset", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 9: "opset", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
    "opset": {},
}
"""By kind of message: the fields that hold messages, and of which kind."""
_DOMAIN = {"node": 7, "opset": 1, "function": 1}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


def refuse_foreign(name: str, graph: bytes) -> None:
    """Refuse a graph that leads out of itself: to files, or to operators that are not ONNX's.

    Raises:
        ModelError: if it does, or cannot be followed to its end.
    """
    try:
        reason = _foreign(memoryview(graph), "model", 0)
    except (ValueError, IndexError):
        reason = "is no ONNX graph"
    if reason:
        raise ModelError(
            f"{name}: the graph {reason}; no model of this program does, get it again from a "
            "source that you trust"
        )


def _foreign(message: memoryview, kind: str, depth: int) -> str:
    """Why a message leads out of the graph, or an empty text."""
    if depth > 4 * MAX_DEPTH:  # graph, node, attribute, graph
        raise ValueError("nested too deep")
    for number, value in _fields(message):
        if kind == "tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value)):
            return "keeps values in another file"
        if not isinstance(value, memoryview):
            continue
        if number == _DOMAIN.get(kind) and bytes(value) not in {x.encode() for x in DOMAINS}:
            return "uses operators of another library"
        part = _PARTS[kind].get(number)
        reason = _foreign(value, part, depth + 1) if part else ""
        if reason:
            return reason
    return ""


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field; values of a length as bytes, not copied."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        value: int | memoryview = 0
        if wire == _VARINT:
            value, at = _varint(message, at)
        elif wire == _LENGTH:
            length, at = _varint(message, at)
            value, at = message[at : at + length], at + length
        elif wire in (_FIXED32, _FIXED64):
            at += 4 if wire == _FIXED32 else 8
        else:
            raise ValueError("a wire type that is none")
        if at > len(message):
            raise ValueError("cut short")
        yield number, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number that does not end")
