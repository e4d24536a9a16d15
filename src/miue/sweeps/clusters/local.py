"""This machine: a thread for each run that goes on; as many as `--slots` says, or as there are GPUs or cores for."""

from parsl.config import Config
from parsl.executors import ThreadPoolExecutor

config = Config(executors=[ThreadPoolExecutor(label="local", max_threads=None)], initialize_logging=False)
