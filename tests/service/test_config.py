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
