"""Prepares the next items in a thread of its own while the caller works on the one before."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Ready = TypeVar("Ready")


def running_ahead(prepare: Callable[[Item], Ready], items: Iterable[Item], ahead: int) -> Iterator[Ready]:
    """What `prepare` makes of the items, in their order.

    The thread is gone when the iterator is exhausted, closed, or has raised; a preparation that has begun is waited
    for.

    Args:
        ahead: how many results wait at most while the caller works; with 0 there is no thread.

    Raises:
        what `prepare` raises, when it is the item's turn; items behind it are not prepared any more.
    """
    if ahead == 0:
        yield from map(prepare, items)
        return
    waiting: deque[Future[Ready]] = deque()
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="running-ahead")
    try:
        for item in items:
            waiting.append(executor.submit(prepare, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
