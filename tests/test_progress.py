import io
import sys
from types import SimpleNamespace

import pytest

from miue import progress


@pytest.fixture
def chatty(monkeypatch):
    monkeypatch.setenv("MIUE_PROGRESS_SECONDS", "0.0000001")


def test_what_is_quick_says_nothing(capsys):
    assert list(progress.track([1, 2, 3], "counting")) == [1, 2, 3]
    assert capsys.readouterr().err == ""


def test_plain_lines_where_no_terminal_is(capsys, chatty):
    list(progress.track(iter("ab"), "letters", total=2))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" · ")[0] for line in lines] == ["letters 1/2", "letters 2/2"]
    assert lines[0].endswith(" 0 s left")


def test_a_kernel_writes_to_the_file_it_was_given(capsys, chatty, monkeypatch, tmp_path):
    monkeypatch.setenv("MIUE_PROGRESS", str(tmp_path / "log"))
    list(progress.track([1], "one"))
    assert (tmp_path / "log").read_text().startswith("one 1/1")
    assert capsys.readouterr().err == ""


def test_loops_inside_loops_are_named_together_with_what_the_innermost_was_told(capsys, chatty):
    def epochs():
        for _ in range(2):
            progress.tell(loss=0.3123, images=1000)
            yield

    for _ in progress.track("ab", "trials"):
        list(progress.track(epochs(), "surrogate, epochs", 2))
    lines = capsys.readouterr().err.splitlines()
    place, _, loss, speed = next(line for line in lines if "epochs 1/2" in line).split(" · ", 1)[1].split(" · ")
    assert lines[1].startswith("trials 0/2 · surrogate, epochs")
    assert (place, loss) == ("surrogate, epochs 1/2", "loss 0.312") and speed.endswith(" images/s")
    assert lines[-1].startswith("trials 2/2 · ") and "loss" not in lines[-1]


def test_all_loops_together_keep_the_pause_between_lines(capsys, monkeypatch):
    now = iter(range(10_000))
    clock = SimpleNamespace(monotonic=lambda: float(next(now)))  # every look at it takes 1 s
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(progress, "_shown", progress._Shown())
    for _ in progress.track(range(10), "outer"):
        for _ in progress.track(range(10), "inner"):
            progress.tell(loss=1.0)
    looks, lines = next(now), capsys.readouterr().err.splitlines()
    assert 10 < len(lines) <= looks / progress.SECONDS_BETWEEN_LINES


def test_what_was_done_before_counts_as_done_and_takes_no_time(capsys, chatty):
    def rest():
        progress.skip(7)
        yield from (8, 9, 10)

    list(progress.track(rest(), "epochs", 10))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" · ")[0] for line in lines] == ["epochs 8/10", "epochs 9/10", "epochs 10/10"]


def test_a_loop_that_is_left_or_breaks_is_forgotten(capsys, chatty):
    for _ in progress.track(range(3), "left"):
        break
    with pytest.raises(ZeroDivisionError):
        list(progress.track((1 // n for n in (1, 0)), "breaks"))
    capsys.readouterr()
    progress.tell(loss=1.0)
    list(progress.track([1], "alone"))
    assert capsys.readouterr().err.startswith("alone 1/1")


def test_a_terminal_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(progress, "tqdm", lambda items, **how: _Bar(items, told))
    told: list[str] = []
    for _ in progress.track(range(2), "steps"):
        progress.tell(loss=0.5)
    assert "loss 0.5" in told and sys.stderr.getvalue() == ""


class _Bar(list):
    def __init__(self, items, told):
        super().__init__(items)
        self.set_postfix_str = lambda text, refresh: told.append(text)


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (89, "89 s"), (300, "5 min"), (9000, "2.5 h")])
def test_durations_are_written_as_one_says_them(seconds, words):
    assert progress.duration(seconds) == words
