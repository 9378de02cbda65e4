// The figures about scores: against cost, against the learning rate, by rank, and the probability that decides.

function scorePoints(rows, xOf, scale, yScale, limits) {
  return rows.map(({ row, adapter, faint }) => {
    const below = row.score < limits[0];
    const point = { row, adapter, faint, below, x: scale.place(xOf(row)), y: yScale.place(below ? limits[0] : row.score) };
    if (known(row.low) && !faint && !below && row.state === "complete") {
      point.low = yScale.place(Math.max(row.low, limits[0]));
      point.high = yScale.place(Math.min(row.high, limits[1]));
    }
    return point;
  });
}

// A few pixels sideways where several share one value, so that intervals do not hide each other.
function dodge(points, step) {
  const places = new Map();
  for (const point of points) {
    const key = Math.round(point.x);
    if (!places.has(key)) places.set(key, []);
    places.get(key).push(point);
  }
  for (const group of places.values()) {
    const width = Math.min(step, 40 / group.length);
    group.sort((a, b) => a.row.trial - b.row.trial);
    group.forEach((point, at) => (point.x += (at - (group.length - 1) / 2) * width));
  }
}

const baselineScores = () => view.judged.baselines.map(({ score }) => score);
const intervalTop = (rows) => rows.reduce((top, { row }) => (known(row.high) && row.state === "complete" ? Math.max(top, row.high) : top), -Infinity);
const radiusFor = (count) => (count > 1500 ? 2.2 : count > 300 ? 3.2 : 4.6);
const bestScore = () => {
  const row = trialRow(view.judged.best);
  return row ? row.score : null;
};
const axisMargins = (plate) => ({ left: 44, right: plate.narrow ? 62 : 78, top: 30, bottom: 48 });

function legend(box, rows, hollow) {
  const used = (name) => [...new Set(rows.map((row) => row[name]))];
  const targets = Object.keys(view.data.encoding.targets).filter((one) => used("targets").includes(one));
  const layers = Object.keys(view.data.encoding.layers).filter((one) => used("layers").includes(one));
  const entry = (mark, look, words) =>
    h("span", { class: "entry" }, s("svg", { width: 13, height: 13, viewBox: "0 0 13 13", "aria-hidden": "true" }, s("path", { class: `mark ${look}`, d: markPath(6.5, 6.5, mark, 4.4) })), cut(words));
  box.replaceChildren(
    ...(targets.length > 1 ? targets.slice(0, 8).map((one) => entry("o", `${colourOf({ targets: one })} full`, one)) : []),
    ...(layers.length > 1 ? layers.slice(0, 8).map((one) => entry(view.data.encoding.layers[one], "muted full", layersText(one))) : []),
    ...(hollow ? [entry("o", "muted open", "not finished")] : []),
  );
}

function drawCost(plate, key) {
  const cost = view.cost;
  const xOf = (row) => (cost === "parameters" ? row.adapter_parameters : cost === "compute" ? row.compute : row.wall);
  const rows = view.visible.map((adapter) => ({ row: adapter.lead, adapter })).filter(({ row }) => known(row.score) && xOf(row) > 0);
  legend(key, rows.map(({ row }) => row), rows.some(({ row }) => row.state !== "complete"));
  if (!rows.length) return plate.empty("No adapter has a score yet.");
  plate.begin(plate.narrow ? 320 : 400, axisMargins(plate));
  const best = bestScore(), limits = scoreLimits(rows.map(({ row }) => row.score), best, view.judged.margin, intervalTop(rows), baselineScores());
  const yScale = plate.scoreAxis(...limits);
  const values = rows.map(({ row }) => xOf(row)), xScale = logarithmic(values, plate.left, plate.right_edge);
  const keep = rows.filter(({ row }) => row.names.length).map(({ row }) => xOf(row));
  const ticks = cost === "parameters" ? valueTicks(xScale, values, keep, 44) : roundTicks(xScale, 44);
  plate.band(yScale, best, view.judged.margin);
  plate.baselines(yScale, limits);
  const points = scorePoints(rows, xOf, xScale, yScale, limits), radius = radiusFor(points.length);
  if (points.length <= 300) dodge(points, 7);
  if (cost === "parameters") plate.add(stepsOver(points.filter((point) => point.row.state === "complete" && !point.below), "front"));
  const titles = { parameters: "adapter parameters (log scale)", compute: "compute of one training (log scale)", wall: "clock time of one training, its share of the pack (log scale)" };
  plate.draw(points, radius);
  plate.xAxis(xScale, ticks, cost === "parameters" ? countText : durationText, titles[cost]);
  plate.name(points, radius);
  below(plate, points, limits);
  plate.brush = selectingBrush(plate);
  plate.end();
}

function below(plate, points, limits) {
  const scores = points.filter((point) => point.below).map((point) => point.row.score).sort((a, b) => a - b);
  const more = scores.length > 4 ? ` and ${scores.length - 4} more` : "";
  const baselines = view.judged.baselines.filter(({ score }) => known(score) && score < limits[0]).map(({ name, score }) => `${name} ${view.unit.number(score)}`);
  const words = [...(scores.length ? [scores.slice(0, 4).map((score) => view.unit.number(score)).join(", ") + more] : []), ...baselines];
  if (words.length) plate.say(`below the axis: ${words.join("; ")}`);
}

