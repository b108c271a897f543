"""Check that an ONNX graph refers to nothing outside itself, before any engine reads it.

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
"""Deepest nesting of graphs in operators; graphs of this program have none."""

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
"""Fields that hold messages, and the kind of these, by kind of message."""
_DOMAIN = {"node": 7, "opset": 1, "function": 1}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


def refuse_foreign(name: str, graph: bytes) -> None:
    """Refuse a graph that refers to other files, or to operators that are not ONNX's.

    Args:
        name: of the graph, for the message.
        graph: bytes of the ONNX file.

    Raises:
        ModelError: if it does, or is no complete ONNX graph.
    """
    try:
        reason = _reason_to_refuse(memoryview(graph), "model", 0)
    except (ValueError, IndexError):
        reason = "is no ONNX graph"
    if reason:
        raise ModelError(
            f"{name}: the graph {reason}; no model of this program does, get it again from a "
            "source that you trust"
        )


def _reason_to_refuse(message: memoryview, kind: str, depth: int) -> str:
    """Reason why a message refers to something outside the graph; empty if it does not."""
    if depth > 4 * MAX_DEPTH:  # graph, node, attribute, graph
        raise ValueError("nested too deep")
    for number, value in _fields(message):
        if kind == "tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value)):
            return "keeps values in another file"
        if not isinstance(value, memoryview):
            continue
        if number == _DOMAIN.get(kind) and bytes(value) not in {
            domain.encode() for domain in DOMAINS
        }:
            return "uses operators of another library"
        part = _PARTS[kind].get(number)
        reason = _reason_to_refuse(value, part, depth + 1) if part else ""
        if reason:
            return reason
    return ""


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field; values of a length as bytes, not copied."""
    offset = 0
    while offset < len(message):
        key, offset = _varint(message, offset)
        number, wire = key >> 3, key & 7
        value: int | memoryview = 0
        if wire == _VARINT:
            value, offset = _varint(message, offset)
        elif wire == _LENGTH:
            length, offset = _varint(message, offset)
            value, offset = message[offset : offset + length], offset + length
        elif wire in (_FIXED32, _FIXED64):
            offset += 4 if wire == _FIXED32 else 8
        else:
            raise ValueError("a wire type that is none")
        if offset > len(message):
            raise ValueError("cut short")
        yield number, value


def _varint(message: memoryview, offset: int) -> tuple[int, int]:
    """Value of a variable-length integer, and the offset after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset
    raise ValueError("a number that does not end")
