from service.errors import StoreUnavailable
from service.security.limits import LocalTokens, Tokens
from service.store.tokens import Bucket, Taken
from tests.fakes import FakeClock

# Two tokens at once, then one every half second.
BUCKET = Bucket("key", "a", rate_per_s=2.0, burst=2)


class FakeShared:
    """Tokens without end elsewhere; `down` makes them unreachable."""

    def __init__(self) -> None:
        self.down = False
        self.num_asked = 0

    async def take(self, bucket: Bucket) -> Taken:
        """Take one."""
        self.num_asked += 1
        if self.down:
            raise StoreUnavailable("the fake store is down")
        return Taken(taken=True, left=bucket.burst, wait_us=0, full_us=0)


def test_a_bucket_gives_its_burst_and_then_what_it_gains() -> None:
    """Full at noon: two, none, and after half a second one more."""
    clock = FakeClock()
    tokens = LocalTokens(clock)
    first, second, third = (tokens.take(BUCKET) for _ in range(3))
    assert (first.taken, first.left, first.wait_us) == (True, 1, 0)
    assert (second.taken, second.left, second.wait_us) == (True, 0, 500_000)
    assert (third.taken, third.left, third.wait_us, third.full_us) == (False, 0, 500_000, 1_000_000)
    clock.advance(499)
    assert not tokens.take(BUCKET).taken
    clock.advance(1)
    assert tokens.take(BUCKET).taken
    assert not tokens.take(BUCKET).taken


def test_a_refusal_costs_no_token() -> None:
    """Whoever asks too often is not made to wait ever longer."""
    clock = FakeClock()
    tokens = LocalTokens(clock)
    for _ in range(100):
        tokens.take(BUCKET)
    clock.advance(500)
    assert tokens.take(BUCKET).taken


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    """A day of silence is no credit."""
    clock = FakeClock()
    tokens = LocalTokens(clock)
    tokens.take(BUCKET)
    clock.advance(86_400_000)
    assert [tokens.take(BUCKET).taken for _ in range(3)] == [True, True, False]


def test_buckets_are_counted_apart_and_without_filling_the_memory() -> None:
    """The one used longest ago is forgotten, and is full when it comes again."""
    tokens = LocalTokens(FakeClock(), max_buckets=2)
    one = [Bucket("address", name, 1.0, 1) for name in ("a", "b", "c")]
    assert [tokens.take(bucket).taken for bucket in one] == [True, True, True]
    assert not tokens.take(one[2]).taken
    assert not tokens.take(one[1]).taken
    assert tokens.take(one[0]).taken


async def test_this_process_counts_while_redis_is_away_and_asks_it_once_a_second() -> None:
    """Waiting for a timeout with every request would be worse than no limit."""
    clock = FakeClock()
    shared = FakeShared()
    tokens = Tokens(shared, clock)
    shared.down = True
    assert [(await tokens.take(BUCKET)).taken for _ in range(3)] == [True, True, False]
    assert shared.num_asked == 1
    clock.advance(1_000)
    shared.down = False
    taken = [(await tokens.take(BUCKET)).left for _ in range(2)]
    assert (taken, shared.num_asked) == ([2, 2], 3)
