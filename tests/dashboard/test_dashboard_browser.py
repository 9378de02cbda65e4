"""The page in a browser: it draws, obeys, stays itself while the study goes on, and asks for nothing from outside."""

import json
import time

import pytest
from browsing import browser_of
from dashboard_builders import ENVIRONMENT, add_cells, record, served
from fabricated_studies import sampled_rows

from lora_search.dashboard import create_app
from lora_search.reporting import write_report
from lora_search.statistics.judging import judge
from lora_search.store.files import LIVE_FILE
from lora_search.store.ledger import Ledger
from lora_search.store.reader import read_study

FIGURES = {"cost", "probability", "folds", "ranks", "rates", "heat", "ladder", "timeline", "parallel", "importance"}


@pytest.fixture(scope="module")
def browser():
    with browser_of() as found:
        yield found


@pytest.fixture(scope="module")
def home(results, site):
    """Addresses of the two homes of one page."""
    return {"live": f"{site.address}/studies/film-quotes", "file": write_report(results / "film-quotes").as_uri()}


@pytest.mark.parametrize("where", ["live", "file"])
def test_every_figure_is_drawn_without_a_complaint_or_a_request_outside(browser, home, where):
    browser.open(home[where])
    for name in FIGURES:
        browser.reveal(name)
    drawn = browser.run(
        "return [...document.querySelectorAll('[data-figure]')]"
        ".filter(box => box.querySelector('svg').childElementCount > 4)"
        ".map(box => box.dataset.figure)"
    )
    assert set(drawn) == FIGURES
    assert browser.complaints() == []
    assert all(
        address.startswith((home["live"].rpartition("/studies")[0], "file:", "data:", "blob:"))
        for address in browser.requests()
    )
    assert browser.run("return [...document.images].filter(image => !image.naturalWidth).length") == 0


@pytest.mark.parametrize("where", ["live", "file"])
def test_the_sliders_say_what_the_command_says(browser, home, results, where):
    tables = read_study(results / "film-quotes")
    browser.open(home[where])
    stops = browser.run("return [...Array(Number(document.getElementById('margin').max) + 1).keys()].length")
    for index, margin in ((0, 0.0), (stops - 1, 0.1)):
        browser.slide("margin", index)
        expected = judge(tables, margin).sentence()
        browser.until(
            lambda expected=expected: browser.text("#verdict").replace("\xa0", " ") == expected.replace("\xa0", " ")
        )
    browser.click("#as-asked")
    expected = tables.verdict()["sentence"].replace("\xa0", " ")
    browser.until(lambda: browser.text("#verdict").replace("\xa0", " ") == expected)


def test_a_click_selects_an_adapter_everywhere_and_in_the_address(browser, home):
    browser.open(home["live"])
    browser.click('tr[data-trial="1"] input')
    browser.until(lambda: "selected=1" in browser.address())
    assert not browser.hidden("#selection")
    assert browser.count(".cards .card") == 1
    browser.reveal("cost")
    assert browser.count('[data-figure="cost"] circle.chosen') == 1
    browser.open(browser.address())
    assert browser.count("tr.picked") == 1


def test_a_point_is_found_by_arrow_keys(browser, home):
    browser.open(home["live"])
    browser.reveal("cost")
    browser.run("document.querySelector('[data-figure=cost] svg').focus()")
    browser.press("ArrowRight")
    assert "parameters" in browser.text(".tip")
    browser.press("Enter")
    browser.until(lambda: "selected=" in browser.address())


def test_headings_sort_and_filters_reach_table_and_figures(browser, home):
    browser.open(home["live"])
    browser.click('[data-sort="score"]')
    scores = browser.texts("table.trials tbody tr td:nth-child(5)")
    numbers = [float(text.split()[0].replace("%", "")) for text in scores if text[0].isdigit()]
    assert numbers == sorted(numbers, reverse=True)
    before = browser.count("table.trials tbody tr")
    browser.click('#filter-rank input[value="8"]')
    browser.until(lambda: browser.count("table.trials tbody tr") < before)
    assert "rank=8" in browser.address()
    assert all("r=8," in text for text in browser.texts("table.trials tbody th"))
    browser.click("#clear")
    browser.until(lambda: browser.count("table.trials tbody tr") == before)


