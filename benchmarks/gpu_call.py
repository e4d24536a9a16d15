"""All that has to be measured on a GPU, in one command on a machine that is at hand for minutes.

    python benchmarks/gpu_call.py plan
    MIUE_CACHE=/dev/shm/miue python benchmarks/gpu_call.py run OUT --archive DATA/cifar10-jpeg.tar.xz
    python benchmarks/gpu_call.py run OUT --scale small          # the same stages on a CPU, to see that they run
    python benchmarks/gpu_call.py publish OUT                    # afterwards, in a checkout of the same code

Stages come in the order of what they tell for their time. One that would take longer than is left of the limit is left
out, and one that fails does not stop the others; each adds a line to `results.jsonl` when it ends. The same command
goes on where it was stopped, on another machine as well, if what came back in OUT lies there again.
"""

# ruff: noqa: E402

import time

BEGAN = time.monotonic()  # before the imports below, which take seconds

import gc
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import gpu_stages
import pandas as pd
import torch
import typer
from gpu_stages import SCALES, STAGES, Scale

from miue.data import loading
from miue.data.images import Images
from miue.errors import InputError, choose
from miue.experiments.comparison import Records, Setting, Trial, measure
from miue.experiments.records import read
from miue.progress import say
from miue.storage.code import code_hash
from miue.storage.provenance import collect
from miue.training.loop import default_device

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
TAIL = 12  # lines of a traceback, or of a log, that a result tells


