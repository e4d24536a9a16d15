"""A Slurm cluster: nodes with GPUs are asked for as runs wait, one worker for each GPU.

Copy this file, set the values below, and give the copy to `miue sweep --config`. The sweep itself runs
on the login node and only waits. The checkout, its environment, data, cache (`$MIUE_CACHE`) and `runs/` must lie on a
file system that the nodes share with it.
"""

from parsl.addresses import address_by_hostname
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.jobs.error_handlers import windowed_error_handler
from parsl.providers import SlurmProvider

PARTITION = None
"""The partition, such as "gpu"; None: the cluster's default."""
ACCOUNT = None
"""The account that is charged; None: your default."""
WALLTIME = "12:00:00"
"""Time of one job. A run that is cut off at its end is handed out again and goes on from its last checkpoint."""
GPUS_PER_NODE = 4
"""GPUs of a node, each for one run at a time. Workers take them from the first one on, so the cluster must show a job
its own GPUs only; where it shows all, set EXCLUSIVE."""
CORES_PER_NODE = 32
"""Cores of a node, shared out between its workers."""
NODES = 2
"""Jobs at the same time at most, of one node each."""
EXCLUSIVE = False
"""True asks for whole nodes."""
ADDRESS = address_by_hostname()
"""Address of the login node as the nodes see it. Where they cannot reach it:
`parsl.addresses.address_by_interface("ib0")` with the name of the inner network."""
ENVIRONMENT = "source .venv/bin/activate"
"""What a job does before its workers start; jobs start in the folder from which the sweep is. On many clusters also
`module load cuda`, or `conda activate miue`."""

config = Config(
    executors=[
        HighThroughputExecutor(
            label="slurm",
            address=ADDRESS,
            available_accelerators=GPUS_PER_NODE,  # one worker each, with CUDA_VISIBLE_DEVICES set
            max_workers_per_node=GPUS_PER_NODE,
            cores_per_worker=CORES_PER_NODE / GPUS_PER_NODE,
            cpu_affinity="block",  # each worker has cores of its own; also sets OMP_NUM_THREADS
            # The default gives up when all blocks that there were have failed; this one after three in a row.
            block_error_handler=windowed_error_handler,
            provider=SlurmProvider(
                partition=PARTITION,
                account=ACCOUNT,
                walltime=WALLTIME,
                gpus_per_node=GPUS_PER_NODE,
                cores_per_node=CORES_PER_NODE,
                exclusive=EXCLUSIVE,
                worker_init=ENVIRONMENT,
                init_blocks=1,
                max_blocks=NODES,
                cmd_timeout=60,
            ),
        )
    ],
    retries=5,
)
