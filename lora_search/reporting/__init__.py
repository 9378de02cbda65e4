"""From a study folder to files: the figures, and one page that holds everything and needs nothing.

What is drawn and how is the floor below (``plots``); here it is read from a folder and written into it.
"""

from lora_search.reporting.page import render_report, write_report

__all__ = ["render_report", "write_report"]
