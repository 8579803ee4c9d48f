"""Single calls to Redis, outside the queues that events and histories share."""

from collections.abc import Sequence
from typing import Any

from service.metrics import Metrics
from service.store.client import (
    RedisClient,
    Script,
    ScriptCall,
    translate_redis_errors,
    unavailable,
)


async def ask(
    client: RedisClient, metrics: Metrics, operation: str, *commands: Sequence[str | int]
) -> list[Any]:
    """Send commands about keys of one partition in one round trip; return their replies."""
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    with translate_redis_errors(metrics, operation):
        replies: list[Any] = await pipeline.execute()
    return replies


async def run_script(
    client: RedisClient, metrics: Metrics, operation: str, script: Script, call: ScriptCall
) -> list[Any]:
    """Run a script once; return what it says, a list."""
    with translate_redis_errors(metrics, operation):
        [answer] = await script.run(client, [call])
    if isinstance(answer, Exception):
        raise unavailable(metrics, operation, answer)
    reply: list[Any] = answer
    return reply
