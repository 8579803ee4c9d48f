"""What a sender's queue makes of failures, without a thread, a clock or a network."""

import pytest

from sojourn_client import RateLimited, SenderOptions
from sojourn_client.errors import InvalidRequest
from sojourn_client.outbox import MAX_RETRY_AFTER_S, Outbox
from tests.client.answering import event

NOW_S = 1_000.0


def outbox_of(num_events: int, batch_size: int = 8) -> Outbox:
    """Return a queue with events that are due."""
    outbox = Outbox(SenderOptions(batch_size=batch_size, max_age_s=0, cap_s=1))
    for number in range(num_events):
        outbox.put(event(number), NOW_S)
    return outbox


@pytest.mark.parametrize(("asked_s", "least_s"), [(60.0, 60.0), (1e9, MAX_RETRY_AFTER_S)])
def test_nothing_goes_before_the_service_wants_it(asked_s: float, least_s: float) -> None:
    """Retry-After holds beyond the bound of the sender's own waits, though not for ever."""
    outbox = outbox_of(1)
    limited = RateLimited(429, "rate-limited", "later", retry_after_s=asked_s)
    assert outbox.fail(outbox.batch(), limited, NOW_S) == []
    due_s = outbox.due_in(NOW_S, hurry=True)
    assert due_s is not None
    assert least_s <= due_s <= least_s + 1


def test_a_batch_that_a_proxy_finds_too_large_is_halved_and_nothing_of_it_is_rejected() -> None:
    """As a whole it would be refused for ever; alone an event waits until the proxy takes it."""
    outbox = outbox_of(4)
    too_large = InvalidRequest(413, "http", "<html>", is_problem=False)
    sizes = []
    for _ in range(4):
        sizes.append(len(outbox.batch()))
        assert outbox.fail(outbox.batch(), too_large, NOW_S) == []
    assert sizes == [4, 2, 1, 1]
    assert (outbox.counts.rejected, outbox.counts.pending) == (0, 4)
