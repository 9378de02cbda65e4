// Following a study: the server says that something changed, and only then is it read again. Nothing here in a file.

const api = (page, path) => page.dataset.study + path;

// Events as long as someone may see them: a browser has six connections to a host for all its pages, and one that follows
// keeps one of them. A page that comes back is told at once how things are.
function listen(address, handlers) {
  let events = null, ended = false;
  const close = () => {
    events?.close();
    events = null;
  };
  const end = () => {
    ended = true;
    close();
  };
  const open = () => {
    if (events || ended || document.hidden) return;
    events = new EventSource(address);
    for (const [name, handler] of Object.entries(handlers)) events.addEventListener(name, (event) => handler(event, end));
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  open();
}

const AGAIN_MILLISECONDS = 5000;

function follow(page, onChange) {
  let token = view.data.token, asked = token, busy = false, retry = null;
  const change = async () => {
    if (busy) return;
    busy = true;
    while (token !== asked && token !== view.data.token) {
      const wanted = token;
      try {
        await onChange();
        if (["waiting", "still"].includes(byId("live").dataset.state)) showLive(view.live); // whether anything is left is told by the trials
        asked = wanted;
      } catch {
        setLine("waiting", "could not be read just now");
        clearTimeout(retry);
        retry = setTimeout(change, AGAIN_MILLISECONDS); // nothing else may ever be recorded
        break;
      }
    }
    busy = false;
  };
  listen(api(page, "/events"), {
    // the first one says how the study is: a page that was away does not know what it missed
    changed: (event) => {
      token = JSON.parse(event.data).token;
      change();
    },
    live: (event) => showLive(JSON.parse(event.data)),
    gone: (event, end) => {
      setLine("gone", "the study's folder is gone; this page keeps what it last showed");
      end();
    },
    open: () => page.classList.remove("lost"),
    error: () => {
      page.classList.add("lost");
      setLine("lost", "the dashboard does not answer; trying again");
    },
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
      const answer = await fetch(api(page, `/${action}`), { method: "POST", headers: { "X-Control": page.dataset.control } }).catch(() => null);
      setLine("asked", !answer ? "the dashboard does not answer" : answer.ok ? (await answer.json()).words : await answer.text());
      setTimeout(() => (event.target.disabled = false), 3000);
    });
  }
}
