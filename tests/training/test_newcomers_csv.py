"""A newcomer's file: what is clear is read and said, and every mistake names its fix."""

import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from training.data import EVENTS_FILE
from training.import_commands import importers

HEAD = "Kunde;Artikel;Zeitpunkt;Aktion;Menge\n"
GOOD = f"{HEAD}anna;Tee;31.01.2026 18:30;gekauft;1\nbob;Kekse;01.02.2026 08:05;angesehen;2\n"
PLAIN = "customer,sku,bought_at\n"


def run_import(path: Path, *options: str) -> Result:
    """Import a file into the folder `out` beside it."""
    out = path.with_name("out")
    return CliRunner().invoke(importers, ["events", str(path), "--out", str(out), *options])


def rows_of(path: Path) -> list[dict[str, object]]:
    """Return the events of the dataset beside a file."""
    return pq.read_table(path.with_name("out") / EVENTS_FILE).to_pylist()  # type: ignore[no-any-return]  # pyarrow is untyped


def written(tmp_path: Path, content: str | bytes, name: str = "shop.csv") -> Path:
    """Write a newcomer's file."""
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_odd_names_are_read_without_options_and_what_was_guessed_is_said(tmp_path: Path) -> None:
    """Names, separator, order of the date and the words for types leave no doubt here."""
    path = written(tmp_path, GOOD)
    done = run_import(path, "--time-zone", "Europe/Berlin")
    assert done.exit_code == 0, done.output
    assert "separator: semicolon" in done.output
    said = "user_id = 'Kunde', item_id = 'Artikel', time = 'Zeitpunkt', event_type = 'Aktion'"
    assert f"columns: {said}" in done.output
    assert "columns not used: 'Menge'" in done.output
    assert "event types: angesehen = view, gekauft = purchase" in done.output
    assert "dates: day first" in done.output
    anna = rows_of(path)[0]
    # 18:30 in Berlin in winter is 17:30 UTC.
    assert (anna["user_id"], anna["event_type"]) == ("anna", "purchase")
    assert (anna["timestamp_ms"], anna["tz_offset_min"]) == (1_769_880_600_000, 60)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (GOOD.encode("utf-8-sig"), "encoding: UTF-8 with a byte order mark"),
        (GOOD.encode("utf-16"), "encoding: UTF-16"),
        (GOOD.replace(";", "\t").encode(), "separator: tab"),
        (GOOD.replace(";", "|").encode(), "separator: bar"),
        (GOOD.encode(), "have no offset and are read as UTC; if they are local, add --time-zone"),
        (GOOD.replace("Menge", "Bewertung").replace(";1\n", ";4,5\n").encode(), "as 4,5"),
    ],
)
def test_what_is_clear_is_read_and_said(content: bytes, said: str, tmp_path: Path) -> None:
    """Excel's habits need no options."""
    path = written(tmp_path, content)
    done = run_import(path)
    assert (done.exit_code, said in done.output) == (0, True), done.output
    assert [row["item_id"] for row in rows_of(path)] == ["Tee", "Kekse"]


def test_a_decimal_comma_is_a_number(tmp_path: Path) -> None:
    """4,5 stars are four and a half."""
    path = written(tmp_path, GOOD.replace("Menge", "Sterne").replace(";1\n", ";4,5\n"))
    assert run_import(path).exit_code == 0
    assert [row["value"] for row in rows_of(path)] == [4.5, 2.0]


def test_latin_1_is_named_and_read_with_the_option(tmp_path: Path) -> None:
    """The line is shown as it would read."""
    path = written(tmp_path, GOOD.replace("Tee", "Käse").encode("cp1252"))
    done = run_import(path)
    assert done.exit_code != 0
    assert "line 2 is not utf-8; if it should read 'anna;Käse" in str(done.exception)
    assert "--encoding cp1252" in str(done.exception)
    assert run_import(path, "--encoding", "cp1252").exit_code == 0
    assert rows_of(path)[0]["item_id"] == "Käse"


