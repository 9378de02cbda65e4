// The list of studies, kept up to date, and several studies side by side.

function studyLine(row, picked) {
  const box = h("input", { type: "checkbox", name: "study", value: row.name, "aria-label": `compare ${row.name}`, onchange: comparable });
  box.checked = picked.has(row.name);
  const link = h("a", { href: `${byId("page").dataset.root}/studies/${encodeURIComponent(row.name)}` }, row.name);
  if (row.problem) {
    return h("tr", { class: "problem" }, h("td", { class: "check" }), h("th", { scope: "row" }, row.name), h("td", { colspan: 4 }, row.problem));
  }
  const meter = s("svg", { class: "meter", width: 112, height: 4, role: "img", "aria-label": percentText(row.share) }, s("rect", { height: 4, width: (112 * Math.min(1, row.share)).toFixed(1) }));
  return h("tr", { "data-name": row.name },
    h("td", { class: "check" }, box),
    h("th", { scope: "row" }, link),
    h("td", null, row.state === "finished" ? "finished" : [row.state, meter, row.words ? h("small", null, row.words) : ""]),
    h("td", { class: "number" }, row.best || DASH, h("small", null, row.metric)),
    h("td", { class: "number" }, `${row.trials} of ${row.trials_wanted}`, h("small", null, counted(row.cells, "training"))),
    h("td", { class: "sentence" }, row.sentence));
}

function comparable() {
  const chosen = [...document.querySelectorAll('input[name="study"]:checked')].map((box) => box.value);
  const link = byId("compare");
  link.hidden = chosen.length < 2;
  link.href = `${byId("page").dataset.root}/compare?${chosen.map((name) => `study=${encodeURIComponent(name)}`).join("&")}`;
  link.textContent = `compare ${counted(chosen.length, "study").replace("studys", "studies")}`;
}

function listPage(page) {
  const show = (rows) => {
    const picked = new Set([...document.querySelectorAll('input[name="study"]:checked')].map((box) => box.value));
    const held = document.activeElement?.closest("tr")?.dataset.name, tag = document.activeElement?.tagName;
    byId("none").hidden = rows.length > 0;
    byId("list").hidden = !rows.length;
    byId("rows").replaceChildren(...rows.map((row) => studyLine(row, picked)));
    if (held) byId("rows").querySelector(`tr[data-name="${CSS.escape(held)}"] ${tag}`)?.focus();
    comparable();
    page.dataset.ready = "yes";
  };
  show(JSON.parse(byId("rows-data").textContent));
  const events = new EventSource(`${page.dataset.root}/events`);
  events.addEventListener("studies", (event) => show(JSON.parse(event.data)));
  events.addEventListener("error", () => (byId("lost").hidden = false));
  events.addEventListener("open", () => (byId("lost").hidden = true));
}

async function comparePage(page) {
  const answer = await fetch(`${page.dataset.root}/compare.json${location.search}`);
  if (!answer.ok) return void (byId("loading").textContent = await answer.text());
  const { studies, pairs } = await answer.json();
  byId("loading").remove();
  byId("content").hidden = false;
  const colour = (at) => `series-${(at % 6) + 1}`;
  byId("sentences").replaceChildren(...studies.map((study, at) => h("div", null,
    h("dt", null, s("svg", { width: 13, height: 13, viewBox: "0 0 13 13", "aria-hidden": "true" }, s("path", { class: `mark ${colour(at)} full`, d: markPath(6.5, 6.5, "o", 4.4) })),
      h("a", { href: `${page.dataset.root}/studies/${encodeURIComponent(study.name)}` }, study.name)),
    h("dd", null, study.sentence, h("small", null, `${study.base} \u00b7 ${study.data} \u00b7 ${counted(study.cells, "training")}, ${durationText(study.seconds)} of compute`)))));
  byId("pairs").replaceChildren(...(pairs.length ? pairs.map((pair) => h("li", null, `The recommended of ${pair.one} against that of ${pair.other}: ${pair.difference} ${pair.measure}${pair.interval ? ` (95 % between ${pair.interval})` : ""}, paired on ${counted(pair.folds, "shared fold")}.`)) : [h("li", null, "No two of these studies share their folds and metric, so their scores stand side by side without a paired difference.")]));
  const metrics = new Set(studies.map((study) => study.metric.metric));
  const plate = new Plate(byId("compare-plate"), "Score against adapter parameters, a colour for each study");
  const draw = () => drawCompared(plate, studies, colour, metrics.size > 1);
  draw();
  new ResizeObserver(() => {
    if (plate.drawnAt !== Math.floor(plate.box.clientWidth)) draw();
  }).observe(plate.box);
  page.dataset.ready = "yes";
}

function drawCompared(plate, studies, colour, mixed) {
  plate.drawnAt = Math.floor(plate.box.clientWidth);
  const all = studies.flatMap((study, at) => study.points.map((point) => ({ ...point, study, at })));
  if (!all.length) return plate.empty("None of these studies has a score yet.");
  const metric = new Unit(studies[0].metric), margin = Math.max(...studies.map((study) => study.margin));
  plate.begin(plate.box.clientWidth < NARROW ? 340 : 460, { left: 46, right: 24, top: 30, bottom: 48 });
  const limits = scoreLimits(all.map((point) => point.score), null, margin), scale = linear(...limits, plate.bottom_edge, plate.top);
  plate.yAxis(scale, linearTicks(...limits, metric.factor).map((tick) => ({ value: tick.value, text: tick.shown.toFixed(tick.digits) })), `${mixed ? "score, each study by its own metric" : metric.axis}, mean over folds`);
  const xs = logarithmic(all.map((point) => point.parameters), plate.left, plate.right_edge);
  plate.xAxis(xs, valueTicks(xs, all.map((point) => point.parameters), [], 44), countText, "adapter parameters (log scale)");
  const paths = new Map(), add = (look, d) => paths.set(look, (paths.get(look) || "") + d);
  const radius = all.length > 600 ? 2.4 : 4.4, labels = [];
  plate.points = all.map((point) => {
    const x = xs.place(point.parameters), y = scale.place(Math.max(point.score, limits[0]));
    if (known(point.low) && point.finished) add(`interval ${colour(point.at)}`, `M${x.toFixed(1)},${scale.place(Math.max(point.low, limits[0])).toFixed(1)}V${scale.place(Math.min(point.high, limits[1])).toFixed(1)}`);
    add(`mark ${colour(point.at)} ${point.finished ? "full" : "open"}`, markPath(x, y, "o", radius));
    if (point.recommended) labels.push({ x, y, point });
    const unit = new Unit(point.study.metric);
    const words = () => [point.study.name, `r=${point.rank}, ${cut(point.targets)}, ${layersText(point.layers)}`, `${unit.metric} ${unit.score(point.score)}, ${countText(point.parameters)} parameters`];
    return { x, y, words, adapter: null };
  });
  for (const [look, d] of paths) plate.add(s("path", { class: look, d }));
  const taken = [];
  for (const { x, y, point } of labels) {
    plate.add(s("circle", { class: "named strong", cx: x, cy: y, r: radius + 4 }));
    plate.label({ point: { x, y }, text: cut(point.study.name, 24), strong: true }, plate.points, taken);
  }
  plate.end();
}
