"""Time sliced mutual information against scikit-learn in a loop and against plain k-d trees on the same threads.

    python benchmarks/mi_speed.py --n 10000 --slices 128

Every contender gets the same projections, standardised, and estimates KSG with k = 5; scikit-learn adds noise of
1e-10 to break ties, hence its difference in the last digits. Times are the least of `--repeats` runs.
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import torch
from scipy.spatial import cKDTree
from scipy.special import digamma
from sklearn.feature_selection import mutual_info_regression

from miue.mi import mi_histogram, mi_ksg

K = 5


def sklearn_loop(x: np.ndarray, y: np.ndarray) -> float:
    """The mean of scikit-learn's estimate over slices; it clips each at zero."""
    pairs = zip(x, y, strict=True)
    return float(np.mean([mutual_info_regression(a[:, None], b, n_neighbors=K, random_state=0)[0] for a, b in pairs]))


def plain_trees(x: np.ndarray, y: np.ndarray) -> float:
    """What one would write first: three k-d trees for each slice, slices over a thread pool."""

    def one(pair: tuple[np.ndarray, np.ndarray]) -> float:
        points = np.column_stack(pair)
        radius = np.nextafter(cKDTree(points).query(points, k=K + 1, p=np.inf)[0][:, -1], 0)
        inside = [cKDTree(v[:, None]).query_ball_point(v[:, None], radius, return_length=True) for v in pair]
        return digamma(K) + digamma(len(points)) - sum(digamma(count).mean() for count in inside)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return float(np.mean(list(pool.map(one, zip(x, y, strict=True)))))


def least_seconds(run: Callable[[], float], repeats: int) -> tuple[float, float]:
    times, value = [], 0.0
    for _ in range(repeats):
        start = time.perf_counter()
        value = run()
        times.append(time.perf_counter() - start)
    return min(times), value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000, help="points (default %(default)s)")
    parser.add_argument("--slices", type=int, default=128, help="pairs of directions (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each; the least counts (default %(default)s)")
    parser.add_argument("--r", type=float, default=0.5, help="correlation in each slice (default %(default)s)")
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    x = rng.standard_normal((args.slices, args.n))
    y = args.r * x + np.sqrt(1 - args.r**2) * rng.standard_normal((args.slices, args.n))
    x, y = ((v - v.mean(1, keepdims=True)) / v.std(1, keepdims=True) for v in (x, y))
    contenders: dict[str, Callable[[], float]] = {
        "scikit-learn, loop": lambda: sklearn_loop(x, y),
        "plain k-d trees, threads": lambda: plain_trees(x, y),
        "mi_ksg": lambda: mi_ksg(x, y, k=K, subsamples=0).value,
        "mi_ksg with subsample error": lambda: mi_ksg(x, y, k=K).value,
        "mi_histogram": lambda: mi_histogram(x, y, subsamples=0).value,
        "mi_histogram with subsample error": lambda: mi_histogram(x, y).value,
    }
    if torch.cuda.is_available():
        on_gpu = [torch.from_numpy(v).cuda() for v in (x, y)]
        contenders["mi_ksg, CUDA"] = lambda: mi_ksg(*on_gpu, k=K, subsamples=0).value
    rows = []
    for name, run in contenders.items():
        seconds, value = least_seconds(run, args.repeats)
        rows.append({"method": name, "seconds": seconds, "ms per slice": 1e3 * seconds / args.slices, "nats": value})
    table = pd.DataFrame(rows).set_index("method")
    table["times faster"] = table["seconds"].iloc[0] / table["seconds"]
    truth = -0.5 * np.log1p(-(args.r**2))
    print(f"n = {args.n}, {args.slices} slices, {torch.get_num_threads()} threads, truth {truth:.4f} nats")
    print(table.round({"seconds": 2, "ms per slice": 2, "nats": 4, "times faster": 1}).to_string())


if __name__ == "__main__":
    main()
