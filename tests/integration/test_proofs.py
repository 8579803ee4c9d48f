"""The proofs of `deploy/chaos`, each so short that it can be run with every change."""

import json
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from deploy.chaos.counting import Found, judge
from deploy.chaos.erasure import new_traces
from deploy.chaos.load import Ledger
from service.store.history_codec import event_hash
from tests.integration.processes import ROOT

pytestmark = pytest.mark.integration


def figures_of(proof: str, *options: str) -> list[dict[str, Any]]:
    """Run a proof, which must end well, and return the figures that it printed."""
    command = [sys.executable, "-m", f"deploy.chaos.{proof}", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_is_acknowledged_under_chaos_is_there_once() -> None:
    """Every fault is met with posts that fail or wait, or it was none.

    The file is flushed always: with everysec a kill in the middle of a flush may lose what came
    meanwhile (docs/redis.md), and this test would fail now and then.
    """
    options = ("--phase-s", "0.5", "--per-s", "20", "--appendfsync", "always")
    *phases, totals, report = figures_of("run", *options)
    assert [phase["phase"] for phase in phases] == [
        "calm",
        "kill_worker",
        "kill_service",
        "kill_valkey",
        "slow_valkey",
        "full_disk",
        "kill_collector",
    ]
    assert totals["posts_unanswered"] > 0
    assert totals["posts_503"] > 0
    assert report["acknowledged"] > 100
    assert report["rejected"] > 0
    assert set(report["wrong"].values()) == {0}


def test_a_request_that_is_given_up_harms_no_other() -> None:
    """Two thousand here, a hundred thousand by the command."""
    [report] = figures_of("cancel", "--requests", "2000")
    assert report["aborts"] + report["answers"] == 2_000
    assert min(report["aborts"], report["answers"]) > 200
    assert (report["mix_ups"], report["leaked"]) == (0, 0)


def test_a_reload_fails_no_request_and_keeps_no_memory() -> None:
    """With bundles of a realistic size; tests of reloads have smaller ones."""
    [report] = figures_of("reloads", "--reloads", "3", "--per-s", "20")
    assert (report["failed"], report["served_by"]) == (0, 2)


def test_what_one_replica_is_told_the_other_knows() -> None:
    """Events at once, items and models within a second."""
    options = ("--posts", "20", "--items", "4", "--switches", "2")
    [report] = figures_of("replicas", *options)
    assert report["events"] == {"posts": 20, "not_read": 0}
    parts = ("items_shown", "items_hidden", "models")
    assert max(report[part]["max_ms"] for part in parts) < 1_000


def test_after_an_erasure_no_byte_is_found() -> None:
    """What was found before is what makes the search worth something."""
    [report] = figures_of("erasure")
    assert report["erased"]["events"] + report["erased"]["seen"] == 8
    assert report["found_before"] > 5
    assert report["others_are_there"]
    assert report["found_after"] == []


def test_a_lost_a_doubled_and_a_kept_event_are_found() -> None:
    """A proof that cannot fail proves nothing: one event of each kind of wrong, in each place."""
    ledger = Ledger(users=dict.fromkeys(("there", "lost", "twice", "wrong", "open"), "anna"))
    ledger.acknowledged |= {"there", "lost", "twice"}
    ledger.rejected.add("wrong")
    kept = Counter({"there": 1, "twice": 2, "wrong": 1, "open": 1})
    hashes = Counter({("anna", event_hash(one).hex()): number for one, number in kept.items()})
    report = judge(ledger, Found(hashes, kept, kept + Counter(["made up"])))
    expected = {"missing": 1, "doubled": 1, "rejected": 1, "unknown": 0}
    for place in ("histories", "streams", "files"):
        found = {kind: report["wrong"][f"{kind}_in_{place}"] for kind in expected}
        assert found == expected | {"unknown": int(place == "files")}
    assert (report["never_answered"], report["never_answered_but_stored"]) == (1, 1)


def test_traces_are_found_in_either_direction_and_not_in_another_order() -> None:
    """A list of the same items in an order of its own is no trace of the history."""
    traces = new_traces()
    forwards = b"\0".join(item.encode() for item in traces.items)
    assert traces.in_bytes(forwards) == ["the sequence of items"]
    backwards = ",".join(traces.items[::-1]).encode()
    assert traces.in_bytes(backwards) == ["the sequence of items"]
    assert traces.in_bytes("\0".join(sorted(traces.items)).encode()) == []
    named = f"{traces.user} {traces.event_ids[3]}".encode()
    assert traces.in_bytes(named) == ["the id", "an event's id"]
