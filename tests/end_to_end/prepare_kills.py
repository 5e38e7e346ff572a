"""A preparation is killed at a random system call of every stage, and started again: the same tree, index and source must result.

    python -m tests.end_to_end.prepare_kills
    python -m tests.end_to_end.prepare_kills --kills 2 --stages extract arrange --seed 3

strace looks on while the stage runs once, and lists its calls on the source and the target. For each kill one of them is drawn,
every other time one that changes something, and the same stage is begun anew, from what the stages before it leave, with strace
sending SIGKILL at that call. Then the command is run to its end. The last line is JSON: kills by stage, missed (it ended before the
call came), unequal, touched.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.scale_models import Model, scale_model, write_folders, write_imagefolder, write_official, write_torrent

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("plan", "extract", "arrange", "index", "verify")
KEPT = {"journal.jsonl", "lock", "manifest.tsv.gz", "report.json"}
OF_DEVKITS = {"train_counts.tsv"}  # kept where the source has a devkit
_WRITING = ("write", "pwrite64", "fsync", "fdatasync", "syncfs", "rename", "renameat", "renameat2", "link", "linkat", "unlink")
_WRITING += ("unlinkat", "rmdir", "mkdir", "mkdirat", "utimensat", "ftruncate", "truncate", "fchmod")
_READING = ("openat", "pread64", "getdents64", "flock", "close")
_LINE = re.compile(r"^(\d+) +(\w+)\(")
_SECONDS = 120


class Source(NamedTuple):
    """What is prepared, and with which keys besides."""

    write: Callable[[Path, Model], Path]
    keys: tuple[str, ...]


SOURCES = {
    "official": Source(write_official, ("checksum={md5}",)),
    "folders": Source(write_folders, ()),
    "torrent": Source(write_torrent, ("checksum=off",)),
    "imagefolder": Source(write_imagefolder, ("link=copy",)),
}


class StraceError(Exception):
    """strace is missing, or may not trace."""


class Case:
    """One source in a folder of its own, prepared into `target` there again and again."""

    def __init__(self, folder: Path, name: str, model: Model) -> None:
        folder.mkdir(parents=True)
        self.target, self.log = folder / "target", folder / "strace"
        self.source = SOURCES[name].write(folder / "source", model)
        sums = folder / "md5"
        lines = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(self.source.glob("*.tar"))]
        sums.write_text("".join(lines))
        keys = [key.format(md5=sums) for key in SOURCES[name].keys]
        self._command = [sys.executable, "-m", "src.prepare", f"source={self.source}", f"target={self.target}", *keys]
        self._command += ["level=1", "expect=any", "workers=2"]
        self.untouched = listing(self.source)
        assert self.run() == 0
        self.whole = listing(self.target)
        self._calls: dict[str, list[tuple[str, int]]] = {}

    def run(self, *keys: str, tracer: Sequence[str] = ()) -> int:
        """Run the door. Returns its exit code; what it printed is in `self.output`."""
        settings = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [*tracer, *self._command, *keys], cwd=ROOT, env=settings, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        self.output = done.stdout + done.stderr
        return done.returncode

    def before(self, stage: str) -> None:
        """Bring the target to where a stage begins."""
        shutil.rmtree(self.target, ignore_errors=True)
        at = STAGES.index(stage)
        if at > 1:
            assert self.run(f"until={STAGES[at - 1]}") == 0, self.output

    def calls(self, stage: str) -> list[tuple[str, int]]:
        """List a stage's calls on source and target: a name, and the so-manieth of that name in its thread."""
        if stage not in self._calls:
            self.before(stage)
            code = self.run(f"until={stage}", tracer=self._strace())
            if code != 0:
                raise StraceError(f"exit code {code}: {self.output[-2000:]}")
            seen: Counter[tuple[str, str]] = Counter()
            found = []
            for line in self.log.read_text(errors="replace").splitlines():
                if (match := _LINE.match(line)) is None:
                    continue
                seen[match[1], match[2]] += 1
                if str(self.target) in line or str(self.source) in line:
                    found.append((match[2], seen[match[1], match[2]]))
            self._calls[stage] = found
        return self._calls[stage]

    def kill(self, stage: str, call: tuple[str, int]) -> bool:
        """Kill the stage at a call. Returns whether it came to that."""
        self.before(stage)
        inject = ["-e", f"inject={call[0]}:signal=KILL:when={call[1]}"]
        code = self.run(f"until={stage}", tracer=self._strace(*inject))
        if code == 0:
            return False
        assert code in (-signal.SIGKILL, 128 + signal.SIGKILL), f"exit code {code}: {self.output}"
        return True

    def check(self) -> dict[str, str]:
        """Run to the end, and compare. Returns what is not as it should be."""
        told = {}
        code = self.run()
        if code != 0 or "Traceback" in self.output:
            return {"unequal": f"exit code {code}: {self.output[-2000:]}"}
        found = listing(self.target)
        if found != self.whole:
            told["unequal"] = differences(self.whole, found)
        elif set(os.listdir(self.target / ".prepare")) - OF_DEVKITS != KEPT:
            told["unequal"] = f"left: {sorted(os.listdir(self.target / '.prepare'))}"
        if listing(self.source) != self.untouched:
            told["touched"] = differences(self.untouched, listing(self.source))
        return told

    def _strace(self, *more: str) -> list[str]:
        return ["strace", "-f", "-qq", "-y", "-s", "0", "-o", str(self.log), "-e", f"trace={','.join(_WRITING + _READING)}", *more]


