"""What a sweep says: starts, ends, where each run is, and how long it will take."""

from miue.sweeps import lines
from miue.sweeps.order import Order, Report
from miue.sweeps.spec import Planned


def test_a_line_for_each_start_and_end_and_the_last_line_of_what_runs(tmp_path, capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(lines.time, "monotonic", lambda: clock[0])
    runs = [Planned(n, {}, {"n": n, "seeds": [0, 1], "epsilon": 0.5}) for n in (1, 2, 3, 4)]
    common = {"template": "", "parameters": {}, "out": "", "timeout": 1, "limit": 1, "environment": {}}
    orders = [Order(number=n, log=str(tmp_path / f"{n}.log"), **common) for n in (2, 3, 4)]
    told = lines.Lines(runs, orders, tmp_path)

    def said(*calls):
        for call in calls:
            call()
        return capsys.readouterr().err.splitlines()

    assert said(told.look) == []
    (tmp_path / "2.log").write_text("surrogate epochs 1/7\n\n")
    assert said(told.look) == ["run 2 of 4 started: n=2 seeds=0,1 epsilon=0.5"]
    assert said(told.look) == []  # it is early yet
    clock[0] = 20.0
    assert said(told.look) == ["  run 2: surrogate epochs 1/7"]
    clock[0] = 40.0
    assert said(told.look) == []  # nothing new
    clock[0] = 100.0
    assert said(lambda: told.end(Report(2))) == ["run 2 of 4 done in 2 min (2 of 4 done, about 3 min left)"]
    assert told.look() == [] and "2.log" in {log.name for log in tmp_path.iterdir()}
    (tmp_path / "4.log").touch()
    told.look()
    clock[0] = 160.0
    expected = "run 4 of 4 failed: no good (2 of 4 done, 1 failed, about 80 s left)"
    assert said(lambda: told.end(Report(4, error="no good")))[-1] == expected
