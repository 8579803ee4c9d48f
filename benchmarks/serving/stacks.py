"""Sampled stacks: frames of py-spy's raw format under short names, and the part each belongs to."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeAlias

from benchmarks.serving.requests import BenchmarkFailed

# Frames from the root, each `module:function`; those of libraries without Python are the library.
Stack: TypeAlias = tuple[str, ...]

# A stack is of the part of its deepest frame that has one: of modules that begin so, the longest.
PARTS: Mapping[str, Sequence[str]] = {
    "event loop": ("uvloop", "asyncio", "service.periodic"),
    "framework": ("fastapi", "starlette", "uvicorn", "httptools", "pydantic", "service.api"),
    "middleware": ("service.middleware", "service.security"),
    "log and metrics": (
        "service.logs", "service.metrics", "structlog", "logging", "prometheus_client",
    ),
    "recommendation": ("service",),
    "store, Redis": ("service.store", "redis", "hiredis"),
    "history codec, window": (
        "service.readings", "service.store.history_codec", "service.windows",
        "service.contract.features",
        "service.contract.vocabulary",
    ),
    "batching": ("service.batcher", "service.serving_model"),
    "encoder": ("onnxruntime",),
    "ranking": (
        "service.ranker", "service.nearest", "service.item_rows", "service.item_index",
        "service.retrieval", "service.allowed", "service.ordering",
    ),
    "noting the answer": ("service.exposures", "service.store.exposures"),
    "JSON of the answer": ("service.api.answer_schemas",),
    # Overstated: py-spy stops the process for a sample, and finds it in calls of a fifth of a
    # microsecond far more often than it is there. A timer's samples (perf) give less than half.
    "system calls": ("kernel",),
}  # fmt: skip
REST = "rest"

# Where a request's story begins; what is above it is how the program was started.
START, LOOP = "asyncio.runners:Runner.run", "uvloop"
# A thread of a pool that waits for work.
WAITING = "concurrent.futures.thread:_worker"
COMPREHENSIONS = ("<listcomp>", "<genexpr>", "<setcomp>", "<dictcomp>")

_COUNTED = re.compile(r"^(?P<stack>.+) (?P<count>\d+)$")
_FRAME = re.compile(r"^(?P<function>.*) \((?P<file>[^()]*?)(?::\d+)?\)$")
_LIBRARY_FOLDER = re.compile(r"^.*/(?:site-packages|python3\.\d+)/")
# Native frames have a library's file, or the source's if it was compiled with line numbers.
_LIBRARIES = ("onnxruntime", "openblas", "numpy", "uvloop", "httptools", "hiredis", "faiss")
_SOURCES = {
    "uvloop": {
        "loop.c", "loop-watcher.c", "core.c", "linux.c", "stream.c", "queue.h", "timer.c",
        "async.c", "tcp.c", "udp.c", "pipe.c", "uv-common.c",
    },
    "hiredis": {"hiredis.c", "pack.c", "sds.c", "read.c", "reader.c", "alloc.h"},
}  # fmt: skip
CPYTHON, LIBC, CPP, KERNEL = "cpython", "libc", "libstdc++", "kernel"
SYSTEM_CALLS = {
    "read", "write", "writev", "recv", "send", "sendmsg", "epoll_pwait", "epoll_wait", "getpid",
    "getrandom", "futex", "madvise", "munmap", "mmap",
}  # fmt: skip


@dataclass(slots=True)
class Frame:
    """A frame of a tree of stacks; `count` are the samples in which it was on the stack."""

    name: str
    part: str
    count: int = 0
    children: dict[str, "Frame"] = field(default_factory=dict)

    @property
    def own(self) -> int:
        """Return the samples in which no frame was deeper."""
        return self.count - sum(child.count for child in self.children.values())

    def walk(self) -> Iterator["Frame"]:
        """Yield the frame and all that are deeper."""
        yield self
        for child in self.children.values():
            yield from child.walk()


def read_stacks(lines: Iterable[str]) -> Counter[Stack]:
    """Return how often each stack was seen; those of waiting threads are left out.

    Raises BenchmarkFailed for a line that is no stack and its count.
    """
    found: Counter[Stack] = Counter()
    for line in lines:
        counted = _COUNTED.match(line.rstrip("\n"))
        if counted is None:
            raise BenchmarkFailed(f"no stack and its count: {line[:200]!r}")
        stack = short_stack(counted["stack"].split(";"))
        if not _is_waiting(stack):
            found[stack] += int(counted["count"])
    return found


def short_stack(frames: Sequence[str]) -> Stack:
    """Return a stack under short names, from the event loop's start.

    Frames of one library in a row become one, comprehensions a part of their function.

    >>> short_stack(["run (service/__main__.py:9)", "Reader.read (service/store/history.py:52)"])
    ('service.__main__:run', 'service.store.history:Reader.read')
    """
    names: list[str] = []
    for is_python, run in groupby(frames, key=_is_python):
        row = list(run)
        names += [_python_name(frame) for frame in row] if is_python else _native_names(row)
    # Native code between two functions of Python is how one calls the other.
    names = [
        name
        for place, name in enumerate(names)
        if place == len(names) - 1 or not name.startswith(CPYTHON)
    ]
    if START in names:
        names = names[names.index(START) + 1 :]
        # The loop runs everything; where the stack was walked badly it is missing.
        if len(names) > 1 and names[0] == LOOP:
            names = names[1:]
    return tuple(name for name in names if not name.endswith(COMPREHENSIONS))


def tree(stacks: Mapping[Stack, int], root: str) -> Frame:
    """Return the tree of stacks; a frame without a part of its own is of the one above it."""
    top = Frame(root, REST)
    for stack, count in stacks.items():
        at = top
        at.count += count
        for name in stack:
            if name not in at.children:
                at.children[name] = Frame(name, part_of(name) or at.part)
            at = at.children[name]
            at.count += count
    return top


def part_of(name: str) -> str | None:
    """Return the part of a frame, None if its module is of no part.

    >>> part_of("service.store.history:History.read"), part_of("json.encoder:encode")
    ('store, Redis', None)
    """
    module = name.partition(":")[0] + "."
    fitting = [
        (len(prefix), part)
        for part, prefixes in PARTS.items()
        for prefix in prefixes
        if module.startswith(prefix + ".")
    ]
    return max(fitting)[1] if fitting else None


def shares(top: Frame) -> dict[str, float]:
    """Return the share of the samples by part, the largest first."""
    counts: Counter[str] = Counter()
    for frame in top.walk():
        counts[frame.part] += frame.own
    return {part: count / top.count for part, count in counts.most_common() if count}


def _is_waiting(stack: Stack) -> bool:
    python = [name for name in stack if ":" in name and not name.startswith((CPYTHON, KERNEL))]
    return bool(python) and python[-1] == WAITING


def _parsed(frame: str) -> tuple[str, str]:
    """Return a frame's function and file."""
    found = _FRAME.match(frame)
    return (found["function"], found["file"]) if found else (frame, "")


