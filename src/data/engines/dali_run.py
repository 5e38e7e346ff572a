"""The `dali` engine's order: batches are read, fed and taken as planned, also where a pipeline stops and another takes over."""

from collections import deque
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.batch import BatchPlan, BoxResize, Geometry
from src.data.bad_images import Substitute
from src.data.engines.dali_pipeline import DaliError, DecodePipeline, Request, request
from src.data.engines.dali_reader import Reader, Row
from src.data.engines.waiting import Watch

_IDLE = 2  # pipelines kept: training's and evaluation's
_LEAST = 32  # images in a batch that a pipeline is built for


class Pipelines:
    """Builds pipelines, and keeps those that are not in use: a training and an evaluation need not build theirs again every epoch.

    Args:
        threads: of each.
        depth: see DecodePipeline.
        gpu: the device that decodes; None: the CPU does.
    """

    def __init__(self, threads: int, depth: int, gpu: int | None) -> None:
        self._threads, self._depth, self._gpu = threads, depth, gpu
        self._idle: list[DecodePipeline] = []

    def take(self, geometry: Geometry, count: int) -> DecodePipeline:
        """Return a pipeline for this geometry and batches of so many images."""
        cuts, interpolation = isinstance(geometry, BoxResize), geometry.interpolation
        for pipeline in self._idle:
            if (pipeline.cuts, pipeline.interpolation) == (cuts, interpolation) and pipeline.capacity >= count:
                self._idle.remove(pipeline)
                return pipeline
        capacity = max(_LEAST, 1 << (count - 1).bit_length())  # so that batches that grow do not build one each
        return self._build(geometry, capacity, self._threads, self._depth)

    def keep(self, pipeline: DecodePipeline) -> None:
        """Take back a pipeline that is empty. The longest kept gives way."""
        self._idle.append(pipeline)
        while len(self._idle) > _IDLE:
            self._idle.pop(0).close()

    def refused(self, geometry: Geometry, batch: Request) -> list[int]:
        """Return the rows that DALI cannot make, which is tried one by one."""
        rows, pipeline = [], None
        for row in range(len(batch.data)):
            pipeline = pipeline or self._build(geometry, 1, 1, 1)
            try:
                pipeline.feed(batch.row(row))
                pipeline.take()
                pipeline.release()
            except DaliError:
                rows.append(row)
                pipeline.close()
                pipeline = None
        if pipeline is not None:
            pipeline.close()
        return rows

    def close(self) -> None:
        """Stop all that are kept."""
        while self._idle:
            self._idle.pop().close()

    def _build(self, geometry: Geometry, capacity: int, threads: int, depth: int) -> DecodePipeline:
        cuts = isinstance(geometry, BoxResize)
        return DecodePipeline(
            cuts=cuts, interpolation=geometry.interpolation, capacity=capacity, threads=threads, depth=depth, gpu=self._gpu
        )


class Made(NamedTuple):
    """A finished batch. Its images are valid until `pipeline.release`.

    Attributes:
        images: DALI's tensor uint8 (N, S, S, 3), where it decodes.
        patches: row to uint8 (S, S, 3), of the images that the reference has made.
        plan: of what is shown.
        substitutes: for bad images.
        pipeline: whose memory this is.
    """

    images: Any
    patches: dict[int, Tensor]
    plan: BatchPlan
    substitutes: list[Substitute]
    pipeline: DecodePipeline

    def pixels(self) -> Tensor:
        """uint8 (N, S, S, 3) on the CPU, complete, in DALI's memory."""
        pixels = torch.from_numpy(np.asarray(self.images))
        for row, made in self.patches.items():
            pixels[row] = made
        return pixels


class _Ahead:
    """A batch under way: being read, and once it is fed, in a pipeline."""

    def __init__(self, plan: BatchPlan, tasks: list[Future[list[Row]]]) -> None:
        self.plan, self.tasks = plan, tasks
        self.rows: list[Row] = []
        self.request: Request | None = None
        self.pipeline: DecodePipeline | None = None

    def is_read(self) -> bool:
        """Return whether all of it is read, without an error."""
        return all(task.done() and not task.cancelled() and task.exception() is None for task in self.tasks)


