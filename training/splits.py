"""Splits: which events train, and which (window, target) cases validate and test.

Both splits return cases by row: the target's row in the event table; its window is what the same
user did before that row. A split's hash covers every target, so that two figures with equal
hashes were measured on equal cases.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.config import SplitConfig, TrainingError
from training.data import MS_PER_HOUR, EventTable

# Fewer events leave nothing to train on once test and validation are taken.
MIN_EVENTS_LEAVE_ONE_OUT = 3


@dataclass(frozen=True, slots=True)
class Split:
    """One split: `train` is a mask over events; `validation` and `test` are target rows.

    `protocol` and `sha256` go beside every figure.
    """

    protocol: str
    train: NDArray[np.bool_]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    sha256: str

    def targets(self, name: str) -> NDArray[np.int64]:
        """Return the target rows of `validation` or `test`."""
        if name == "validation":
            return self.validation
        if name == "test":
            return self.test
        raise TrainingError(f"split {name!r} must be validation or test")


def make_split(events: EventTable, config: SplitConfig) -> Split:
    """Split events as configured; raises TrainingError when too little is left."""
    if config.protocol == "leave-one-out":
        split = leave_one_out(events)
    elif config.protocol == "temporal":
        split = global_temporal(events, config.validation_from, config.test_from)
    else:
        split = trajectories(events, config.validation_from, config.test_from, config.session_hours)
    for name in ("validation", "test"):
        if len(split.targets(name)) == 0:
            raise TrainingError(
                f"{split.protocol} split: no {name} cases among {len(events)} events of "
                f"{events.num_users} users; leave-one-out needs users with "
                f"{MIN_EVENTS_LEAVE_ONE_OUT} events, the others events around an instant: "
                "import more events, or check which column is the user's"
            )
    check_no_future(events, split)
    return split


def leave_one_out(events: EventTable) -> Split:
    """Each user's last event is test, the one before validation, the rest train.

    Users with fewer than 3 events only train. Leaks: other users' training events may lie after a
    test event, so the figures compare with papers and overstate what a service will see.
    """
    counts = np.diff(events.user_starts)
    ends = events.user_starts[1:][counts >= MIN_EVENTS_LEAVE_ONE_OUT]
    train = np.ones(len(events), bool)
    train[ends - 1] = False
    train[ends - 2] = False
    return _split("leave-one-out", events, train, ends - 2, ends - 1)


def global_temporal(events: EventTable, validation_from: float, test_from: float) -> Split:
    """Two instants cut all users: before the first is train, between them validation, after test.

    Every event in a period is a case, with all that its user did before it as the window; users
    without an earlier event have no window and are left out. Leaks: none across the instants.
    """
    first, second = _instants(events, validation_from, test_from)
    times = events.window.timestamps_ms
    train = times < first
    first_rows = events.user_starts[:-1]
    has_past = np.ones(len(events), bool)
    has_past[first_rows] = False
    validation = np.flatnonzero((times >= first) & (times < second) & has_past)
    test = np.flatnonzero((times >= second) & has_past)
    return _split("temporal", events, train, validation, test)


def trajectories(
    events: EventTable, validation_from: float, test_from: float, session_hours: float
) -> Split:
    """Two instants cut all users as in the temporal split; a case is a session's last event.

    A session holds a user's events up to `session_hours` after its first; it belongs to the period
    in which it begins and must end there. Sessions of one event are no case, nor are those of users
    without a training event or with a target that nobody has trained on, so that every target can
    be found. The window is all that the user did before, sessions of before included.
    Source: the protocol of GETNext (Yang et al., 2022), section 5.1, for next places.
    """
    first, second = _instants(events, validation_from, test_from)
    times = events.window.timestamps_ms
    train = times < first
    starts, lasts = _sessions(events, int(session_hours * MS_PER_HOUR))
    known_users = np.isin(events.users[lasts], events.users[train])
    known_items = np.isin(events.window.items[lasts], events.window.items[train])
    usable = (lasts > starts) & known_users & known_items
    begins, ends = times[starts], times[lasts]
    validation = lasts[usable & (begins >= first) & (ends < second)]
    test = lasts[usable & (begins >= second)]
    return _split("trajectory", events, train, validation, test)


def _instants(events: EventTable, validation_from: float, test_from: float) -> tuple[int, int]:
    if not 0 < validation_from < test_from < 1:
        raise TrainingError("split: 0 < split.validation_from < split.test_from < 1 must hold")
    times = events.window.timestamps_ms
    first, second = np.quantile(times, [validation_from, test_from], method="higher")
    return int(first), int(second)


def _sessions(events: EventTable, longest_ms: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and the last row of every session, (sessions,) each."""
    times, users = events.window.timestamps_ms.tolist(), events.users.tolist()
    starts = [0]
    for row in range(1, len(times)):
        begun = starts[-1]
        if users[row] != users[begun] or times[row] - times[begun] > longest_ms:
            starts.append(row)
    firsts = np.array(starts, np.int64)
    return firsts, np.append(firsts[1:], len(times)) - 1


def check_no_future(events: EventTable, split: Split) -> None:
    """Raise TrainingError if a target trains, or a user trains on what follows their target.

    For the temporal protocols no training event of anybody may be as late as a target.
    """
    times = events.window.timestamps_ms
    for name in ("validation", "test"):
        rows = split.targets(name)
        if bool(split.train[rows].any()):
            raise TrainingError(f"leak: {int(split.train[rows].sum())} {name} targets train")
        if split.protocol != "leave-one-out" and times[split.train].max() >= times[rows].min():
            raise TrainingError(f"leak: training events are as late as {name} targets")
    if split.protocol == "leave-one-out":
        last_train = np.full(events.num_users, -1)
        np.maximum.at(last_train, events.users[split.train], np.flatnonzero(split.train))
        if bool((last_train[events.users[split.validation]] >= split.validation).any()):
            raise TrainingError("leak: a user trains on events after their own target")


def _split(
    protocol: str,
    events: EventTable,
    train: NDArray[np.bool_],
    validation: NDArray[np.int64],
    test: NDArray[np.int64],
) -> Split:
    if not train.any():
        raise TrainingError(f"split: nothing is left to train under the {protocol} protocol")
    digest = hashlib.sha256(protocol.encode())
    for name, rows in (("validation", validation), ("test", test)):
        digest.update(name.encode())
        users = "\x00".join(events.user_ids[user] for user in events.users[rows])
        items = "\x00".join(events.items.id(int(item)) for item in events.window.items[rows])
        digest.update(f"{users}\x01{items}\x01".encode())
        digest.update(events.window.timestamps_ms[rows].astype("<i8").tobytes())
    return Split(protocol, train, validation, test, digest.hexdigest())
