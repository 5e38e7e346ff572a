"""Waiting for a batch, but not for ever: a disk that does not answer ends the run with the names of the images it keeps back."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from src.batch import BatchPlan, Source, Stuck

T = TypeVar("T")
_NAMED = 5


class Watch:
    """How long an engine waits for a batch.

    Args:
        source: names the images.
        seconds: from when a batch is waited for until all of it is there; None: for ever.

    Attributes:
        stuck: whether a batch did not come. The thread that reads it cannot be ended, so nobody may wait for it.
    """

    def __init__(self, source: Source, seconds: float | None) -> None:
        self.stuck = False
        self._source, self._seconds = source, seconds
        self._caller: ThreadPoolExecutor | None = None

    def results(self, tasks: Sequence[Future[T]], plan: BatchPlan) -> list[T]:
        """Wait for a batch's parts.

        Raises:
            Stuck: naming the batch's first images.
        """
        until = None if self._seconds is None else time.monotonic() + self._seconds
        return [self._result(task, plan, until) for task in tasks]

    def call(self, wait: Callable[[], T], plan: BatchPlan) -> T:
        """Call what may block in a library that knows no limit, in a thread of its own.

        Raises:
            Stuck: naming the batch's first images.
        """
        if self._seconds is None:
            return wait()
        if self._caller is None:
            self._caller = ThreadPoolExecutor(1, thread_name_prefix="wait")
        return self.results([self._caller.submit(wait)], plan)[0]

    def close(self) -> None:
        """Stop the thread."""
        if self._caller is not None:
            self._caller.shutdown(wait=not self.stuck)

    def _result(self, task: Future[T], plan: BatchPlan, until: float | None) -> T:
        try:
            return task.result(timeout=None if until is None else max(0.0, until - time.monotonic()))
        except TimeoutError:
            if task.done():
                raise  # the task's own
            self.stuck = True
            names = ", ".join(self._source.name(index) for index in plan.ids[:_NAMED].tolist())
            raise Stuck(
                f"a batch has not arrived for {self._seconds:g} seconds: its {len(plan.ids)} images are {names}, ... "
                "Does the disk that holds them answer?"
            ) from None
