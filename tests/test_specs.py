import pytest

from miue import specs
from miue.errors import InputError
from miue.specs import pairs, parse


def test_a_name_and_its_options_are_read_from_one_word():
    assert parse("em") == ("em", {})
    assert parse("em:scope=class:steps=1") == ("em", {"scope": "class", "steps": 1})
    assert parse("adversarial_training:epsilon=4/255") == ("adversarial_training", {"epsilon": 4 / 255})
    assert parse("x:a=true:b=none:c=-1e-3") == ("x", {"a": True, "b": None, "c": -1e-3})
    assert parse("em:scope=class", {"steps": 1}) == ("em", {"scope": "class", "steps": 1})


@pytest.mark.parametrize(
    ("spec", "changes", "message"),
    [
        ("em:scope", {}, "em:scope: 'scope'; write it as NAME=VALUE"),
        ("em:scope=", {}, "em:scope=: 'scope='; write it as NAME=VALUE"),
        ("em:steps=1:steps=2", {}, "em:steps=1:steps=2: steps is given twice, 1 and 2; give it once"),
        ("em:steps=1", {"steps": 2}, "em:steps=1: steps is given a second time, as 2"),
    ],
)
def test_what_is_not_so_written_is_refused(spec, changes, message):
    with pytest.raises(InputError) as caught:
        parse(spec, changes)
    assert str(caught.value) == message


def test_pairs_say_where_they_stood():
    assert pairs(["a=1", "b=word"], "--set") == {"a": 1, "b": "word"}
    with pytest.raises(InputError, match="--set: '=1'; write it as NAME=VALUE"):
        pairs(["=1"], "--set")


def test_own_files_are_named_from_the_top_of_their_checkout(tmp_path):
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / ".git").touch()
    assert specs.portable(f"{tmp_path}/a/deep/own.py:Loop:steps=3") == "a/deep/own.py:Loop:steps=3"
    assert specs.portable("em:scope=class") == "em:scope=class"