class Measurer:
    """A process that measures trials whose perturbations and victims lie in the cache, one after the other.

    Their features take the GPU seconds; the estimates of information take the processor, while the next victim is
    trained.

    Args:
        rows: the file that it writes rows to.
        threads: of the processor that it may take; None: as many as this process.

    Attributes:
        waiting: what it was asked for and has not answered.
        failed: why it did not answer.
    """

    def __init__(self, rows: Path, threads: int | None) -> None:
        self.rows, self.threads = rows, threads
        self.waiting: list[tuple[Setting, Trial]] = []
        self.failed: list[str] = []
        self._process: subprocess.Popen | None = None
        self._read = 0

    def ask(self, setting: Setting, trial: Trial) -> None:
        """Have a trial measured."""
        if self._process is None:
            own = {} if self.threads is None else {"OMP_NUM_THREADS": str(self.threads)}
            self._process = subprocess.Popen(
                [sys.executable, __file__, "measure", str(self.rows)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self.rows.with_suffix(".log").open("w"),
                env=os.environ | own,
                text=True,
            )
        self._process.stdin.write(json.dumps({"setting": asdict(setting), "trial": asdict(trial)}) + "\n")
        self._process.stdin.flush()
        self.waiting.append((setting, trial))

    def answered(self) -> Iterator[tuple[Setting, dict[str, Any]]]:
        """The rows that have come since the last look."""
        whole = self.rows.read_text() if self.rows.exists() else ""
        lines = whole[: whole.rfind("\n") + 1].splitlines()
        for line in lines[self._read :]:
            setting, trial = self.waiting.pop(0)
            row = json.loads(line)
            if "failed" in row:
                self.failed.append(f"{trial}: {row['failed']}")
            else:
                yield setting, row
        self._read = len(lines)
        if self.waiting and self._process is not None and self._process.poll() is not None:
            self.failed += [f"{trial}: exit code {self._process.returncode}" for _, trial in self.waiting]
            self.waiting.clear()

    def stop(self) -> None:
        """End it, whatever it is at."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@dataclass
class Call:
    """What the stages share: where things lie, how long there is, and what was found out so far.

    Attributes:
        out: folder of what comes back: at most eight files of 16 MiB.
        work: folder of what need not.
        results: the lines of `results.jsonl`, of earlier calls as well.
        cpu: whether there is no GPU.
        measurer: measures in the background.
        decoding: the process that decodes the images.
    """

    out: Path
    work: Path
    scale: Scale
    limit: float
    cpu: bool
    measurer: Measurer
    archive: Path | None = None
    results: list[dict[str, Any]] = field(default_factory=list)
    decoding: subprocess.Popen | None = None

    @property
    def left(self) -> float:
        """Seconds until the limit."""
        return self.limit - (time.monotonic() - BEGAN)

    @property
    def precision(self) -> str:
        """That of perturbations: the one that the signs speak for, and TF32 where nobody has looked."""
        return self.found("signs").get("chosen", "float32" if self.cpu else "tf32")

    def found(self, stage: str) -> dict[str, Any]:
        """The result of a stage that is done; empty where it is not."""
        lines = [line for line in self.results if line["stage"] == stage and line["state"] == "done"]
        return lines[-1]["result"] if lines else {}

    def images(self) -> tuple[Images, Images]:
        """The training and test images."""
        return loaded(self.scale.data, self.scale.n_train, self.scale.n_test)

    def end(self, **line: Any) -> None:
        """Keep the line of a stage."""
        self.results.append(line)
        with (self.out / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        say(f"{line['stage']}: {line['state']}, {line['seconds']} s ({line['estimate']} s estimated)")

    def records(self, setting: Setting) -> Records:
        """The rows of a setting, in the working folder, beside which locks may lie."""
        name = f"records-{setting.preset}.jsonl"
        if not (self.work / name).exists() and (self.out / name).exists():
            shutil.copyfile(self.out / name, self.work / name)
        return Records(self.work / name, setting)

    def collect(self, wait: bool = False) -> None:
        """Take the rows that were measured in the background, or wait for all of them until the limit."""
        while True:
            for setting, row in self.measurer.answered():
                records = self.records(setting)
                records.add(row)
                shutil.copyfile(records.path, self.out / records.path.name)
            if not (wait and self.measurer.waiting and self.left > 0):
                return
            time.sleep(0.2)


def go_through(call: Call, stages: list[gpu_stages.Stage]) -> None:
    """Run the stages that are not done and that there is time for."""
    for stage in stages:
        told = {"stage": stage.name, "estimate": round(stage.estimate(call), 1), "left": round(call.left, 1)}
        if stage.done(call):
            say(f"{stage.name}: done before")
        elif told["estimate"] > call.left:
            call.end(**told, state="skipped", seconds=0.0, why=f"{told['left']} s are left of {call.limit:g}")
        elif missing := [name for name in stage.after if not call.found(name)]:
            call.end(**told, state="skipped", seconds=0.0, why=f"not done before: {', '.join(missing)}")
        else:
            began = time.monotonic()
            try:
                result, state = stage.run(call), {"state": "done"}
            except Exception:
                result, state = {"error": traceback.format_exc().splitlines()[-TAIL:]}, {"state": "failed"}
            call.end(**told, **state, seconds=round(time.monotonic() - began, 2), result=result)
        call.collect()
        if not call.cpu:
            gc.collect()  # graphs that were recorded hold memory
            torch.cuda.empty_cache()


def planned(scale: Scale, limit: float) -> pd.DataFrame:
    """The stages and their estimates from stated rates, for each precision that perturbations may be made in."""
    columns = {}
    for number in ["float32"] if scale is SCALES["small"] else ["float16", "tf32"]:
        call = Call(Path(), Path(), scale, limit, number == "float32", Measurer(Path(), None))
        call.results.append({"stage": "signs", "state": "done", "result": {"chosen": number}})
        columns[number] = [stage.estimate(call) for stage in STAGES]
    table = pd.DataFrame(columns, index=[stage.name for stage in STAGES])
    return pd.concat([table, table.cumsum().add_prefix("sum, ")], axis=1).round(0)


@app.command()
def plan(
    scale: Annotated[str, typer.Option(help=f"One of {', '.join(SCALES)}.")] = "full",
    limit: Annotated[float, typer.Option(help="Seconds that all stages may take.")] = 540,
) -> None:
    """List the stages and what they are estimated to take, in seconds; nothing runs."""
    chosen = SCALES[choose("scale", scale, SCALES)]
    print(planned(chosen, limit).to_string())
    print(
        "\nDerived, not measured, for perturbations in the precisions above, from these rates of image-steps of a pgd"
    )
    print(f"pass and images of training for each second: {chosen.rates}; the limit is {limit:g} s")


@app.command()
def run(
    out: Annotated[Path, typer.Argument(help="Folder of what comes back; with what came back before, to go on.")],
    scale: Annotated[str, typer.Option(help=f"One of {', '.join(SCALES)}.")] = "full",
    archive: Annotated[Path | None, typer.Option(help="cifar10-jpeg.tar.xz or .tar; none: as `miue` finds it.")] = None,
    limit: Annotated[float, typer.Option(help="Seconds that all stages may take, imports included.")] = 540,
    work: Annotated[
        Path | None, typer.Option(help="Folder of what need not come back (default: in the cache).")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this stage; may be repeated.")] = None,
) -> None:
    """Run the stages that are not done yet."""
    chosen = SCALES[choose("scale", scale, SCALES)]
    for name in only or []:
        choose("only", name, [stage.name for stage in STAGES])
    if archive is not None:
        if not archive.is_file() or not re.fullmatch(r"cifar10(-jpeg)?\.(tar|tar\.\w+|tgz)", archive.name):
            raise InputError(f"archive: {archive}; it must be a file called cifar10-jpeg.tar.xz, cifar10.tar or alike")
        os.environ["MIUE_DATA"] = str(archive.resolve().parent)
        chosen = gpu_stages.of_archive(chosen)
    work = gpu_stages.default_work() if work is None else work
    for folder in (out, work):
        folder.mkdir(parents=True, exist_ok=True)
    file = out / "results.jsonl"
    earlier = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    cpu = default_device().type == "cpu"
    if cpu and scale == "full":
        raise InputError("scale: full without a GPU; it must be small here")
    rows = work / f"rows-{os.getpid()}.jsonl"
    measurer = Measurer(rows, None if cpu else max(1, (os.cpu_count() or 1) - 4))
    call = Call(out, work, chosen, limit, cpu, measurer, archive, earlier)
    try:
        go_through(call, [stage for stage in STAGES if not only or stage.name in only])
        call.collect(wait=True)
    finally:
        measurer.stop()
        if call.decoding is not None and call.decoding.poll() is None:
            call.decoding.kill()


@app.command(name="measure", hidden=True)
def measure_all(rows: Path) -> None:
    """Measure the trials that are asked for on standard input, a line each, and add their rows to a file."""
    for line in sys.stdin:
        told = json.loads(line)
        setting, trial = Setting(**told["setting"]), Trial(**told["trial"])
        try:
            train, test = loaded(setting.data, setting.n_train, setting.n_test)
            row = asdict(trial) | measure(trial, setting, train, test)
        except Exception as error:
            traceback.print_exc()
            row = {"failed": f"{type(error).__name__}: {error}"}
        with rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")


@cache
def loaded(data: str, n_train: int | None, n_test: int | None) -> tuple[Images, Images]:
    """The images of a setting, loaded once."""
    return loading.load(data, None, n_train, n_test)


@app.command()
def publish(
    folder: Annotated[Path, typer.Argument(help="What came back.")],
    root: Annotated[Path, typer.Option(help="Repository that holds the book.")] = Path(),
) -> None:
    """Put the measured trials into the book's records, and say how a page is drawn of each file of them.

    They must be of the code that lies here. Where the machine had no repository, this checkout's commit is filled in.
    """
    if not (root / "_config.yml").is_file():
        raise InputError(f"root: {root} holds no _config.yml; it must be the folder of the repository")
    here = collect("cpu")
    for path in sorted(folder.glob("records-*.jsonl")):
        setting, table = read(path)
        if table.empty:
            print(f"{path.name}: no trial in it, left out")
            continue
        if other := sorted(set(table["code"]) - {here["code"]}):
            raise InputError(
                f"folder: {path} was measured with code {other[0]}, not with what lies here, {code_hash()}"
            )
        head, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows = [row | {"commit": row["commit"] or here["commit"]} for row in rows]
        name = f"gpu-{slug(rows[0]['data'])}-{rows[0]['n_train']}-{setting.preset}.jsonl"
        place = root / "book" / "results" / "records" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("".join(json.dumps(line, allow_nan=False) + "\n" for line in (head, *rows)), encoding="utf-8")
        print(f"{place}: {len(rows)} trials\n  {drawn_by(place, setting, rows)}\n  miue publish RUN\n  git add {place}")


def slug(data: str) -> str:
    """Write the name of a data set as part of a file's: "CIFAR-10 (JPEG-75 copy)" as "cifar10-jpeg75"."""
    words = re.sub(r"[^a-z0-9]+", "-", data.lower().removesuffix(" copy)")).strip("-")
    return re.sub(r"(?<=[a-z])-(?=\d)", "", words)


def drawn_by(place: Path, setting: Setting, rows: list[dict[str, Any]]) -> str:
    """The command that draws a page of a file of records."""

    def several(name: str) -> str:
        return json.dumps(list(dict.fromkeys(row[name] for row in rows)))

    given = {name: value for name, value in asdict(setting).items() if value is not None}
    given |= {"methods": several("method"), "victims": several("victim"), "seeds": several("seed")}
    given |= {"surrogate": rows[0]["surrogate"], "records": place, "measure": "false"}
    return shlex.join(["miue", "run", "comparison", *(w for n, v in given.items() for w in ("-p", f"{n}={v}"))])


if __name__ == "__main__":
    try:
        app()
    except InputError as error:
        print(f"gpu_call: {error}", file=sys.stderr)
        raise SystemExit(2) from None
