"""What the profile makes of sampled stacks: short names, parts, and a picture."""

import doctest
import os
import re
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import hot_path
from benchmarks.serving import flame_graph, stacks
from benchmarks.serving.processes import ROOT
from benchmarks.serving.requests import BenchmarkFailed
from benchmarks.serving.sampler import Sampling, sampled

SVG = "{http://www.w3.org/2000/svg}"
BEGUN = "main (service/__main__.py:1);Runner.run (asyncio/runners.py:118)"
LOOP = "run_forever (loop.c:1);Py_DECREF (object.h:5);uv_run (core.c:4);0x7f (libc.so.6)"
ASGI = "Cycle.run_asgi (uvicorn/protocols/http/httptools_impl.py:422)"
READ = "Store.read (service/store/history.py:9)"


def test_a_stack_begins_at_the_event_loop_and_has_no_lines() -> None:
    """How the program was started is the same in all of them, and a function is one frame."""
    found = stacks.read_stacks([f"{BEGUN};{READ} 3\n", f"{BEGUN};{READ.replace(':9', ':7')} 4\n"])
    assert found == {("service.store.history:Store.read",): 7}


def test_native_frames_become_the_library_that_they_are_about() -> None:
    """Below the first function of Python the loop is on every stack, so it says nothing there."""
    gemm = "0x12 (numpy/_core/x.cpython-311.so);sgemm (libscipy_openblas64_-32.so);0x1 (libc.so.6)"
    found = stacks.short_stack(f"{BEGUN};{LOOP};{ASGI};{gemm}".split(";"))
    assert found == ("uvicorn.protocols.http.httptools_impl:Cycle.run_asgi", "openblas")
    assert stacks.short_stack(f"{BEGUN};{LOOP}".split(";")) == ("uvloop",)


def test_a_system_call_is_a_frame_and_other_functions_of_libc_are_none() -> None:
    """The time of a copy is its caller's."""
    os_random = "urandom (random.py:8);os_urandom (libpython3.11.so.1.0);"
    row = f"{os_random}getrandom (libc.so.6)".split(";")
    assert stacks.short_stack(row) == ("random:urandom", "kernel:getrandom")
    row = f"{os_random}memmove (libc.so.6)".split(";")
    assert stacks.short_stack(row) == ("random:urandom",)


def test_native_code_that_calls_python_is_no_frame_but_at_the_end_it_is() -> None:
    """C between two functions of Python is how the one calls the other."""
    between = ["f (a.py:1)", "PyObject_Call (libpython3.11.so.1.0)", "g (b.py:1)"]
    assert stacks.short_stack(between) == ("a:f", "b:g")
    assert stacks.short_stack(between[:2]) == ("a:f", "cpython:PyObject_Call")


def test_comprehensions_and_local_functions_are_named_by_what_a_reader_looks_for() -> None:
    """The path of a local function's owners is longer than any frame."""
    local = "outer.<locals>.wrapped"
    frames = [f"{local} (a/b.py:1)", f"{local}.<locals>.<listcomp> (a/b.py:2)"]
    assert stacks.short_stack(frames) == ("a.b:wrapped",)


def test_names_hold_no_path_of_the_machine() -> None:
    """py-spy gives whole paths for what it does not find on Python's path."""
    frames = [
        "f (/opt/env/lib/python3.11/site-packages/redis/client.py:1)",
        "g (/opt/python/lib/python3.11/json/__init__.py:1)",
        "h (/opt/some/where/script.py:1)",
        "_run_code (<frozen runpy>:88)",
    ]
    assert stacks.short_stack(frames) == ("redis.client:f", "json:g", "script:h", "runpy:_run_code")


def test_threads_that_wait_for_work_are_left_out() -> None:
    """py-spy takes them for busy where it looks at native frames."""
    waiting = "run (threading.py:982);_worker (concurrent/futures/thread.py:81)"
    native = f"{waiting};_queue_SimpleQueue_get (_queuemodule.c.h:177);0x7f (libc.so.6)"
    assert not stacks.read_stacks([f"{waiting} 5", f"{native} 6"])
    assert stacks.read_stacks([f"{waiting};score (service/ranker.py:1) 5"]).total() == 5


def test_a_line_without_a_count_is_refused() -> None:
    """An empty picture would say that all is well."""
    with pytest.raises(BenchmarkFailed, match="no stack and its count: 'py-spy: error'"):
        stacks.read_stacks(["py-spy: error"])


def test_time_belongs_to_the_deepest_frame_that_has_a_part() -> None:
    """As json has none, it is its caller's; of 10 samples the store has 3 + 1 and the loop 6."""
    top = stacks.tree(
        {
            ("asyncio.tasks:step",): 6,
            ("asyncio.tasks:step", "service.store.history:read"): 3,
            ("asyncio.tasks:step", "service.store.history:read", "json:loads"): 1,
        },
        "all",
    )
    assert stacks.shares(top) == {"event loop": 0.6, "store, Redis": 0.4}


