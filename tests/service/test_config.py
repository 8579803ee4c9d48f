from pathlib import Path

import pytest
from pydantic import ValidationError

from service.config import Settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start from an environment without our variables, whatever the shell has."""
    for name in ("SOJOURN_BUNDLE", "SOJOURN_BUNDLE_PATH", "SOJOURN_REDIS_URL", "SOJOURN_PORT"):
        monkeypatch.delenv(name, raising=False)


def test_the_environment_sets_what_the_defaults_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container is configured by variables alone."""
    monkeypatch.setenv("SOJOURN_PORT", "9000")
    monkeypatch.setenv("SOJOURN_BUNDLE", "shop/bundles")
    settings = Settings()
    assert (settings.port, settings.bundle_path) == (9000, Path("shop/bundles"))
    assert settings.host == "127.0.0.1"


def test_a_keyword_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line passes its options as keywords, and they are the nearer wish."""
    monkeypatch.setenv("SOJOURN_BUNDLE", "from-environment")
    monkeypatch.setenv("SOJOURN_PORT", "9000")
    settings = Settings(bundle_path=Path("from-option"), port=9001)
    assert (settings.port, settings.bundle_path) == (9001, Path("from-option"))


def test_an_empty_redis_url_means_the_embedded_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files pass an unset variable on as an empty one."""
    monkeypatch.setenv("SOJOURN_REDIS_URL", "")
    assert Settings().redis_url is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 70_000),
        ("max_events", 0),
        ("max_events", 5_001),
        ("num_partitions", 0),
        ("log_level", "loud"),
        ("redis_url", "http://redis:6379"),
        ("default_tz_offset_min", 2_000),
    ],
)
def test_an_impossible_value_is_refused_by_name(name: str, value: object) -> None:
    """A wrong setting stops the start instead of the first request."""
    with pytest.raises(ValidationError, match=name):
        Settings.model_validate({name: value})


def test_an_unknown_keyword_is_refused() -> None:
    """A misspelt option would otherwise be silently without effect."""
    with pytest.raises(ValidationError, match="max_event"):
        Settings.model_validate({"max_event": 10})


def test_settings_do_not_change_and_show_no_password() -> None:
    """They are read once; and they are logged at start."""
    settings = Settings(redis_url="redis://:secret@redis:6379/0", log_level="INFO")
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1  # type: ignore[misc]  # that it fails is the claim
    assert "secret" not in repr(settings)
    assert settings.log_level == "info"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("cors_origins", "https://a.example, https://b.example:8443", 2),
        ("cors_origins", "", 0),
        ("trusted_proxies", "10.0.0.0/8,::1", 2),
    ],
)
def test_a_list_is_written_with_commas(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: int
) -> None:
    """As people write lists into variables, and not as JSON."""
    monkeypatch.setenv(f"SOJOURN_{name.upper()}", text)
    assert len(getattr(Settings(), name)) == expected


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"cors_origins": "https://a.example/shop"}, "is no origin"),
        ({"cors_origins": "a.example"}, "is no origin"),
        ({"trusted_proxies": "proxy.example"}, "trusted_proxies"),
        ({"rate_limit_per_s": 5}, "needs keys_file"),
        ({"redis_password": "hunter2"}, "need redis_url"),
        ({"auth_failures_per_min": 0}, "auth_failures_per_min"),
        ({"max_concurrency": 0}, "max_concurrency"),
    ],
)
def test_what_would_protect_nothing_is_refused(given: dict[str, object], reason: str) -> None:
    """A protection that silently does nothing is worse than none."""
    with pytest.raises(ValidationError, match=reason):
        Settings.model_validate(given)


def test_an_empty_variable_is_an_absent_file_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files pass an unset variable on as an empty one."""
    monkeypatch.setenv("SOJOURN_KEYS_FILE", "")
    monkeypatch.setenv("SOJOURN_REDIS_CA_FILE", "")
    assert (Settings().keys_file, Settings().redis_ca_file) == (None, None)
