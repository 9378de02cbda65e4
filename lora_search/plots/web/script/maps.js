// Where the score comes from: layers x modules, all hyperparameters at once, and their importance.

// Layers x target modules, or x rank where all adapt the same modules.
function drawHeat(plate) {
  const rows = view.visible.map((adapter) => adapter.lead).filter((row) => known(row.score));
  if (!rows.length) return plate.empty("No adapter has a score yet.");
  const present = (name, known_order) => Object.keys(known_order).filter((one) => rows.some((row) => row[name] === one));
  const targets = present("targets", view.data.encoding.targets).slice(0, 10), name = targets.length > 1 ? "targets" : "rank";
  const columns = name === "targets" ? targets : [...new Set(rows.map((row) => row.rank))].sort((a, b) => a - b).slice(0, 10);
  const words = (row) => (name === "targets" ? `r=${row.rank}` : ""), title = (value) => (name === "targets" ? value : `r=${value}`);
  byId("heat-section").querySelector("h2").textContent = name === "targets" ? "Layers and modules" : "Layers and rank";
  const layers = present("layers", view.data.encoding.layers).slice(0, 14);
  const best = new Map();
  for (const row of rows) {
    const key = `${row.layers}\n${row[name]}`, held = best.get(key);
    const better = !held || (row.state === "complete") > (held.row.state === "complete") || ((row.state === "complete") === (held.row.state === "complete") && row.score > held.row.score);
    best.set(key, { row: better ? row : held.row, count: (held ? held.count : 0) + 1 });
  }
  const scores = [...best.values()].filter(({ row }) => row.state === "complete").map(({ row }) => row.score);
  const top = Math.max(...(scores.length ? scores : [0])), reach = 2 * view.judged.margin || 1e-3;
  const narrow = plate.narrow, high = 46;
  plate.begin(34 + layers.length * high + 12, { left: narrow ? 74 : 116, right: 8, top: 34, bottom: 8 });
  const width = (plate.right_edge - plate.left) / columns.length;
  columns.forEach((value, at) => plate.add(s("text", { class: "tick middle", x: plate.left + (at + 0.5) * width, y: plate.top - 10 }, cut(title(value), Math.max(5, Math.floor(width / 7))))));
  plate.points = [];
  layers.forEach((layer, down) => {
    const y = plate.top + down * high;
    plate.add(s("text", { class: "tick end", x: plate.left - 9, y: y + high / 2, dy: "0.33em" }, cut(layersText(layer), narrow ? 10 : 16)));
    columns.forEach((value, across) => {
      const x = plate.left + across * width, found = best.get(`${layer}\n${value}`);
      if (!found) return plate.add(s("rect", { class: "hole", x: x + 1, y: y + 1, width: width - 2, height: high - 2 }));
      const { row, count } = found, finished = row.state === "complete";
      const depth = finished ? Math.round(5 * Math.max(0, 1 - (top - row.score) / reach)) : 0;
      const chosen = view.selected.has(row.group.id);
      plate.add(s("rect", { class: `heat heat-${finished ? depth : "open"}${chosen ? " picked" : ""}`, x: x + 1, y: y + 1, width: width - 2, height: high - 2, rx: 2 }));
      plate.add(s("text", { class: `value middle${depth >= 4 ? " inverse" : ""}`, x: x + width / 2, y: y + 20 }, view.unit.number(row.score)));
      const said = [words(row), finished ? (count > 1 ? `best of ${count}` : "") : STATE_WORDS[row.state]].filter(Boolean);
      plate.add(s("text", { class: `value small middle${depth >= 4 ? " inverse" : ""}`, x: x + width / 2, y: y + 35 }, width > 90 ? said.join(", ") : said[0] || ""));
      plate.points.push({ x: x + width / 2, y: y + high / 2, row, adapter: row.group });
    });
  });
  plate.end();
}