class Run:
    """One iteration: batches are read, fed and taken in the plans' order, also where a pipeline stops and another takes over.

    Attributes:
        pending: under way, in order.
    """

    def __init__(self, reader: Reader, pipelines: Pipelines, geometry: Geometry, watch: Watch) -> None:
        self._reader, self._pipelines, self._geometry, self._watch = reader, pipelines, geometry, watch
        self.pending: deque[_Ahead] = deque()
        self._pipeline: DecodePipeline | None = None
        self._closed = False

    def start(self, plan: BatchPlan) -> None:
        """Begin to read one more batch."""
        self.pending.append(_Ahead(plan, self._reader.start(plan, self._geometry)))

    def take(self) -> Made:
        """Wait for the next batch.

        Raises:
            DataError: naming the sample, if one of it is bad; Stuck, if the batch does not come.
        """
        head = self.pending[0]
        while True:
            self._feed(wait=True)
            assert head.pipeline is not None
            try:
                images = self._watch.call(head.pipeline.take, head.plan)
                break
            except DaliError as error:
                self._recover(error)
        self.pending.popleft()
        self._feed(wait=False)  # so that DALI has work while the caller has
        patches = {row: read.made for row, read in enumerate(head.rows) if read.made is not None}
        substitutes = [read.substitute for read in head.rows if read.substitute is not None]
        return Made(images, patches, head.plan, substitutes, head.pipeline)

    def finish(self) -> None:
        """Keep the pipeline for another run: everything has been taken out of it."""
        if self._closed:
            raise RuntimeError("the engine was closed while its batches were being read")
        if self._pipeline is not None:
            self._pipelines.keep(self._pipeline)
            self._pipeline = None

    def close(self) -> None:
        """Drop what is under way. May be called twice, and after `finish`."""
        self._closed = True
        for batch in self.pending:
            for task in batch.tasks:
                task.cancel()
        self._drop_pipelines()
        self.pending.clear()

    def _feed(self, *, wait: bool) -> None:
        """Feed what is read, in order; with `wait`, at least the first."""
        for place, batch in enumerate(self.pending):
            if batch.pipeline is not None:
                continue
            if not (wait and place == 0) and not batch.is_read():
                return  # an error waits for its batch's turn
            batch.rows = [row for rows in self._watch.results(batch.tasks, batch.plan) for row in rows]
            batch.request = self._request(batch)
            pipeline = self._pipeline_for(len(batch.rows))
            try:
                pipeline.feed(batch.request)
            except DaliError:
                if place == 0:
                    raise  # a new pipeline that does not start
                return  # the pipeline has stopped at an earlier batch: whoever takes that will see
            batch.pipeline = pipeline

    def _pipeline_for(self, count: int) -> DecodePipeline:
        """Return this run's pipeline, or a larger one, which later batches go to while the old one is emptied."""
        if self._pipeline is None or self._pipeline.capacity < count:
            self._pipeline = self._pipelines.take(self._geometry, count)
        return self._pipeline

    def _request(self, batch: _Ahead) -> Request:
        boxes = batch.plan.crops.copy()
        boxes[[row.made is not None for row in batch.rows]] = (0, 0, 1, 1)
        shape = np.array([(*row.size, 3) for row in batch.rows], np.int32)
        raw = np.array([row.raw for row in batch.rows], np.bool_)
        return request([row.data for row in batch.rows], raw, shape, boxes, batch.plan.flips, self._geometry)

    def _recover(self, error: DaliError) -> None:
        """Find what stopped the pipeline, leave it to the reference from now on, and feed what is under way to a new pipeline.

        Raises:
            RuntimeError: if it was no image.
        """
        fed = [batch for batch in self.pending if batch.pipeline is not None]
        self._drop_pipelines()
        for batch in fed:  # the first, but DALI's older executor also tells of a later one's
            assert batch.request is not None
            refused = {int(batch.plan.ids[row]) for row in self._pipelines.refused(self._geometry, batch.request)}
            if refused - self._reader.refused:  # and so this ends
                break
        else:
            raise RuntimeError(f"DALI stopped, and not for an image that it cannot decode: {error}") from error
        self._reader.refused |= refused
        for batch in self.pending:
            if not refused.isdisjoint(batch.plan.ids.tolist()):
                batch.tasks = self._reader.start(batch.plan, self._geometry)

    def _drop_pipelines(self) -> None:
        for pipeline in {batch.pipeline for batch in self.pending} | {self._pipeline}:
            if pipeline is not None:
                pipeline.close()
        for batch in self.pending:
            batch.pipeline = None
        self._pipeline = None
