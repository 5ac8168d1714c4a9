"""A worker whose operations do what a hostile file might make a decoder do. Started by test_isolate."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from groundglass.read.isolate import Parser, serve
from groundglass.read.limits import Limits


def eat_memory(files: object, item: Mapping[str, Any], limits: Limits) -> Iterator[Any]:
    yield {"kept": len(bytearray(limits.worker_memory_bytes))}


def eat_cpu(files: object, item: Mapping[str, Any], limits: Limits) -> Iterator[Any]:
    while True:
        sum(range(1000))
    yield {}


def sleep(files: object, item: Mapping[str, Any], limits: Limits) -> Iterator[Any]:
    time.sleep(60)
    yield {}


def crash(files: object, item: Mapping[str, Any], limits: Limits) -> Iterator[Any]:
    ctypes.string_at(0)
    yield {}


def leave(files: object, item: Mapping[str, Any], limits: Limits) -> Iterator[Any]:
    os._exit(0)
    yield {}


def quit(files: object, item: Mapping[str, Any], limits: Limits) -> Iterator[Any]:
    sys.exit("a library that wants to leave")
    yield {}


class Panic(BaseException):
    """As PyO3 raises the panics of Rust code: no Exception."""


def panic(files: object, item: Mapping[str, Any], limits: Limits) -> Iterator[Any]:
    raise Panic
    yield {}


def shout(files: object, item: Mapping[str, Any], limits: Limits) -> Iterator[Any]:
    print(item["say"])
    print(item["say"], file=sys.stderr)
    os.write(1, item["say"].encode())
    os.write(2, item["say"].encode())
    raise ValueError(item["say"])
    yield {}


def echo(files: object, item: Mapping[str, Any], limits: Limits) -> Iterator[Any]:
    yield {"item": dict(item), "pid": os.getpid(), "environment": sorted(os.environ), "path": os.getcwd()}


def lie(files: object, item: Mapping[str, Any], limits: Limits) -> Iterator[Any]:
    """Announce what `item` says and send three planes of 2 x 2 bytes."""
    yield json.loads(item["header"])
    yield np.zeros((3, 2, 2), np.uint8)


def half(files: object, item: Mapping[str, Any], limits: Limits) -> Iterator[Any]:
    yield {"shape": [3, 2, 2], "dtype": "|u1"}
    yield np.zeros((1, 2, 2), np.uint8)
    os._exit(0)


def write(files: object, item: Mapping[str, Any], limits: Limits) -> Iterator[Any]:
    try:
        with open(item["path"], "w") as stream:
            stream.write("x")
    except OSError as error:
        yield {"refused": type(error).__name__}
    else:
        yield {"refused": None}


if __name__ == "__main__":
    stands_for = ("eat_memory", "eat_cpu", "sleep", "crash", "leave", "quit", "panic", "shout", "echo", "lie", "half")
    serve({name: Parser("__main__", name) for name in (*stands_for, "write")})
