// The list of studies, kept up to date, and several studies side by side.

function studyLine(row, picked) {
  const box = h("input", { type: "checkbox", name: "study", value: row.name, "aria-label": `compare ${row.name}`, onchange: comparable });
  box.checked = picked.has(row.name);
  const link = h("a", { href: `${byId("page").dataset.root}/studies/${encodeURIComponent(row.name)}` }, row.name);
  if (row.problem) {
    return h("tr", { class: "problem" }, h("td", { class: "check" }), h("th", { scope: "row" }, row.name), h("td", { colspan: 4 }, row.problem));
  }
  const meter = s("svg", { class: "meter", width: 176, height: 4, role: "img", "aria-label": percentText(row.share) }, s("rect", { height: 4, width: (176 * Math.min(1, row.share)).toFixed(1) }));
  return h("tr", { "data-name": row.name },
    h("td", { class: "check" }, box),
    h("th", { scope: "row" }, link, h("small", null, `${row.base} on ${row.data}`)),
    h("td", { class: "sentence" }, row.sentence),
    h("td", { class: "number best", "data-label": "best" }, row.best || DASH, h("small", null, row.metric)),
    h("td", { class: "number", "data-label": "trials" }, `${row.trials} of ${row.trials_wanted}`, h("small", null, counted(row.cells, "training"))),
    h("td", { class: "progress" }, row.state === "finished" ? "finished" : [row.state, meter, row.words ? h("small", null, row.words) : ""]));
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
  listen(`${page.dataset.root}/events`, {
    studies: (event) => show(JSON.parse(event.data)),
    error: () => (byId("lost").hidden = false),
    open: () => (byId("lost").hidden = true),
  });
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
  byId("pairs").replaceChildren(...(pairs.length ? pairs.map((pair) => h("li", null, `The recommended of ${pair.one} against that of ${pair.other}: ${pair.difference} ${pair.measure}${pair.interval ? ` (95 % interval ${pair.interval})` : ""}, paired on ${counted(pair.folds, "shared fold")}.`)) : [h("li", null, "No two of these studies share their folds and metric, so their scores stand side by side without a paired difference.")]));
  studies.forEach((study, at) => (study.colour = colour(at)));
  const metrics = new Set(studies.map((study) => study.metric.metric));
  byId("compare-plates").replaceChildren(...[...metrics].map(() => h("div", { class: "plate" })));
  [...metrics].forEach((metric, at) => {
    const box = byId("compare-plates").children[at], plate = new Plate(box, `Score by ${metric} against adapter parameters, a colour for each study`);
    const draw = () => drawCompared(plate, studies.filter((study) => study.metric.metric === metric));
    draw();
    new ResizeObserver(() => {
      if (plate.drawnAt !== Math.floor(box.clientWidth)) draw();
    }).observe(box);
  });
  page.dataset.ready = "yes";
}

// One adapter each, at its best setting; the steps are each study's own front, as on its page. All have one metric.
function drawCompared(plate, studies) {
  plate.drawnAt = Math.floor(plate.box.clientWidth);
  const all = studies.flatMap((study, at) => study.points.map((point) => ({ ...point, study, at })));
  if (!all.length) return plate.empty("None of these studies has a score yet.");
  const metric = new Unit(studies[0].metric), margin = Math.max(...studies.map((study) => study.margin));
  plate.begin(plate.narrow ? 340 : 460, { left: 46, right: 24, top: 30, bottom: 48 });
  const finished = all.filter((point) => point.finished && known(point.high)).map((point) => point.high);
  const limits = scoreLimits(all.map((point) => point.score), null, margin, finished.length ? finished.reduce((one, other) => Math.max(one, other)) : null);
  const scale = linear(...limits, plate.bottom_edge, plate.top);
  plate.yAxis(scale, linearTicks(...limits, metric.factor).map((tick) => ({ value: tick.value, text: tick.shown.toFixed(tick.digits) })), `${metric.axis}, mean over folds`);
  const sizes = all.map((point) => point.parameters), xs = logarithmic(sizes, plate.left, plate.right_edge);
  plate.xAxis(xs, valueTicks(xs, sizes, [], 44), countText, "adapter parameters (log scale)");
  const radius = all.length > 600 ? 2.4 : 4.4, beside = Math.min(7, 28 / studies.length);
  const points = all.map((point) => {
    const low = point.score < limits[0], unit = new Unit(point.study.metric);
    const words = () => [point.study.name, `r=${point.rank}, ${cut(point.targets)}, ${layersText(point.layers)}`, `${unit.metric} ${unit.score(point.score)}, ${countText(point.parameters)} parameters`];
    return { ...point, low, words, adapter: null, x: xs.place(point.parameters) + (point.at - (studies.length - 1) / 2) * beside, y: scale.place(Math.max(point.score, limits[0])),
      from: low || !point.finished || !known(point.low) ? null : scale.place(Math.max(point.low, limits[0])), to: known(point.high) ? scale.place(Math.min(point.high, limits[1])) : null };
  });
  studies.forEach(({ colour }, at) => {
    const mine = points.filter((point) => point.at === at);
    const intervals = mine.filter((point) => known(point.from) && known(point.to)).map((point) => `M${point.x.toFixed(1)},${point.from.toFixed(1)}V${point.to.toFixed(1)}`).join("");
    if (intervals) plate.add(s("path", { class: `interval ${colour}`, d: intervals }));
    plate.add(stepsOver(mine.filter((point) => point.finished && !point.low), `front ${colour} own`));
    for (const state of [true, false]) {
      const d = mine.filter((point) => point.finished === state).map((point) => markPath(point.x, point.y, point.low ? "v" : "o", radius)).join("");
      if (d) plate.add(s("path", { class: `mark ${colour} ${state ? "full" : "open"}`, d }));
    }
  });
  plate.points = points;
  const taken = [];
  for (const point of points.filter((one) => one.recommended)) {
    plate.add(s("circle", { class: "named strong", cx: point.x, cy: point.y, r: radius + 4 }));
    plate.label({ point, text: cut(point.study.name, 24), strong: true }, points, taken);
  }
  plate.end();
}

// Steps through the points that none of fewer parameters beats.
function stepsOver(points, look) {
  const front = [];
  for (const point of points.slice().sort((a, b) => a.x - b.x || a.y - b.y)) if (!front.length || point.y < front[front.length - 1].y) front.push(point);
  if (front.length < 2) return [];
  return [s("path", { class: look, d: front.map((point, at) => (at ? `H${point.x.toFixed(1)}V${point.y.toFixed(1)}` : `M${point.x.toFixed(1)},${point.y.toFixed(1)}`)).join("") })];
}