// Lines through what leads each series, faint points for the rest; each series a few pixels beside the next.
function drawLines(plate, { rows, xOf, series, order, lineOf, xTicks, write, title, colour, intervals, brush, curves = [] }) {
  plate.begin(plate.narrow ? 300 : 340, axisMargins(plate));
  const best = bestScore(), limits = scoreLimits(rows.map(({ row }) => row.score), best, view.judged.margin, intervals ? intervalTop(rows) : null, baselineScores());
  const yScale = plate.scoreAxis(...limits);
  const xScale = logarithmic(rows.map(({ row }) => xOf(row)), plate.left + 6, plate.right_edge - 6);
  plate.band(yScale, best, view.judged.margin);
  plate.baselines(yScale, limits);
  const names = order.filter((name) => rows.some(({ row }) => series(row) === name)), leading = new Set(), lines = [];
  for (const name of names) {
    const members = rows.filter(({ row }) => series(row) === name);
    const line = lineOf(members, xOf);
    (line.length ? line : members).forEach((entry) => leading.add(entry.row));
    lines.push({ name, line });
  }
  const points = scorePoints(rows.map((entry) => ({ ...entry, faint: !leading.has(entry.row) })), xOf, xScale, yScale, limits);
  const placeOf = new Map(), beside = intervals ? Math.min(8, 40 / names.length) : 0;
  for (const point of points) {
    placeOf.set(point.row, point);
    point.colour = colour(series(point.row));
    point.x += (names.indexOf(series(point.row)) - (names.length - 1) / 2) * beside;
    if (!intervals) point.low = null;
  }
  for (const { rank, rates, scores, optimum } of curves.filter((one) => names.includes(one.rank))) {
    const seen = rates.map((rate, at) => [xScale.place(rate), scores[at]]).filter(([, score]) => score >= limits[0]);
    if (seen.length > 1) plate.add(s("path", { class: `line ${colour(rank)}`, d: "M" + seen.map(([x, score]) => `${x.toFixed(1)},${yScale.place(score).toFixed(1)}`).join("L") }));
    if (optimum[1] >= limits[0]) plate.add(s("circle", { class: `optimum ${colour(rank)}`, cx: xScale.place(optimum[0]).toFixed(1), cy: yScale.place(optimum[1]).toFixed(1), r: 7 }));
  }
  for (const { name, line } of curves.length ? [] : lines) {
    const spots = line.map((entry) => placeOf.get(entry.row));
    if (spots.length > 1) plate.add(s("path", { class: `line ${colour(name)}`, d: "M" + spots.map((spot) => `${spot.x.toFixed(1)},${spot.y.toFixed(1)}`).join("L") }));
  }
  plate.draw(points, radiusFor(points.length) * 0.9);
  plate.xAxis(xScale, xTicks(xScale, rows.map(({ row }) => xOf(row))), write, title);
  plate.name(points.filter((point) => !point.faint), 4.2);
  below(plate, points, limits);
  plate.brush = brush || selectingBrush(plate);
  plate.end();
}

function drawRanks(plate, key) {
  const rows = view.visible.map((adapter) => ({ row: adapter.lead, adapter })).filter(({ row }) => known(row.score));
  legend(key, rows.map(({ row }) => row), rows.some(({ row }) => row.state !== "complete"));
  if (!rows.length) return plate.empty("No adapter has a score yet.");
  drawLines(plate, {
    rows, xOf: (row) => row.rank, series: (row) => row.targets, order: Object.keys(view.data.encoding.targets),
    colour: (targets) => colourOf({ targets }), lineOf: bestAtEach, intervals: true,
    xTicks: (scale, values) => valueTicks(scale, values, [], 22), write: String,
    title: "rank (log scale), each adapter at its best learning rate",
  });
}

function bestAtEach(members, xOf) {
  const best = new Map(), weight = ({ row }) => (row.state === "complete" ? 1e4 : 0) + row.score;
  for (const entry of members) {
    const at = xOf(entry.row), held = best.get(at);
    if (!held || weight(entry) > weight(held)) best.set(at, entry);
  }
  return [...best.values()].sort((a, b) => xOf(a.row) - xOf(b.row));
}

// One colour for each rank, darker for more, in this figure only: where each rank peaks is what it is about.
const RANK_COLOURS = 6;
// A shade for each rank, darker for more, and their legend.
function shadesOf(rows, key) {
  const ranks = [...new Set(rows.map((row) => row.rank))].sort((a, b) => a - b);
  const shade = (rank) => `rank-${ranks.length < 2 ? RANK_COLOURS : 1 + Math.round((ranks.indexOf(rank) / (ranks.length - 1)) * (RANK_COLOURS - 1))}`;
  key.replaceChildren(...(ranks.length > 1 ? ranks.slice(0, 10).map((rank) =>
    h("span", { class: "entry" }, s("svg", { width: 18, height: 13, viewBox: "0 0 18 13", "aria-hidden": "true" }, s("path", { class: `line ${shade(rank)}`, d: "M1,6.5H17" })), `r=${rank}`)) : []));
  return { ranks, shade };
}

