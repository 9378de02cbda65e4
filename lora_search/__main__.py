"""``python -m lora_search`` is ``lora-search``."""

from lora_search.cli import main

raise SystemExit(main())
