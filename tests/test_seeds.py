import numpy as np
import pytest
import torch

from miue import seeds
from miue.errors import InputError


def test_a_stream_is_the_same_on_every_machine_and_in_every_version():
    assert seeds.derived(0, "victim weights") == 667884114081128706
    assert seeds.derived(7, "directions") == 5290204463083939029
    assert seeds.derived(np.int64(7), "directions") == seeds.derived(7, "directions")


def test_no_two_roles_and_no_two_seeds_share_a_stream():
    found = {seeds.derived(seed, role) for seed in range(200) for role in seeds.ROLES}
    assert len(found) == 200 * len(seeds.ROLES)
    first = {float(torch.rand((), generator=seeds.stream(3, role))) for role in seeds.ROLES}
    assert len(first) == len(seeds.ROLES)


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "0", None, float("nan")])
def test_what_is_no_seed_is_refused(wrong):
    with pytest.raises(InputError, match=r"seed: .*; it must be a whole number, 0 or above"):
        seeds.stream(wrong, "part")


def test_a_seed_may_be_larger_than_a_machine_word():
    assert seeds.derived(2**64, "part") != seeds.derived(0, "part")


def test_an_unknown_role_is_a_mistake_of_ours():
    with pytest.raises(KeyError, match="victim weights"):
        seeds.stream(0, "victim wieghts")
