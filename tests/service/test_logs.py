import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from service.logs import (
    PIPE_BYTES,
    configure_logs,
    get_logger,
    log_request,
    request_id,
    user_ref,
)


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    configure_logs()
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def configured(**options: bool | str) -> io.StringIO:
    """Configure logs into a buffer and return it."""
    stream = io.StringIO()
    configure_logs(stream=stream, **options)  # type: ignore[arg-type]  # options by keyword
    return stream


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    """Read the JSON lines of a buffer."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_the_request_id() -> None:
    """A log system joins the lines of one request by that id."""
    stream = configured()
    token = request_id.set("req-7")
    get_logger("service.test").info("answered", status=200)
    request_id.reset(token)
    get_logger("service.test").info("idle")
    first, second = lines(stream)
    assert first["event"] == "answered"
    assert first["status"] == 200
    assert first["level"] == "info"
    assert first["logger"] == "service.test"
    assert first["request_id"] == "req-7"
    assert str(first["timestamp"]).endswith("Z")
    assert "request_id" not in second


def test_lines_of_libraries_have_the_same_form() -> None:
    """One stream with two formats cannot be read by a machine."""
    stream = configured()
    logging.getLogger("uvicorn.error").warning("port %d is busy", 8000, extra={"port": 8000})
    (line,) = lines(stream)
    assert (line["event"], line["port"]) == ("port 8000 is busy", 8000)
    assert line["logger"] == "uvicorn.error"


def test_uvicorns_access_log_is_off() -> None:
    """Our own line says more, and the path in uvicorn's holds user ids."""
    stream = configured()
    logging.getLogger("uvicorn.access").info("GET /v1/users/anna/recommendations")
    assert lines(stream) == []


def test_an_exception_is_within_its_line() -> None:
    """A traceback over many lines would be many log entries."""
    stream = configured()
    try:
        raise ValueError("broken")
    except ValueError:
        get_logger("service.test").exception("failed")
    (line,) = lines(stream)
    assert "ValueError: broken" in str(line["exception"])


def test_a_user_id_is_hashed_unless_the_operator_wants_it() -> None:
    """Logs live longer and are read by more people than the store."""
    stream = configured(user_key="k1")
    get_logger("service.test").info("read", user_id="anna")
    (line,) = lines(stream)
    assert "user_id" not in line
    assert line["user"] == user_ref("anna") != "anna"
    configured(user_ids=True)
    assert user_ref("anna") == "anna"


def test_a_users_hash_is_stable_under_one_key_and_another_under_another() -> None:
    """Lines of several workers join; an outsider without the key cannot try ids."""
    configured(user_key="k1")
    under_k1 = user_ref("anna")
    configured(user_key="k2")
    under_k2 = user_ref("anna")
    configured(user_key="k1")
    assert user_ref("anna") == under_k1 != under_k2


def test_a_level_below_the_chosen_one_is_silent() -> None:
    """Debug lines cost time, so they are made only on demand."""
    stream = configured(level="warning")
    get_logger("service.test").info("detail")
    get_logger("service.test").warning("problem")
    assert [line["event"] for line in lines(stream)] == ["problem"]
    text = configured(as_json=False)
    get_logger("service.test").info("hello", k=10)
    assert "hello" in text.getvalue()
    assert "k=10" in text.getvalue()


async def test_lines_of_requests_are_written_in_pieces_that_a_pipe_takes_whole() -> None:
    """Workers share one pipe: a larger write may have another worker's lines in its middle."""
    written: list[str] = []

    class Recording(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return super().write(text)

    stream = Recording()
    configure_logs(stream=stream)
    for number in range(100):
        route = "ü" * 3_000 if number == 50 else f"/v1/{number}"
        log_request("GET", route, 200, 1.5, None, is_quiet=False)
    await asyncio.sleep(0)
    assert [line["route"] for line in lines(stream)][::99] == ["/v1/0", "/v1/99"]
    assert len(lines(stream)) == 100
    assert all(piece.endswith("\n") for piece in written)
    # A line that is too long by itself is alone.
    too_long = [piece for piece in written if len(piece.encode()) > PIPE_BYTES]
    assert [piece.count("\n") for piece in too_long] == [1]
    assert len(written) < 20
