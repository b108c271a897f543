"""Reading, computing and writing at the same time, with little in memory.

One thread reads ahead, the caller's computes, one writes behind. Order is kept. What any of them
raises is raised in the caller; what waits then is dropped, but for what a thread has begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Read = TypeVar("Read")
Made = TypeVar("Made")

AHEAD = 2
"""Parts read ahead, and parts that wait to be written: at most so many of each in memory."""


def overlap(
    keys: Sequence[Key],
    read: Callable[[Key], Read],
    compute: Callable[[Read], Made],
    write: Callable[[Made], None],
) -> Iterator[int]:
    """Write what is computed from what is read, for each key in turn; gives how many are computed.

    Nothing happens until it is iterated. Left in the middle it drops what waits.

    Args:
        read, write: run in threads of their own, one call at a time each.
        compute: runs in the caller's thread, where Ctrl-C arrives.

    Raises:
        Exception: whatever one of the three raises, the first in the order of the keys that the
            caller meets. All threads have ended by then.
    """
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        ahead: deque[Future[Read]] = deque()
        behind: deque[Future[None]] = deque()
        try:
            for index in range(len(keys)):
                while len(ahead) < AHEAD and index + len(ahead) < len(keys):
                    ahead.append(reader.submit(read, keys[index + len(ahead)]))
                made = compute(ahead.popleft().result())
                while len(behind) >= AHEAD:
                    behind.popleft().result()
                behind.append(writer.submit(write, made))
                del made
                yield index + 1
            while behind:
                behind.popleft().result()
        except BaseException:
            reader.shutdown(wait=False, cancel_futures=True)
            writer.shutdown(wait=False, cancel_futures=True)
            raise
