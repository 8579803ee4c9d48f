"""What a collector is told: how large files are, how long they wait and how long they are kept."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class CollectorOptions(BaseModel):
    """Everything that `python -m service collect` may be told; refused as a whole if wrong.

    `max_rows` and `max_age_s` close a file: by the entries it stands for, or by the seconds since
    the first of them was read. `retention_days` 0 keeps all. `dedup_events` is the horizon within
    which an event that comes again is written once: so many events of its partition.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: Path
    once: bool = False
    max_rows: int = Field(default=10_000, ge=1, le=1_000_000)
    max_age_s: float = Field(default=300.0, gt=0, le=86_400)
    retention_days: int = Field(default=0, ge=0, le=36_500)
    dedup_events: int = Field(default=20_000, ge=0, le=10_000_000)
    metrics_port: int | None = Field(default=None, ge=0, le=65_535)
    metrics_host: str = "127.0.0.1"
