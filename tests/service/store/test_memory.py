"""The calculator's arithmetic; `tests/integration/store/test_memory.py` asks a server."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from service.__main__ import cli
from service.store.memory import (
    StoreLoad,
    exact,
    glibc,
    grown_bytes,
    jemalloc,
    parts_of,
    table_bytes,
    total_bytes,
)

NOTHING = StoreLoad(
    num_users=0,
    window=0,
    num_seen=0,
    num_shown_users=0,
    num_shown=0,
    num_answers=0,
    num_places=0,
    num_live_items=0,
    num_counted=0,
    num_days=1,
    num_streamed=0,
    num_partitions=16,
    item_id_bytes=6,
    user_id_bytes=4,
    title_bytes=0,
    num_numbers=1,
)


def sizes_of(load: StoreLoad) -> dict[str, float]:
    """Return what each kind of keys takes exactly."""
    return {part.name: part.total_bytes for part in parts_of(load, exact)}


def test_an_empty_store_takes_nothing() -> None:
    """A division by nothing would be the first thing that somebody meets."""
    assert set(sizes_of(NOTHING).values()) == {0}


def test_a_history_takes_its_packed_bytes_and_its_key() -> None:
    """4 + 200 x (14 + 4 + 6 + 1), and 6 of header; 16 + 1 + 8 and `{p15}:h1:anna` + 2 of key."""
    sizes = sizes_of(replace(NOTHING, num_users=10, window=200))
    value = 4 + 200 * (14 + 4 + 6 + 1) + 6
    key = 16 + 1 + 8 + len("{p15}:h1:anna") + 2
    assert sizes["histories"] == 10 * (value + key)


def test_seen_items_have_twice_the_room_after_they_grew() -> None:
    """From 274 x 15 > 4,096 bytes on an append that finds no room makes twice as much."""
    assert [grown_bytes(15, number) for number in (0, 1, 273, 274, 548, 549)] == [
        0, 15, 4_095, 2 * 4_110, 2 * 4_110, 2 * 8_235,
    ]  # fmt: skip


def test_a_table_has_a_power_of_two_of_buckets_of_seven() -> None:
    """7,168 entries are 1,024 buckets, full on average, so that some have others chained."""
    assert table_bytes(0) == 0
    assert table_bytes(1) == pytest.approx(64, rel=1e-3)
    assert 1_024 * 64 < table_bytes(7_168) < 1.5 * 1_024 * 64
    assert table_bytes(7_169) > 2_048 * 64


@pytest.mark.parametrize("rounded", [glibc, jemalloc])
def test_an_allocator_never_gives_less_and_seldom_a_quarter_more(rounded: object) -> None:
    """Four classes for each doubling: at most a fifth of a piece is lost."""
    assert callable(rounded)
    for size in range(130, 70_000, 17):
        assert size <= rounded(size) <= 1.25 * size


def test_more_of_anything_needs_more() -> None:
    """Every number of the load counts."""
    load = StoreLoad(**dict.fromkeys(NOTHING.__dataclass_fields__, 20))
    for name in load.__dataclass_fields__:
        more = replace(load, **{name: 40})
        assert total_bytes(parts_of(more)) > total_bytes(parts_of(load)), name


def test_the_command_prints_a_table_with_the_sum_of_both_columns() -> None:
    """A million users with 200 events: 200 x (14 + 8 + 7) + 4 = 5,804 bytes of value."""
    asked = ["memory", "--users", "1000000", "--window", "200", "--id-chars", "6"]
    result = CliRunner().invoke(cli, asked)
    assert result.exit_code == 0
    rows = {line.split()[0]: line.split()[1:] for line in result.output.splitlines()[1:]}
    assert rows["histories"][0] == "1,000,000"
    per_user = float(rows["histories"][1].replace(",", ""))
    assert per_user == pytest.approx(5_804 + 60, abs=20)
    numbers = [[float(cell.replace(",", "")) for cell in row[-2:]] for row in rows.values()]
    for column in (0, 1):
        whole = numbers[-1][column]
        assert sum(row[column] for row in numbers[:-1]) == pytest.approx(whole, abs=1)


def test_the_command_refuses_what_is_no_number_of_users() -> None:
    """With the name of the option."""
    result = CliRunner().invoke(cli, ["memory", "--users", "-1"])
    assert result.exit_code == 2
    assert "--users" in result.output
