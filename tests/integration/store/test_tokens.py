"""Buckets of tokens on a real Valkey: the rule, its bounds, and what processes share."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.app import create_app
from service.bundle_loader import LoadedBundle
from service.config import Settings
from service.errors import StoreUnavailable
from service.metrics import Metrics
from service.security.keys import new_key_text
from service.security.limits import LocalTokens
from service.store.client import RedisClient
from service.store.keys import token_key
from service.store.servers import ServerClient
from service.store.tokens import Bucket, TokenStore
from tests.clients import client_of
from tests.fake_stores import fake_stores
from tests.fakes import FakeClock
from tests.integration.store.builders import PATIENT_MS
from tests.keys import bearer, key_with

pytestmark = pytest.mark.integration

# Three tokens, and the next in about a day: no test waits for it, however slow the machine.
BUCKET = Bucket("key", "0123456789ab", rate_per_s=1 / 86_400, burst=3)
DAY_US = 86_400_000_000


@pytest.fixture(params=["server", "cluster"])
def shape(request: pytest.FixtureRequest) -> str:
    """Return both shapes that the store must work on."""
    shape: str = request.param
    return shape


@pytest.fixture
async def tokens(store_client: RedisClient, store_settings: Settings) -> AsyncIterator[TokenStore]:
    """Return the buckets of an empty server."""
    store = TokenStore(store_client, store_settings, Metrics())
    yield store
    await store.close()


async def server_time_us(client: ServerClient) -> int:
    """Return the server's time."""
    seconds, us = await client.time()
    return int(seconds) * 1_000_000 + int(us)


async def test_a_bucket_gives_its_burst_and_then_says_how_long_to_wait(tokens: TokenStore) -> None:
    """The fourth of three: nearly the whole interval is still to come."""
    results = [await tokens.take(BUCKET) for _ in range(4)]
    assert [(each.taken, each.left) for each in results] == [
        (True, 2), (True, 1), (True, 0), (False, 0),
    ]  # fmt: skip
    assert [each.wait_us for each in results[:2]] == [0, 0]
    assert 0.9 * DAY_US < results[3].wait_us <= DAY_US
    assert 2.9 * DAY_US < results[3].full_us <= 3 * DAY_US


async def test_the_server_and_the_process_keep_one_rule(tokens: TokenStore) -> None:
    """What takes over while Redis is away may not be stricter or milder."""
    local = LocalTokens(FakeClock())
    for _ in range(5):
        shared, own = await tokens.take(BUCKET), local.take(BUCKET)
        assert (shared.taken, shared.left) == (own.taken, own.left)
        assert shared.wait_us == pytest.approx(own.wait_us, abs=60_000_000)
        assert shared.full_us == pytest.approx(own.full_us, abs=60_000_000)


