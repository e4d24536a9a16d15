"""Checkpoints: what is restored is exact, whatever is held, and a bad disk costs the checkpoint alone."""

import errno

import pytest
import torch
from torch import nn

from miue.storage import checkpoint, tensors
from miue.storage.checkpoint import Checkpoint


def walk(folder, steps=6, stop=None):
    """A computation with a network, an optimizer, a schedule, a tensor, a generator and a list; stop after `stop`."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(network.parameters(), 0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
    generator, delta, rows = torch.Generator().manual_seed(1), torch.zeros(3, dtype=torch.int8), []
    keep = Checkpoint(folder)
    keep.hold(network=network, optimizer=optimizer, scheduler=scheduler, generator=generator, delta=delta, rows=rows)
    for step in range(keep.restore() + 1, steps + 1):
        loss = network(torch.randn(5, 3, generator=generator)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        delta += 1
        rows.append({"step": step, "loss": loss.item()})
        keep.save(step)
        if step == stop:
            break
    return rows, delta, [weight.detach() for weight in network.state_dict().values()]


def same(one, other):
    return (
        one[0] == other[0]
        and torch.equal(one[1], other[1])
        and all(torch.equal(a, b) for a, b in zip(one[2], other[2], strict=True))
    )


@pytest.mark.parametrize("stop", [1, 3, 5, 6])
def test_a_stopped_computation_ends_like_one_that_was_not(tmp_path, stop, monkeypatch):
    monkeypatch.setattr(checkpoint, "MOST", 1e9)
    whole = walk(None)
    walk(tmp_path / "a", stop=stop)
    assert Checkpoint(tmp_path / "a").restore() == stop
    assert same(walk(tmp_path / "a"), whole)


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert same(walk(None), walk(None)) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("harm", [lambda b: b[: len(b) // 2], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b""])
def test_a_damaged_checkpoint_is_named_and_the_computation_starts_anew(tmp_path, harm, capsys):
    walk(tmp_path, stop=3)
    file = tmp_path / "main.safetensors"
    file.write_bytes(harm(file.read_bytes()))
    assert same(walk(tmp_path), walk(None))
    assert "starts anew" in capsys.readouterr().err


def test_what_was_left_half_written_goes_at_the_next_start(tmp_path):
    walk(tmp_path, stop=1)
    left = tmp_path / ".main.safetensors.abc.part"
    left.write_bytes(b"half")
    assert Checkpoint(tmp_path).restore() == 1 and not left.exists()


def test_a_checkpoint_that_cannot_be_read_now_is_not_thrown_away(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EIO, "Input/output error")

    walk(tmp_path, stop=1)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output"):
        patch.setattr(tensors, "load", refuse)
        walk(tmp_path)
    assert Checkpoint(tmp_path).restore() == 1


def test_parts_have_files_of_their_own_and_go_together(tmp_path):
    keep, value = Checkpoint(tmp_path / "x"), torch.zeros(2)
    for part in (keep, keep.part("source")):
        part.hold(value=value)
        part.save(1)
    assert len(list((tmp_path / "x").iterdir())) == 2
    keep.forget()
    assert not (tmp_path / "x").exists()


def test_a_full_disk_costs_the_checkpoint_and_not_the_computation(tmp_path, monkeypatch, capsys):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensors, "save", full)
    assert same(walk(tmp_path), walk(None))
    assert "no checkpoint of step 1 ([Errno 28] No space left on device)" in capsys.readouterr().err


def test_a_full_disk_for_progress_too_costs_nothing_more(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("MIUE_PROGRESS", "/dev/full")
    monkeypatch.setattr(tensors, "save", full)
    assert same(walk(tmp_path), walk(None))


def test_saving_takes_no_more_than_its_share_of_the_time_but_the_last_step_is_kept(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    written = []

    def slow(path, stored, record):
        written.append((now[0], record["done"]))
        now[0] += 1.0  # each file takes a second

    monkeypatch.setattr(tensors, "save", slow)
    keep = Checkpoint(tmp_path)
    for step in range(1, 100):
        now[0] += 1.0
        keep.save(step)
    keep.save(100, last=True)
    assert [step for _, step in written] == [1, 21, 41, 61, 81, 100]


def test_the_seconds_of_before_count(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(checkpoint.time, "perf_counter", lambda: now[0])
    keep = Checkpoint(tmp_path)
    now[0] = 160.0
    keep.part("source").save(1)
    now[0] = 1000.0
    later = Checkpoint(tmp_path)
    now[0] = 1005.0
    later.part("source").restore()
    assert later.seconds == 65.0


def test_momentum_comes_back_in_the_memory_format_of_its_weights(tmp_path):
    def begin():
        network = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        return network, torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)

    def strides(network, optimizer):
        return [optimizer.state[weight]["momentum_buffer"].stride() for weight in network.parameters()]

    network, optimizer = begin()
    network(torch.randn(2, 3, 5, 5).to(memory_format=torch.channels_last)).sum().backward()
    optimizer.step()
    one, other = Checkpoint(tmp_path), Checkpoint(tmp_path)
    one.hold(optimizer=optimizer)
    one.save(1)
    again, restored = begin()
    other.hold(optimizer=restored)
    other.restore()
    assert strides(again, restored) == strides(network, optimizer) == [weight.stride() for weight in again.parameters()]


def test_two_objects_of_one_name_are_refused():
    keep = Checkpoint()
    keep.hold(noise=[])
    with pytest.raises(KeyError, match="two objects are held as .'noise'."):
        keep.hold(noise=[])
