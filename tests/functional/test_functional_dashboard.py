"""Looking on while a study runs: from an empty folder to its verdict, on one page that is never loaded anew."""

import threading

import pytest
from browsing import browser_of
from dashboard_builders import served

from lora_search import run_study
from lora_search.dashboard import create_app
from lora_search.store.reader import read_study
from lora_search.study import live


@pytest.fixture
def browser():
    with browser_of() as found:
        yield found


def test_a_study_is_followed_from_its_first_step_to_its_verdict(browser, world, tmp_path, monkeypatch):
    monkeypatch.setattr(live, "_LIVE_SECONDS", 0.1)  # so that a short training is told of too
    experiment = world.experiment(training={"epochs": 20})
    run = threading.Thread(target=run_study, args=(experiment, tmp_path), kwargs={"progress": False})
    with served(create_app(tmp_path)) as site:
        browser.open(site.address)
        assert "No study here yet" in browser.text("#none")
        run.start()
        browser.until(lambda: browser.count('tr[data-name="critics"]') == 1)
        browser.open(f"{site.address}/studies/critics")
        browser.run("document.body.dataset.kept = 'yes'")
        browser.until(lambda: "% done" in browser.text("#live-words"))
        browser.until(lambda: not browser.hidden("#curves-section"))
        browser.reveal("curves")
        browser.until(lambda: browser.count("path.curve") > 0)
        browser.until(lambda: browser.count("tr[data-trial]") > 0)
        first = browser.run("return document.querySelector('tr[data-trial]').dataset.trial")
        browser.click(f'tr[data-trial="{first}"] input')
        run.join(60)
        expected = read_study(tmp_path / "critics").verdict()["sentence"]
        browser.until(lambda: browser.text("#verdict").replace("\xa0", " ") == expected.replace("\xa0", " "))
        browser.until(lambda: browser.hidden("#live") and browser.hidden("#curves-section"))
        assert browser.run("return document.body.dataset.kept") == "yes"
        assert browser.count("tr.picked") == 1
        assert browser.complaints() == []
