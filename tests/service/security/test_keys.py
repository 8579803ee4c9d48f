import json
import stat
from pathlib import Path

import pytest

from service.errors import KeysRefused
from service.security.keys import (
    KeyFile,
    changing,
    digest_of,
    key_id_of,
    new_key_text,
    read_key_file,
    write_key_file,
)
from tests.keys import entry_of, key_file


def test_a_key_has_an_id_and_256_bits_that_nobody_can_guess() -> None:
    """32 random bytes in base 64 are 43 characters: ceil(32 * 8 / 6)."""
    prefix, key_id, secret = new_key_text().split("_", 2)
    assert (prefix, len(key_id), len(secret)) == ("sjn", 2 * 6, 43)
    assert len({new_key_text() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "text", ["", "sjn", "sjn_0123456789ab", "sjn__x", "abc_0_x", "_", "\ud800"]
)
def test_other_text_names_no_key(text: str) -> None:
    """Whatever a header holds is looked up without an error."""
    assert key_id_of(text) == ""
    assert len(digest_of(text)) == 64


def test_the_file_holds_the_hash_and_not_the_key(tmp_path: Path) -> None:
    """A copy of the file opens nothing."""
    text = new_key_text()
    path = key_file(tmp_path / "keys.json", entry_of(text, "recommend"))
    content = path.read_text()
    assert text not in content
    assert text.split("_", 2)[2] not in content
    assert json.loads(content)["keys"][0]["sha256"] == digest_of(text)
    assert read_key_file(path).keys == (entry_of(text, "recommend"),)


def test_a_new_file_is_its_owners_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    """Who may read it is the operator's choice, made once."""
    path = key_file(tmp_path / "keys.json")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    key_file(path, entry_of(new_key_text(), "admin"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [other.name for other in tmp_path.iterdir()] == ["keys.json"]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    """Whoever writes it makes keys."""
    path = key_file(tmp_path / "keys.json")
    path.chmod(mode)
    with pytest.raises(KeysRefused, match="chmod go-w"):
        read_key_file(path)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("", "the file"),
        ("[]", "the file"),
        ('{"version": 2}', "version"),
        ('{"keys": [{"id": "0123456789ab"}]}', "keys.0.name"),
        ('{"key": []}', "key"),
        ('{"keys": [ENTRY, ENTRY]}', "the file: Value error, two keys have the same id"),
        ('{"keys": [CLEAR]}', "keys.0.sha256"),
        ('{"keys": [NO_SCOPE]}', "keys.0.scopes"),
        ('{"keys": [OTHER_SCOPE]}', "keys.0.scopes.0"),
        ('{"keys": [NO_ZONE]}', "keys.0.expires_at"),
    ],
)
def test_a_broken_file_is_refused_by_place_and_repeats_nothing(
    tmp_path: Path, content: str, place: str
) -> None:
    """The message goes to a log, and somebody may have put a key where its hash belongs."""
    text = new_key_text()
    right = entry_of(text, "admin").model_dump(mode="json", exclude_none=True)
    entries = {
        "ENTRY": right,
        "CLEAR": right | {"sha256": text},
        "NO_SCOPE": right | {"scopes": []},
        "OTHER_SCOPE": right | {"scopes": ["all"]},
        "NO_ZONE": right | {"expires_at": "2026-01-01T00:00:00"},
    }
    for word, entry in entries.items():
        content = content.replace(f"[{word}", f"[{json.dumps(entry)}")
        content = content.replace(f", {word}", f", {json.dumps(entry)}")
    path = tmp_path / "keys.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(KeysRefused) as refused:
        read_key_file(path)
    assert str(refused.value).startswith(f"{path}: {place}")
    assert text not in str(refused.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A mistyped path must not look like a service without keys."""
    with pytest.raises(KeysRefused, match="No such file"):
        read_key_file(tmp_path / "keys.json")


def test_a_change_starts_from_what_is_there(tmp_path: Path) -> None:
    """The first key makes the file, the second is added."""
    path = tmp_path / "keys.json"
    entries = [entry_of(new_key_text(), "recommend") for _ in range(2)]
    for entry in entries:
        with changing(path) as content:
            write_key_file(path, KeyFile(keys=(*content.keys, entry)))
    assert read_key_file(path).keys == tuple(entries)
