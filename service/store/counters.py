"""What is popular now: the live weights of the last days, over all partitions."""

from collections import defaultdict

from service.config import Settings
from service.metrics import Metrics
from service.store import keys
from service.store.client import RedisClient, translate_redis_errors

# Of each partition and day at least this many are read: an item that is popular overall may be
# a little further down in one of them.
MIN_READ_PER_KEY = 200


class CounterStore:
    """Reads the counters that `HistoryStore.append` keeps."""

    def __init__(self, client: RedisClient, settings: Settings, metrics: Metrics) -> None:
        self._client = client
        self._num_partitions = settings.num_partitions
        self._metrics = metrics

    async def popular(self, now_ms: int, limit: int) -> list[tuple[str, float]]:
        """Return at most `limit` (item_id, weight), most first, equal ones by id.

        Weights are summed over the last COUNTER_DAYS days in UTC; of each partition's day only
        the first `limit` items, or MIN_READ_PER_KEY, take part.
        """
        today = now_ms // keys.MS_PER_DAY
        per_key = max(limit, MIN_READ_PER_KEY)
        pipeline = self._client.pipeline(transaction=False)
        for partition in range(self._num_partitions):
            for day in range(today - keys.COUNTER_DAYS + 1, today + 1):
                pipeline.execute_command(
                    "ZREVRANGE", keys.counter_key(partition, day), 0, per_key - 1, "WITHSCORES"
                )
        with translate_redis_errors(self._metrics, "popular"):
            answers = await pipeline.execute()
        weights: defaultdict[str, float] = defaultdict(float)
        for answer in answers:
            for item_id, weight in zip(answer[::2], answer[1::2], strict=True):
                weights[item_id.decode()] += float(weight)
        return sorted(weights.items(), key=lambda pair: (-pair[1], pair[0]))[:limit]
