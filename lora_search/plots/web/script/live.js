// Following a study: the server says that something changed, and only then is it read again. Nothing here in a file.

const api = (page, path) => page.dataset.study + path;

function follow(page, onChange) {
  const events = new EventSource(api(page, "/events"));
  let busy = false, again = false;
  const change = async () => {
    if (busy) return void (again = true);
    busy = true;
    do {
      again = false;
      await onChange().catch(() => setLine("waiting", "could not be read just now"));
    } while (again);
    busy = false;
  };
  events.addEventListener("changed", change);
  events.addEventListener("live", (event) => showLive(JSON.parse(event.data)));
  events.addEventListener("gone", () => {
    setLine("gone", "the study's folder is gone; this page keeps what it last showed");
    events.close();
  });
  events.addEventListener("open", () => page.classList.remove("lost"));
  events.addEventListener("error", () => {
    page.classList.add("lost");
    setLine("lost", "the dashboard does not answer; trying again");
  });
}

function setLine(state, words) {
  const line = byId("live");
  if (!line) return;
  line.hidden = !words;
  line.dataset.state = state;
  byId("live-words").textContent = words;
}

function showLive(live) {
  view.live = live;
  // a run that has spent its trainings is at its end, however few trials that made
  const running = live && live.running, left = view.trials.some((row) => row.state === "running") || (live ? live.unfinished : view.data.unfinished);
  byId("live-bar").toggleAttribute("hidden", !running);
  byId("curves-section").hidden = !running || !(live.losses.length > 1 || !byId("curves-section").hidden);
  for (const [id, shown] of [["stop", running], ["resume", !running && left]]) if (byId(id)) byId(id).hidden = !shown;
  if (!live) return setLine("none", "");
  if (!running) return setLine("still", left ? live.words : "");
  byId("live-bar").firstElementChild.setAttribute("width", `${Math.round(100 * live.share)}%`);
  byId("live-bar").setAttribute("aria-valuenow", Math.round(100 * live.share));
  setLine("running", live.words);
  if (!byId("curves-section").hidden) drawing.figure("curves");
}

function bindControl(page) {
  for (const action of ["stop", "resume"]) {
    byId(action)?.addEventListener("click", async (event) => {
      event.target.disabled = true;
      const answer = await fetch(api(page, `/${action}`), { method: "POST", headers: { "X-Control": page.dataset.control } });
      setLine("asked", (await answer.json()).words);
      setTimeout(() => (event.target.disabled = false), 3000);
    });
  }
}
