"""Nothing that is loaded can run code, leave its folder, fill the disk, or speak in the name of the program."""

import io
import json
import lzma
import os
import pickle
import stat
import tarfile
import time
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from samples import some_images
from torchvision import datasets

import miue
from miue.data import archives
from miue.errors import InputError
from miue.poisons import Poison, foreign, perturb
from miue.storage import tensors
from miue.storage.files import cache_dir


class Bomb:
    """What unpickling this runs leaves a file behind."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return open, (self.target, "w")


@pytest.fixture
def bomb(tmp_path):
    """A pickle that goes off when it is loaded; at the end it must not have."""
    target = tmp_path / "executed"
    content = pickle.dumps(Bomb(target))
    pickle.loads(content).close()
    assert target.exists()
    target.unlink()
    yield Bomb(target)
    assert not target.exists()


@pytest.fixture
def command(miue):
    """Call the command line; return exit code and errors."""
    return lambda *words: miue(*words)[::2]


# Files of perturbations


@pytest.mark.parametrize("name", ["zipped.pt", "legacy.pth", "plain.pt", "array.npy", "plain.npy", "plain.safetensors"])
def test_pickles_are_not_adopted(bomb, command, image_folder, tmp_path, name):
    file = tmp_path / name
    if name == "zipped.pt":
        torch.save({"noise": bomb}, file)
    elif name == "legacy.pth":
        torch.save(bomb, file, _use_new_zipfile_serialization=False)
    elif name == "array.npy":
        np.save(file, np.array([bomb], dtype=object), allow_pickle=True)
    else:
        file.write_bytes(pickle.dumps(bomb, protocol=2))
    data = ["--data", f"folder:{image_folder}", "--size", 16]
    code, told = command("adopt", file, *data, "--trust-order", "--out", tmp_path / "own.safetensors")
    assert code == 2 and f"{name} is damaged, or holds objects that only running code could restore" in told
    harmless = tmp_path / "harmless.npy"
    np.save(harmless, np.full((48, 3, 8, 8), -1, np.int8))
    with pytest.raises(InputError, match=f"{name} is damaged, or holds objects that only running code could restore"):
        foreign.read(harmless, some_images(), scale="levels", labels=file)
    code, told = command("train", *data, "--poison", file)
    assert code == 2 and f"{name} is damaged or no perturbation file of miue" in told
    assert not (tmp_path / "own.safetensors").exists()


def safetensors(header, data=b"\0" * 64):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(begin, end, shape=(8,), dtype="I8"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


HEADERS = {
    "longer than the file": (2**62).to_bytes(8, "little") + b"{}",
    "no JSON": safetensors(b"\xff" * 40),
    "a list": safetensors([1, 2]),
    "nested": safetensors(b'{"a":' + b"[" * 100_000),
    "overlapping": safetensors({"delta": entry(0, 8), "ids": entry(4, 12)}, b"\0" * 12),
    "with a hole": safetensors({"delta": entry(0, 8), "ids": entry(16, 24)}, b"\0" * 24),
    "beyond the end": safetensors({"delta": entry(0, 2**40, (2**40,))}),
    "negative": safetensors({"delta": entry(-8, 0)}),
    "overflowing": safetensors({"delta": entry(0, 64, (2**32, 2**32, 2**32))}),
    "of another size": safetensors({"delta": entry(0, 64, (2**40,))}),
    "with a record that is nested": safetensors({"__metadata__": {"miue": "[" * 100_000, "digest": "0" * 32}}, b""),
    "with a record that is no text": safetensors({"__metadata__": {"miue": {"a": 1}}}, b""),
}


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
def test_hostile_headers_are_refused(content, images, tmp_path):
    file = tmp_path / "a.safetensors"
    file.write_bytes(content)
    began = time.process_time()
    with pytest.raises(InputError, match=r"a\.safetensors is damaged or no perturbation file of miue"):
        Poison.read(file)
    with pytest.raises(InputError):
        foreign.read(file, images, trust_order=True)
    assert time.process_time() - began < 5


def test_the_record_of_a_file_is_shown_as_text_in_one_line(images, tmp_path):
    record = {"data": {"data": "\n\x1b[2Jall is well<script>alert(1)</script>", "content_hash": "../../../etc/passwd"}}
    made = perturb(images, "random", cache=False)
    for hostile in (record, {"data": ["\n"]}, {"data": "\n"}, {}):
        tensors.save(tmp_path / "a", {k: getattr(made, k) for k in ("delta", "ids", "fingerprints")}, hostile)
        poison = Poison.read(tmp_path / "a")
        assert poison.record == hostile and torch.equal(poison.apply(images).x, made.apply(images).x)
        with pytest.raises(InputError) as refused:
            poison.apply(some_images(seed=5))
        assert str(refused.value).isprintable()
    assert "content hash unknown, unknown" in str(refused.value)


def test_arrays_that_claim_to_be_larger_than_they_are_take_no_memory(images, tmp_path):
    header = np.lib.format.header_data_from_array_1_0(np.zeros(1, np.int8)) | {"shape": (2**50,)}
    with (tmp_path / "a.npy").open("wb") as out:
        np.lib.format.write_array_header_1_0(out, header)
    with (tmp_path / "b.npy").open("wb") as out:
        out.write(b"\x93NUMPY\x02\x00" + (2**32 - 1).to_bytes(4, "little") + b"{" * 1000)
    for name in ("a.npy", "b.npy"):
        with pytest.raises(InputError, match=f"{name} is damaged"):
            foreign.read(tmp_path / name, images, trust_order=True)


# Archives


def tar_of(*members, mode="w"):
    """The bytes of a tar file: members are names, or TarInfo objects with or without content."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as out:
        for member in members:
            info, content = member if isinstance(member, tuple) else (member, b"x")
            if isinstance(info, str):
                info = tarfile.TarInfo(info)
                info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return file.getvalue()


