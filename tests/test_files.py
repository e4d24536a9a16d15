"""Errors of the disk name the file that was wanted, and say what would help; nothing is left behind."""

import errno
import os

import pytest

from miue.errors import InputError
from miue.storage.files import Unwritable, atomic, check_writable


def fail(number):
    def failing(*args, **kwargs):
        raise OSError(number, os.strerror(number), str(kwargs.get("dir", "")) + "/.a.csv.abc.part")

    return failing


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EROFS, "read-only file system in .*; give a file in a folder that can be written"),
        (errno.EACCES, "permission denied in .*; give a file in a folder that can be written"),
        (errno.ENOSPC, "the disk of .* is full; free some space"),
    ],
)
def test_a_folder_that_takes_no_file_is_named_with_the_file(tmp_path, monkeypatch, number, message):
    monkeypatch.setattr("tempfile.mkstemp", fail(number))
    with (
        pytest.raises(Unwritable, match=rf"^{tmp_path}/a\.csv cannot be written: {message}") as caught,
        atomic(tmp_path / "a.csv"),
    ):
        pass
    assert ".part" not in str(caught.value) and "Errno" not in str(caught.value) and caught.value.errno == number


def test_a_disk_that_fills_while_a_file_is_written_is_named_with_the_file(tmp_path):
    with (
        pytest.raises(Unwritable, match=r"a\.csv cannot be written: the disk of .* is full"),
        atomic(tmp_path / "a.csv"),
        open("/dev/full", "w") as full,
    ):
        full.write("x" * 100_000)
    assert list(tmp_path.iterdir()) == []


def test_errors_about_other_files_stay_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"other\.csv"), atomic(tmp_path / "a.csv"):
        (tmp_path / "other.csv").read_text()


@pytest.mark.parametrize("write", [lambda path: atomic(path).__enter__(), check_writable])
def test_a_folder_or_a_file_in_the_way_is_named(tmp_path, write):
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken").write_text("a file")
    with pytest.raises((Unwritable, InputError), match="taken is a file and no folder"):
        write(tmp_path / "taken" / "deep" / "a.csv")
    with pytest.raises((Unwritable, InputError), match="its name is too long"):
        write(tmp_path / ("a" * 300))


def test_asking_whether_a_file_can_be_written_leaves_nothing(tmp_path):
    check_writable(tmp_path / "deep" / "er" / "a.csv")
    with pytest.raises(InputError, match="out: .*folder cannot be written: it is a folder; give the name of a file"):
        (tmp_path / "folder").mkdir()
        check_writable(tmp_path / "folder")
    with pytest.raises(InputError, match="out: /proc/none/a.csv cannot be written"):
        check_writable("/proc/none/a.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"] and not any((tmp_path / "folder").iterdir())
