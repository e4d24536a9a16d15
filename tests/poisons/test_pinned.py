"""The perturbations bit for bit: whoever changes what a method computes, on purpose, sets the hash anew."""

import hashlib
import platform
from pathlib import Path

import pytest
import torch
from poisons.test_methods_contract import QUICK, SMALL
from samples import some_images

from miue.poisons import perturb
from miue.specs import parse

PINNED = {
    "mi_ue": "279bc120706859b6",
    "em": "69810bc03c9aad5e",
    "rem": "c264d6b019fa42cf",
    "sem": "1638886e6c9c5252",
    "tap": "36d160acf00aa635",
    "aue": "90f4001e537a3edc",
    "aap": "0511988ef0094324",
    "entf": "33327995a30c27d8",
    "llock": "b1ecfe42a271627f",
    "tue": "e820691cba67aed3",
    "gue": "23ced7e58cb42eee",
    "pue": "b47cec79e712fe99",
    "uc": "00d6c1170f802732",
    "ar": "8621d292d9a8ee8b",
    "lsp": "c4a428aa1dde5eb9",
    "gratings": "532ea4326a1ef94a",
    "weave": "cc87b7f1e226f410",
    "pil": "5102ea9203c9e119",
    "ops": "75bea8c79cadf9e8",
    "cuda": "ae1f1a3898db87d6",
    "dune": "ff9f30996c787d68",
    "random": "a6feb790539f9214",
    "em:scope=class": "f4c25c599149ad86",
    "em:mine=0.1": "3f04ce14567d4b93",
    "tap:mine=0.1": "a61fdafa7c08330c",
    "tap:targeted=false": "d124302378879ec8",
    "aap:targeted=false": "02e79f560ead1934",
    "entf:kind=pull": "d2b4e3f263faf3e0",
    "pue:scope=sample:steps=2": "27911a4f5d31adbf",
    "uc:pretext=untrained": "36fa75733b658bb6",
    "uc:pretext=labels": "a7645b51222841c2",
    "mi_ue:zeta=0": "97f7b8b4850a2689",
    "mi_ue:similarity=false": "dafad1ec839370bf",
    "mi_ue:eot=2": "aee1464482edd404",
    "mi_ue:surrogate_epsilon=4/255:surrogate_steps=1": "c379841acf2f01b6",
}
MADE_WITH = ("2.14", "AVX2", "AuthenticAMD")
"""PyTorch, its instruction set, and the maker of the processor: others add in another order."""


def here():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    maker = next((line.partition(": ")[2] for line in lines if line.startswith("vendor_id")), platform.processor())
    return torch.__version__.rpartition(".")[0], torch.backends.cpu.get_cpu_capability(), maker


@pytest.mark.parametrize("spec", PINNED)
def test_the_delta_is_the_one_that_it_was(spec):
    method, options = parse(spec)
    if method not in QUICK - {"pil"} and here() != MADE_WITH:
        pytest.skip(f"made with {', '.join(MADE_WITH)}; here is {', '.join(here())}")
    settings = {"preset": "quick", "surrogate": "small_resnet:width=0.25", "cache": False}
    poison = perturb(some_images(), method, **settings, **SMALL[method] | options)
    assert hashlib.blake2b(poison.delta.numpy().tobytes(), digest_size=8).hexdigest() == PINNED[spec]
