"""Files of rows read by all cores: cut into parts that forked processes read, with results in the order of the file."""

import contextlib
import ctypes
import functools
import itertools
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tqdm import tqdm

from klear.rows import BOM, on_hub, parse_row, read_source
from runs import die


def named(sources: str) -> list[tuple[str, str]]:
    """(name, source) of comma-separated sources, NAME=SOURCE or called as by eval.py --data."""
    found = []
    for source in filter(None, map(str.strip, sources.split(","))):
        name, equals, given = source.partition("=")
        if not equals or Path(source).exists():
            name, given = source.split("/")[1].split(":")[0] if on_hub(source) else Path(source).stem, source
        found.append((name, given))
    return found


def parts(sources: str, knob: str, size: int = 8 << 20) -> Iterator[tuple]:
    """Comma-separated FILEs or NAME=FILEs cut for `read_part`: (name, file, first byte, end byte, None) of JSONL, else
    (name, source, 0, 0, 64 rows of read_source)."""
    for name, given in named(sources):
        path = Path(given)
        folder = sorted(p for p in path.iterdir() if p.suffix in (".jsonl", ".parquet")) if path.is_dir() else []
        for file in folder or [path]:
            if file.is_file() and file.suffix != ".parquet":
                yield from ((name, str(file), at, at + size, None) for at in range(0, file.stat().st_size, size))
            else:
                rows = (row for _, row in read_source(str(file) if folder else given, knob))
                while some := list(itertools.islice(rows, 64)):
                    yield name, str(file), 0, 0, some


def read_part(part: tuple) -> Iterator[dict | ValueError | None]:
    """The rows of a part, an item a line: None for a blank one. A line belongs to the part in which it begins."""
    _, file, start, end, rows = part
    if rows is not None:
        return (yield from rows)
    with open(file, "rb") as lines:
        if start:
            lines.seek(start - 1)
            lines.readline()
        while (at := lines.tell()) < end and (line := lines.readline()):
            line = line if at else line.removeprefix(BOM)
            yield parse_row(line) if line.strip() else None


def facts_of(facts: Callable, part: tuple) -> list:
    """facts(row) of every line, None for a blank one, ValueError for one that cannot be used. Runs in a worker."""
    found = []
    for row in read_part(part):
        try:
            if isinstance(row, ValueError):
                raise row
            found.append(None if row is None else facts(row))
        except ValueError as error:
            found.append(error)
    return found


def map_rows(facts: Callable, sources: str, knob: str, workers: int, bad: Callable[[str], None]) -> Iterator[tuple]:
    """(name of the source, number of the part, number of the row in the source, facts(row)) of every row of `parts`, in
    order, read by all cores. bad("FILE:LINE: why") hears of the rows that cannot be used."""
    name = file = None
    line, number, work = 0, -1, functools.partial(facts_of, facts)
    with tqdm(desc=f"reading {knob}", unit=" rows", unit_scale=True, delay=1, leave=False) as bar:
        for at, (part, items) in enumerate(in_parallel(work, parts(sources, knob), workers)):
            number, line = number if part[0] == name else -1, line if part[1] == file else 0
            name, file = part[:2]
            for item in items:
                line, number = line + 1, number + (item is not None)
                if isinstance(item, ValueError):
                    bad(f"{file}:{line}: {item}")
                elif item is not None:
                    yield name, at, number, item
            bar.update(len(items))


def in_parallel(work: Callable, tasks: Iterable, workers: int) -> Iterator[tuple]:
    """(task, work(task)) in the order of the tasks, by processes that are forked here and share what there is by now.
    Few tasks are under way at a time, so neither tasks nor results gather in memory."""
    waiting: deque = deque()
    workers = workers or len(os.sched_getaffinity(0))
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), end_with_parent, (os.getpid(),))
    try:
        with ctrl_c_waits():
            pool.submit(os.getpid)  # forks all workers
        for task in tasks:
            waiting.append((task, pool.submit(work, task)))
            if len(waiting) > 2 * workers:
                yield (first := waiting.popleft())[0], first[1].result()
        yield from ((task, future.result()) for task, future in waiting)
    except BrokenProcessPool:
        die("a worker process was killed, most likely for want of memory; --workers 1 needs the least", 1)
    finally:
        pool.shutdown(cancel_futures=True)  # waits: a pool that still ends while Python does writes to a closed pipe


@contextlib.contextmanager
def ctrl_c_waits() -> Iterator[None]:
    """Ctrl-C is heard at the end: Python ignores what is raised in the hooks that run at a fork."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda *_: came.append(1))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came and callable(before):
        before(signal.SIGINT, None)


def end_with_parent(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