function drawParallel(plate) {
  const rows = view.visible.flatMap((adapter) => adapter.shown).filter((row) => known(row.score));
  if (rows.length < 2) return plate.empty("Drawn once two trials have a score.");
  const narrow = plate.narrow;
  plate.begin(330, { left: narrow ? 18 : 26, right: narrow ? 40 : 74, top: 40, bottom: 18 });
  const limits = scoreLimits(rows.map((row) => row.score), bestScore(), view.judged.margin);
  const from = plate.bottom_edge, to = plate.top, axes = [];
  const ordinal = (title, name, write) => {
    const values = [...new Set(rows.map((row) => row[name]))];
    const order = name === "targets" || name === "layers" ? Object.keys(view.data.encoding[name]).filter((one) => values.includes(one)) : values.sort((a, b) => a - b);
    if (order.length < 2) return;
    const place = (value) => from + (order.indexOf(value) / (order.length - 1)) * (to - from);
    const many = order.length > 12 ? Math.ceil(order.length / 12) : 1;
    axes.push({ title, name, at: place, values: order, place: (row) => place(row[name]), ticks: order.filter((_, at) => at % many === 0).map((value) => ({ y: place(value), text: write(value) })) });
  };
  ordinal("rank", "rank", String);
  ordinal("alpha", "alpha", (value) => significant(value, 3));
  ordinal("targets", "targets", (value) => cut(value, narrow ? 8 : 14));
  ordinal("layers", "layers", (value) => cut(layersText(value), narrow ? 8 : 12));
  ordinal("dropout", "dropout", String);
  const rates = rows.map((row) => row.learning_rate).filter((rate) => rate > 0);
  if (new Set(rates).size > 1) {
    const scale = logarithmic(rates, from, to);
    axes.push({ title: narrow ? "rate" : "learning rate", name: "learning_rate", at: scale.place, values: rates, place: (row) => scale.place(row.learning_rate), ticks: roundTicks(scale, 30).map((value) => ({ y: scale.place(value), text: rateText(value) })) });
  }
  const scale = linear(...limits, from, to), clamp = (row) => scale.place(Math.max(row.score, limits[0]));
  axes.push({ title: view.unit.metric, name: "score", at: (score) => scale.place(Math.max(score, limits[0])), values: rows.map((row) => row.score), place: clamp, ticks: linearTicks(...limits, view.unit.factor).map((tick) => ({ y: scale.place(tick.value), text: tick.shown.toFixed(tick.digits) })) });
  const gap = (plate.right_edge - plate.left) / Math.max(1, axes.length - 1);
  const paths = new Map(), jitter = (row) => ((row.trial * 0.618) % 1 - 0.5) * 7;
  plate.points = [];
  for (const row of rows) {
    const spots = axes.map((axis, at) => [plate.left + at * gap, axis.place(row) + (at < axes.length - 1 ? jitter(row) : 0)]);
    const look = `thread ${colourOf(row)} ${view.selected.has(row.group.id) ? "picked" : row.names.length ? "known" : row.state === "complete" ? "" : "dim"}`;
    const d = spots.map(([x, y], at) => (at ? `C${(x - gap / 2).toFixed(1)},${spots[at - 1][1].toFixed(1)} ${(x - gap / 2).toFixed(1)},${y.toFixed(1)} ${x.toFixed(1)},${y.toFixed(1)}` : `M${x.toFixed(1)},${y.toFixed(1)}`)).join("");
    paths.set(look, (paths.get(look) || "") + d);
    const [x, y] = spots[spots.length - 1];
    plate.points.push({ x, y, row, adapter: row.group });
    if (rows.length < 800) for (const [a, b] of spots.slice(0, -1)) plate.points.push({ x: a, y: b, row, adapter: row.group, faint: true });
  }
  const rank = (look) => (look.includes("picked") ? 2 : look.includes("known") ? 1 : 0);
  const crowd = rows.length > 400 ? " crowd" : "";
  for (const [look, d] of [...paths].sort((a, b) => rank(a[0]) - rank(b[0]))) plate.add(s("path", { class: look + (rank(look) ? "" : crowd), d }));
  axes.forEach((axis, at) => {
    const x = (axis.x = plate.left + at * gap), last = at === axes.length - 1, anchor = at === 0 ? "start" : last ? "end" : "middle";
    plate.add(s("path", { class: "axis strong", d: `M${x},${plate.top - 6}V${plate.bottom_edge + 6}` }), s("text", { class: "title", x: at === 0 ? 0 : last ? plate.width : x, y: 14, "text-anchor": anchor }, axis.title));
    for (const { y, text } of axis.ticks) plate.add(s("text", { class: "tick halo", x: last ? x + 7 : x + 5, y, dy: "0.33em" }, text));
    const chosen = FILTERS.includes(axis.name) ? view.filters[axis.name].length > 0 : axis.name in view.ranges;
    if (chosen) plate.add(s("rect", { class: "brushed", x: x - 4, y: plate.top - 6, width: 8, height: plate.bottom_edge - plate.top + 12, rx: 2 }));
  });
  plate.brush = axisBrush(plate, axes);
  plate.end();
}

function drawImportance(plate) {
  const { bars, problem } = view.data.importance;
  if (!bars.length) return plate.empty(problem || "Nothing to show.");
  plate.begin(16 + bars.length * 32 + 48, { left: 112, right: 16, top: 12, bottom: 46 });
  const high = Math.max(...bars.map((bar) => bar.high), 1e-6), low = Math.min(0, ...bars.map((bar) => bar.low));
  const scale = linear(low, high * 1.04, plate.left, plate.right_edge), factor = Math.abs(view.unit.per);
  plate.add(s("path", { class: "zero", d: `M${scale.place(0)},${plate.top}V${plate.bottom_edge}` }));
  bars.forEach((bar, at) => {
    const y = plate.top + at * 32 + 16;
    plate.add(s("text", { class: "label end", x: plate.left - 9, y, dy: "0.34em" }, bar.name));
    plate.add(s("path", { class: "interval wide muted", d: `M${scale.place(bar.low)},${y}H${scale.place(bar.high)}` }));
    plate.add(s("circle", { class: "dot ink", cx: scale.place(bar.median), cy: y, r: 4.6 }));
  });
  const ticks = linearTicks(scale.low, scale.high, factor, 6);
  plate.xAxis(scale, ticks.map((tick) => tick.value), (value) => (value * factor).toFixed(ticks[0].digits).replace("-", MINUS), plate.narrow ? `error added, in ${view.unit.word}` : view.data.importance.title);
  plate.end();
}
