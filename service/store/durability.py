"""What in the servers' configuration may lose events that were acknowledged."""

from collections.abc import Mapping
from typing import Protocol

from redis.exceptions import ResponseError

WANTED = ("appendonly", "maxmemory-policy")


class Servers(Protocol):
    """All servers of the data, replicas too: any of them may be the primary tomorrow."""

    async def ask_every(self, *command: str) -> Mapping[str, object]:
        """Return what every server replies, or the error it met, by its name."""
        ...


async def durability_warnings(servers: Servers) -> list[str]:
    """Say of each server what may lose events; nothing of one whose settings may not be read."""
    found: dict[str, dict[str, str]] = {}
    unasked: dict[str, Exception] = {}
    for setting in WANTED:
        for name, reply in (await servers.ask_every("CONFIG", "GET", setting)).items():
            if isinstance(reply, Exception):
                unasked[name] = reply
            else:
                found.setdefault(name, {}).update(_pairs(reply))
    warnings = [text for name, values in found.items() for text in _warnings(name, values)]
    # Managed servers and careful ACLs refuse CONFIG; then we cannot know.
    return warnings + [
        f"{_of(name)}its settings are unknown, it did not answer: {type(error).__name__}"
        for name, error in unasked.items()
        if not isinstance(error, ResponseError)
    ]


def _warnings(name: str, values: Mapping[str, str]) -> list[str]:
    warnings = []
    if values.get("appendonly") == "no":
        warnings.append(
            f"{_of(name)}appendonly is no: a restart of Redis loses events, set appendonly yes"
        )
    policy = values.get("maxmemory-policy", "noeviction")
    if policy != "noeviction":
        warnings.append(
            f"{_of(name)}maxmemory-policy is {policy}: a full Redis drops users, set noeviction"
        )
    return warnings


def _of(name: str) -> str:
    return f"{name}: " if name else ""


def _pairs(reply: object) -> dict[str, str]:
    """Return the setting in a reply, a list of names and values, or a mapping."""
    if isinstance(reply, Mapping):
        flat = [part for pair in reply.items() for part in pair]
    else:
        flat = list(reply) if isinstance(reply, list | tuple) else []
    texts = [part.decode() if isinstance(part, bytes) else str(part) for part in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))
