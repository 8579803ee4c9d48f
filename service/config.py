"""Settings: from the environment, units in the names, validated once at start."""

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.blend_terms import Blend
from service.redis_address import parse_redis_url

# The upper bound of a user's history, so that one read stays small whatever is set.
MAX_EVENTS_LIMIT = 5_000


class Settings(BaseSettings):
    """Everything that an operator may set, as `SOJOURN_*` variables or keyword arguments.

    Read once by whoever calls `create_app`; everyone else is given it. Changing
    `num_partitions` needs an empty store; the service refuses one that was filled with another.
    """

    model_config = SettingsConfigDict(
        env_prefix="SOJOURN_",
        frozen=True,
        extra="forbid",
        validate_by_name=True,
        hide_input_in_errors=True,
    )

    # A bundle, or a directory whose CURRENT file names one; `SOJOURN_BUNDLE` in the environment.
    bundle_path: Path = Field(
        default=Path("bundles"),
        validation_alias=AliasChoices("SOJOURN_BUNDLE", "SOJOURN_BUNDLE_PATH"),
    )
    # None starts the embedded server. The URL may carry a password, so it is not shown.
    redis_url: str | None = Field(default=None, repr=False)
    data_dir: Path = Path(".sojourn")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65_535)
    workers: int = Field(default=1, ge=1, le=64)

    max_events: int = Field(default=200, ge=1, le=MAX_EVENTS_LIMIT)
    max_seen: int = Field(default=1_000, ge=0, le=50_000)
    history_ttl_days: int = Field(default=365, ge=1, le=3_650)
    # The age of an event, while the time to live counts from the last one.
    retention_days: int = Field(default=365, ge=1, le=36_500)
    tombstone_days: int = Field(default=30, ge=1, le=3_650)
    num_partitions: int = Field(default=16, ge=1, le=4_096)
    stream_max_events: int = Field(default=20_000, ge=0)
    redis_timeout_ms: int = Field(default=250, ge=1, le=60_000)
    redis_connect_timeout_ms: int = Field(default=1_000, ge=1, le=60_000)
    # After so many failures in a row a server is not asked for so long; then by one call at a time.
    redis_breaker_failures: int = Field(default=3, ge=1, le=1_000)
    redis_breaker_open_ms: int = Field(default=1_000, ge=1, le=60_000)

    # Items that callers may put beside the bundle's, or change.
    max_live_items: int = Field(default=1_000_000, ge=0)
    catalogue_poll_ms: int = Field(default=250, ge=10, le=60_000)

    max_body_bytes: int = Field(default=1_048_576, ge=1_024)
    max_future_ms: int = Field(default=300_000, ge=0)
    request_deadline_ms: int = Field(default=2_000, ge=1)
    # Notes what every answer showed, for attribution, rotation and off-policy training.
    log_exposures: bool = True
    # How long an answer is remembered for the events that name it.
    attribution_s: int = Field(default=3_600, ge=1, le=2_592_000)
    # Blends by name for POST /v1/rank, as JSON; `default` is for requests that name none.
    blends: dict[str, Blend] = Field(default_factory=dict)
    popularity_refresh_s: float = Field(default=30.0, gt=0)
    model_poll_ms: int = Field(default=250, ge=10, le=60_000)
    watch_bundles: bool = True
    max_pending: int = Field(default=1_024, ge=1)
    max_batch: int = Field(default=16, ge=1)
    # What a worker keeps of histories that it has read and encoded; 0 reads and encodes every time.
    kept_readings_mib: int = Field(default=64, ge=0, le=65_536)
    # How many of a user's newest events are left out, each once, to explain a list.
    explain_events: int = Field(default=50, ge=1, le=MAX_EVENTS_LIMIT)
    onnx_threads: int = Field(default=1, ge=1, le=64)
    default_tz_offset_min: int = Field(default=0, ge=-18 * 60, le=18 * 60)
    shutdown_grace_s: float = Field(default=10.0, ge=0)

    # Who may call, and how often: docs/security.md. No file of keys leaves the service open.
    keys_file: Path | None = None
    allow_open: bool = False
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    auth_failures_per_min: int = Field(default=20, ge=1, le=100_000)
    rate_limit_per_s: float = Field(default=0.0, ge=0, le=1_000_000)
    rate_limit_burst: int = Field(default=50, ge=1, le=1_000_000)
    max_concurrency: int = Field(default=2_000, ge=1)
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    redis_username: str | None = None
    redis_password: SecretStr | None = None
    redis_sentinel_username: str | None = None
    redis_sentinel_password: SecretStr | None = None
    redis_ca_file: Path | None = None
    redis_cert_file: Path | None = None
    redis_key_file: Path | None = None

    # One recommendation in so many is looked at for drift of inputs and scores; 0 for none.
    drift_every: int = Field(default=32, ge=0)
    # Where spans go, as OTLP over HTTP, and of how many requests; docs/operations.md.
    traces_endpoint: str | None = None
    traces_ratio: float = Field(default=0.01, ge=0, le=1)

    log_level: Annotated[Literal["debug", "info", "warning", "error"], NoDecode] = "info"
    log_json: bool = True
    log_user_ids: bool = False
    # Keys the hash that stands for a user in the logs; without it every start hashes differently.
    log_user_key: SecretStr = SecretStr("")

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("redis_url")
    @classmethod
    def _has_known_scheme(cls, value: str | None) -> str | None:
        """Take an empty variable, as compose files leave it, for an absent one."""
        if not value:
            return None
        parse_redis_url(value)
        return value

    @field_validator(
        "traces_endpoint",
        "keys_file",
        "redis_username",
        "redis_password",
        "redis_sentinel_username",
        "redis_sentinel_password",
        "redis_ca_file",
        "redis_cert_file",
        "redis_key_file",
        mode="before",
    )
    @classmethod
    def _empty_is_absent(cls, value: object) -> object:
        return value or None

    @field_validator("trusted_proxies", "cors_origins", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for part in value:
            ip_network(part)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Take what browsers send, `https://shop.example`; a path would never match."""
        for part in value:
            origin = urlsplit(part)
            if part != "*" and part != f"{origin.scheme}://{origin.netloc}".lower():
                raise ValueError(f"{part!r} is no origin; write https://host or https://host:port")
        return value

    @field_validator("traces_endpoint")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "")
        if value and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("write the whole URL, as http://collector:4318/v1/traces")
        return value

    @model_validator(mode="after")
    def _have_what_they_need(self) -> "Settings":
        """Refuse a setting that would silently do nothing."""
        if self.rate_limit_per_s and self.keys_file is None:
            raise ValueError("rate_limit_per_s is per key and needs keys_file")
        return self

    @model_validator(mode="after")
    def _say_of_redis_what_it_can_use(self) -> "Settings":
        if (self.redis_username or self.redis_password) and self.redis_url is None:
            raise ValueError("redis_username and redis_password need redis_url")
        address = parse_redis_url(self.redis_url) if self.redis_url else None
        tls_files = (self.redis_ca_file, self.redis_cert_file, self.redis_key_file)
        if any(tls_files) and not (address and address.has_tls):
            raise ValueError(
                "redis_ca_file, redis_cert_file and redis_key_file need rediss:// or rediss+...://"
            )
        of_sentinels = (self.redis_sentinel_username, self.redis_sentinel_password)
        if any(of_sentinels) and not (address and address.shape == "sentinel"):
            raise ValueError(
                "redis_sentinel_username and redis_sentinel_password need redis+sentinel://"
            )
        if (self.redis_cert_file is None) != (self.redis_key_file is None):
            raise ValueError("redis_cert_file and redis_key_file need each other")
        return self
