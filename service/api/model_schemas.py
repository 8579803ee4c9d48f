"""The bodies of the calls about models."""

from collections.abc import Sequence

from pydantic import ConfigDict, Field, JsonValue

from service.api.event_schemas import Strict
from service.api.timestamps import rfc3339
from service.contract.bundle import Manifest
from service.models import KnownModel, ModelsOverview, ModelState
from service.store.announcements import Announced
from service.store.serving_reports import ServingReport

_METRICS: dict[str, JsonValue] = {
    "protocol": "temporal",
    "split": "test",
    "split_sha256": "0" * 64,
    "request_time": "known",
    "seen_items": "removed",
    "results": {"model": {"ndcg@10": 0.192}},
}
_MODEL: dict[str, JsonValue] = {
    "version": "3f9a1c0d5e7b2a48",
    "state": "active",
    "reason": None,
    "name": "movielens-1m",
    "created_at": "2026-01-14T12:00:00+00:00",
    "schema_version": "1.1",
    "num_items": 3706,
    "metrics": [_METRICS],
}
_PROCESS: dict[str, JsonValue] = {
    "process": "shop-7d9f:1:c3a1",
    "version": "3f9a1c0d5e7b2a48",
    "behind": False,
    "seen_at": "2026-01-14T18:30:04.000Z",
}
_SWITCH: dict[str, JsonValue] = {
    "active": "3f9a1c0d5e7b2a48",
    "previous": "5987be6329b79d6d",
    "changed_at": "2026-01-14T18:30:00.000Z",
}


class MetricsBody(Strict):
    """What was measured when the bundle was made, with the protocol that makes it comparable."""

    model_config = ConfigDict(json_schema_extra={"examples": [_METRICS]})

    protocol: str
    split: str
    split_sha256: str
    request_time: str
    seen_items: str
    results: dict[str, dict[str, float]]


class ModelBody(Strict):
    """One bundle of the folder; what its manifest says is null if that cannot be read.

    `available` has not been read whole: files are checked when it is activated. `reason` says what
    is wrong with a bundle in the process that answers.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_MODEL]})

    version: str
    state: ModelState
    reason: str | None
    name: str | None
    created_at: str | None
    schema_version: str | None
    num_items: int | None
    metrics: list[MetricsBody]

    @classmethod
    def of(cls, known: KnownModel) -> "ModelBody":
        """Return the body of a model."""
        manifest: Manifest | None = known.bundle.manifest
        reports = manifest.metrics if manifest else ()
        return cls(
            version=known.bundle.version,
            state=known.state,
            reason=known.reason or None,
            name=manifest.name if manifest else None,
            created_at=manifest.created_at if manifest else None,
            schema_version=str(manifest.schema_version) if manifest else None,
            num_items=manifest.num_items if manifest else None,
            metrics=[MetricsBody(**report.model_dump()) for report in reports],
        )


class ProcessBody(Strict):
    """What a process serves; `behind` says that it cannot serve what it should."""

    model_config = ConfigDict(json_schema_extra={"examples": [_PROCESS]})

    process: str = Field(description="Its host, process id and a random part")
    version: str
    behind: bool
    seen_at: str = Field(description="RFC 3339 in UTC")

    @classmethod
    def of(cls, report: ServingReport) -> "ProcessBody":
        """Return the body of a process's report."""
        return cls(
            process=report.process,
            version=report.version,
            behind=report.is_behind,
            seen_at=rfc3339(report.seen_at_ms),
        )


class SwitchResponse(Strict):
    """What all processes shall serve, what rollback goes back to, and since when."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SWITCH]})

    active: str
    previous: str | None
    changed_at: str = Field(description="RFC 3339 in UTC")

    @classmethod
    def of(cls, announced: Announced) -> "SwitchResponse":
        """Return the body of an announcement."""
        return cls(
            active=announced.active,
            previous=announced.previous or None,
            changed_at=rfc3339(announced.changed_at_ms),
        )


class ModelsResponse(Strict):
    """All models; `serving` is the version of the process that answers, `active` that of all."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                _SWITCH
                | {
                    "models": [_MODEL],
                    "processes": [_PROCESS],
                    "serving": _SWITCH["active"],
                    "problems": [],
                }
            ]
        }
    )

    models: list[ModelBody]
    processes: list[ProcessBody]
    serving: str
    active: str
    previous: str | None
    changed_at: str | None = Field(description="RFC 3339 in UTC; null if nothing is announced")
    problems: list[str] = Field(description="Why this process does not serve what it should")

    @classmethod
    def of(cls, overview: ModelsOverview, processes: Sequence[ServingReport]) -> "ModelsResponse":
        """Return the body of an overview and of what each process serves."""
        changed_at_ms = overview.changed_at_ms
        return cls(
            models=[ModelBody.of(known) for known in overview.models],
            processes=[ProcessBody.of(report) for report in processes],
            serving=overview.serving,
            active=overview.active,
            previous=overview.previous or None,
            changed_at=None if changed_at_ms is None else rfc3339(changed_at_ms),
            problems=list(overview.problems),
        )
