from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.errors import KeysRefused
from service.metrics import Metrics
from service.security.keys import new_key_text
from service.security.ring import KeyRing
from tests.fakes import FakeClock
from tests.keys import key_file, key_with


def reloads(metrics: Metrics, result: str) -> float:
    """Return how many changes of the file had this result."""
    lines = metrics.render()[0].decode().splitlines()
    wanted = f'sojourn_key_reloads_total{{result="{result}"}} '
    return next(float(line.removeprefix(wanted)) for line in lines if line.startswith(wanted))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file of keys is."""
    return tmp_path / "keys.json"


def test_a_key_is_found_by_the_whole_of_it(path: Path) -> None:
    """The id alone, another secret, or more text than that is no key."""
    text = key_with(path, "admin")
    ring = KeyRing(path, Metrics(), FakeClock())
    other = new_key_text().split("_", 2)[2]
    found = ring.find(text)
    assert found is not None
    assert found.scopes == {"admin"}
    key_id = text.split("_", 2)[1]
    for wrong in (
        f"sjn_{key_id}_{other}",
        f"sjn_{key_id}_",
        text[:-1],
        text + "x" * 500,
        "",
        "sjn",
    ):
        assert ring.find(wrong) is None


def test_a_rewritten_file_counts_within_a_second_without_a_restart(path: Path) -> None:
    """Rotation: the new key is in, the old one out, as soon as the ring looks again."""
    clock = FakeClock()
    metrics = Metrics()
    old = key_with(path, "recommend")
    ring = KeyRing(path, metrics, clock)
    new = key_with(path, "recommend")
    assert ring.find(new) is None
    clock.advance(999)
    assert ring.find(new) is not None
    assert ring.find(old) is None
    assert reloads(metrics, "ok") == 1


@pytest.mark.parametrize("damage", ["garbage", "writable", "gone"])
def test_a_broken_file_keeps_the_old_keys_and_is_counted_once(path: Path, damage: str) -> None:
    """Half a file must lock nobody out; and it is said once, not twice a second."""
    clock = FakeClock()
    metrics = Metrics()
    text = key_with(path, "recommend")
    ring = KeyRing(path, metrics, clock)
    if damage == "garbage":
        path.write_text("{")
    elif damage == "writable":
        path.chmod(0o666)
    else:
        path.unlink()
    with capture_logs() as lines:
        for _ in range(3):
            clock.advance(1_000)
            assert ring.find(text) is not None
    assert [line["log_level"] for line in lines] == ["error"]
    assert reloads(metrics, "refused") == 1
    new = key_with(path, "recommend")
    clock.advance(1_000)
    assert ring.find(new) is not None


def test_a_clock_that_is_set_back_does_not_stop_the_looking(path: Path) -> None:
    """An old key would otherwise count until the clock has caught up."""
    clock = FakeClock()
    old = key_with(path, "recommend")
    ring = KeyRing(path, Metrics(), clock)
    key_with(path, "recommend")
    clock.advance(-3_600_000)
    assert ring.find(old) is None


def test_a_file_without_keys_lets_nobody_in(path: Path) -> None:
    """It is no absent file: keys are asked for, and there are none."""
    key_file(path)
    assert KeyRing(path, Metrics(), FakeClock()).find(new_key_text()) is None


def test_a_ring_does_not_start_on_a_broken_file(tmp_path: Path) -> None:
    """There are no old keys to keep."""
    with pytest.raises(KeysRefused):
        KeyRing(tmp_path / "none.json", Metrics(), FakeClock())


def test_an_unknown_id_is_compared_like_a_known_one(path: Path) -> None:
    """Otherwise the time of an answer says which ids exist."""
    compared: list[tuple[int, int]] = []

    def count(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return False

    known = key_with(path, "admin")
    ring = KeyRing(path, Metrics(), FakeClock(), is_equal=count)
    for text in (known, new_key_text(), "", "nonsense", "x" * 10_000):
        ring.find(text)
    assert compared == [(64, 64)] * 5
