"""What a sweep says: starts, ends, where each run is, and how long it will take."""

from types import SimpleNamespace

from miue.sweeps import record
from miue.sweeps.order import Report
from miue.sweeps.spec import Planned, Spec


def test_a_line_for_each_start_and_end_and_the_last_line_of_what_runs(tmp_path, capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(record.time, "monotonic", lambda: clock[0])
    runs = tuple(Planned(n, {}, {"n": n, "seeds": [0, 1], "epsilon": 0.5}) for n in (1, 2, 3, 4))
    (tmp_path / "a.yaml").touch()
    told = record.Record(tmp_path, Spec(tmp_path / "a.yaml", SimpleNamespace(name="small"), runs), {})
    told.skip(1, SimpleNamespace(folder=tmp_path / "run", metrics={}))

    def said(*calls):
        for call in calls:
            call()
        return capsys.readouterr().err.splitlines()

    assert said(told.look) == []
    told.log(2).write_text("surrogate epochs 1/7\n\n")
    assert said(told.look) == ["run 2 of 4 started: n=2 seeds=0,1 epsilon=0.5"]
    assert said(told.look) == []  # it is early yet
    clock[0] = 20.0
    assert said(told.look) == ["  run 2: surrogate epochs 1/7"]
    clock[0] = 40.0
    assert said(told.look) == []  # nothing new
    clock[0] = 100.0
    assert said(lambda: told.end(Report(2))) == ["run 2 of 4 done in 2 min (2 of 4 done, about 3 min left)"]
    assert said(told.look) == [] and told.log(2).exists()
    told.log(4).touch()
    told.look()
    clock[0] = 160.0
    expected = "run 4 of 4 failed: no good (2 of 4 done, 1 failed, about 80 s left)"
    assert said(lambda: told.end(Report(4, error="no good")))[-1] == expected
