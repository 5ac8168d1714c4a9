"""The protocol buffer of an ONNX file, parsed before anything runs it: does it need other files or foreign operators?

An ONNX file may keep its weights in other files, and may use operators of other domains. Both are numbered fields of
onnx.proto3, so the parser follows the fields that lead to them; it does not search the bytes for a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# message -> field number -> the message it holds; only the fields that lead to tensors and operators
_LEADS_TO: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 9: "opset", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
# message -> the field that names an operator domain
_DOMAIN = {"node": 7, "opset": 1}
_EXTERNAL_DATA, _DATA_LOCATION, _EXTERNAL = 13, 14, 1
STANDARD_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
_DEEPEST = 32
# operator, inputs, outputs
Node = tuple[str, list[str], list[str]]
_METADATA, _KEY = 14, 1


def reaches_for(content: bytes) -> str | None:
    """What a file needs beyond itself and the standard operators, as a phrase, or None.

    Raises ValueError if the bytes are no protocol buffer.
    """
    return _walk(memoryview(content), "model", 0)


def with_metadata(content: bytes, key: str, value: Mapping[str, Any]) -> bytes:
    """The same model file with `value`, as JSON, in place of what its metadata say under `key`.

    Raises ValueError if the bytes are no protocol buffer.
    """
    view = memoryview(content)
    kept = bytearray()
    start = 0
    for number, field, end in _places(view):
        entry = dict(_fields(field)) if number == _METADATA and isinstance(field, memoryview) else {}
        named = entry.get(_KEY)
        if not isinstance(named, memoryview) or bytes(named) != key.encode():
            kept += view[start:end]
        start = end
    text = json.dumps(value, sort_keys=True, allow_nan=False).encode()
    return bytes(kept) + _packed(_METADATA, _packed(_KEY, key.encode()) + _packed(2, text))


def with_output(content: bytes, name: str) -> bytes:
    """The same model file with one more output, a tensor of the graph by its name.

    Messages that follow one another merge, lists join (protobuf encoding), so the graph is not rewritten.
    """
    return content + _packed(7, _packed(12, _packed(1, name.encode())))


def features_of(content: bytes, output: str) -> str | None:
    """The name of the features that `output` is computed from: the tensor that the last convolution before it reads.

    Without a convolution it is the first input of the node that makes `output`; None if no node does. Raises ValueError
    where the bytes are no protocol buffer.
    """
    return features_in(_nodes(content), output)


def features_in(nodes: Sequence[Node], output: str) -> str | None:
    """`features_of` of nodes in the order in which they run, as ONNX keeps them."""
    needed, nearest = {output}, None
    for operator, inputs, outputs in reversed(nodes):
        if needed.isdisjoint(outputs):
            continue
        if operator == "Conv":
            return inputs[0]
        if nearest is None and inputs:
            nearest = inputs[0]
        needed.update(inputs)
    return nearest


def _nodes(content: bytes) -> list[Node]:
    """Operator, inputs and outputs of each node of the graph, in their order."""
    found: list[Node] = []
    for number, graph in _fields(memoryview(content)):
        if number != 7 or not isinstance(graph, memoryview):
            continue
        for kind, node in _fields(graph):
            if kind != 1 or not isinstance(node, memoryview):
                continue
            texts = [(n, bytes(v).decode("utf-8", "replace")) for n, v in _fields(node) if isinstance(v, memoryview)]
            inputs, outputs = ([text for n, text in texts if n == kind] for kind in (1, 2))
            found.append((next((text for n, text in texts if n == 4), ""), inputs, outputs))
    return found


def _packed(number: int, content: bytes) -> bytes:
    return _number(number << 3 | 2) + _number(len(content)) + content


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _walk(view: memoryview, message: str, depth: int) -> str | None:
    if depth > _DEEPEST:
        raise ValueError("graphs inside graphs, deeper than any model")
    for number, value in _fields(view):
        if message == "tensor":
            if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value == _EXTERNAL):
                return "weights in another file"
        elif number == _DOMAIN.get(message) and isinstance(value, memoryview):
            domain = bytes(value).decode("utf-8", "replace")
            if domain not in STANDARD_DOMAINS:
                return f"operators of the domain {domain[:40]!r}"
        elif (inner := _LEADS_TO.get(message, {}).get(number)) is not None and isinstance(value, memoryview):
            found = _walk(value, inner, depth + 1)
            if found is not None:
                return found
    return None


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """(field number, value) of a message: a whole number for a varint, bytes for all else."""
    yield from ((number, value) for number, value, _ in _places(view))


def _places(view: memoryview) -> Iterator[tuple[int, memoryview | int, int]]:
    """(field number, value, where the next field begins) of a message."""
    at = 0
    while at < len(view):
        key, at = _varint(view, at)
        kind = key & 7
        if kind == 0:
            number, at = _varint(view, at)
            yield key >> 3, number, at
            continue
        if kind == 2:
            length, at = _varint(view, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError("a field of no known wire type")
        if at + length > len(view):
            raise ValueError("a field that ends after its message")
        yield key >> 3, view[at : at + length], at + length
        at += length


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            raise ValueError("a number that is cut")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")