def test_settings_of_one_adapter_are_gathered_and_open(browser, tmp_path):
    rows = sampled_rows(6)
    rows += [dict(rows[1], trial=6, learning_rate=3e-4), dict(rows[1], trial=7, learning_rate=9e-4)]
    rows += [dict(rows[1], trial=8, alpha=2 * rows[1]["alpha"])]
    record(tmp_path / "tuned", rows)
    with served(create_app(tmp_path)) as site:
        browser.open(f"{site.address}/studies/tuned")
        grouped = browser.count("table.trials tbody tr")
        [button] = browser.texts("button.more")
        assert button == "3 settings"
        told_apart = [text for text in browser.texts("table.trials tbody th") if "\u03b1=" in text]
        assert len(told_apart) == 2
        browser.open(f"{site.address}/studies/tuned#selected=7,99")
        assert browser.address().endswith("#selected=1")
        browser.click("#unselect")
        browser.click("button.more")
        assert browser.count("table.trials tbody tr") == grouped + 3
        browser.choose("group", "none")
        browser.until(lambda: browser.count("table.trials tbody tr") == 9)
        browser.choose("group", "rank")
        browser.until(lambda: browser.count("tr.gathered") == len({row["rank"] for row in rows}))
        assert "group=rank" in browser.address()
        inside = browser.count("table.trials tbody tr")
        browser.click("tr.gathered button")
        assert browser.count("table.trials tbody tr") < inside


def test_dragging_selects_points_and_filters_along_an_axis(browser, home):
    browser.open(home["live"])
    browser.reveal("cost")
    browser.drag("cost", (0.06, 0.1), (0.5, 0.85))
    browser.until(lambda: browser.count("tr.picked") > 1)
    assert not browser.hidden("#selection")
    browser.click("#unselect")
    browser.reveal("parallel")
    before = browser.count("table.trials tbody tr")
    browser.drag("parallel", (0.86, 0.1), (0.86, 0.4))  # the last axis is the score
    browser.until(lambda: "score=" in browser.address())
    assert browser.count("table.trials tbody tr") < before
    browser.open(browser.address())
    assert browser.count("#ranges button") == 1
    browser.click("#ranges button")
    browser.until(lambda: browser.count("table.trials tbody tr") == before)


def test_the_table_s_csv_is_that_of_the_folder(browser, home, results):
    browser.open(home["file"])
    kept = browser.run("return JSON.parse(document.getElementById('study-data').textContent).csv.join('')")
    assert kept == (results / "film-quotes" / "trials.csv").read_text(encoding="utf-8")


def test_a_running_study_grows_on_the_page_and_keeps_what_is_selected(browser, tmp_path):
    folder = record(tmp_path / "going", sampled_rows(3))
    with served(create_app(tmp_path)) as site:
        browser.open(f"{site.address}/studies/going")
        browser.click('tr[data-trial="0"] input')
        marker = browser.run(
            "document.body.dataset.kept = 'yes'; return document.querySelectorAll('tr[data-trial]').length"
        )
        began = time.monotonic()
        add_cells(folder, dict(sampled_rows(4)[3], state="running"), cells=2)
        browser.until(lambda: "4 trials" in browser.text("#facts"), seconds=6)
        assert time.monotonic() - began < 6
        assert marker == 3
        assert browser.run("return document.body.dataset.kept") == "yes"
        assert browser.count("tr.picked") == 1
        assert browser.complaints() == []


def test_a_page_that_was_away_shows_what_it_missed_and_reads_nothing_else(browser, tmp_path):
    folder = record(tmp_path / "going", sampled_rows(3))

    def asked():
        return [address.rpartition("/")[2] for address in browser.requests()]

    with served(create_app(tmp_path)) as site:
        browser.open(f"{site.address}/studies/going")
        browser.until(lambda: asked().count("events") == 1)
        browser.in_sight(False)
        add_cells(folder, dict(sampled_rows(4)[3], state="running"), cells=2)
        time.sleep(1)
        assert "3 trials" in browser.text("#facts")
        browser.in_sight(True)
        browser.until(lambda: "4 trials" in browser.text("#facts"))
        assert (asked().count("events"), asked().count("data.json")) == (2, 2)
        browser.in_sight(False)
        browser.in_sight(True)
        browser.until(lambda: asked().count("events") == 3)
        time.sleep(1)
        assert asked().count("data.json") == 2
        assert browser.complaints() == []


def test_a_study_that_could_not_be_read_just_now_is_read_again(browser, tmp_path):
    folder = record(tmp_path / "going", sampled_rows(3))
    with served(create_app(tmp_path)) as site:
        browser.open(f"{site.address}/studies/going")
        browser.run("window.ask = window.fetch; window.fetch = () => Promise.reject(new Error('no network'))")
        add_cells(folder, dict(sampled_rows(4)[3], state="running"), cells=2)
        browser.until(lambda: browser.text("#live-words") == "could not be read just now")
        browser.run("window.fetch = window.ask")
        browser.until(lambda: "4 trials" in browser.text("#facts"))
        assert browser.text("#live-words") != "could not be read just now"


