"""Which model each process serves, as the processes say themselves every few seconds."""

from dataclasses import dataclass

from service.metrics import Metrics
from service.store.client import RedisClient, Script, ScriptCall, translate_redis_errors
from service.store.keys import SERVING_KEY, SERVING_TTL_S

OPERATION = "models"
MS_PER_S = 1_000


@dataclass(frozen=True, slots=True)
class ServingReport:
    """What one process serves, whether it should serve another, and when it said so, in ms."""

    process: str
    version: str
    is_behind: bool
    seen_at_ms: int


class ServingReports:
    """Keeps the last report of each process for SERVING_TTL_S; raises StoreUnavailable."""

    def __init__(self, client: RedisClient, metrics: Metrics) -> None:
        self._client = client
        self._metrics = metrics
        self._script = Script("report_serving.lua")

    async def report(self, said: ServingReport) -> list[ServingReport]:
        """Keep a report in place of the process's last one; return those of all, by process."""
        text = f"{said.seen_at_ms} {said.version} {int(said.is_behind)}"
        oldest_ms = said.seen_at_ms - SERVING_TTL_S * MS_PER_S
        call = ScriptCall([SERVING_KEY], [said.process, text, oldest_ms, SERVING_TTL_S])
        with translate_redis_errors(self._metrics, OPERATION):
            [answer] = await self._script.run(self._client, [call])
            if isinstance(answer, Exception):
                raise answer
        pairs = zip(answer[::2], answer[1::2], strict=True)
        found = [_report(process.decode(), report.decode()) for process, report in pairs]
        return sorted(found, key=lambda report: report.process)


def _report(process: str, text: str) -> ServingReport:
    seen_at_ms, version, is_behind = text.split(" ")
    return ServingReport(process, version, is_behind == "1", int(seen_at_ms))
