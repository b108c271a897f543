"""ONNX graphs written field by field, so that no library is asked what it thinks of them."""

from __future__ import annotations


def graph_of(external: str = "", inside: bool = False, domain: str = "") -> bytes:
    """One operator on one tensor.

    Args:
        external: file in which the tensor says that its values are.
        inside: have the tensor in a graph within the operator.
        domain: library of the operator.
    """
    tensor = _number(1, 2) + _number(2, 1) + _part(8, b"w") + _part(9, bytes(8))
    if external:
        entry = _part(1, b"location") + _part(2, external.encode())
        tensor = _number(1, 2) + _number(2, 1) + _part(8, b"w") + _part(13, entry) + _number(14, 1)
    node = _part(1, b"image") + _part(1, b"w") + _part(2, b"translated") + _part(4, b"Add")
    if domain:
        node += _part(7, domain.encode())
    if inside:
        branch = _part(1, b"then_branch") + _part(6, _part(5, tensor))
        return _model(_part(1, node + _part(5, branch)))
    return _model(_part(1, node) + _part(5, tensor))


def _model(graph: bytes) -> bytes:
    return _number(1, 8) + _part(7, graph) + _part(8, _part(1, b"") + _number(2, 17))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _part(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
