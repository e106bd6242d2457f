"""Results of consecutive steps, computed ahead by threads or processes and handed over in order."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """An iterator of function(step), function(step + 1), ..., of which `count` are under way or wait in memory.

    Nothing is computed before the first `next`, which raises whatever `function` raises.
    """

    def __init__(self, pool: Executor, function: Callable[[int], T], step: int, count: int) -> None:
        self._pool, self._function, self._step, self._count = pool, function, step, count
        self._waiting: deque[Future[T]] = deque()

    def __next__(self) -> T:
        while len(self._waiting) < self._count:
            self._waiting.append(self._pool.submit(self._function, self._step))
            self._step += 1
        return self._waiting.popleft().result()

    def close(self) -> list[T]:
        """Ends the pool; returns the results that nobody took."""
        self._pool.shutdown(cancel_futures=True)
        left = [future.result() for future in self._waiting if not (future.cancelled() or future.exception())]
        self._waiting.clear()
        return left