MISTAKES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "is empty; it needs a line of column names"),
    "only a byte order mark": ("\ufeff\n", "is empty"),
    "header only": (PLAIN, "has a line of column names and no event below it"),
    "one column": ("customer\nanna\n", "has one column only.*--delimiter"),
    "no header": (
        "17,A1,2026-01-31 10:00:00\n18,A2,2026-01-31 11:00:00\n",
        r"--user-id-column with one of 17 \('18'\).*line 1 looks like an event",
    ),
    "no user": (
        "foo,sku,bought_at\n7,a,1600000000\n",
        r"no column 'user_id'.*add --user-id-column with one of foo \('7'\), sku",
    ),
    "no item": (
        "customer,foo,bought_at\n7,a,1600000000\n",
        r"no column 'item_id'.*add --item-id-column with one of",
    ),
    "no time": (
        "customer,sku,foo\n7,a,b\n",
        r"no column 'timestamp'.*add --time-column with one of customer \('7'\)",
    ),
    "two users": (
        "customer,visitor,sku,date\n1,2,a,1600000000\n",
        "'customer' and 'visitor' may both be the user's column; say which with --user-id-column",
    ),
    "two columns of one name": ("customer,sku,sku,date\n1,2,3,4\n", "two columns are named 'sku'"),
    "ragged": (
        f"{PLAIN}a,b,1600000000\na,b,c,1600000001\na,1600000002\n",
        "line 1 has 3 fields, and 2 other lines have not: line 3 has 4: 'a b c 1600000001'; "
        "line 4 has 2",
    ),
    "a quote that does not close": (
        f'{PLAIN}a,b,1600000000\na,"b,1600000001\na,b,1600000002\n',
        "line 3, 'a,\"b,1600000001', has a quote that is not closed",
    ),
    "a quote inside quotes": (
        f'{PLAIN}a,"5" disk",1600000000\n',
        "line 2, .*has a quote that is not closed.*written twice",
    ),
    "day or month": (
        f"{PLAIN}a,b,03/04/2026\na,c,05/06/2026\n",
        "column 'bought_at': dates such as '03/04/2026' may begin.*--date-order day-first",
    ),
    "day and month": (
        f"{PLAIN}a,b,31/01/2026\na,c,01/31/2026\n",
        "the first number is a day .it reaches 31.*the second .31.*--date-order",
    ),
    "Excel's days": (f"{PLAIN}a,b,45000.5\n", "Excel's day numbers.*yyyy-mm-dd"),
    "an order, not times": (f"{PLAIN}a,b,1\na,c,2\n", "no seconds.*only count the order"),
    "no date at all": (
        f"{PLAIN}a,b,soon\na,c,later\n",
        r"no event is left of 2 rows: dropped bad_time: 2 \(line 2 'soon', line 3 'later'\); write",
    ),
    "the future": (
        f"{PLAIN}a,b,2226-01-31 10:00:00\n",
        r"dropped future_time: 1 \(line 2 '2226-01-31 10:00:00'\); these lie in the future",
    ),
    "words for types": (
        "customer,sku,date,action\na,b,1600000000,zapped\n",
        "these are not known: 'zapped'; say what they are, as --event-type-map 'zapped=view'",
    ),
    "a thousand or a fraction": (
        'customer,sku,date,rating\na,b,1600000000,"1,234"\n',
        "'1,234' in column 'rating' may be a thousand or a fraction; add --decimal",
    ),
    "UTF-16 without its mark": (GOOD.encode("utf-16-le"), "add --encoding utf-16-le"),
    "gzip": (b"\x1f\x8b\x08\x00rest", "gunzip shop.csv"),
    "an old workbook": (b"\xd0\xcf\x11\xe0rest", "Excel workbook of the old kind"),
    "parquet by another name": (b"PAR1rest", r"ends in \.parquet"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_names_its_fix_and_nothing_is_written(mistake: str, tmp_path: Path) -> None:
    """Lines and values are in the message where it is about some of them."""
    content, message = MISTAKES[mistake]
    done = run_import(written(tmp_path, content))
    assert done.exit_code != 0
    with pytest.raises(type(done.exception), match=message):  # type: ignore[type-var]  # it failed
        raise done.exception  # type: ignore[misc]  # as above
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop.csv"]


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ("xl/workbook.xml", "is an Excel workbook; open it, choose File > Save As"),
        ("events.csv", "is a zip archive, which holds events.csv; unpack it first"),
    ],
)
def test_an_archive_is_named_for_what_it_is(held: str, message: str, tmp_path: Path) -> None:
    """Excel's files are zip archives; both are not text."""
    path = tmp_path / "shop.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(held, "x")
    assert message in str(run_import(path).exception)


def test_a_separator_that_was_named_wrongly_is_set_right(tmp_path: Path) -> None:
    """The message has the option as it should be."""
    done = run_import(written(tmp_path, GOOD), "--delimiter", ",")
    assert "looks like a semicolon: --delimiter ';'" in str(done.exception)


