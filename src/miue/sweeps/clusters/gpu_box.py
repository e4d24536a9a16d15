"""One machine with several GPUs: one worker for each GPU, which sees that GPU only."""

from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.jobs.error_handlers import windowed_error_handler
from parsl.providers import LocalProvider

from miue.errors import InputError
from miue.sweeps.engine import gpus

GPUS = gpus()
"""The GPUs to use, by the names that CUDA knows them by; by default all that this process may use."""
if not GPUS:
    raise InputError("no GPU can be used here; take the configuration `local`")

config = Config(
    executors=[
        HighThroughputExecutor(
            label="gpu_box",
            # Workers are on this machine. Without an address Parsl would ask a service on the internet for ours.
            address="127.0.0.1",
            available_accelerators=GPUS,  # one worker each, with CUDA_VISIBLE_DEVICES set
            max_workers_per_node=len(GPUS),
            cpu_affinity="block",  # each worker has cores of its own; also sets OMP_NUM_THREADS
            heartbeat_period=5,
            heartbeat_threshold=30,
            # The default gives up at the first block that is lost; this one after three in a row.
            block_error_handler=windowed_error_handler,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
        )
    ],
    retries=3,
)