def special(kind, name="pets/train/cats/0.png", target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def zip_of(name, mode=stat.S_IFREG):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        info = zipfile.ZipInfo(name)
        info.external_attr = (mode | 0o644) << 16
        out.writestr(info, b"/etc/passwd")
    return file.getvalue()


OUTSIDE = "lies outside of its folder"
SPECIAL = "is neither a folder nor an ordinary file"
ATTACKS = {
    "traversal": (tar_of("a.png", "pets/../../escaped"), OUTSIDE),
    "absolute": (tar_of("a.png", "/tmp/escaped"), OUTSIDE),
    "backslashes": (tar_of("a.png", "..\\escaped"), OUTSIDE),
    "symlink out": (tar_of("a.png", special(tarfile.SYMTYPE, target="../../..")), SPECIAL),
    "write through a symlink": (tar_of(special(tarfile.SYMTYPE, "pets", "/tmp"), "pets/escaped"), SPECIAL),
    "hard link": (tar_of("a.png", special(tarfile.LNKTYPE, target="/etc/passwd")), SPECIAL),
    "device": (tar_of("a.png", special(tarfile.CHRTYPE)), SPECIAL),
    "pipe": (tar_of("a.png", special(tarfile.FIFOTYPE)), SPECIAL),
    "zip traversal": (zip_of("../escaped"), OUTSIDE),
    "zip absolute": (zip_of("/tmp/escaped"), OUTSIDE),
    "zip symlink": (zip_of("pets", stat.S_IFLNK), SPECIAL),
    "cut off": (tar_of("a.png", "b.png")[:600], "damaged or no archive"),
    "no archive": (b"nothing" * 100, "damaged or no archive"),
    "no zip": (b"PK nothing" * 100, "damaged or no archive"),
    "cut off in the middle": (tar_of(("a.png", os.urandom(50_000)), mode="w:gz")[:-9000], "damaged or no archive"),
}


def left(folder):
    """Everything under `folder` other than locks and notes."""
    return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and p.suffix not in (".lock", ".key"))


@pytest.mark.parametrize(("content", "reason"), ATTACKS.values(), ids=ATTACKS)
def test_archives_cannot_leave_their_folder(content, reason, tmp_path):
    archive = tmp_path / ("pets.zip" if content.startswith(b"PK") else "pets.tar")
    archive.write_bytes(content)
    before = left(tmp_path)
    with pytest.raises(InputError, match=reason) as refused:
        miue.load(f"folder:{archive}", size=16)
    assert left(tmp_path) == before and str(refused.value).isprintable()
    assert not list(cache_dir().glob("unpacked/*/")) and not os.path.exists("/tmp/escaped")