def test_a_run_that_ends_before_its_last_trials_are_read_leaves_no_word_that_it_could_go_on(browser, tmp_path):
    """What is left is told by the trials: those of an older state have one running."""
    rows = [*sampled_rows(3), dict(sampled_rows(4)[3], state="running")]
    folder = record(tmp_path / "ended", rows)
    said = {"state": "ended", "process": 1, "machine": "", "share": 1.0, "left": None, "title": "", "steps": 0}
    (folder / LIVE_FILE).write_text(json.dumps({**said, "losses": []}), encoding="utf-8")
    with served(create_app(tmp_path)) as site:
        browser.open(f"{site.address}/studies/ended")
        browser.until(lambda: browser.text("#live-words").startswith("Not running"))
        with Ledger.open(folder, read_study(folder).experiment, ENVIRONMENT) as ledger:
            ledger.set_trial_state(3, "complete")
        browser.until(lambda: browser.hidden("#live"))
        assert browser.complaints() == []


def test_pages_that_nobody_sees_keep_no_other_from_loading(browser, home):
    """A browser has six connections to a host."""
    with browser.tabs() as another_tab:
        for _ in range(8):
            another_tab()
            browser.open(home["live"])
        assert browser.complaints() == []


def test_a_phone_needs_no_sideways_scrolling_and_night_is_dark(browser, home):
    with browser.screen(360, 740):
        for address in (home["live"], home["file"], home["live"].partition("/studies")[0]):
            browser.open(address)
            assert browser.run("return document.documentElement.scrollWidth") <= 360
    with browser.dark():
        browser.open(home["live"])
        assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(23, 25, 29)"
        assert browser.complaints() == []


def test_two_adapters_show_where_they_disagree(browser, home):
    browser.open(home["live"] + "#selected=0,1")
    browser.until(lambda: "They disagree on" in browser.text("#predictions"))
    assert browser.count("#predictions table") == 3


def test_hostile_names_of_labels_and_modules_are_only_text(browser, tmp_path):
    evil = '<script>document.body.dataset.owned = "yes"</script>'
    rows = sampled_rows(4)
    rows[1] |= {"targets": "<img src=x onerror=alert(1)>", "layers": "0"}
    rows[2] |= {"state": "failed", "cells": 0, "failure": evil}
    record(tmp_path / "evil", rows, labels=(evil, "</td></table><b>bold</b>"))
    with served(create_app(tmp_path)) as site:
        browser.open(f"{site.address}/studies/evil#selected=0,1&group=none&columns=state,targets,layers,learning_rate")
        browser.until(lambda: browser.count("#predictions table") == 3)
        for name in FIGURES - {"importance"}:
            browser.reveal(name)
        assert browser.texts("#predictions tbody th")[0] == evil[:21] + "…"
        assert browser.run("return document.body.dataset.owned ?? null") is None
        assert browser.count("main img") == browser.count("main table b b") == 0
        assert browser.complaints() == []
    write_report(tmp_path / "evil")
    browser.open((tmp_path / "evil" / "report.html").as_uri() + "#selected=0,1")
    assert browser.run("return document.body.dataset.owned ?? null") is None
    assert browser.complaints() == []


def test_studies_are_compared_on_one_page(browser, tmp_path):
    record(tmp_path / "one", sampled_rows(5))
    record(tmp_path / "other", sampled_rows(5, seed=2))
    with served(create_app(tmp_path)) as site:
        browser.open(site.address)
        for name in ("one", "other"):
            browser.click(f'input[value="{name}"]')
        browser.click("#compare")
        browser.until(lambda: "paired on 5 shared folds" in browser.text("body"))
        assert browser.count("#compare-plates circle.named") == 2
        assert browser.complaints() == []


def test_studies_of_different_metrics_have_axes_of_their_own(browser, tmp_path):
    record(tmp_path / "one", sampled_rows(3))
    record(tmp_path / "other", sampled_rows(3), experiment={"verdict": {"metric": "macro_f1", "margin": 0.01}})
    with served(create_app(tmp_path)) as site:
        browser.open(f"{site.address}/compare?study=one&study=other")
        titles = browser.texts("#compare-plates svg .title")
        assert [title for title in titles if "folds" in title] == [
            "accuracy (%), mean over folds",
            "macro F1, mean over folds",
        ]
        assert browser.count("#compare-plates .plate:nth-child(2) circle.named") == 1
        assert browser.count("#compare-plates .series-2") > 0


@pytest.mark.parametrize("path", ["", "/studies/film-quotes#selected=0,1", "/compare?study=film-quotes"])
@pytest.mark.parametrize("night", [False, True])
def test_no_serious_barrier_is_found(browser, axe, site, path, night):
    with browser.dark() if night else browser.screen(1280, 900):
        browser.open(site.address + path)
        for name in FIGURES if "#" in path else ():
            browser.reveal(name)
        found = browser.barriers(axe)
    serious = [
        f"{one['id']}: {one['nodes'][0]['html'][:160]}" for one in found if one["impact"] in ("serious", "critical")
    ]
    assert serious == []
