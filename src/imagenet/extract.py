"""Writes what units yield, in threads, and notes in the journal what lasts."""

import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from src.batch import DataError
from src.config import ConfigError, Problem
from src.imagenet.journal import Journal, Progressed
from src.imagenet.pieces import Piece, Unit
from src.imagenet.rows import Rows
from src.imagenet.space import FULL, StoppedError, size, sync_file_system
from src.imagenet.sums import ReadAhead
from src.imagenet.writing import STAGE, DuplicateError, Writer

Amounts = Callable[[int, int, int, int], None]  # files done, files, bytes done, bytes
_OFFER_BYTES, _OFFER_PIECES = 2**26, 1_000  # of one unit, between two offers to the journal
_SHORTEST_PAUSE, _LONGEST_PAUSE, _PAUSE_PER_SYNC = 0.05, 5.0, 10  # seconds between two syncs: ten times what the last one took
_LOOK_SECONDS = 0.25


class _Offer:
    """What of one unit is written and not yet noted."""

    def __init__(self) -> None:
        self.rows: list[bytes] = []
        self.pieces, self.done = 0, False


class Extraction:
    """One run over the units that are not done.

    Args:
        target: of the preparation.
        journal: is read for what is done, and written.
        rows: likewise.
        writer: of the pieces.
        ahead: reads archives for their sums; None where none has a sum.
    """

    def __init__(self, target: Path, journal: Journal, rows: Rows, writer: Writer, ahead: ReadAhead | None) -> None:
        self._target, self._journal, self._rows, self._writer, self._ahead = target, journal, rows, writer, ahead
        self._offers: dict[str, _Offer] = {}
        self._lock = threading.Lock()
        self._news, self._stop = threading.Event(), threading.Event()
        self._noting_failed: OSError | None = None
        self._closed = threading.Event()
        self._all_noted = threading.Event()
        self.files = self.bytes = self._written = 0
        self._left = 0.0

    def run(self, units: Sequence[Unit], *, threads: int, progress: Amounts) -> None:
        """Extract all that is not done.

        Raises:
            ConfigError: the source is damaged or hostile; every unit that was met to be so.
            StoppedError: the disk is full, or failed.
            KeyboardInterrupt: what is written is noted.
        """
        state = self._journal.state.units
        known = [state.get(unit.name) for unit in units]
        self.files = sum(told.pieces for told in known if told)
        total = sum(unit.files for unit in units), sum(unit.bytes for unit in units)
        self.bytes = sum(unit.bytes for unit, told in zip(units, known, strict=True) if told and told.done)
        left = [unit for unit, told in zip(units, known, strict=True) if not (told and told.done)]
        if self._ahead is not None:
            left = self._ahead.sorted(left)
        self._left = max(0, total[1] - sum(share_of(told, unit) * unit.bytes for unit, told in zip(units, known, strict=True)))
        noting = threading.Thread(target=self._note_always, name="journal", daemon=True)
        noting.start()
        errors: list[BaseException] = []
        pool = ThreadPoolExecutor(threads)
        ended = False
        futures: list[Future[None]] = []
        try:
            futures += [pool.submit(self._extract, unit) for unit in left]
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, _LOOK_SECONDS, FIRST_COMPLETED)
                errors += [error for future in done if (error := future.exception()) is not None]
                if errors:
                    self._stop.set()
                progress(self.files, max(total[0], self.files), self.bytes, max(total[1], self.bytes))
            ended = not errors and self._noting_failed is None
        finally:
            self._stop.set()
            try:
                self._close(pool, futures, ended=ended)
            except KeyboardInterrupt:  # it came while all was about to be noted: that is a matter of a moment
                self._close(pool, futures, ended=ended)
                raise
        if self._noting_failed is not None:
            errors.append(self._noting_failed)
        if errors:
            raise self._told(errors)

    def _close(self, pool: ThreadPoolExecutor, futures: Sequence[Future[None]], *, ended: bool) -> None:
        """Wait until those who write have stopped, and what they wrote is noted. May be called again.

        Work is waited for, not its threads: a join that Ctrl-C interrupts takes a living thread for dead (CPython issue 90882).
        """
        if self._ahead is not None and not ended:
            self._ahead.stop()
        for future in futures:
            future.cancel()
        wait(futures)
        pool.shutdown()
        self._closed.set()
        self._news.set()
        self._all_noted.wait()

    def _extract(self, unit: Unit) -> None:
        """Write one unit, from where the journal says that it is."""
        if self._stop.is_set():
            return
        if self._ahead is not None:
            self._ahead.wait_for(unit.name)
        told = self._journal.state.units.get(unit.name)
        start = count = told.pieces if told else 0
        rows: list[bytes] = []
        offered = written = 0
        pieces = unit.pieces(start)
        try:
            for piece in pieces:
                if self._stop.is_set():
                    return
                row, length = self._write(unit, piece)
                rows.append(row)
                count += 1
                written += length
                with self._lock:
                    self.files += 1
                    self.bytes += length
                    self._written += length
                if written - offered >= _OFFER_BYTES or len(rows) >= _OFFER_PIECES:
                    self._offer(unit, rows, count, done=False)
                    rows, offered = [], written
                    if self._ahead is not None:
                        self._ahead.tell(unit.name, min(count / max(unit.files, 1), 0.999))
            self._offer(unit, rows, count, done=True)
            rows = []
            if self._ahead is not None:
                self._ahead.tell(unit.name, 1.0)
        finally:
            if rows:
                self._offer(unit, rows, count, done=False)
            if (close := getattr(pieces, "close", None)) is not None:
                close()

    def _write(self, unit: Unit, piece: Piece) -> tuple[bytes, int]:
        try:
            return self._writer.write(piece)
        except DuplicateError as error:
            raise _SecondError(unit.name, str(error)) from None
        except DataError as error:
            raise DataError(f"{unit.name}: {error}") from None

    def _offer(self, unit: Unit, rows: list[bytes], pieces: int, *, done: bool) -> None:
        """Hand over what is written, to be noted once it lasts."""
        with self._lock:
            offer = self._offers.setdefault(unit.name, _Offer())
            offer.rows += rows
            offer.pieces, offer.done = pieces, done
        self._news.set()

    def _note_always(self) -> None:
        """Note what is offered, in one sync for all that came since the last."""
        pause = _SHORTEST_PAUSE
        try:
            while True:
                self._news.wait()
                self._news.clear()
                closed = self._closed.wait(pause)
                with self._lock:
                    offers, self._offers = self._offers, {}
                began = time.monotonic()
                self._note(offers)
                pause = min(max(_PAUSE_PER_SYNC * (time.monotonic() - began), _SHORTEST_PAUSE), _LONGEST_PAUSE)
                if closed:
                    return
        except OSError as error:
            self._noting_failed = error
            self._stop.set()
        finally:
            self._all_noted.set()

    def _note(self, offers: dict[str, _Offer]) -> None:
        if not offers:
            return
        lengths = {}
        for name, offer in offers.items():
            self._rows.append(name, offer.rows)
            lengths[name] = self._rows.length(name) + sum(map(len, offer.rows))
        sync_file_system(self._target)
        self._journal.note(
            [
                {"what": "unit", "name": name, "pieces": offer.pieces, "rows": lengths[name], "done": offer.done}
                for name, offer in offers.items()
            ]
        )

    def _told(self, errors: Sequence[BaseException]) -> BaseException:
        """Make one error for the user of those that ended the work."""
        problems: list[Problem] = []
        for error in errors:
            match error:
                case ConfigError():
                    problems += error.problems
                case DataError():
                    problems.append(Problem("source", None, str(error)))
                case _SecondError(unit=unit, path=path):
                    first = self._rows.writer_of(os.fsencode(path)) or "an earlier attempt"
                    where = f"{first} and {unit}" if first != unit else f"{unit}, twice"
                    fix = f"{path} comes from {where} (or two names that this file system takes for one). One must go."
                    problems.append(Problem("source", None, fix))
                case OSError():
                    pass
                case _:
                    return error
        if problems:
            return ConfigError(STAGE, problems)
        first_error = errors[0]
        assert isinstance(first_error, OSError)
        return stopped_by(first_error, self._target, left=self._left - self._written)


class _SecondError(Exception):
    """A path that was written before."""

    def __init__(self, unit: str, path: str) -> None:
        super().__init__(unit, path)
        self.unit, self.path = unit, path


def share_of(told: Progressed | None, unit: Unit) -> float:
    """Return how much of a unit is done, by its pieces: 0 to 1."""
    if told is None:
        return 0.0
    return 1.0 if told.done else min(told.pieces / max(unit.files, 1), 1.0)


def stopped_by(error: OSError, target: Path, *, left: float | None = None) -> StoppedError:
    """Say what to do about a disk that refuses.

    Args:
        error: the disk's reason.
        target: of the preparation.
        left: bytes still to be written, where that is known.
    """
    where = error.filename or target
    if error.errno in FULL:
        why = "the disk is full" if error.errno == errno.ENOSPC else "the quota is used up"
        more = f", {size(max(left, 0))} are still to be written" if left is not None else ""
        return StoppedError(f"{target}: {why}{more}. Nothing is lost: make room, and the same command goes on.")
    return StoppedError(f"{where}: {error.strerror or error}. Nothing is lost: the same command goes on.")
