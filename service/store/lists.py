"""Ranked lists in Redis, so that the pages of one list agree whatever happens between them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.config import Settings
from service.contract.events import UserId, user_hash
from service.contract.exposures import Source
from service.errors import StoreMismatch
from service.metrics import Metrics
from service.store import keys
from service.store.client import RedisClient, translate_redis_errors

ANONYMOUS = ""


@dataclass(frozen=True, slots=True)
class ListedItem:
    """One item of a ranked list, as it was when the list was made."""

    item_id: str
    score: float
    source: Source


@dataclass(frozen=True, slots=True)
class RankedItems:
    """A ranked list, best first; `model_version` made it, for `user_id` or nobody in particular."""

    recommendation_id: str
    user_id: UserId | None
    model_version: str
    items: tuple[ListedItem, ...]


class ListStore:
    """Keeps ranked lists for a while; a list is read only by whom it was made for."""

    def __init__(self, client: RedisClient, settings: Settings, metrics: Metrics) -> None:
        self._client = client
        self._num_partitions = settings.num_partitions
        self._metrics = metrics

    async def save(self, ranked: RankedItems) -> None:
        """Keep a list for LIST_TTL_S; raises StoreUnavailable."""
        key = self._key(ranked.recommendation_id)
        if key is None:
            raise ValueError(f"{ranked.recommendation_id!r} is no recommendation's id of ours")
        await self._run("list-save", "SET", key, _encode(ranked), "EX", keys.LIST_TTL_S)

    async def load(self, recommendation_id: str, user_id: UserId | None) -> RankedItems | None:
        """Return a user's list, None if there is none of this id for this user (any more)."""
        key = self._key(recommendation_id)
        packed = None if key is None else await self._run("list-load", "GET", key)
        return None if packed is None else _decode(recommendation_id, user_id, packed)

    def _key(self, recommendation_id: str) -> str | None:
        partition = keys.partition_of_recommendation(recommendation_id, self._num_partitions)
        return None if partition is None else keys.list_key(partition, recommendation_id)

    async def _run(self, operation: str, *command: str | bytes | int) -> bytes | None:
        pipeline = self._client.pipeline(transaction=False)
        pipeline.execute_command(*command)
        with translate_redis_errors(self._metrics, operation):
            [answer] = await pipeline.execute()
        found: bytes | None = answer
        return found


def _owner(user_id: UserId | None) -> str:
    return ANONYMOUS if user_id is None else user_hash(user_id)


def _encode(ranked: RankedItems) -> bytes:
    document = {
        "owner": _owner(ranked.user_id),
        "model": ranked.model_version,
        "items": [[item.item_id, item.score, item.source] for item in ranked.items],
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _decode(recommendation_id: str, user_id: UserId | None, packed: bytes) -> RankedItems | None:
    document: dict[str, Any] = json.loads(packed)
    try:
        rows: Sequence[Sequence[Any]] = document["items"]
        if document["owner"] != _owner(user_id):
            return None
        items = tuple(ListedItem(*row) for row in rows)
        return RankedItems(recommendation_id, user_id, document["model"], items)
    except (KeyError, TypeError) as exc:
        raise StoreMismatch("a ranked list has another layout than this build's") from exc
