"""Numbers as the report writes them."""

import math

import pytest

from lora_search.plots.formats import adapter, count, duration, level, percent, signed, unit_of
from lora_search.plots.rows import listing, share


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (768, "768"),
        (3072, "3.07k"),
        (12_288, "12.3k"),
        (147_456, "147k"),
        (999_600, "1M"),
        (1_572_864, "1.57M"),
        (7e9, "7B"),
    ],
)
def test_a_parameter_count_has_at_most_three_figures(value: int, text: str) -> None:
    assert count(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0421, "0.042\xa0s"), (12.4, "12\xa0s"), (200, "3.33\xa0min"), (4320, "1.2\xa0h"), (math.nan, "–")],
)
def test_a_duration_is_in_the_unit_a_person_would_use(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.9499, "94.9\xa0%"),
        (0.95, "95.0\xa0%"),
        (0.99995, ">99.9\xa0%"),
        (0.004, "<1\xa0%"),
        (0.5, "50\xa0%"),
        (math.nan, "–"),
    ],
)
def test_a_probability_is_never_rounded_up_to_the_confidence_nor_to_certainty(value: float, text: str) -> None:
    assert percent(value) == text


def test_a_level_is_written_as_it_was_chosen() -> None:
    assert [level(0.95), level(0.975), level(0.9)] == ["95\xa0%", "97.5\xa0%", "90\xa0%"]


def test_what_rounds_to_zero_has_no_sign() -> None:
    assert [signed(-0.62, 1), signed(0.62, 1), signed(-0.04, 1)] == ["−0.6", "+0.6", "0.0"]


def test_accuracy_is_in_percent_and_its_differences_are_in_points() -> None:
    unit = unit_of("accuracy", 0.01)
    assert unit.score(0.87425) == "87.4\xa0%"
    assert unit.interval(0.861, 0.889) == "86.1 to 88.9\xa0%"
    assert unit.difference(-0.0062) == "−0.6"
    assert [unit.amount(0.01), unit.amount(0.005)] == ["1\xa0point", "0.5\xa0points"]


def test_other_metrics_keep_their_own_scale() -> None:
    unit = unit_of("matthews_correlation", 0.01)
    assert [unit.score(0.7431), unit.number(-0.1), unit.axis] == ["0.743", "−0.100", "Matthews correlation"]
    assert unit.difference(-0.0062) == "−0.6"


def test_a_small_margin_brings_another_decimal() -> None:
    unit = unit_of("accuracy", 0.001)
    assert [unit.score(0.87426), unit.difference(-0.00062)] == ["87.43\xa0%", "−0.06"]


def test_a_missing_score_is_a_dash() -> None:
    assert [unit_of("accuracy").score(math.nan), unit_of("accuracy").difference(math.nan)] == ["–", "–"]


def test_an_adapter_fits_a_label() -> None:
    assert adapter(2, "query+value", "all") == "r=2, query+value, all layers"
    assert adapter(4, "down_proj,gate_proj,k_proj,o_proj", "3,4", longest=10) == "r=4, down_proj…, layers 3,4"


@pytest.mark.parametrize(
    ("parameters", "of", "text"),
    [
        (9216, 147_456, "1/16 of the best's"),
        (24_576, 73_728, "1/3 of the best's"),
        (55_296, 73_728, "75\xa0% of the best's"),
        (147_456, 147_456, "as many as the best"),
        (147_456, 73_728, "2 × the best's"),
    ],
)
def test_the_share_of_parameters(parameters: int, of: int, text: str) -> None:
    assert share(parameters, of) == text


def test_a_nested_mapping_becomes_lines() -> None:
    value = {
        "hardware": {"cores": 2, "gpu": None, "bf16": True},
        "labels": ["a", "b"],
        "notes": ["Two sentences.", "In one line."],
        "resumed_in": [{"python": "3.13"}],
        "fingerprint": "7f9ef548bdc607c5136049187d482e6cc946643d156f375be24a476b2a1bf331",
    }
    assert listing(value) == [
        ("hardware cores", "2"),
        ("hardware gpu", "–"),
        ("hardware bf16", "yes"),
        ("labels", "a, b"),
        ("notes", "Two sentences. In one line."),
        ("resumed in 1 python", "3.13"),
        ("fingerprint", "7f9ef548bdc6…"),
    ]
