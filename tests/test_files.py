"""Files that people name are written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from blockdsl.editor.server import EditedFile
from blockdsl.files import naming, write_whole
from xt_blocks.cli import main


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.pattern"
    path.write_text("a  f\n")
    return path


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_new_file_has_the_mode_that_others_get(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_whole(tmp_path / "new", "×")
    assert (tmp_path / "new").read_bytes() == "×".encode()
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert len([*tmp_path.iterdir()]) == 2


def test_mode_and_link_stay(path: Path) -> None:
    path.chmod(0o750)
    link = path.with_name("link")
    link.symlink_to(path.name)
    write_whole(link, b"a\r\n")
    assert link.is_symlink()
    assert path.read_bytes() == b"a\r\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    lost = path.with_name("lost")
    lost.symlink_to("further")
    write_whole(lost, "f")
    assert path.with_name("further").read_text() == "f"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match=rf"No space left on device: '{path}'$"):
        write_whole(path, "a" * 100)
    answer = EditedFile("a", path.name, path).save("a" * 100, None)
    assert answer == {"ok": False, "problem": f"cannot write {path}: No space left on device"}
    assert main(["fmt", "--write", str(path)]) == 1
    assert path.read_text() == "a  f\n"
    assert [*path.parent.iterdir()] == [path]


def test_a_file_that_is_not_to_be_written(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.chmod(0o444)
    with pytest.raises(PermissionError):
        write_whole(path, "f")
    assert EditedFile("a", path.name, path).save("f", None)["problem"] == f"cannot write {path}: Permission denied"
    assert main(["fmt", "--write", str(path)]) == 1
    assert "Permission denied" in capsys.readouterr().err
    assert path.read_text() == "a  f\n"


def test_a_broken_character_is_refused(path: Path) -> None:
    problem = EditedFile("a", path.name, path).save("# \ud800", None)["problem"]
    assert problem == f"cannot write {path}: the text has a broken character"
    assert path.read_text() == "a  f\n"


def test_the_ends_of_lines_stay_as_a_file_has_them(path: Path) -> None:
    for before, after in (
        (b"a\r\nf\r\n", b"f\r\na\r\n"),
        (b"a\nf\n", b"f\na\n"),
        (b"a\r\nf\n", b"f\na\n"),
        (b"", b"f\na\n"),
    ):
        path.write_bytes(before)
        assert EditedFile("a", path.name, path).save("f\na\n", None)["ok"]
        assert path.read_bytes() == after


def test_an_error_that_names_a_file_names_that(path: Path) -> None:
    with pytest.raises(OSError, match=str(path.with_name("missing"))), naming(path):
        path.with_name("missing").read_bytes()


def test_where_nothing_can_be_put_beside_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: Any) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(os, "replace", busy)
    write_whole(path, "f")
    assert path.read_text() == "f"
    assert [*path.parent.iterdir()] == [path]


def test_a_device_is_written_to() -> None:
    write_whole(os.devnull, "a")
    assert not Path(os.devnull).is_file()


def test_one_writer_of_files_that_people_name() -> None:
    """But those of training, which write many gigabytes piece by piece into folders of their own."""
    root = Path(__file__).parent.parent
    own = {"blockdsl/files.py", "xt_blocks/train/checkpoint.py", "xt_blocks/train/mesh.py"}
    found = {
        str(path.relative_to(root))
        for package in ("blockdsl", "xt_blocks")
        for path in (root / package).rglob("*.py")
        if any(call in path.read_text(encoding="utf-8") for call in (".write_text(", ".write_bytes(", "os.replace("))
    }
    assert found <= own, found - own
