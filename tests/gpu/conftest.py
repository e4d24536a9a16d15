"""Tests that need a GPU are skipped without one; MIUE_TEST_DEVICE=cpu runs what a CPU can, to see that they run.

What they find beside passing, such as whether two ways give the same bits, they tell at the end.
"""

import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS adds in one order, if told before it starts

import pytest
import torch
from gpu.device import DEVICE


def pytest_collection_modifyitems(items):
    why = pytest.mark.skip(reason="needs a GPU")
    for item in items:
        if "/gpu/" not in item.path.as_posix():
            continue
        if not torch.cuda.is_available() and (DEVICE.type == "cuda" or item.get_closest_marker("cuda")):
            item.add_marker(why)


def pytest_terminal_summary(terminalreporter):
    reports = terminalreporter.stats.get("passed", []) + terminalreporter.stats.get("failed", [])
    told = [(report.nodeid.rpartition("::")[2], *one) for report in reports for one in report.user_properties]
    for name, what, value in told:
        terminalreporter.write_line(f"TOLD {name}: {what} {value}")


@pytest.fixture(autouse=True)
def one_order(monkeypatch):
    """Convolutions take algorithms that give the same bits each time."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)


@pytest.fixture
def same(record_property):
    """Tell whether two tensors are the same bits; refuse those of which more than a share differs."""

    def check(one, other, what="bits", most=0.0):
        differ = float((one.cpu() != other.cpu()).float().mean())
        record_property(what, "the same" if differ == 0 else f"{differ:.2e} of them differ")
        assert differ <= most

    return check
