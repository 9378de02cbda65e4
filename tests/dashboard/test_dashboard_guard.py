"""Who may ask: names, tokens, other sites, and paths that lead nowhere."""

import pytest
from dashboard_builders import record, served
from fabricated_studies import sampled_rows, trial_row

from lora_search.dashboard import create_app
from lora_search.dashboard.guard import Access


@pytest.mark.parametrize(
    ("host", "header", "known"),
    [
        ("127.0.0.1", "127.0.0.1:8787", True),
        ("127.0.0.1", "localhost:1", True),
        ("127.0.0.1", "[::1]:8787", True),
        ("127.0.0.1", "evil.example:8787", False),
        ("127.0.0.1", "192.168.0.7:8787", False),
        ("127.0.0.1", "", False),
        ("0.0.0.0", "192.168.0.7:8787", True),
        ("0.0.0.0", "evil.example", False),
        ("gpu-box", "gpu-box:8787", True),
    ],
)
def test_only_names_of_this_server_are_answered(host, header, known):
    assert Access(host).knows(header) is known


def test_a_foreign_name_is_refused_before_anything_is_read(site):
    answer = site.ask("/studies/film-quotes/data.json", headers={"Host": "evil.example"})
    assert answer.status == 421
    assert b"trial" not in answer.body


def test_every_answer_carries_a_strict_policy(site):
    for path in ("/", "/studies/film-quotes", "/studies/film-quotes/data.json", "/static/page.js", "/nowhere"):
        policy = site.ask(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
    assert site.ask("/").headers["x-content-type-options"] == "nosniff"


def test_pages_have_no_inline_script_or_style(site):
    for path in ("/", "/studies/film-quotes", "/compare?study=film-quotes"):
        text = site.ask(path).text
        assert "<style" not in text
        assert " style=" not in text
        assert " onclick" not in text
        scripts = [part.split(">")[0] for part in text.split("<script")[1:]]
        assert all("src=" in tag or "application/json" in tag for tag in scripts)


def test_another_site_may_only_link_here(site):
    path = "/studies/film-quotes/data.json"
    fetched = site.ask(path, headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"})
    linked = site.ask("/studies/film-quotes", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})
    assert (fetched.status, linked.status) == (403, 200)


@pytest.mark.parametrize(
    "path",
    [
        "/studies/..%2F..%2Fetc/data.json",
        "/studies/../../../etc/passwd",
        "/studies/%2Fetc/data.json",
        "/studies/./data.json",
        "/static/../app.py",
        "/studies/film-quotes/../../secret",
        "/studies/film-quotes%00/data.json",
    ],
)
def test_no_path_leads_out_of_the_folder(site, results, path):
    (results / "secret").write_text("secret", encoding="utf-8")
    answer = site.ask(path)
    assert answer.status in (404, 409)
    assert b"secret" not in answer.body


def test_a_token_comes_once_in_the_address_and_stays_in_a_cookie(results):
    with served(create_app(results, host="0.0.0.0", token="open sesame")) as site:
        assert site.ask("/").status == 403
        assert site.ask("/?token=guess").status == 403
        entered = site.ask("/?token=open%20sesame")
        assert (entered.status, entered.headers["location"]) == (303, "/")
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert site.ask("/", headers={"Cookie": cookie.partition(";")[0]}).status == 200
        name = cookie.partition("=")[0]
        assert site.ask("/", headers={"Cookie": f"{name}=other"}).status == 403


def test_two_dashboards_of_one_host_keep_each_their_token(results):
    """A browser brings all cookies of a host to each of its ports."""
    jar = {}
    with (
        served(create_app(results, token="one", control=True)) as one,
        served(create_app(results, token="other", control=True)) as other,
    ):
        for site, token in ((one, "one"), (other, "other")):
            name, _, value = site.ask(f"/?token={token}").headers["set-cookie"].partition(";")[0].partition("=")
            jar[name] = value
        brought = {"Cookie": "; ".join(f"{name}={value}" for name, value in jar.items())}
        assert [site.ask("/", headers=brought).status for site in (one, other)] == [200, 200]


def test_what_a_study_says_is_text(tmp_path):
    rows = [*sampled_rows(2), trial_row(2, 1, "attention", "all", 1e-3, state="failed", failure="</script><b>boom</b>")]
    record(tmp_path / "odd", rows, experiment={"data": {"train": "<script>alert(1)</script>.csv"}})
    with served(create_app(tmp_path)) as site:
        for path in ("/", "/studies/odd", "/compare?study=%3Cb%3Eodd"):
            text = site.ask(path).text
            assert "<script>alert" not in text
            assert "<b>boom" not in text
            assert "<b>odd" not in text
