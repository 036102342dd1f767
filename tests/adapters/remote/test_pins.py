"""What the settings may say of a URL, so that a start never changes what is served."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adapters.remote.errors import URLRefusedError
from adapters.remote.pins import PinnedURL, check_digest, names_url
from server.config.settings import Settings, resolve_settings
from server.config.values import SettingsError

DIGEST = "sha256:" + "ab" * 32
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_an_entry_is_read_and_written_back() -> None:
    for entry in (
        f"s3://bucket/a#{DIGEST}",
        f"sv=s3://bucket/a#{DIGEST}",
        f"sv@v1.1=https://example.com/a=b/c#{DIGEST}",
        f"hf://org/name@{COMMIT}/sub",
    ):
        assert names_url(entry)
        assert str(PinnedURL.parse(entry)) == entry


@pytest.mark.parametrize(
    "entry",
    [
        "s3://bucket/a",
        "hf://org/name",
        "hf://org/name@main",
        "s3://bucket/a#",
        "s3://bucket/a#sha256:ab",
        f"s3://bucket/a#{DIGEST.upper()}",
        f"https://example.com/a?token=hunter2#{DIGEST}",
        f"https://user:hunter2@example.com/a#{DIGEST}",
        f"a b=s3://bucket/a#{DIGEST}",
        f"base=s3://bucket/a#{DIGEST}",
        f"file:///etc/a#{DIGEST}",
    ],
)
def test_what_is_not_pinned_or_holds_a_secret_is_refused(entry: str) -> None:
    with pytest.raises(URLRefusedError) as refused:
        PinnedURL.parse(entry)
    with pytest.raises(SettingsError) as setting:
        Settings(adapters=("lora_adapters/sv", entry))
    assert setting.value.name == "adapters"
    assert "hunter2" not in f"{refused.value} {setting.value}"


def test_paths_stay_paths() -> None:
    for entry in ("lora_adapters/sv", "sv=lora_adapters/sv", "C:/adapters/sv", "sv=C:\\adapters"):
        assert not names_url(entry)


def test_the_prefixes_are_settings() -> None:
    assert Settings().adapter_urls == ()
    found = resolve_settings(environ={"ONESEEK_ADAPTER_URLS": "s3://bucket/a, hf://org"}).settings
    assert found.adapter_urls == ("s3://bucket/a", "hf://org")
    for entry in ("*", "ftp://x", "https://user:hunter2@example.com"):
        with pytest.raises(SettingsError) as refused:
            Settings(adapter_urls=(entry,))
        assert refused.value.name == "adapter_urls"
        assert "hunter2" not in str(refused.value)


DOCUMENT = Path(__file__).parents[3] / "docs" / "adapters.md"
SAMPLES = re.findall(r"^```yaml\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_documented_settings_are_valid(sample: str, tmp_path: Path) -> None:
    file = tmp_path / "oneseek.yaml"
    file.write_text(sample, encoding="utf-8")
    found = resolve_settings(environ={}, config=file).settings
    assert len(found.adapters + found.adapter_urls) >= 2


def test_a_digest_is_whole() -> None:
    assert check_digest(DIGEST) == DIGEST
    with pytest.raises(ValueError, match="sha256:"):
        check_digest("ab" * 32)