DROPPED = {
    "some dates are bad": (
        "a,b,2026-01-31\na,c,31. Januar\na,d,\n",
        "dropped bad_time: 2 (line 3 '31. Januar', line 4 ''); write times as",
    ),
    "mixed formats": ("a,b,2026-01-31\na,c,31.01.2026\na,d,1769882400\n", "dropped: none"),
    "seconds and milliseconds": (
        "a,b,1600000000\na,c,1600000000001\n",
        "times are partly seconds (1600000000) and partly smaller units (1600000000001)",
    ),
    "a row twice": (
        "a,b,1600000000\na,b,1600000000\n",
        "dropped exact_duplicate: 1; the same user, item, type and time again",
    ),
    "nobody": (",b,1600000000\na,b,1600000000\n", "dropped missing_user_id: 1 (line 2 '')"),
    "nothing": ("a,,1600000000\na,b,1600000000\n", "dropped missing_item_id: 1 (line 2 '')"),
    "one user": ("a,b,1600000000\na,c,1600000001\n", "all events are of one user, 'a'"),
    "one item": ("a,b,1600000000\nc,b,1600000001\n", "all events are on one item, 'b'"),
    "too few events": ("a,b,1600000000\nc,d,1600000001\n", "no user has 3 events or more"),
    "few users": (
        "a,b,1600000000\na,d,1600000001\na,e,1600000002\n",
        "only 1 users have 3 events or more",
    ),
}


@pytest.mark.parametrize("case", DROPPED)
def test_what_is_dropped_or_doubtful_is_shown_with_its_fix(case: str, tmp_path: Path) -> None:
    """The rest is imported."""
    rows, said = DROPPED[case]
    done = run_import(written(tmp_path, PLAIN + rows))
    assert (done.exit_code, said in done.output) == (0, True), done.output or done.exception


def test_negative_ratings_are_kept_and_shown(tmp_path: Path) -> None:
    """In some public logs -1 says that the user did not rate."""
    text = "customer,sku,date,rating\na,b,1600000000,-1\na,c,1600000001,4\n"
    done = run_import(written(tmp_path, text))
    assert "1 values are negative (the least is -1)" in done.output


def test_words_for_types_are_translated_by_the_option(tmp_path: Path) -> None:
    """What the option says wins over what would be guessed."""
    text = "customer,sku,date,action\na,b,1600000000,zapped\na,c,1600000001,order\n"
    path = written(tmp_path, text)
    done = run_import(path, "--event-type-map", "zapped=play", "--event-type-map", "order=cart")
    assert done.exit_code == 0, done.output
    assert [row["event_type"] for row in rows_of(path)] == ["play", "cart"]


def test_a_column_can_be_left_out(tmp_path: Path) -> None:
    """`action` need not mean what we think."""
    path = written(tmp_path, "customer,sku,date,action\na,b,1600000000,zapped\n")
    assert run_import(path, "--event-type-column", "-").exit_code == 0
    assert rows_of(path)[0]["event_type"] == "view"


def test_the_order_of_dates_that_was_named_drops_those_that_do_not_fit(tmp_path: Path) -> None:
    """31/01 is no day of a 31st month."""
    path = written(tmp_path, f"{PLAIN}a,b,01/31/2026\na,c,31/01/2026\n")
    done = run_import(path, "--date-order", "month-first")
    assert "dropped bad_time: 1 (line 3 '31/01/2026')" in done.output


def test_points_stay_where_another_column_has_commas(tmp_path: Path) -> None:
    """12.5 seconds beside a rating of 4,5 became 125."""
    path = written(tmp_path, "user;item;time;rating;duration_s\na;b;1600000000;4,5;12.5\n")
    assert run_import(path).exit_code == 0
    [row] = rows_of(path)
    assert (row["value"], row["duration_s"]) == (4.5, 12.5)


def test_a_dropped_row_may_hold_any_character(tmp_path: Path) -> None:
    """What parts the shown columns inside may stand in an id."""
    path = written(tmp_path, f"{PLAIN}a,b,1600000000\nc\x1dd,b,soon\n")
    done = run_import(path)
    assert done.exit_code == 0, done.exception
    assert "dropped bad_time: 1" in done.output


def test_a_place_of_an_item_that_is_no_number_is_named(tmp_path: Path) -> None:
    """It ended in a traceback."""
    path = written(tmp_path, f"{PLAIN}a,b,1600000000\n")
    items = written(tmp_path, 'item_id,lat,lon\nb,"48,85","2,35"\n', "items.csv")
    done = run_import(path, "--items", str(items))
    assert "item b: '48,85' is no latitude or longitude" in str(done.exception)
