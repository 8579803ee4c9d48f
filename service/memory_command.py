"""`python -m service memory`: how much memory Redis needs for so many users."""

from typing import TYPE_CHECKING, Annotated

import typer

from service.config import Settings

if TYPE_CHECKING:
    from service.store.memory import Part

# Numbers of up to twelve digits, or short words.
DEFAULT_ID_CHARS = 12
MIB = 1_048_576
MAX_NUMBER = 10_000_000_000
# Counters live until the day after the last one that is popular.
COUNTED_DAYS = 4

Users = Annotated[int, typer.Option(min=0, max=MAX_NUMBER, help="Users with a history.")]
Window = Annotated[
    int | None, typer.Option(min=0, max=5_000, help="Events in a history; the most without it.")
]
Seen = Annotated[
    int, typer.Option(min=0, max=62_500, help="Older items that a user is known to have seen.")
]
IdChars = Annotated[int, typer.Option(min=1, max=256, help="Bytes of an item's id.")]
UserIdChars = Annotated[int, typer.Option(min=1, max=256, help="Bytes of a user's id.")]
WeeklyUsers = Annotated[
    int | None,
    typer.Option(min=0, max=MAX_NUMBER, help="Users who were shown something in 7 days; a third."),
]
Shown = Annotated[int, typer.Option(min=0, max=500, help="Places that each was shown then.")]
NumAnswers = Annotated[
    int | None,
    typer.Option(min=0, max=MAX_NUMBER, help="Answers of 2 days; one for each weekly user."),
]
Places = Annotated[int, typer.Option(min=0, max=500, help="Items of an answer.")]
PopularItems = Annotated[
    int, typer.Option(min=0, max=MAX_NUMBER, help="Items with events on a day, by partition.")
]
LiveItems = Annotated[
    int, typer.Option(min=0, max=MAX_NUMBER, help="Items that callers put or changed.")
]
Numbers = Annotated[
    int,
    typer.Option(min=0, max=4, help="Of value, duration, latitude, longitude: those sent."),
]
TitleChars = Annotated[int, typer.Option(min=0, max=4_096, help="Bytes of a title.")]


def memory(
    *,
    users: Users,
    window: Window = None,
    seen: Seen = 0,
    id_chars: IdChars = DEFAULT_ID_CHARS,
    user_id_chars: UserIdChars = DEFAULT_ID_CHARS,
    weekly_users: WeeklyUsers = None,
    shown: Shown = 100,
    answers: NumAnswers = None,
    places: Places = 20,
    popular_items: PopularItems = 5_000,
    live_items: LiveItems = 0,
    title_chars: TitleChars = 40,
    numbers: Numbers = 2,
) -> None:
    """Say how much memory Redis needs, by what is kept; partitions and bounds as the settings say.

    `exact` is what is asked for, `jemalloc` what the usual builds of the server take for it. Plan
    with half as much again: for copies while a file is written, buffers, and what grows meanwhile.
    """
    # Loads Redis and NumPy, which `run` must not load before its workers are set up.
    from service.store.memory import StoreLoad, exact, jemalloc, parts_of  # noqa: PLC0415  # as above

    settings = Settings()
    of_week = users // 3 if weekly_users is None else weekly_users
    load = StoreLoad(
        num_users=users,
        window=settings.max_events if window is None else window,
        num_seen=seen,
        num_shown_users=of_week,
        num_shown=shown,
        num_answers=of_week if answers is None else answers,
        num_places=places,
        num_live_items=live_items,
        num_counted=popular_items,
        num_days=COUNTED_DAYS,
        num_streamed=settings.stream_max_events,
        num_partitions=settings.num_partitions,
        item_id_bytes=id_chars,
        user_id_bytes=user_id_chars,
        title_bytes=title_chars,
        num_numbers=numbers,
    )
    for line in table_of(parts_of(load, exact), parts_of(load, jemalloc)):
        typer.echo(line)


def table_of(plain: "tuple[Part, ...]", rounded: "tuple[Part, ...]") -> list[str]:
    """Return the lines of the table: each kind of keys, and the sum."""
    lines = [f"{'':<10} {'keys':>13} {'bytes each':>11} {'exact MiB':>12} {'jemalloc MiB':>13}"]
    for one, other in zip(plain, rounded, strict=True):
        each = f"{one.total_bytes / one.num_keys:,.0f}" if one.num_keys else ""
        lines.append(
            f"{one.name:<10} {one.num_keys:>13,} {each:>11} "
            f"{one.total_bytes / MIB:>12,.1f} {other.total_bytes / MIB:>13,.1f}"
        )
    from service.store.memory import total_bytes  # noqa: PLC0415  # as in `memory`

    sums = [total_bytes(parts) / MIB for parts in (plain, rounded)]
    lines.append(f"{'total':<10} {'':>13} {'':>11} {sums[0]:>12,.1f} {sums[1]:>13,.1f}")
    return lines
