"""What a protected copy protects against, measured: Imagenette at its own size, and two classes among a hundred.

    python benchmarks/protection.py DATA WORK [PART ...]

DATA holds imagenette224/{train,val} and tiny-imagenet32-jpeg.tar.xz. Rows go to book/results/records, one line each;
what is there is not measured again. WORK gets the folders of images (about 1 GB).

Parts: copy (make it; seconds, memory), audited (what `miue audit` finds, and how long that takes), sizes (victims at
64 px after handling; other methods, sizes and budgets beside the defaults), looks (what an audit sees), large (victims
at 224 px), trainers (other ways to train; adversarial training of such images is in the ladder on photographs),
backbone (features from other images), few (two classes among a hundred), stream (memory by the number of images),
limits (what reports say of it).
"""

import multiprocessing
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measured import Measured
from PIL import Image

import miue
from miue import audit, protect
from miue.audit.signs import signs
from miue.audit.victims import Trainer, accuracy, of_victim
from miue.data import photographs
from miue.data.images import Images
from miue.protect.handling import HANDLINGS, handled
from miue.publishing import leaderboard
from miue.publishing.quoting import quote, reported
from miue.storage import lines
from miue.storage.files import write_json
from miue.victim import Victim

ROWS = Path("book/results/records/protection-imagenette224.jsonl")
EACH, SEEDS = 200, (10, 11)  # images of each class, and seeds of victims
RECIPE = "quick:epochs=20"
VICTIM = "small_resnet:width=0.5"
COPIES: dict[str, dict[str, Any]] = {
    "copy": {},
    "straight stripes": {"method": "weave"},
    "straight stripes at 4/255": {"method": "weave", "epsilon": "4/255"},
    "copy by EM at 32 px": {"method": "em", "size": 32},
}
"""By name: what the settings of a copy have in place of the defaults."""
SHIPPED = "weave:drift=0.025"  # the default method
HARD = ("as published", "JPEG 75", "resized, then JPEG 50")


class Bench(Measured):
    """The rows that are there, the folders, and the images that victims are asked about."""

    def __init__(self, data: Path, work: Path) -> None:
        super().__init__(ROWS)
        self.data, self.work = data, work
        self.originals, self.whole = work / "originals", set[str]()
        if not self.originals.exists():
            for folder in sorted((data / "imagenette224" / "train").iterdir()):
                (work / "part" / folder.name).mkdir(parents=True, exist_ok=True)
                for file in sorted(folder.iterdir())[:EACH]:
                    shutil.copy(file, work / "part" / folder.name)
            (work / "part").rename(self.originals)

    def test(self, size: int) -> Images:
        """A hundred held-out photographs of each class."""
        return miue.load(f"folder:{self.data / 'imagenette224'}", size=size, n_train=20, n_test=1000)[1]

    def copied(self, what: str) -> Path:
        """The folder of one of `COPIES`; what is not there of it is made."""
        out = self.work / what.replace("/", " of ")
        if what not in self.whole:
            protect.images(self.originals, out, seed=1, **COPIES[what])
            self.whole.add(what)
        return out

    def images(self, what: str, handling: str, size: int) -> Images:
        """All originals or copies, as training sees them."""
        folder = self.originals if what == "originals" else self.copied(what) / "publish"
        found = photographs.find(folder)
        jobs = [(label, file) for label, files in enumerate(found.files.values()) for file in files]
        pixels = [handled(photographs.read(folder / file).picture, handling, size) for _, file in jobs]
        labels = torch.tensor([label for label, _ in jobs])
        return Images(torch.from_numpy(np.stack(pixels)), labels, list(found.files), name=what, layout="nchw")


def victim(images: Callable[[], Images], test: Images, seed: int, **how: Any) -> dict[str, Any]:
    """A small residual network trained on images, which are read now, and asked about others."""
    shown, how = images(), {"model": VICTIM, "recipe": RECIPE} | how
    trained = miue.train_victim(shown, test, seed=seed, cache=False, **how)
    return {"accuracy": trained.accuracy, "train_accuracy": trained.history[-1].train_accuracy, "n": len(shown)}


