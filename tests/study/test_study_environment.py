"""What is written down of a machine."""

from pathlib import Path

import pytest

from lora_search.study.environment import hardware

CORE = (
    "processor\t: 0\nmodel name\t: Some Processor\nflags\t\t: fpu {flag} avx2\n\nprocessor\t: 1\nmodel name\t: Other\n"
)


@pytest.mark.parametrize(("flag", "expected"), [("amx_bf16", True), ("amx_bf16_none", False)])
def test_a_processor_is_known_by_its_name_and_its_instructions(monkeypatch, flag, expected):
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: CORE.format(flag=flag))
    found = hardware()
    assert found["processor"] == "Some Processor"
    assert found["amx_bf16"] is expected


def test_where_the_system_says_nothing_of_its_processor_there_is_still_a_name(monkeypatch):
    def refused(path, encoding):
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", refused)
    assert hardware()["processor"]
    assert hardware()["amx_bf16"] is False
