"""What `miue cache` shows and deletes, and what it leaves alone."""

import os
import tarfile
import time

import pytest
from typer.testing import CliRunner

from miue import cli
from miue.data import archives, decoding
from miue.poisons import perturb
from miue.storage import keeping
from miue.storage.cache import cached
from miue.storage.checkpoint import Checkpoint
from miue.storage.files import atomic, cache_dir, cache_locked
from miue.victim import train_victim

DAY = 24 * 3600


def key(number):
    return f"{number:032x}"


def put(place, text="12345", days=0.0):
    """A file in the cache, that many days old."""
    file = cache_dir() / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    os.utime(file, (time.time() - days * DAY,) * 2)
    return file


@pytest.fixture
def kept():
    """One thing of every kind, none of it younger than two days."""
    return {
        "perturbations": put(f"poison/{key(1)}-4.safetensors", days=40),
        "victims": put(f"victim/{key(2)}.safetensors", days=40),
        "images": put(f"images/{key(3)}.npy", days=40),
        "unpacked": put(f"unpacked/{key(4)}/train/a.png", days=40),
        "bench": put(f"bench/{key(5)}.json", days=40),
        "checkpoints": put(f"victim/{key(6)}.parts/main.safetensors", days=40),
        "damaged": put(f"victim/{key(7)}.damaged", days=40),
        "remains": put(f"victim/.{key(8)}.safetensors.ab.part", days=40),
    }


def test_what_the_package_keeps_is_known_by_its_kind(images, image_folder, tmp_path):
    """Made by the package itself, so that a change of where it keeps things is seen here."""
    poison = perturb(images, "random")
    train_victim(poison.apply(images), model="linear", recipe="quick", epochs=1)
    decoding.read_folder(image_folder / "train", 16, "pets")
    with tarfile.open(tmp_path / "pets.tar", "w") as tar:
        tar.add(image_folder, "pets")
    archives.unpacked(tmp_path / "pets.tar")
    found = {total.kind: total.files for total in keeping.totals(keeping.entries())}
    assert found == {"perturbations": 1, "victims": 1, "images": 2 + 2, "unpacked": 18}


def test_a_stopped_computation_leaves_a_checkpoint():
    class Text:
        def save(self, path):
            raise AssertionError

        @classmethod
        def load(cls, path):
            raise FileNotFoundError

    def stopped(keep: Checkpoint):
        keep.hold(rows=[1])
        keep.save(1)
        raise KeyboardInterrupt

    Text.__name__ = "Victim"
    with pytest.raises(KeyboardInterrupt):
        cached(Text, stopped, "a victim", seed=1)
    (left,) = keeping.entries()
    assert left.kind == "checkpoints" and left.lock.exists() and not keeping.busy(left)


def test_every_kind_is_shown_and_can_be_cleared_alone(miue, kept):
    code, out, _ = miue("cache", "show")
    assert code == 0 and [line.split()[:4] for line in out.splitlines()[2:-1]] == [
        [kind, "1", "5", "bytes"] for kind in keeping.KINDS
    ]
    for kind, file in kept.items():
        code, out, _ = miue("cache", "clear", "--kind", kind, "--yes")
        assert code == 0 and "freed: 5 bytes" in out and not file.exists()
        assert {entry.kind for entry in keeping.entries()} == {k for k, f in kept.items() if f.exists()}
    assert keeping.entries() == [] and not (cache_dir() / "unpacked" / key(4)).exists()
    assert list(cache_dir().rglob("*.part")) == []


def test_only_what_is_old_enough_goes(miue, kept):
    young = put(f"victim/{key(20)}.safetensors", days=2)
    code, _, _ = miue("cache", "clear", "--kind", "victims", "--older-than", "30d", "--yes")
    assert code == 0 and young.exists() and not kept["victims"].exists() and kept["perturbations"].exists()
    miue("cache", "clear", "--kind", "victims", "--older-than", "47h", "--yes")
    assert not young.exists()


def test_a_dry_run_tells_and_deletes_nothing(miue, kept):
    code, out, _ = miue("cache", "clear", "--kind", "victims", "--kind", "bench", "--dry-run")
    told = [line.split()[0] for line in out.splitlines()]
    assert code == 0 and told == ["cache:", "kind", "victims", "bench", "all", "nothing"]
    assert all(file.exists() for file in kept.values())


@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, False), ("n", 1, True), ("", 1, True)])
def test_it_asks_before_it_deletes(kept, answer, code, left):
    asked = CliRunner().invoke(cli.app, ["cache", "clear", "--kind", "bench"], input=answer)
    assert "delete all of this?" in asked.output and asked.exit_code == code
    assert kept["bench"].exists() == left


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kind", "victim"], "--kind: 'victim' does not exist; choose one of perturbations, victims, images"),
        (["--older-than", "30"], "--older-than: '30'; write a whole number and h, d or w: 12h, 30d, 4w"),
        (["--older-than", "-3d"], "--older-than: '-3d'; write"),
    ],
)
def test_what_cannot_be_cleared_is_refused(miue, kept, words, message):
    code, _, err = miue("cache", "clear", *words, "--yes")
    assert code == 2 and message in err and all(file.exists() for file in kept.values())


def test_what_another_process_is_making_stays(miue, kept):
    result = kept["victims"].with_name(f"{key(6)}.safetensors")
    with cache_locked(result, "a victim"):
        _, out, _ = miue("cache", "clear", "--kind", "checkpoints", "--kind", "bench", "--yes")
        assert "left alone, for another process is making them: 1" in out
        assert kept["checkpoints"].exists() and not kept["bench"].exists()
    miue("cache", "clear", "--kind", "checkpoints", "--yes")
    assert not kept["checkpoints"].exists()
    assert (cache_dir() / "victim" / f"{key(6)}.safetensors.lock").exists()  # somebody may wait for it


def test_an_unfinished_file_without_a_lock_may_still_be_written():
    with atomic(cache_dir() / "bench" / f"{key(1)}.json"):
        (part,) = keeping.entries()
        assert part.kind == "remains" and keeping.clear([part]) == [] and part.path.exists()


def test_files_of_the_users_own_are_no_cache(miue, monkeypatch, tmp_path):
    monkeypatch.setenv("MIUE_CACHE", str(tmp_path))
    own = [put("images/holiday.npy"), put(f"results/{key(1)}.npy"), put("bench.json"), put("images/deadbeef.npy")]
    kept = put(f"images/{key(2)}.npy")
    miue("cache", "clear", "--yes")
    assert all(file.exists() for file in own) and not kept.exists()


def test_a_link_goes_and_what_it_leads_to_stays(miue, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "image.png").touch()
    (cache_dir() / "unpacked").mkdir(parents=True)
    link = cache_dir() / "unpacked" / key(1)
    link.symlink_to(elsewhere)
    miue("cache", "clear", "--yes")
    assert not os.path.lexists(link) and (elsewhere / "image.png").exists()
