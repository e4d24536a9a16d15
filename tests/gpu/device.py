"""Where the tests of this folder work: on the GPU, or where MIUE_TEST_DEVICE says."""

import os

import torch

DEVICE = torch.device(os.environ.get("MIUE_TEST_DEVICE", "cuda"))
