"""Following a study: told of what was recorded and of what its run says, and of nothing else."""

import asyncio
import json
import os
import shutil
import sqlite3
import time
from contextlib import closing

import pytest
from dashboard_builders import record, served
from fabricated_studies import sampled_rows

from lora_search.dashboard import create_app, events, watching
from lora_search.dashboard.watching import look_at, process_of, read_live
from lora_search.store.files import LIVE_FILE, STUDY_FILE
from lora_search.store.lock import FolderLock


def said(**changes):
    return {
        "state": "running", "process": os.getpid(), "machine": os.uname().nodename, "share": 0.25, "left": 75.0,
        "left_words": "1m 15s", "title": "trials 3, 5 / fold 2", "epoch": 1, "epochs": 2, "step": 7, "steps": 120,
        "losses": [[1, 0.7], [7, 0.6]], "updated": time.time(),
    } | changes  # fmt: skip


def speak(folder, **changes):
    (folder / LIVE_FILE).write_text(json.dumps(said(**changes)), encoding="utf-8")


@pytest.fixture
def running(folder):
    """As long as a run has the study."""
    lock = FolderLock.acquire(folder)
    yield
    lock.release()


def finish_a_cell(folder):
    with sqlite3.connect(folder / STUDY_FILE) as connection:
        connection.execute("update lora_cells set seconds = seconds + 1 where trial = 0 and fold = 0")
    connection.close()


@pytest.fixture
def folder(tmp_path):
    return record(tmp_path / "film-quotes", sampled_rows(3))


def test_a_page_hears_of_a_cell_of_a_step_and_of_the_end(folder, running):
    with served(create_app(folder.parent)) as site, site.events("/studies/film-quotes/events") as events:
        assert next(events) == ("live", None)
        assert next(events) == ("changed", {"token": look_at(folder).token})
        finish_a_cell(folder)
        name, value = next(events)
        assert name == "changed"
        assert value["token"] == site.ask("/studies/film-quotes/data.json").json["token"]
        speak(folder)
        name, value = next(events)
        assert name == "live"
        assert value["running"]
        assert "25 % done · about 1m 15s left · training trials 3, 5 / fold 2" in value["words"]
        shutil.rmtree(folder)
        assert "gone" in [name for name, _ in events]


def test_a_page_that_comes_back_hears_how_the_study_is_by_now(folder):
    with served(create_app(folder.parent)) as site:
        before = site.ask("/studies/film-quotes/data.json").json["token"]
        finish_a_cell(folder)  # while nobody listens
        with site.events("/studies/film-quotes/events") as events:
            told = [next(events), next(events)]
        assert told == [("live", None), ("changed", {"token": look_at(folder).token})]
        assert told[1][1]["token"] != before


def test_the_list_hears_of_new_studies(folder):
    with served(create_app(folder.parent)) as site, site.events("/events") as events:
        assert [row["name"] for row in next(events)[1]] == ["film-quotes"]
        record(folder.parent / "another", sampled_rows(2))
        names = [row["name"] for row in next(events)[1]]
        assert "another" in names


def test_a_look_differs_only_where_something_was_recorded(folder):
    before = look_at(folder)
    assert look_at(folder).files == before.files
    finish_a_cell(folder)
    assert look_at(folder).files != before.files
    assert look_at(folder.parent) is None


@pytest.mark.parametrize(("seconds", "settled"), [(-3600, True), (0, False), (3600, True)])
def test_a_look_is_settled_unless_it_was_written_to_just_now(folder, monkeypatch, seconds, settled):
    now = (folder / STUDY_FILE).stat().st_mtime_ns
    monkeypatch.setattr(watching.time, "time_ns", lambda: now)
    moment = now + seconds * 10**9
    for path in (folder / STUDY_FILE, folder / "verdict.json"):
        os.utime(path, ns=(moment, moment))
    assert look_at(folder).settled is settled
    os.utime(folder / STUDY_FILE, ns=(now, now))
    assert look_at(folder).settled is False


def test_reading_a_study_that_nobody_writes_looks_like_nothing_recorded(folder):
    before, seen = look_at(folder).files, []
    with closing(sqlite3.connect(folder / STUDY_FILE)) as connection:
        connection.execute("select * from lora_cells").fetchone()
        assert (folder / f"{STUDY_FILE}-wal").exists()
        seen.append(look_at(folder).files)
    assert [*seen, look_at(folder).files] == [before, before]


def test_a_run_that_was_killed_is_not_running(folder, running):
    speak(folder, process=2**22 - 1)
    assert read_live(folder)["running"] is False
    assert process_of(folder) is None
    speak(folder, state="ended")
    assert read_live(folder)["running"] is False
    speak(folder)
    assert process_of(folder) == os.getpid()


def test_a_run_that_was_stopped_amid_extra_repeats_is_unfinished(folder):
    speak(folder, state="ended", share=0.8)
    assert read_live(folder)["unfinished"] is True
    with served(create_app(folder.parent)) as site:
        page = site.ask("/").text
    assert '"state":"stopped"' in page
    speak(folder, state="ended", share=1.0)
    assert read_live(folder)["unfinished"] is False


def test_a_run_elsewhere_is_running_while_it_speaks(folder):
    speak(folder, machine="another")
    assert read_live(folder)["running"] is True
    speak(folder, machine="another", updated=time.time() - 3600)
    assert read_live(folder)["running"] is False


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": "running"}', '{"state": "running", "process": "x"}'])
def test_a_live_file_that_cannot_be_read_says_nothing(folder, text):
    (folder / LIVE_FILE).write_text(text, encoding="utf-8")
    assert read_live(folder) is None
    assert process_of(folder) is None


def test_a_study_that_takes_long_to_judge_is_announced_seldom(folder, monkeypatch):
    monkeypatch.setattr(events, "_TURN", 0.01)

    async def heard():
        found = events.study_events(folder, lambda: 1e6)
        first = [await anext(found), await anext(found), await anext(found)]
        finish_a_cell(folder)
        first.append(await anext(found))
        finish_a_cell(folder)
        first.append(await anext(found))
        await found.aclose()
        return [text.partition(b"\n")[0] for text in first]

    *_, announced, later = asyncio.run(heard())
    assert announced == b"event: changed"
    assert later == b": still here"
