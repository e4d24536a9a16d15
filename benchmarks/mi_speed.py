"""Time and memory of sliced mutual information, against what one would use otherwise.

    python benchmarks/mi_speed.py                 # all contenders, 10,000 samples, 128 slices
    python benchmarks/mi_speed.py --growth        # seconds and memory against samples and against slices
    python benchmarks/mi_speed.py --wide          # 50,000 samples of 512 features, 512 slices, null and controls apart

Every run is a process of its own, so that its peak of memory is its own; what the imports and the samples take is
subtracted. All contenders get the same projections, standardised, of correlation 0.5, but for `sliced_mi`, which
projects features itself: pairs of them have a correlation of 0.5, and random slices share next to nothing.
Nearest-neighbour estimates use k = 5; scikit-learn and the NPEET-style loop add noise of 1e-10 against ties, hence
their last digits. All estimates of this package come with their standard errors. Where torch_mist is installed, a
library of neural estimators for GPUs, its MINE takes as many steps with as large batches as ours. A contender that
would need over 8 GiB is left out.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.spatial import cKDTree
from scipy.special import digamma

from miue.mi import mi_histogram, mi_kde, mi_ksg, mi_neural, sliced_mi
from miue.mi.training import Neural
from miue.storage import files
from miue.storage.provenance import collect

K, R = 5, 0.5
MOST = 8 * 2**30  # bytes
Rows = np.ndarray


def scikit_learn(x: Rows, y: Rows) -> float:
    """A loop over slices; scikit-learn clips each estimate at zero."""
    from sklearn.feature_selection import mutual_info_regression

    pairs = zip(x, y, strict=True)
    return float(np.mean([mutual_info_regression(a[:, None], b, n_neighbors=K, random_state=0)[0] for a, b in pairs]))


def npeet_style(x: Rows, y: Rows) -> float:
    """The widespread recipe: noise against ties, k-d trees of the plane and of each axis, radii shortened by 1e-15."""
    rng, values = np.random.default_rng(0), []
    for pair in zip(x, y, strict=True):
        a, b = (v[:, None] + 1e-10 * rng.random((len(v), 1)) for v in pair)
        radius = cKDTree(np.hstack([a, b])).query(np.hstack([a, b]), K + 1, p=np.inf)[0][:, K]
        inside = [cKDTree(v).query_ball_point(v, radius - 1e-15, p=np.inf, return_length=True) for v in (a, b)]
        values.append(digamma(K) + digamma(len(a)) - sum(digamma(count).mean() for count in inside))
    return float(np.mean(values))


def all_pairs(x: Rows, y: Rows) -> float:
    """All N x N distances of a slice at once, in torch."""
    psi, values = torch.digamma(torch.arange(1, x.shape[1] + 1, dtype=torch.float64)), []
    for a, b in zip(torch.from_numpy(x), torch.from_numpy(y), strict=True):
        d_a, d_b = (a[:, None] - a).abs(), (b[:, None] - b).abs()
        eps = torch.maximum(d_a, d_b).kthvalue(K + 1, dim=1).values[:, None]
        inside = psi[(d_a < eps).sum(1) - 1] + psi[(d_b < eps).sum(1) - 1]
        values.append(psi[K - 1] + psi[-1] - inside.mean())
    return float(torch.stack(values).mean())


def torch_mist(x: Rows, y: Rows) -> float:
    """MINE of another library, row by row, with the steps, batches and layers of ours."""
    from torch_mist import estimate_mi

    ours, values = Neural(objective="mine"), []
    for pair in zip(x, y, strict=True):
        rows = tuple(v[:, None].astype(np.float32) for v in pair)
        found = estimate_mi(
            data=rows,
            estimator="mine",
            max_iterations=ours.steps,
            batch_size=ours.batch,
            hidden_dims=[ours.hidden] * ours.layers,
            verbose=False,
        )
        values.append(found[0])
    return float(np.mean(values))


CONTENDERS: dict[str, Callable[[Rows, Rows], float]] = {
    "scikit-learn": scikit_learn,
    "NPEET-style": npeet_style,
    "all pairs": all_pairs,
    "mi_ksg": lambda x, y: mi_ksg(x, y, k=K).value,
    "mi_histogram": lambda x, y: mi_histogram(x, y).value,
    "mi_kde": lambda x, y: mi_kde(x, y).value,
    "mi_neural (MINE)": lambda x, y: mi_neural(x, y).value,
}
if find_spec("torch_mist"):
    CONTENDERS["torch_mist (MINE)"] = torch_mist
WIDE = ("histogram", "ksg", "kde")


def peak() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one(name: str, n: int, slices: int, width: int) -> None:
    """Run one contender on rows, or with a width `sliced_mi` on features, and print what it took as JSON."""
    rng = np.random.default_rng(0)
    shape = (n, width) if width else (slices, n)
    x, noise = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    y = R * x + np.sqrt(1 - R**2) * noise
    del noise
    if not width:
        x, y = (((v - v.mean(1, keepdims=True)) / v.std(1, keepdims=True)).astype(np.float64) for v in (x, y))
    if not width:
        CONTENDERS[name](x[:1, :500], y[:1, :500])  # what a first call imports and sets up
    before, start = peak(), time.perf_counter()
    value = sliced_mi(x, y, name, slices).value if width else CONTENDERS[name](x, y)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "MiB": peak() - before, "peak MiB": peak(), "nats": value}))


def measured(name: str, n: int, slices: int, width: int = 0) -> dict[str, float]:
    """Run `one` in a process of its own; nothing where it fails or would take too much memory."""
    if name == "all pairs" and 3 * 8 * n**2 > MOST:
        return {}
    command = [sys.executable, __file__, "--one", name, "--n", n, "--slices", slices, "--width", width]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}


def rows(names: Sequence[str], n: int, slices: int, width: int = 0) -> list[dict[str, Any]]:
    """What each of them takes."""
    about = {"n": n, "slices": slices}
    return [about | {"contender": name} | measured(name, n, slices, width) for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000, help="samples (default %(default)s)")
    parser.add_argument("--slices", type=int, default=128, help="pairs of directions (default %(default)s)")
    parser.add_argument("--width", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--growth", action="store_true", help="seconds against samples and slices")
    parser.add_argument("--wide", action="store_true", help="50,000 x 512 features along 512 slices")
    parser.add_argument("--record", type=Path, help="file for the rows (.json)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return one(args.one, args.n, args.slices, args.width)
    print(f"{torch.get_num_threads()} threads, truth of each slice {-0.5 * np.log1p(-(R**2)):.4f} nats")
    if args.wide:
        found = rows(WIDE, 50_000, 512, width=512)
    elif args.growth:
        found = [row for n in (5000, 10_000, 20_000, 40_000) for row in rows(list(CONTENDERS), n, 8)]
        quick = [name for name in CONTENDERS if "MINE" not in name]
        found += [row for slices in (32, 128) for row in rows(quick, 5000, slices)]
    else:
        found = rows(list(CONTENDERS), args.n, args.slices)
        [default] = rows(["ksg"], args.n, args.slices, width=128)
        found.append(default | {"contender": "sliced_mi of 128 features"})
    table = pd.DataFrame(found).set_index(["n", "slices", "contender"])
    if not args.wide:
        known = table["seconds"].xs("scikit-learn", level="contender")
        table["times faster than scikit-learn"] = known / table["seconds"]
    print(
        table.round({"seconds": 2, "MiB": 0, "peak MiB": 0, "nats": 4, "times faster than scikit-learn": 2}).to_string()
    )
    if args.record:
        files.write_json(args.record, {"correlation": R, "rows": found, **collect()})


if __name__ == "__main__":
    main()
