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
    propensity: float = 1.0


@dataclass(frozen=True, slots=True)
class RankedItems:
    """A ranked list, best first; `model_version` made it, for `user_id` or nobody in particular.

    `policy` and `explores` are those of its first page's answer.
    """

    recommendation_id: str
    user_id: UserId | None
    model_version: str
    items: tuple[ListedItem, ...]
    policy: str
    explores: bool = False
    created_ms: int = 0


class ListStore:
    """Keeps ranked lists for a while; a list is read only by whom it was made for."""

    def __init__(self, client: RedisClient, settings: Settings, metrics: Metrics) -> None:
        self._client = client
        self._num_partitions = settings.num_partitions
        self._metrics = metrics

    async def save(self, ranked: RankedItems) -> None:
        """Keep a list for LIST_TTL_S; raises StoreUnavailable."""
        text = ranked.recommendation_id
        partition = keys.partition_of_recommendation(text, self._num_partitions)
        if partition is None:
            raise ValueError(f"{text!r} is no recommendation's id of ours")
        key = keys.list_key(partition, text)
        await self._run("list-save", "SET", key, _encode(ranked), "EX", keys.LIST_TTL_S)

    async def load(self, recommendation_id: str, user_id: UserId | None) -> RankedItems | None:
        """Return a user's list, None if there is none of this id for this user (any more).

        A list that was made before its user was erased is gone with the user.
        """
        partition = keys.partition_of_recommendation(recommendation_id, self._num_partitions)
        if partition is None:
            return None
        wanted = [keys.list_key(partition, recommendation_id)]
        if user_id is not None:
            if partition != keys.partition_of(user_id, self._num_partitions):
                return None
            wanted.append(keys.tombstone_key(partition, user_id))
        packed, *erased = await self._run("list-load", "MGET", *wanted)
        ranked = None if packed is None else _decode(recommendation_id, user_id, packed)
        if ranked and erased and erased[0] and int(erased[0]) >= ranked.created_ms:
            return None
        return ranked

    async def _run(self, operation: str, *command: str | bytes | int) -> Any:
        pipeline = self._client.pipeline(transaction=False)
        pipeline.execute_command(*command)
        with translate_redis_errors(self._metrics, operation):
            [answer] = await pipeline.execute()
        return answer


def _owner(user_id: UserId | None) -> str:
    return ANONYMOUS if user_id is None else user_hash(user_id)


def _encode(ranked: RankedItems) -> bytes:
    document = {
        "owner": _owner(ranked.user_id),
        "model": ranked.model_version,
        "at": ranked.created_ms,
        "policy": ranked.policy,
        "explores": ranked.explores,
        "items": [
            [item.item_id, item.score, item.source, item.propensity] for item in ranked.items
        ],
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _decode(recommendation_id: str, user_id: UserId | None, packed: bytes) -> RankedItems | None:
    document: dict[str, Any] = json.loads(packed)
    try:
        rows: Sequence[Sequence[Any]] = document["items"]
        if document["owner"] != _owner(user_id):
            return None
        return RankedItems(
            recommendation_id=recommendation_id,
            user_id=user_id,
            model_version=document["model"],
            items=tuple(ListedItem(*row) for row in rows),
            policy=document["policy"],
            explores=document["explores"],
            created_ms=document["at"],
        )
    except (KeyError, TypeError) as exc:
        raise StoreMismatch("a ranked list has another layout than this build's") from exc