def test_archives_that_would_fill_the_disk_are_refused(tmp_path):
    large = tarfile.TarInfo("pets/large.png")
    large.size = 4_000_000
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as out:
        out.addfile(large, io.BytesIO(b"\0" * large.size))
    (tmp_path / "one.tar.gz").write_bytes(packed.getvalue())
    (tmp_path / "many.tar.xz").write_bytes(lzma.compress(tar_of(*[(f"pets/{n}.png", b"") for n in range(500)])))
    with zipfile.ZipFile(tmp_path / "one.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("pets/large.png", b"\0" * large.size)
    for name in ("one.tar.gz", "many.tar.xz", "one.zip"):
        assert (tmp_path / name).stat().st_size < 60_000
        with pytest.raises(InputError, match="it takes more than 0.001 GB, all that it may take of the disk"):
            archives.unpack(tmp_path / name, tmp_path / "out", limit=1_000_000)
        assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
        archives.unpack(tmp_path / name, tmp_path / "out", limit=20_000_000)
        assert sum(file.stat().st_size for file in (tmp_path / "out").rglob("*.png")) in (0, large.size)
        archives.shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize("size", [2**21, -512])
def test_headers_that_would_fill_the_memory_are_refused(tmp_path, size):
    """A header may stand for a longer one, which the library reads whole, and which packs to next to nothing."""
    header = tarfile.TarInfo("pax")
    header.type = tarfile.XHDTYPE
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    block[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(block))[0]
    (tmp_path / "a.tar").write_bytes(bytes(block) + b"\0" * 2**21)
    with pytest.raises(InputError, match=f"a header of {size} bytes"):
        archives.unpack(tmp_path / "a.tar", tmp_path / "out")


# Images


def test_class_folders_and_files_may_have_any_name(tmp_path, command):
    names = ["-rf", "a\nb", "<script>alert(1)</script>", "$HOME", "{x} %s", "猫", "'; DROP TABLE cats --"]
    for number, name in enumerate(names):
        folder = tmp_path / "set\n<b>" / name.replace("/", "\u2044")
        folder.mkdir(parents=True)
        for copy in range(5):
            file = ["--help.png", "\n.png", "<img src=x>.png", "\x1b[31m.png", "\u202e.png"][copy]
            Image.new("RGB", (16, 16), (40 * number, copy, 0)).save(folder / file)
    os.mkdir(bytes(tmp_path / "set\n<b>") + b"/\xff\xfe")
    for copy in range(5):
        Image.new("RGB", (16, 16), (0, 0, copy)).save(
            os.fsdecode(bytes(tmp_path) + b"/set\n<b>/\xff\xfe/%d.png" % copy)
        )
    train, test = miue.load(f"folder:{tmp_path}/set\n<b>", size=16)
    assert (len(train), len(test), len(train.classes)) == (32, 8, 8)
    assert all(name.isprintable() for name in (train.name, *train.classes, repr(train)))
    assert json.loads(json.dumps(train.record()))["data"] == "folder set\\n<b>, 16 px"
    made = perturb(train, "random", cache=False)
    made.save(tmp_path / "own")
    assert Poison.load(tmp_path / "own").part(train, classes=["-rf", "a\\nb"]).apply(train).content_hash
    broken = tmp_path / "set\n<b>" / "-rf" / "\nmiue: all is well.png"
    broken.write_bytes(b"no image")
    code, told = command("train", "--data", f"folder:{tmp_path}/set\n<b>", "--size", 16)
    assert code == 2 and "\\nmiue: all is well.png cannot be read as an image" in told
    assert all(line.startswith(("miue: data", "hashing", "decoding")) for line in told.splitlines())


def test_only_images_are_decoded_whatever_a_file_is_called(image_folder, monkeypatch):
    """PostScript would be handed to another program, and an image may unpack to more than memory holds."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *words, **more: pytest.fail("a program was started"))
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\n(x) run\n%%EOF\n"
    Image.open(io.BytesIO(postscript)).close()  # the library would take it
    size = (70_000).to_bytes(4, "big") * 2
    bomb = io.BytesIO()
    Image.new("RGB", (1, 1)).save(bomb, "PNG")
    head = bomb.getvalue()
    chunk = b"IHDR" + size + head[24:29]
    huge = head[:12] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + head[33:]
    broken = image_folder / "train" / "dogs" / "1.png"
    for content in (postscript, huge, b"GIF89a" + b"\0" * 50, b""):
        broken.write_bytes(content)
        with pytest.raises(InputError, match=r"dogs/1\.png cannot be read as an image"):
            miue.load(f"folder:{image_folder}", size=16)


def test_a_pipe_among_the_images_does_not_block(image_folder):
    os.mkfifo(image_folder / "train" / "cats" / "9.png")
    with pytest.raises(InputError, match=r"cats/9\.png is no ordinary file"):
        miue.load(f"folder:{image_folder}", size=16)


@pytest.mark.parametrize(("name", "folder"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
def test_the_pickles_of_cifar_are_opened_only_if_they_are_the_published_ones(
    name, folder, bomb, tmp_path, monkeypatch, capsys
):
    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    (tmp_path / folder).mkdir()
    for file, _ in [*kind.train_list, *kind.test_list, (kind.meta["filename"], None)]:
        (tmp_path / folder / file).write_bytes(pickle.dumps({"data": bomb, "labels": [0], "label_names": []}))

    def offline(*words, **more):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", offline)
    with pytest.raises(InputError, match="is neither in .* nor could it be downloaded"):
        miue.load(name, root=tmp_path)


# Parameters of runs and sweeps

TEXTS = {
    "quotes": "'\"'''\"\"\"",
    "a statement": "x'); import os; os._exit(3) #",
    "a new cell": "```\n\n```{code-cell} ipython3\nimport os; os._exit(3)\n```",
    "lines": "a\nimport os\r\nos._exit(3)\rx\x0bx\x0cx",
    "unicode lines": "a\u2028import os\u2029os._exit(3)\x85x",
    "braces": "{x} {0} {{}} %s %(x)s ${HOME} $(id) `id`",
    "backslashes": "\\\\ \\n \\' \\\\' \\N{BULLET} \\",
    "null and codes": "\x00\x1b[31m\x7f",
    "surrogate": "\ud800 \U0001f431 \u202e",
    "long": "x'" * 100_000,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_parameters_of_a_run_are_data(text):
    """The cell that is written for them gives the very same values, and does nothing else."""
    translators = pytest.importorskip("papermill.translators")
    values = {"data": text, "methods": [text, "em"], "n": 3}
    written = translators.PythonTranslator.codify(values)
    found = {}
    exec(compile(written, "cell", "exec"), {"__builtins__": {}}, found)
    assert found == values


def test_the_yaml_of_a_sweep_makes_no_objects(tmp_path):
    spec = pytest.importorskip("miue.sweeps.spec")
    target = tmp_path / "executed"
    for tag in (f"!!python/object/apply:os.mkdir ['{target}']", f"!!python/object/new:os.mkdir ['{target}']"):
        (tmp_path / "sweep.yaml").write_text(f"template: depth\ngrid:\n  seeds: {tag}\n")
        with pytest.raises(InputError):
            spec.read(tmp_path / "sweep.yaml")
    assert not target.exists()


def test_a_file_of_tensors_is_never_a_pickle(bomb, tmp_path):
    """A perturbation that is saved under a name of another kind is still read as what it should be."""
    torch.save({"delta": bomb}, tmp_path / "own.safetensors")
    with pytest.raises(tensors.Damaged):
        tensors.load(tmp_path / "own.safetensors")
    save_file({"noise": torch.ones(2, 3, 8, 8)}, tmp_path / "own.pt")
    with pytest.raises(InputError, match="is damaged, or holds objects"):
        foreign.read(tmp_path / "own.pt", some_images(n=2, classes=2), trust_order=True)