def copy(bench: Bench) -> None:
    """The copy itself, by the command's defaults."""

    def make() -> dict[str, Any]:
        shutil.rmtree(bench.work / "copy", ignore_errors=True)
        made = protect.images(bench.originals, bench.work / "copy", seed=1)
        psnr = [row["psnr"] for row in made.rows]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        settings = {name: getattr(made.settings, name) for name in ("method", "epsilon", "size")}
        return {"images": len(made.rows), "psnr": float(np.mean(psnr)), "peak_mib": round(peak), "settings": settings}

    bench.measure(make, part="copy")


def audited(bench: Bench) -> None:
    """The audit of the copy against its originals, by the command's defaults."""

    def one() -> dict[str, Any]:
        found = audit.images(bench.copied("copy"), bench.originals)
        return {"victims": found.victims.to_dict("records"), "perturbed": found.perturbed, **found.compared}

    bench.measure(one, part="audited", what="copy", size=64)


def sizes(bench: Bench) -> None:
    """Victims at 64 px: untouched, and after what scrapers do; all of that for the copy by the defaults alone."""
    test = bench.test(64)
    for what in ("originals", *COPIES):
        for handling in HANDLINGS if what == "copy" else HARD:
            for seed in SEEDS:
                bench.measure(
                    partial(victim, partial(bench.images, what, handling, 64), test, seed),
                    part="sizes", what=what, handling=handling, size=64, seed=seed, recipe=RECIPE, victim=VICTIM,
                )  # fmt: skip


def looks(bench: Bench) -> None:
    """What an audit sees of it, from the folder alone."""
    for what in ("originals", *COPIES):

        def one(what: str = what) -> dict[str, Any]:
            return {"signs": {sign.about: sign.value for sign in signs(bench.images(what, "as published", 64))}}

        bench.measure(one, part="looks", what=what, size=64)


def large(bench: Bench) -> None:
    """Victims at 224 px, of a quarter of their width, half of the images."""
    test, recipe = bench.test(224).subset(torch.arange(0, 1000, 2)), "quick:batch=32:epochs=15:lr=0.1"  # few images
    how = {"model": "small_resnet:width=0.25", "recipe": recipe}
    for what, handling in (("originals", "as published"), ("copy", "as published"), ("copy", "JPEG 75")):
        for seed in SEEDS:
            bench.measure(
                partial(victim, partial(half, bench, what, handling), test, seed, **how),
                part="large", what=what, handling=handling, size=224, seed=seed, recipe=recipe, victim=how["model"],
            )  # fmt: skip


def half(bench: Bench, what: str, handling: str) -> Images:
    """Every other image at 224 px."""
    images = bench.images(what, handling, 224)
    return images.subset(torch.arange(0, len(images), 2))


