// Puts the page together: the same in report.html, where the data lies in the page, and on the dashboard, which sends it.

const drawing = {
  plates: new Map(), dirty: new Set(), seen: new Set(), scheduled: false, paper: false,
  // Only what is in sight is drawn at once; the rest when it comes near.
  start() {
    const draw = { cost: drawCost, rates: drawRates, ranks: drawRanks, probability: drawProbability, heat: drawHeat, ladder: drawLadder, timeline: drawTimeline, folds: drawFolds, parallel: drawParallel, importance: drawImportance, curves: drawCurves };
    this.watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const name = entry.target.dataset.figure;
        if (entry.isIntersecting) this.seen.add(name);
        else this.seen.delete(name);
      }
      this.schedule();
    }, { rootMargin: "250px" });
    const resized = new ResizeObserver((entries) => {
      for (const entry of entries) {
        const plate = this.plates.get(entry.target.dataset.figure);
        if (plate && plate.drawnAt !== Math.floor(entry.contentRect.width)) this.figure(entry.target.dataset.figure);
      }
    });
    for (const box of document.querySelectorAll("[data-figure]")) {
      const plate = new Plate(box, box.dataset.label);
      plate.paint = () => draw[box.dataset.figure](plate, byId(`key-${box.dataset.figure}`));
      this.plates.set(box.dataset.figure, plate);
      this.watcher.observe(box);
      resized.observe(box);
    }
    addEventListener("beforeprint", () => this.printing(true));
    addEventListener("afterprint", () => this.printing(false));
  },
  // Paper has one width, whatever the screen's.
  printing(paper) {
    this.paper = paper;
    for (const name of this.plates.keys()) this.dirty.add(name);
    this.flush(paper);
  },
  figure(name) {
    this.dirty.add(name);
    this.schedule();
  },
  all() {
    for (const name of this.plates.keys()) this.dirty.add(name);
    this.schedule();
  },
  schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      this.flush(false);
    });
  },
  flush(everything) {
    for (const name of [...this.dirty]) {
      if (!everything && !this.seen.has(name)) continue;
      const plate = this.plates.get(name);
      this.dirty.delete(name);
      if (name === "importance" && !view.data.importance) {
        askImportance();
        continue;
      }
      if (name === "rates" && !view.data.rates) askRates(); // drawn without them meanwhile
      plate.drawnAt = Math.floor(plate.box.clientWidth);
      plate.paint();
    }
  },
};

const KEPT_MILLISECONDS = 60000; // what takes the server seconds is asked of a running study again after a minute
let ratesAsked = null;
async function askRates() {
  if (!view.data.links || ratesAsked === view.data.token) return;
  ratesAsked = view.data.token;
  const answer = await fetch(`${view.data.links}/rates.json`).catch(() => null);
  if (!answer?.ok) return;
  view.data.rates = (await answer.json()).rates;
  Object.assign(view, { rates: view.data.rates, rates_at: Date.now() });
  drawing.figure("rates");
}

let asked = null;
async function askImportance() {
  if (asked === view.data.token) return;
  asked = view.data.token;
  if (!view.importance) drawing.plates.get("importance").empty("Being computed\u2026"); // else the last one stays
  const answer = await fetch(`${view.data.links}/importance.json`);
  if (!answer.ok) return view.importance || drawing.plates.get("importance").empty("Cannot be computed just now.");
  view.data.importance = await answer.json();
  Object.assign(view, { importance: view.data.importance, importance_at: Date.now() });
  byId("importance-caption").textContent = view.data.importance.caption;
  drawing.figure("importance");
}

async function studyPage(page) {
  const live = page.dataset.home === "live";
  const fetched = async () => {
    const answer = await fetch(api(page, "/data.json"));
    if (!answer.ok) throw new Error(answer.statusText);
    return answer.json();
  };
  let first;
  try {
    first = live ? await fetched() : JSON.parse(byId("study-data").textContent);
  } catch {
    byId("loading").textContent = "This study cannot be read just now.";
    return;
  }
  readAddress();
  take(first);
  view.selected = new Set([...view.selected].map((trial) => trialRow(trial)?.group.id).filter(known)); // any trial of an adapter names it
  byId("loading").remove();
  byId("content").hidden = false;
  const table = new Table(byId("table"));
  drawing.start();
  const judgeAt = async (margin, confidence) => {
    let judged = null;
    if (live) {
      const answer = await fetch(api(page, `/judged.json?margin=${margin}&confidence=${confidence}`));
      judged = answer.ok ? await answer.json() : null;
    } else {
      const { margins, confidences } = view.data.stops;
      judged = view.data.grid?.[margins.indexOf(margin)]?.[confidences.indexOf(confidence)];
    }
    if (!judged) return setLine("waiting", "this margin cannot be judged just now");
    apply(judged);
    refresh();
  };
  bindControls(table);
  bindSliders(judgeAt);
  listeners.push(drawFilters, drawVerdict, () => table.render(), drawSelected, () => drawing.all());
  refresh();
  if (view.margin !== null || view.confidence !== null) {
    await judgeAt(view.margin ?? view.data.asked.margin, view.confidence ?? view.data.asked.confidence);
  }
  page.dataset.ready = "yes";
  if (!live) return;
  bindControl(page);
  follow(page, async () => {
    const data = await fetched();
    if (data.token === view.data.token) return;
    if (Date.now() - view.importance_at < KEPT_MILLISECONDS) data.importance = view.importance;
    if (Date.now() - view.rates_at < KEPT_MILLISECONDS) data.rates = view.rates;
    take(data);
    if (view.margin !== null || view.confidence !== null) {
      return judgeAt(view.margin ?? data.asked.margin, view.confidence ?? data.asked.confidence);
    }
    refresh();
  });
}

const page = byId("page");
if (page && page.dataset.page === "study") studyPage(page);
if (page && page.dataset.page === "list") listPage(page);
if (page && page.dataset.page === "compare") comparePage(page);
