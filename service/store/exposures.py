"""Exposures in Redis: note what was shown, and find it again by the answer or by the user."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from service.config import Settings
from service.contract.events import UserId
from service.contract.exposures import Exposure, Impression
from service.contract.features import Int64s
from service.contract.vocabulary import item_hash
from service.errors import ServiceError, StoreMismatch
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

# Popular items are shown again and again.
_item_hash = lru_cache(maxsize=16_384)(item_hash)
_SHOWN_DTYPE = np.dtype([("item_hash", "<u8"), ("time_low", "<u4"), ("time_high", "<u2")])
SHOWN_BYTES = _SHOWN_DTYPE.itemsize
# The same record for one at a time.
_SHOWN = Struct("<QIH")


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
    """Notes answers and finds them."""

    def __init__(self, client: RedisClient, settings: Settings, metrics: Metrics) -> None:
        self._client = client
        self._settings = settings
        self._metrics = metrics
        self._script = Script("record_exposure.lua")
        self._prepared = False

    async def record(self, exposures: Sequence[Exposure]) -> list[ServiceError | None]:
        """Note what answers showed, in one round trip; return what each one failed with, if it did.

        Raises StoreUnavailable if none could be sent.
        """
        if not self._prepared:
            await prepare_store(self._client, self._settings, self._metrics, warn=False)
            self._prepared = True
        # Keys of one slot may go together, and on a single server all are in one.
        together: defaultdict[object, list[int]] = defaultdict(list)
        for place, exposure in enumerate(exposures):
            together[self._client.slot_group(_partition_of(exposure))].append(place)
        calls = [self._call([exposures[at] for at in places]) for places in together.values()]
        with translate_redis_errors(self._metrics, "expose"):
            answers = await self._script.run(self._client, calls)
        errors: list[ServiceError | None] = [None] * len(exposures)
        for places, answer in zip(together.values(), answers, strict=True):
            if isinstance(answer, Exception):
                for place in places:
                    errors[place] = unavailable(self._metrics, "expose", answer)
        return errors

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

    def _call(self, exposures: Sequence[Exposure]) -> ScriptCall:
        settings = self._settings
        call_keys: list[str] = []
        args: list[bytes | str | int | float] = [
            settings.attribution_s,
            settings.stream_max_events,
            settings.history_ttl_days * keys.SECONDS_PER_DAY,
            keys.SHOWN_MAX_ITEMS * SHOWN_BYTES,
            keys.SHOWN_TTL_S,
        ]
        for exposure in exposures:
            own_keys = _keys_of(exposure)
            impressions = encode_impressions(exposure)
            call_keys += own_keys
            args += (
                len(own_keys),
                encode_answer(exposure, impressions),
                encode_exposure(exposure, impressions),
                encode_shown(exposure),
                exposure.timestamp_ms,
            )
        return ScriptCall(call_keys, args)


def _partition_of(exposure: Exposure) -> int:
    return int(exposure.recommendation_id[: keys.PARTITION_DIGITS], 16)


def _keys_of(exposure: Exposure) -> list[str]:
    partition = _partition_of(exposure)
    of_answer = [
        keys.answer_key(partition, exposure.recommendation_id),
        keys.stream_key(partition),
    ]
    if exposure.user_id is None:
        return of_answer
    return [
        *of_answer,
        keys.shown_key(partition, exposure.user_id),
        keys.tombstone_key(partition, exposure.user_id),
    ]


def encode_exposure(exposure: Exposure, impressions: bytes) -> bytes:
    """Return an exposure as the stream carries it: JSON, `user_id` null of an anonymous one.

    `impressions` are those of `encode_impressions`: names would be half of them.
    """
    fields = {
        "recommendation_id": exposure.recommendation_id,
        "user_id": exposure.user_id,
        "timestamp_ms": exposure.timestamp_ms,
        "model_version": exposure.model_version,
        "policy": exposure.policy,
    }
    return _with_last(fields, b"impressions", impressions)


def encode_impressions(exposure: Exposure) -> bytes:
    """Return what was shown, in JSON: a list of item, position, source and propensity for each."""
    return to_json(exposure.impressions)


def encode_shown(exposure: Exposure) -> bytes:
    """Return an exposure's records of what was shown, in the order of their places."""
    high, low = divmod(exposure.timestamp_ms, 1 << 32)
    return b"".join(_SHOWN.pack(_item_hash(one.item_id), low, high) for one in exposure.impressions)


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


def encode_answer(exposure: Exposure, impressions: bytes) -> bytes:
    """Return what attribution needs of an answer; nothing in it says whose it was.

    `impressions` are those of `encode_impressions`.
    """
    fields = {
        "at": exposure.timestamp_ms,
        "model": exposure.model_version,
        "policy": exposure.policy,
    }
    return _with_last(fields, b"items", impressions)


def _with_last(fields: Mapping[str, Any], name: bytes, value: bytes) -> bytes:
    """Return a JSON object of fields and one more, whose value is JSON already."""
    return to_json(fields)[:-1] + b',"' + name + b'":' + value + b"}"


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
