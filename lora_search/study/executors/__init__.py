"""Who trains: the worker in this process, worker processes, or the actors of a Ray cluster."""

from lora_search.study.executors.choosing import THIS_PROCESS, executor_of, workers_sentence

__all__ = ["THIS_PROCESS", "executor_of", "workers_sentence"]
