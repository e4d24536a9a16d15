"""This machine: a thread for each run that goes on, as many as there are GPUs, else one for every four cores."""

from parsl.config import Config
from parsl.executors import ThreadPoolExecutor

from miue.sweeps.engine import slots

config = Config(executors=[ThreadPoolExecutor(label="local", max_threads=len(slots()))], initialize_logging=False)
