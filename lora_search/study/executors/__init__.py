"""Who trains: the worker in this process, worker processes, or the actors of a Ray cluster."""

from lora_search.study.executors.choosing import executor_of, workers_sentence

__all__ = ["executor_of", "workers_sentence"]
