from miue import progress


def test_what_is_quick_says_nothing(capsys):
    assert list(progress.track([1, 2, 3], "counting")) == [1, 2, 3]
    assert capsys.readouterr().err == ""


def test_plain_lines_where_no_terminal_is(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    list(progress.track(iter("ab"), "letters", total=2))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in lines] == ["letters: 1/2", "letters: 2/2"]
    assert "s left" in lines[0]


def test_a_kernel_writes_to_the_file_it_was_given(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("MIUE_PROGRESS", str(tmp_path / "log"))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    list(progress.track([1], "one"))
    assert (tmp_path / "log").read_text().startswith("one: 1/1")
    assert capsys.readouterr().err == ""
