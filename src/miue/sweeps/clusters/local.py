"""This machine without a GPU: one worker for every four cores, each with cores of its own."""

import os

from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.jobs.error_handlers import windowed_error_handler
from parsl.providers import LocalProvider

CORES_EACH = 4

config = Config(
    executors=[
        HighThroughputExecutor(
            label="local",
            # Workers are on this machine. Without an address Parsl would ask a service on the internet for ours.
            address="127.0.0.1",
            max_workers_per_node=max(1, (os.cpu_count() or 1) // CORES_EACH),
            cpu_affinity="block",  # also sets OMP_NUM_THREADS to the number of cores of a worker
            heartbeat_period=5,
            heartbeat_threshold=30,
            # The default gives up at the first block that is lost; this one after three in a row.
            block_error_handler=windowed_error_handler,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
        )
    ],
    retries=3,
)
