"""Reading, computing and writing at the same time, with few parts in memory.

One thread reads ahead, the thread of the caller computes, one thread writes behind, all in order.
An exception of any of them is raised in the caller; waiting parts are then dropped, except those
that a thread has begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Read = TypeVar("Read")
Computed = TypeVar("Computed")

AHEAD = 2
"""Largest number of parts read ahead, and of parts that wait to be written."""


def overlap(
    keys: Sequence[Key],
    read: Callable[[Key], Read],
    compute: Callable[[Read], Computed],
    write: Callable[[Computed], None],
) -> Iterator[int]:
    """Read, compute and write one part for each key, in order, with the three steps overlapping.

    Nothing happens until the generator is iterated. If it is closed early, waiting parts are
    dropped.

    Args:
        keys: keys of the parts, in order.
        read: reads the part of a key, in a thread of its own.
        compute: computes the result of a part, in the thread of the caller, where Ctrl-C arrives.
        write: writes a result, in a thread of its own.

    Yields:
        The number of parts that are computed.

    Raises:
        Exception: the first exception of `read`, `compute` or `write`, in the order of the keys.
            All threads have ended by then.
    """
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        ahead: deque[Future[Read]] = deque()
        behind: deque[Future[None]] = deque()
        try:
            for index in range(len(keys)):
                while len(ahead) < AHEAD and index + len(ahead) < len(keys):
                    ahead.append(reader.submit(read, keys[index + len(ahead)]))
                computed = compute(ahead.popleft().result())
                while len(behind) >= AHEAD:
                    behind.popleft().result()
                behind.append(writer.submit(write, computed))
                del computed
                yield index + 1
            while behind:
                behind.popleft().result()
        except BaseException:
            reader.shutdown(wait=False, cancel_futures=True)
            writer.shutdown(wait=False, cancel_futures=True)
            raise