def listing(root: Path) -> dict[str, Any]:
    """Return everything below a folder: kind, mtime, content; of an index its arrays, of the preparation's files the manifest."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        name, state = str(path.relative_to(root)), path.lstat()
        if name.startswith(".prepare"):
            if path.name == "manifest.tsv.gz":
                found[name] = digest(path)
        elif name.endswith(".index.npz"):
            with np.load(path) as arrays:
                found[name] = {key: arrays[key].tobytes() for key in sorted(arrays.files)}
        elif path.is_dir():
            found[name] = ("folder", state.st_mode, state.st_mtime_ns if name.partition("/")[0] in ("train", "val", "test") else 0)
        elif name == "classes.tsv":
            found[name] = digest(path)
        else:
            found[name] = (state.st_mode, state.st_size, state.st_mtime_ns, digest(path))
    return found


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def differences(one: dict[str, Any], other: dict[str, Any]) -> str:
    names = [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
    shown = (f"{name}: {str(one.get(name))[:90]} != {str(other.get(name))[:90]}" for name in names[:5])
    return f"{len(names)} differ: {'; '.join(shown)}"


def examine(folder: Path, *, kills: int, stages: Sequence[str], sources: Sequence[str], classes: int, seed: int) -> dict[str, Any]:
    """Kill every stage so many times, of the sources in turn, and count what came of it."""
    if shutil.which("strace") is None:
        raise StraceError("strace is not installed")
    draw = random.Random(seed)
    cases = {name: Case(folder / name, name, scale_model(classes)) for name in sources}
    report: dict[str, Any] = {"kills": {}, "calls": {}, "missed": 0, "unequal": 0, "touched": 0}
    for stage in stages:
        report["calls"][stage] = {name: len(case.calls(stage)) for name, case in cases.items()}
        done = attempts = 0
        while done < kills:
            attempts += 1
            assert attempts < 3 * kills + 10, f"{stage} ends before the call comes, again and again"
            name = list(cases)[done % len(cases)]
            calls = cases[name].calls(stage)
            writing = [call for call in calls if call[0] in _WRITING]
            call = draw.choice(writing if attempts % 2 and writing else calls)
            if not cases[name].kill(stage, call):
                report["missed"] += 1
                continue
            done += 1
            for what, text in cases[name].check().items():
                report[what] += 1
                print(f"{what}: {name}, {stage}, {call[0]} {call[1]}: {text}", file=sys.stderr, flush=True)
        report["kills"][stage] = done
        print(json.dumps(report), file=sys.stderr, flush=True)
    return report


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50, help="of each stage")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--sources", nargs="+", choices=list(SOURCES), default=list(SOURCES))
    parser.add_argument("--classes", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        try:
            report = examine(Path(folder), **options)
        except StraceError as error:
            print(json.dumps({"skipped": str(error)}))
            return 0
    print(json.dumps({**report, "seconds": round(time.monotonic() - start)}))
    return int(report["unequal"] + report["touched"] > 0)


if __name__ == "__main__":
    sys.exit(main())
