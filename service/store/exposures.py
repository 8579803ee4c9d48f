"""Exposures in Redis: note what was shown, and find it again by the answer or by the user."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.batcher import Batcher
from service.config import Settings
from service.contract.events import UserId
from service.contract.exposures import Exposure, Impression
from service.contract.features import Int64s
from service.contract.vocabulary import item_hash
from service.errors import StoreMismatch
from service.metrics import Metrics
from service.store import keys
from service.store.client import (
    RedisClient,
    Script,
    ScriptCall,
    prepare_store,
    translate_redis_errors,
    unavailable,
)

MAX_BATCH = 256
_SHOWN_DTYPE = np.dtype([("item_hash", "<u8"), ("time_low", "<u4"), ("time_high", "<u2")])
SHOWN_BYTES = _SHOWN_DTYPE.itemsize


@dataclass(frozen=True, slots=True)
class Shown:
    """What was shown to a user lately, oldest first: `item_hash` and ms, each (num_shown,)."""

    item_hashes: NDArray[np.uint64]
    timestamps_ms: Int64s

    @classmethod
    def nothing(cls) -> "Shown":
        """Return what was shown to a user who was shown nothing."""
        return cls(np.zeros(0, np.uint64), np.zeros(0, np.int64))


class ExposureStore:
    """Notes answers and finds them; concurrent callers share round trips."""

    def __init__(self, client: RedisClient, settings: Settings, metrics: Metrics) -> None:
        self._client = client
        self._settings = settings
        self._metrics = metrics
        self._script = Script("record_exposure.lua")
        self._prepared = False
        self._records: Batcher[Exposure, Exception | None] = Batcher(
            "redis-expose",
            self._record_many,
            max_batch=MAX_BATCH,
            max_pending=settings.max_pending,
            metrics=metrics,
        )

    async def record(self, exposure: Exposure) -> None:
        """Note what one answer showed; raises StoreUnavailable, Overloaded or NotReady."""
        error = await self._records.submit(exposure)
        if error is not None:
            raise unavailable(self._metrics, "expose", error)

    async def find(self, recommendation_ids: Sequence[str]) -> Mapping[str, Exposure]:
        """Return the answers that are known by their ids, without their users; one round trip.

        Ids that are not ours or too old are left out. Raises StoreUnavailable.
        """
        partitions = {
            text: keys.partition_of_recommendation(text, self._settings.num_partitions)
            for text in dict.fromkeys(recommendation_ids)
        }
        own = [(text, place) for text, place in partitions.items() if place is not None]
        if not own:
            return {}
        pipeline = self._client.pipeline(transaction=False)
        for text, partition in own:
            pipeline.execute_command("GET", keys.answer_key(partition, text))
        with translate_redis_errors(self._metrics, "attribute"):
            answers = await pipeline.execute()
        return {
            text: _decode_answer(text, packed)
            for (text, _), packed in zip(own, answers, strict=True)
            if packed is not None
        }

    async def shown(self, user_id: UserId) -> Shown:
        """Return what was shown to a user lately; raises StoreUnavailable or StoreMismatch."""
        partition = keys.partition_of(user_id, self._settings.num_partitions)
        pipeline = self._client.pipeline(transaction=False)
        pipeline.execute_command("GET", keys.shown_key(partition, user_id))
        with translate_redis_errors(self._metrics, "shown"):
            [packed] = await pipeline.execute()
        return decode_shown(packed)

    async def close(self, grace_s: float = 5.0) -> None:
        """Finish what has begun; the client stays open, it belongs to whoever made it."""
        await self._records.close(grace_s)

    async def _record_many(self, exposures: list[Exposure]) -> list[Exception | None]:
        if not self._prepared:
            await prepare_store(self._client, self._settings, self._metrics, warn=False)
            self._prepared = True
        with translate_redis_errors(self._metrics, "expose"):
            answers = await self._script.run(self._client, [self._call(one) for one in exposures])
        return [answer if isinstance(answer, Exception) else None for answer in answers]

    def _call(self, exposure: Exposure) -> ScriptCall:
        settings = self._settings
        partition = int(exposure.recommendation_id[: keys.PARTITION_DIGITS], 16)
        call_keys = [
            keys.answer_key(partition, exposure.recommendation_id),
            keys.stream_key(partition),
        ]
        if exposure.user_id is not None:
            call_keys += [
                keys.shown_key(partition, exposure.user_id),
                keys.tombstone_key(partition, exposure.user_id),
            ]
        args: list[bytes | str | int | float] = [
            encode_answer(exposure),
            settings.attribution_s,
            encode_exposure(exposure),
            settings.stream_max_events,
            settings.history_ttl_days * keys.SECONDS_PER_DAY,
            encode_shown(exposure),
            keys.SHOWN_MAX_ITEMS * SHOWN_BYTES,
            keys.SHOWN_TTL_S,
            exposure.timestamp_ms,
        ]
        return ScriptCall(call_keys, args)


def encode_exposure(exposure: Exposure) -> bytes:
    """Return an exposure as the stream carries it: JSON, `user_id` null of an anonymous one.

    An impression is a list of its item, position, source and propensity: names would be half of it.
    """
    document = {name: getattr(exposure, name) for name in exposure.__dataclass_fields__}
    document["impressions"] = _listed(exposure)
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def encode_shown(exposure: Exposure) -> bytes:
    """Return an exposure's records of what was shown, in the order of their places."""
    records = np.zeros(len(exposure.impressions), _SHOWN_DTYPE)
    high, low = divmod(exposure.timestamp_ms, 1 << 32)
    records["item_hash"] = [item_hash(one.item_id) for one in exposure.impressions]
    records["time_low"], records["time_high"] = low, high
    return records.tobytes()


def decode_shown(packed: bytes | None) -> Shown:
    """Return what a stored value says was shown; raises StoreMismatch if it is something else."""
    if not packed:
        return Shown.nothing()
    if len(packed) % SHOWN_BYTES:
        raise StoreMismatch(f"shown items: {len(packed)} bytes are no multiple of {SHOWN_BYTES}")
    records = np.frombuffer(packed, _SHOWN_DTYPE)
    high = records["time_high"].astype(np.int64)
    times = (high << 32) | records["time_low"].astype(np.int64)
    return Shown(records["item_hash"].astype(np.uint64), times)


def _listed(exposure: Exposure) -> list[tuple[str, int, str, float]]:
    return [(one.item_id, one.position, one.source, one.propensity) for one in exposure.impressions]


def encode_answer(exposure: Exposure) -> bytes:
    """Return what attribution needs of an answer; nothing in it says whose it was."""
    document = {
        "at": exposure.timestamp_ms,
        "model": exposure.model_version,
        "policy": exposure.policy,
        "items": _listed(exposure),
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _decode_answer(recommendation_id: str, packed: bytes) -> Exposure:
    document = json.loads(packed)
    return Exposure(
        recommendation_id=recommendation_id,
        user_id=None,
        timestamp_ms=document["at"],
        model_version=document["model"],
        policy=document["policy"],
        impressions=tuple(Impression(*row) for row in document["items"]),
    )
