"""The live catalogue in Redis: what callers said of items, and in which order it changed."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.config import Settings
from service.errors import CatalogueFull
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

BEGINNING = "0-0"
# Items that are read in one round trip.
READ_BATCH = 1_000
FULL = "FULL"
# The field that says whether an item is no more.
DELETED = "deleted"

# What was said of an item, JSON values by field.
Said = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ItemChange:
    """What a caller says of an item: in place of what was said before, or beside it."""

    item_id: str
    fields: Said
    replaces: bool


@dataclass(frozen=True, slots=True)
class Changes:
    """What was said of the items that changed, and where the log stood when it was read.

    Of those that the log still has, the one that changed last comes last; others are before them.
    `is_whole` says that these are all live items, not only those that changed; `goes_on` that
    there is more after the position.
    """

    position: str
    items: Mapping[str, Said]
    is_whole: bool = False
    goes_on: bool = False


class CatalogueStore:
    """Changes and reads the live catalogue; every call raises StoreUnavailable."""

    def __init__(self, client: RedisClient, settings: Settings, metrics: Metrics) -> None:
        self._client = client
        self._settings = settings
        self._metrics = metrics
        self._script = Script("change_items.lua")
        self._prepared = False

    async def change(self, changes: Sequence[ItemChange]) -> None:
        """Store changes, all or none; raises CatalogueFull if too many items would be live."""
        if not self._prepared:
            await prepare_store(self._client, self._settings, self._metrics, warn=False)
            self._prepared = True
        with translate_redis_errors(self._metrics, "catalogue-change"):
            [answer] = await self._script.run(self._client, [self._call(changes)])
        if isinstance(answer, Exception):
            if str(answer).startswith(FULL):
                limit = self._settings.max_live_items
                raise CatalogueFull(
                    f"the live catalogue holds {limit} items already (SOJOURN_MAX_LIVE_ITEMS)"
                ) from answer
            raise unavailable(self._metrics, "catalogue-change", answer) from answer

    async def read(self, item_ids: Sequence[str]) -> list[Said]:
        """Return what was said of items, nothing of those of which nothing was."""
        found: list[Said] = []
        for at in range(0, len(item_ids), READ_BATCH):
            pipeline = self._client.pipeline(transaction=False)
            for item_id in item_ids[at : at + READ_BATCH]:
                pipeline.execute_command("HGETALL", keys.live_item_key(item_id))
            found += [_decode(answer) for answer in await self._run(pipeline)]
        return found

    async def since(self, position: str | None) -> Changes:
        """Return what changed after a position of the log, or all if it no longer goes so far.

        An item that changed several times is there once, as it is now.
        """
        if position is None:
            return await self._whole()
        pipeline = self._client.pipeline(transaction=False)
        pipeline.execute_command("XRANGE", keys.CATALOGUE_LOG_KEY, "-", "+", "COUNT", 1)
        pipeline.execute_command(
            "XRANGE", keys.CATALOGUE_LOG_KEY, f"({position}", "+", "COUNT", READ_BATCH
        )
        pipeline.execute_command("XREVRANGE", keys.CATALOGUE_LOG_KEY, "+", "-", "COUNT", 1)
        first, entries, newest = await self._run(pipeline)
        if _is_gone(position, first, newest):
            return await self._whole()
        ids = _in_order(_text(fields[b"item_id"]) for _, fields in entries)
        reached = _text(entries[-1][0]) if entries else position
        said = await self.read(ids)
        found = dict(zip(ids, said, strict=True))
        return Changes(reached, found, goes_on=len(entries) == READ_BATCH)

    async def _whole(self) -> Changes:
        """Return every live item; changes made while it is read come again with the next call."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.execute_command("XREVRANGE", keys.CATALOGUE_LOG_KEY, "+", "-", "COUNT", 1)
        [newest] = await self._run(pipeline)
        position = _text(newest[0][0]) if newest else BEGINNING
        items: dict[str, Said] = {}
        cursor = 0
        while True:
            pipeline = self._client.pipeline(transaction=False)
            pipeline.execute_command("SSCAN", keys.CATALOGUE_IDS_KEY, cursor, "COUNT", READ_BATCH)
            [[cursor, members]] = await self._run(pipeline)
            ids = [_text(member) for member in members]
            items |= dict(zip(ids, await self.read(ids), strict=True))
            if not int(cursor):
                break
        for item_id in await self._logged():
            if item_id in items:
                items[item_id] = items.pop(item_id)
        return Changes(position, items, is_whole=True)

    async def _logged(self) -> list[str]:
        """Return the items of the log, each once, that which changed last at the end."""
        newest_first: dict[str, None] = {}
        end = "+"
        while True:
            pipeline = self._client.pipeline(transaction=False)
            pipeline.execute_command(
                "XREVRANGE", keys.CATALOGUE_LOG_KEY, end, "-", "COUNT", READ_BATCH
            )
            [entries] = await self._run(pipeline)
            newest_first |= dict.fromkeys(_text(fields[b"item_id"]) for _, fields in entries)
            if len(entries) < READ_BATCH:
                return [*reversed(newest_first)]
            end = f"({_text(entries[-1][0])}"

    def _call(self, changes: Sequence[ItemChange]) -> ScriptCall:
        call_keys = [keys.CATALOGUE_IDS_KEY, keys.CATALOGUE_LOG_KEY]
        args: list[bytes | str | int | float] = [
            self._settings.max_live_items,
            keys.CATALOGUE_LOG_MAX,
        ]
        for change in changes:
            call_keys.append(keys.live_item_key(change.item_id))
            args += (change.item_id, int(change.replaces), 2 * len(change.fields))
            for name, value in change.fields.items():
                args += (name, json.dumps(value, ensure_ascii=False, separators=(",", ":")))
        return ScriptCall(call_keys, args)

    async def _run(self, pipeline: Any) -> list[Any]:
        with translate_redis_errors(self._metrics, "catalogue-read"):
            answers: list[Any] = await pipeline.execute()
        return answers


def _is_gone(position: str, first: Sequence[Any], newest: Sequence[Any]) -> bool:
    """Say whether the log lost what came after a position: trimmed, or begun anew."""
    if position == BEGINNING:
        # What was trimmed before the first look at an entry cannot be told from nothing.
        return bool(newest)
    if not newest:
        return True
    if _place(position) > _place(_text(newest[0][0])):
        return True
    return _place(_text(first[0][0])) > _place(position)


def _in_order(item_ids: Iterable[str]) -> list[str]:
    """Return each id once, where it is the last time."""
    return [*reversed(dict.fromkeys(reversed([*item_ids])))]


def _place(position: str) -> tuple[int, int]:
    milliseconds, _, number = position.partition("-")
    return int(milliseconds), int(number)


def _decode(answer: Mapping[bytes, bytes]) -> Said:
    return {_text(name): json.loads(value) for name, value in answer.items()}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