def test_the_longest_prefix_decides_and_whole_words_are_compared() -> None:
    """service.store.history_codec lies below service.store; service.stores would not."""
    assert stacks.part_of("service.store.history_codec:decode") == "history codec, window"
    assert stacks.part_of("service.stores:f") == "recommendation"
    assert stacks.part_of("uvloops:f") is None


def test_every_part_of_the_service_is_where_its_modules_are() -> None:
    """A module that was renamed would fall to another part, silently."""
    named = [name for prefixes in stacks.PARTS.values() for name in prefixes]
    for module in [name for name in named if name.startswith("service.")]:
        path = ROOT / module.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), module


def test_thin_frames_of_a_part_are_drawn_as_one() -> None:
    """Of 1,000 samples .3 % are 3: ranker's two frames of 2 are one of 4, of 1 nothing."""
    top = stacks.tree(
        {
            ("service.ranker:a",): 2,
            ("service.ranker:b",): 2,
            ("redis:c",): 1,
            ("service.ranker:wide",): 995,
        },
        "all",
    )
    drawn = {(box.frame.name, box.first, box.row) for box in flame_graph.boxes(top)}
    assert drawn == {("all", 0, 0), ("service.ranker:wide", 0, 1), ("2 smaller", 995, 1)}


def test_frames_lie_beside_each_other_by_name_above_their_caller() -> None:
    """Here a calls b, and z starts where a ends."""
    top = stacks.tree({("z:z",): 4, ("a:a", "b:b"): 5, ("a:a",): 1}, "all")
    places = {box.frame.name: (box.first, box.row) for box in flame_graph.boxes(top)}
    assert places == {"all": (0, 0), "a:a": (0, 1), "b:b": (0, 2), "z:z": (6, 1)}


def test_the_picture_is_an_svg_whose_frames_say_their_share() -> None:
    """Names may hold what XML does not; 1 of 4 samples is 25 %."""
    top = stacks.tree({("runpy:<module>",): 1, ("onnxruntime",): 3}, "the service")
    root = ET.fromstring(flame_graph.flame_graph(top, "window < 50"))  # noqa: S314  # our own
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert titles[0] == "window < 50"
    assert "runpy:<module>: 25.0% (1 samples), rest" in titles
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"encoder 75%", "rest 25%", "onnxruntime", "runpy:<module>"} <= {*texts}


def test_the_picture_has_colours_for_light_and_dark_pages() -> None:
    """A colour of each part twice, and letters that can be read on both."""
    text = flame_graph.flame_graph(stacks.tree({("redis:a",): 1}, "all"), "a title")
    light, dark = text.split("@media (prefers-color-scheme: dark)")
    for page in (light, dark):
        assert len({*re.findall(r"\.p\d+\{fill:(#\w{6})\}", page)}) == len(stacks.PARTS) + 1
    assert flame_graph.INK["light"] in light
    assert flame_graph.INK["dark"] in dark


def test_the_time_of_a_process_is_what_it_says_of_itself() -> None:
    """The kernel counts in hundredths of a second, for each of user and system."""
    assert hot_path.cpu_s(os.getpid()) == pytest.approx(time.process_time(), abs=0.1)


def test_a_sampler_that_fails_says_what_it_said(tmp_path: Path) -> None:
    """Most often it may not trace the process, and a picture of nothing would hide that."""
    tool = tmp_path / "py-spy"
    tool.write_text("#!/bin/sh\necho Permission denied\nexit 3\n", "utf-8")
    tool.chmod(0o755)
    sampling = Sampling(rate=50, seconds=1, is_native=True)
    with (
        pytest.raises(BenchmarkFailed, match=r"with 3; root .* be needed: Permission denied"),
        sampled(os.getpid(), sampling, tmp_path / "stacks.txt", tool=tool),
    ):
        pass


def test_a_sampler_is_asked_for_what_it_is_to_do(tmp_path: Path) -> None:
    """This one writes its own command where the stacks are to be."""
    tool, into = tmp_path / "py-spy", tmp_path / "stacks.txt"
    tool.write_text(f'#!/bin/sh\necho "$@" > {into}\n', "utf-8")
    tool.chmod(0o755)
    with sampled(7, Sampling(rate=50, seconds=9, is_native=True), into, tool=tool):
        pass
    asked = f"record --pid 7 --format raw --rate 50 --duration 9 --output {into} --native\n"
    assert into.read_text("utf-8") == asked


def test_the_examples_in_the_docstrings_hold() -> None:
    """They are what a reader looks at first."""
    for module in (stacks, flame_graph):
        assert doctest.testmod(module).failed == 0
