"""Files of tensors: exact, readable by the library, and damage never goes unnoticed."""

import errno
import os
import resource

import pytest
import torch
from safetensors.torch import load_file

from miue.storage import tensors

TENSORS = {
    "int8": torch.tensor([-128, 0, 127], dtype=torch.int8),
    "bfloat16": torch.randn(3, 5).to(torch.bfloat16),
    "channels last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "none": torch.zeros(0, 3),
    "number": torch.tensor(7),
    "flag": torch.tensor([True, False]),
    "a view": torch.arange(10)[::3],
}


def test_what_is_read_is_what_was_written_and_the_library_reads_it_too(tmp_path, monkeypatch):
    monkeypatch.setattr(tensors, "CHUNK", 16)
    tensors.save(tmp_path / "a", TENSORS, {"text": 'ä "\n', "n": 0.1})
    found, record = tensors.load(tmp_path / "a")
    assert record == {"text": 'ä "\n', "n": 0.1} and found.keys() == TENSORS.keys()
    for name, tensor in load_file(tmp_path / "a").items():
        assert torch.equal(tensor, TENSORS[name]) and torch.equal(found[name], TENSORS[name]), name
        assert tensor.dtype == TENSORS[name].dtype


def test_writing_to_what_was_read_leaves_the_file_alone(tmp_path):
    tensors.save(tmp_path / "a", {"x": torch.zeros(5)}, {})
    tensors.load(tmp_path / "a")[0]["x"].fill_(3)
    assert float(tensors.load(tmp_path / "a")[0]["x"].sum()) == 0


def test_every_flipped_bit_and_every_cut_is_found(tmp_path):
    tensors.save(tmp_path / "a", {"x": torch.arange(4)}, {"n": 1})
    whole = (tmp_path / "a").read_bytes()
    for place in range(len(whole)):
        harmed = bytearray(whole)
        harmed[place] ^= 1 << (place % 8)
        (tmp_path / "a").write_bytes(harmed)
        with pytest.raises(tensors.Damaged):
            tensors.load(tmp_path / "a")
    for length in range(len(whole)):
        (tmp_path / "a").write_bytes(whole[:length])
        with pytest.raises(tensors.Damaged):
            tensors.load(tmp_path / "a")


def test_what_the_system_cannot_do_now_is_not_blamed_on_the_file(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    tensors.save(tmp_path / "a", {"x": torch.zeros(5)}, {})
    with monkeypatch.context() as patch, pytest.raises(OSError, match="Cannot allocate"):
        patch.setattr(tensors.memory, "mapped", refuse)
        tensors.load(tmp_path / "a")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    files, some = [], len(os.listdir("/proc/self/fd")) + 8
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (some, limit[1]))
        with pytest.raises(OSError) as found:
            while True:
                files.append(open(tmp_path / "a"))  # noqa: SIM115
        for left in range(3):  # no descriptor, one and two are left
            with pytest.raises(OSError) as found:
                tensors.load(tmp_path / "a")
            assert not isinstance(found.value, FileNotFoundError), left
            files.pop().close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        for file in files:
            file.close()
    assert tensors.load(tmp_path / "a")[0]["x"].shape == (5,)


def test_a_record_may_hold_what_looks_like_a_digest(tmp_path):
    tensors.save(tmp_path / "a", {}, {"text": "0" * 64})
    assert tensors.load(tmp_path / "a")[1] == {"text": "0" * 64}


def test_a_file_that_is_missing_is_not_damaged(tmp_path):
    with pytest.raises(FileNotFoundError):
        tensors.load(tmp_path / "none")