def trainers(bench: Bench) -> None:
    """What a trainer can do: squeeze, filter, hold clean images of the same classes."""
    test = bench.test(64)
    for defense in ("notch", "iss:kind=jpeg", "iss:kind=grayscale"):
        straight = ("straight stripes",) * (defense == "notch")  # which it takes out
        for what in ("originals", "copy", *straight):
            for seed in SEEDS:
                images = partial(bench.images, what, "as published", 64)
                bench.measure(
                    partial(victim, images, test, seed, defense=defense),
                    part="trainers", what=what, defense=defense, size=64, seed=seed, recipe=RECIPE, victim=VICTIM,
                )  # fmt: skip
    steps = -(-10 * EACH // 128)  # of an epoch on all images, for their clean part as well
    for share in (0.2, 0.5, 0.8):
        for seed in SEEDS:
            bench.measure(
                partial(victim, partial(mixed, bench, share), test, seed),
                part="coverage", share=share, size=64, seed=seed, recipe=RECIPE, victim=VICTIM,
            )  # fmt: skip
            bench.measure(
                partial(victim, partial(clean_part, bench, share), test, seed, batches_per_epoch=steps),
                part="withheld", share=share, batches_per_epoch=steps, size=64, seed=seed, recipe=RECIPE, victim=VICTIM,
            )  # fmt: skip


def mixed(bench: Bench, share: float) -> Images:
    """Images of which that share of each class is protected."""
    clean, shown = (bench.images(what, "as published", 64) for what in ("originals", "copy"))
    protected = torch.arange(len(clean)) % 10 < 10 * share
    return clean.with_pixels(torch.where(protected[:, None, None, None], shown.x, clean.x))


def clean_part(bench: Bench, share: float) -> Images:
    """What would be left without the protected ones."""
    clean = bench.images("originals", "as published", 64)
    return clean.subset((torch.arange(len(clean)) % 10 >= 10 * share).nonzero()[:, 0])


def backbone(bench: Bench) -> None:
    """Features that were learned on other images: the other hundred classes of Tiny-ImageNet."""
    file = bench.work / "backbone.safetensors"
    if not file.exists():
        train, test = miue.load("folder:tiny-imagenet32-jpeg", root=bench.data, size=32)
        others = [part.subset((part.y >= 100).nonzero()[:, 0]) for part in (train, test)]
        keep = torch.arange(0, len(others[0]), 2)
        named = [
            Images(part.x, part.y - 100, part.classes[100:], name=part.name, layout="nchw")
            for part in (others[0].subset(keep), others[1])
        ]
        recipe = "quick:epochs=15"
        trained = miue.train_victim(
            named[0], named[1], model="small_resnet:width=2", recipe=recipe, seed=1, cache=False
        )
        trained.save(file)
        told = {"accuracy": trained.accuracy, "n": len(named[0])}
        bench.measure(lambda: told, part="pretrained", what="other classes", recipe=recipe)
    start, test = Victim.load(file), bench.test(32)
    for trainer in of_victim(start, "backbone", "quick"):
        for what in ("originals", "copy"):
            for seed in SEEDS:
                bench.measure(
                    partial(taken_over, trainer, partial(bench.images, what, "as published", 32), test, seed),
                    part="backbone", what=what, trainer=trainer.name, size=32, seed=seed,
                )  # fmt: skip
    for what in ("originals", "copy", "straight stripes"):
        for seed in SEEDS:
            bench.measure(
                partial(victim, partial(bench.images, what, "as published", 32), test, seed),
                part="scratch", what=what, size=32, seed=seed, recipe=RECIPE, victim=VICTIM,
            )  # fmt: skip


def taken_over(trainer: Trainer, images: Callable[[], Images], test: Images, seed: int) -> dict[str, Any]:
    """What a way to train knows of others."""
    return {"accuracy": accuracy(trainer.train(images(), None, seed), test)}


def few(bench: Bench) -> None:
    """Two classes, as two persons, among a hundred that others publish: what is learned of the two."""
    train, test = miue.load("folder:tiny-imagenet32-jpeg:classes=100", root=bench.data, size=32, n_train=10_000)
    own = train.y < 2
    for name, at in (("own", own), ("others", ~own)):
        folder = bench.work / name
        if not folder.exists():
            chosen = train.subset(at.nonzero()[:, 0])
            if name == "others":
                chosen = chosen.subset(torch.arange(0, len(chosen), 20))
            chosen.to_folder(folder)
    originals, _ = audit.reading.gather(bench.work / "own", 32)
    for what in ("originals", "copy", "straight stripes"):
        images = train
        if what != "originals":
            made = protect.images(
                bench.work / "own", bench.work / f"own, {what}", reference=bench.work / "others", seed=1, size=32,
                **COPIES[what],
            )  # fmt: skip
            shown, clean, _ = audit.reading.paired(audit.reading.gather(made.publish, 32)[0], originals)
            copies = dict(zip((x.tobytes() for x in clean.x.numpy()), shown.x, strict=True))
            pixels = train.x.clone()
            for row in own.nonzero()[:, 0].tolist():
                pixels[row] = copies[train.x[row].numpy().tobytes()]
            images = train.with_pixels(pixels)
        for seed in SEEDS:

            def one(images: Images = images, seed: int = seed) -> dict[str, Any]:
                trained = miue.train_victim(images, test, model=VICTIM, recipe=RECIPE, seed=seed, cache=False)
                hit = test.subset((test.y < 2).nonzero()[:, 0])
                return {"accuracy": trained.accuracy, "own_accuracy": miue.accuracy(trained, hit), "n": len(images)}

            bench.measure(one, part="few", what=what, size=32, seed=seed, recipe=RECIPE, victim=VICTIM)


def stream(bench: Bench) -> None:
    """Peak memory and time by the number of images of 12 megapixels; each number in a process of its own."""
    for count in (30, 100, 300):
        bench.measure(
            partial(multiprocessing.get_context("spawn").Pool(1).apply, streamed, (bench.work, bench.data, count)),
            part="stream", images=count, pixels=12_000_000,
        )  # fmt: skip


def streamed(work: Path, data: Path, count: int) -> dict[str, Any]:
    """Make so many large photographs, protect them, and say what that took."""
    folder, out = work / f"large-{count}", work / f"large-{count}-copy"
    for place, file in enumerate(sorted((data / "imagenette224" / "val").rglob("*.JPEG"))[:: 3900 // count][:count]):
        to = folder / f"{place % 2}" / f"{place}.jpg"
        to.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as image:
            image.convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC).save(to, quality=92)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    protect.images(folder, out, seed=1, workers=2)
    told = {"making_seconds": round(time.perf_counter() - began), "before_mib": round(before / 1024)}
    told["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    shutil.rmtree(folder), shutil.rmtree(out)
    return told


def percent(share: float) -> str:
    """Write a share as whole percents."""
    return f"{share:.0%}".replace("%", " %")


def limits(bench: Bench | None = None) -> list[dict[str, str]]:
    """What reports of protected copies say that they do not hold against, from published records, written anew."""

    pages = leaderboard.read()

    def of(page: str, words: str) -> str:
        return quote(leaderboard.trials({page: pages[page]}), words).text

    squeezed, partly = "ladder-cifar10-jpeg75-3000-quick", "poison_ratio-cifar10-jpeg75-3000-quick"
    jpeg = {name: of(squeezed, f"{name}, defense=iss:kind=jpeg") for name in (SHIPPED, "em", "clean")}
    part = {name: of(partly, f"{name}, ratio=0.8") for name in ("em", "withheld")}
    half, full = of(partly, "em, ratio=0.5"), of(partly, "clean")
    training = "defense=adversarial_training:epsilon=8/255:steps=5:step=2/255"
    hardened = {name: of(squeezed, f"{name}, {training}") for name in (SHIPPED, "clean")}
    notched = {name: of(squeezed, f"{name}, defense=notch") for name in (SHIPPED, "weave", "clean")}
    closer = of("notches-cifar10-jpeg75-3000-quick", f"{SHIPPED}, defense=notch:excess=0.125")
    adversarial = {name: reported(f"{name}, training=at_8").text for name in ("em", "mi_ue", "clean")}
    rows = pd.DataFrame(lines.whole(ROWS)[0]).fillna({"handling": "", "trainer": ""})
    means = rows.groupby(["part", "what", "handling", "trainer"])["accuracy"].mean().dropna()
    told_of = means.map(percent)
    small, kept = told_of["sizes"].droplevel("trainer"), told_of["backbone"].xs("linear on backbone", level="trainer")
    shared = rows.groupby(["part", "share"])["accuracy"].mean().map(percent)
    (audited,) = rows.loc[rows["part"] == "audited", "victims"]
    vgg = next(row for row in audited if row["victim"].startswith("vgg11"))
    low, high = sorted(rows.loc[(rows["part"] == "scratch") & (rows["what"] == "copy"), "accuracy"])
    told = [
        {
            "title": "Ordinary uploading.",
            "text": f"On 2,000 photographs of ten classes, with the default settings, the copy left small networks "
            f"{small['copy', 'as published']}, where the originals brought {small['originals', 'as published']}; "
            f"stored as JPEG of quality 75 first, {small['copy', 'JPEG 75']}. Many platforms store anew what comes in.",
        },
        {
            "title": "Other networks, other sizes.",
            "text": "These are small residual networks, trained at the size for which the copy was made. VGG-11 "
            f"learned {percent(vgg['learned'])} from copies and {percent(vgg['originals'])} from originals. At half "
            f"the size, of two residual networks one had {percent(low)} and the other {percent(high)}, as if nothing "
            f"had been done; at 224 pixels narrow ones had {told_of['large', 'copy', 'as published', '']}, and "
            f"{told_of['large', 'originals', 'as published', '']} from the originals.",
        },
        {
            "title": "JPEG and other squeezing.",
            "text": f"Stored as JPEG of quality 10 before training, 3,000 images of CIFAR-10 under the default "
            f"taught a small network {jpeg[SHIPPED]}, and under EM {jpeg['em']}; clean images behind it have "
            f"{jpeg['clean']}. It costs one pass through an image library.",
        },
        {
            "title": "Adversarial training.",
            "text": f"At 8/255 it brought a small network on 3,000 images of CIFAR-10 to {hardened[SHIPPED]} under "
            f"the default; clean images gave {hardened['clean']}. On all of CIFAR-10 the paper on MI-UE reports "
            f"{adversarial['em']} under EM, {adversarial['mi_ue']} under MI-UE and {adversarial['clean']} without "
            "either.",
        },
        {
            "title": "A trainer who has clean images of the same people, and copies of only some images.",
            "text": f"With half of 3,000 images clean and half under EM a small network had {half}, clean training "
            f"{full}; with a fifth clean, {part['em']}, and that fifth alone teaches {part['withheld']}. On the "
            f"photographs under the default a fifth clean brought {shared['coverage', 0.8]}, and alone "
            f"{shared['withheld', 0.8]}. What is protected is the protected images, not the person in them.",
        },
        {
            "title": "Somebody who looks.",
            "text": "The default draws stripes, one kind for each class or person. Who averages the spectra of your "
            "images may see where they lie, and take them out. Stripes that lie alike in all images of a class are "
            "gone within seconds: behind a filter that damps what stands out in a class a small network on 3,000 "
            f"images of CIFAR-10 had {notched['weave']}, clean images gave {notched['clean']}. The default lets them "
            f"lie a little apart from image to image, and that filter leaves {notched[SHIPPED]}; one that looks "
            f"more closely leaves {closer}, and others may find more. In a smooth sky anybody sees the stripes.",
        },
        {
            "title": "Features learned elsewhere.",
            "text": "A network that learned from other people's images brings what it needs: a linear classifier on "
            f"features of a network that knew a hundred other classes had {kept['copy', '']} from the copy of those "
            f"photographs, at 32 pixels, and {kept['originals', '']} from the originals. Radiya-Dixit and others (ICLR "
            "2022) undid two well-known tools with networks that came later.",
        },
    ]
    write_json("src/miue/protect/measured.json", {"limits": told})
    return told


PARTS = {part.__name__: part for part in (copy, audited, sizes, looks, large, trainers, backbone, few, stream, limits)}


def chosen(names: list[str]) -> Iterator[Callable[[Bench], None]]:
    for name in names or PARTS:
        yield PARTS[name]


if __name__ == "__main__":
    bench = Bench(Path(sys.argv[1]), Path(sys.argv[2]))
    for part in chosen(sys.argv[3:]):
        part(bench)