def _is_python(frame: str) -> bool:
    file = _parsed(frame)[1]
    return file.endswith(".py") or file.startswith("<")


def _python_name(frame: str) -> str:
    function, file = _parsed(frame)
    path = _LIBRARY_FOLDER.sub("", file).removesuffix(".py")
    if path.startswith("/"):
        path = path.rpartition("/")[2]
    module = path.strip("<>").removeprefix("frozen ").replace("/", ".")
    name = function if function.endswith(COMPREHENSIONS) else function.split("<locals>.")[-1]
    return f"{module.removesuffix('.__init__')}:{name}"


def _native_names(frames: Sequence[str]) -> list[str]:
    """Return the library that a row of native frames is about, and the system call at its end."""
    libraries = [_library(_parsed(frame)[1]) for frame in frames]
    function = _parsed(frames[-1])[0]
    names = [name for name in libraries if name not in {CPYTHON, LIBC, CPP}][-1:]
    if not names and libraries[-1] == CPYTHON and not function.startswith("0x"):
        names = [f"{CPYTHON}:{function}"]
    if libraries[-1] == LIBC and function in SYSTEM_CALLS:
        names.append(f"{KERNEL}:{function}")
    return names


def _library(file: str) -> str:
    for name in _LIBRARIES:
        if name in file or file in _SOURCES.get(name, ()):
            return name
    if file.startswith("libc."):
        return LIBC
    return CPP if file.startswith(CPP) else CPYTHON
