"""Settings every test needs before a library is imported."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # a hub miss fails at once instead of after a long wait
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
