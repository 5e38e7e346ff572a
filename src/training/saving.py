"""Saving beside training: the loop waits for a copy of the state, and for the save before."""

from collections.abc import Callable

from src.distributed import from_rank_0
from src.training.checkpoint_file import CheckpointError

State = tuple[int, int]  # step, epochs recorded: what tells one state of a run from another


class Saving:
    """One write at a time.

    Args:
        begin: copies the state and begins to write it; what it returns waits, and tells whether it was written.
    """

    def __init__(self, begin: Callable[[], Callable[[], bool]]) -> None:
        self._begin = begin
        self._saved: State | None = None  # is on disk, or is being written
        self._writing: Callable[[], bool] | None = None

    def save(self, now: State, *, must: bool) -> None:
        """Begin to save, unless this very state is saved already. Every rank must call it. If it fails, the next save tells.

        Args:
            now: which state it is.
            must: nothing comes after: wait until it is on disk.

        Raises:
            CheckpointError: if it must be saved and could not be, or too many saves in a row failed.
            FloatingPointError: if the state that was to be saved, or the one before, is not finite.
        """
        if self._saved != now:
            self.finish()
            self._writing, self._saved = self._begin(), now
        if must:
            self.finish()
            if self._saved is None:
                raise CheckpointError(f"the state of step {now[0]} could not be saved (see above). An earlier one is kept")

    def saved(self, now: State) -> None:
        """Learn that this state is on disk."""
        self._saved = now

    def finish(self) -> None:
        """Wait for the write under way, if there is one. All ranks learn how it ended: what rank 0 raised, too."""
        writing, self._writing = self._writing, None
        if writing is not None and not from_rank_0(writing):
            self._saved = None
