"""An audit that hashes for long says how far it is, on stderr; catches minutes of silence, and noise in quick ones."""

import time
from pathlib import Path

import pytest

from darkroom.audit import disk
from darkroom.audit.disk import Disk


@pytest.mark.parametrize("each", [0.0, 0.2])
def test_long_hashing_is_shown_and_short_is_not(
    each: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slow(path: Path) -> str:
        time.sleep(each)
        return "0" * 32

    monkeypatch.setattr(disk, "file_hash", slow)
    monkeypatch.setattr(disk, "SILENT", 0.5)
    monkeypatch.chdir(tmp_path)
    for i in range(60):
        Path(f"{i}.bin").write_bytes(b"x")
    there = Disk()
    there.expect([Path()])
    assert there.digest(Path()) is not None
    time.sleep(0.6)
    said = capsys.readouterr()
    assert said.out == ""
    assert ("audit: hashing: " in said.err) == bool(each)