async def test_a_bucket_gains_a_token_in_each_interval(
    tokens: TokenStore, redis_client: ServerClient
) -> None:
    """As if it had been emptied an interval and a half ago: one token is back, two are not."""
    key = token_key(BUCKET.kind, BUCKET.subject)
    now_us = await server_time_us(redis_client)
    await redis_client.set(key, now_us + 3 * DAY_US - 3 * DAY_US // 2)
    assert [(await tokens.take(BUCKET)).taken for _ in range(2)] == [True, False]


async def test_a_bucket_lives_until_it_is_full(
    tokens: TokenStore, redis_client: ServerClient
) -> None:
    """A full one says no more than none, so no key stays behind."""
    await tokens.take(BUCKET)
    ttl_ms = await redis_client.pttl(token_key(BUCKET.kind, BUCKET.subject))
    assert 0.9 * DAY_US < ttl_ms * 1_000 <= DAY_US + 1_000


@pytest.mark.parametrize("value", ["nonsense", "9" * 18, "-5"])
async def test_a_value_that_cannot_be_is_bounded(
    tokens: TokenStore, redis_client: ServerClient, value: str
) -> None:
    """A clock that was ahead, or other settings, must not lock a key out for longer than empty."""
    await redis_client.set(token_key(BUCKET.kind, BUCKET.subject), value)
    assert (await tokens.take(BUCKET)).wait_us <= DAY_US


async def test_a_key_of_another_type_is_an_error_of_its_own_call_only(
    tokens: TokenStore, redis_client: ServerClient
) -> None:
    """Others share the round trip and must not meet it."""
    await redis_client.rpush(token_key(BUCKET.kind, BUCKET.subject), "x")
    with pytest.raises(StoreUnavailable):
        await tokens.take(BUCKET)
    assert (await tokens.take(replace(BUCKET, subject="other"))).taken


async def test_two_replicas_share_what_a_key_may_spend(
    redis_client: ServerClient, store_settings: Settings, bundle: LoadedBundle, tmp_path: Path
) -> None:
    """Five at once in all, wherever they arrive; and wrong keys are counted together too."""
    path = tmp_path / "keys.json"
    text = key_with(path, "recommend")
    settings = store_settings.model_copy(
        update={
            "keys_file": path,
            "rate_limit_per_s": 0.001,
            "rate_limit_burst": 5,
            "auth_failures_per_min": 4,
            "redis_timeout_ms": PATIENT_MS,
        }
    )
    apps = [create_app(settings, **fake_stores(), bundle=bundle) for _ in range(2)]
    route = "/v1/users/anna/recommendations"
    async with client_of(apps[0]) as one, client_of(apps[1]) as other:
        answers = [
            await client.get(route, headers=bearer(text)) for client in (one, other) for _ in "1234"
        ]
        guesses = [
            await client.get(route, headers=bearer(new_key_text()))
            for client in (one, other)
            for _ in "123"
        ]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3
    left = [answer.headers["ratelimit-remaining"] for answer in answers]
    assert left == ["4", "3", "2", "1", "0", "0", "0", "0"]
    assert int(answers[-1].headers["retry-after"]) > 900
    assert [answer.status_code for answer in guesses] == [401] * 4 + [429] * 2


# Counted by one server: on a Cluster the calls would be on whichever node has the key.
@pytest.mark.parametrize("shape", ["server"])
async def test_no_limit_costs_no_round_trip(
    redis_client: ServerClient, store_settings: Settings, bundle: LoadedBundle, tmp_path: Path
) -> None:
    """Off by default: a right key alone never asks Redis; with a limit it asks once."""
    path = tmp_path / "keys.json"
    text = key_with(path, "recommend")
    calls = []
    for rate_limit_per_s in (0.0, 1_000.0):
        settings = store_settings.model_copy(
            update={"keys_file": path, "rate_limit_per_s": rate_limit_per_s}
        )
        app = create_app(settings, **fake_stores(), bundle=bundle)
        await redis_client.config_resetstat()
        async with client_of(app) as client:
            for _ in range(3):
                await client.get("/v1/users/anna/recommendations", headers=bearer(text))
        stats = await redis_client.info("commandstats")
        calls.append(
            sum(
                each["calls"]
                for name, each in stats.items()
                if name in ("cmdstat_evalsha", "cmdstat_eval")
            )
        )
    # The first of three finds that the server does not know the script yet, and sends its text.
    assert calls[0] == 0
    assert calls[1] in (3, 4)


async def test_a_redis_that_is_away_leaves_each_process_its_own_limit(
    bundle: LoadedBundle, tmp_path: Path
) -> None:
    """Nothing listens there: still limited, and still answered."""
    path = tmp_path / "keys.json"
    text = key_with(path, "recommend")
    settings = Settings(
        redis_url="redis://127.0.0.1:1/0",
        keys_file=path,
        rate_limit_per_s=0.001,
        rate_limit_burst=2,
    )
    app = create_app(
        settings,
        **fake_stores(),
        bundle=bundle,
        clock=FakeClock(),
    )
    async with client_of(app) as client:
        statuses = [
            (await client.post("/v1/recommendations", json={}, headers=bearer(text))).status_code
            for _ in range(4)
        ]
    assert statuses == [200, 200, 429, 429]