function drawRates(plate, key) {
  const rows = view.visible.flatMap((adapter) => adapter.shown.map((row) => ({ row, adapter }))).filter(({ row }) => known(row.score) && row.learning_rate > 0);
  const { ranks, shade } = shadesOf(rows.map(({ row }) => row), key);
  if (!rows.length) return plate.empty("No trial has a score yet.");
  drawLines(plate, {
    rows, xOf: (row) => row.learning_rate, series: (row) => row.rank, order: ranks, colour: shade, lineOf: outline, curves: view.data.rates || [],
    xTicks: (scale) => roundTicks(scale, 48), write: rateText, title: "learning rate (log scale)",
  });
}

// The upper outline of points over a log axis (Andrew's monotone chain): rises to the best and falls behind it.
function outline(members, xOf) {
  const chain = [];
  const turns = (a, b, c) => (log10(xOf(b.row)) - log10(xOf(a.row))) * (c.row.score - a.row.score) - (b.row.score - a.row.score) * (log10(xOf(c.row)) - log10(xOf(a.row)));
  for (const entry of members.slice().sort((a, b) => xOf(a.row) - xOf(b.row) || a.row.score - b.row.score)) {
    while (chain.length > 1 && turns(chain[chain.length - 2], chain[chain.length - 1], entry) >= 0) chain.pop();
    chain.push(entry);
  }
  return chain;
}

const PROBABILITY_ROWS = 36;
function drawProbability(plate, key) {
  key.replaceChildren(...["not-worse", "open", "worse"].map((name) => h("span", { class: "entry" }, h("i", { class: `swatch ${name}` }), STANDING_WORDS[name])));
  let rows = view.visible.map((adapter) => adapter.lead).filter((row) => known(row.probability));
  const total = rows.length;
  if (!total) return plate.empty("Nothing has been compared yet.");
  if (total > PROBABILITY_ROWS) {
    const weight = (row) => (row.names.length ? 10 : 0) + (view.selected.has(row.group.id) ? 10 : 0) + (row.status === "worse" ? 0 : 2) + row.probability;
    rows = rows.sort((a, b) => weight(b) - weight(a)).slice(0, PROBABILITY_ROWS);
  }
  rows.sort((a, b) => a.adapter_parameters - b.adapter_parameters || a.trial - b.trial);
  const wide = !plate.narrow, step = wide ? 22 : 40;
  plate.begin(44 + rows.length * step + 46, { left: wide ? 250 : 8, right: 56, top: 40, bottom: 46 });
  const scale = chances(plate.left, plate.right_edge), confidence = view.judged.confidence;
  plate.xAxis(scale, roomy(scale, [0.5, 0.9, 0.1, 0.99, 0.01, 0.3, 0.7], 44), (value) => `${significant(value * 100, 3)}${NO_BREAK}%`, `probability of being within ${view.unit.amount(view.judged.margin)} of the best`);
  plate.add(s("rect", { class: "band", x: scale.place(confidence), y: plate.top - 8, width: plate.right_edge - scale.place(confidence), height: plate.bottom_edge - plate.top + 8 }));
  plate.add(s("path", { class: "band-edge", d: `M${scale.place(confidence)},${plate.top - 8}V${plate.bottom_edge}` }));
  plate.add(s("text", { class: "side end", x: scale.place(confidence) - 4, y: plate.top - 12 }, `asked for: ${significant(confidence * 100, 4)}${NO_BREAK}%`));
  plate.points = rows.map((row, at) => {
    const y = plate.top + at * step + step / 2, x = scale.place(row.probability), adapter = row.group;
    const chosen = view.selected.has(adapter.id), line = wide ? y : y + 9;
    plate.add(s("path", { class: `bar ${row.status}`, d: `M${plate.left},${line}H${x.toFixed(1)}` }));
    plate.add(s("circle", { class: `dot ${row.status}`, cx: x.toFixed(1), cy: line, r: 4.6 }));
    if (chosen) plate.add(s("circle", { class: "chosen", cx: x.toFixed(1), cy: line, r: 9 }));
    const words = `${row.names.length ? row.names[0] + ": " : ""}${adapterText(row, wide ? 18 : 24)}`;
    plate.add(s("text", { class: row.names.length ? "label strong" : "label", x: wide ? plate.left - 8 : 8, y: wide ? y : y - 8, dy: "0.34em", "text-anchor": wide ? "end" : "start" }, cut(words, row.names.length ? 31 : 36)));
    plate.add(s("text", { class: "side", x: plate.right_edge + 8, y: line, dy: "0.34em" }, percentText(row.probability)));
    return { x, y: line, row, adapter, line: true };
  });
  if (total > rows.length) plate.add(s("text", { class: "side", x: 0, y: 14 }, `the ${rows.length} likeliest of ${total}`));
  plate.end();
}
