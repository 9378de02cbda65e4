// How the study went: who was stopped when, which packs trained when, the training under way, and the finalists' folds.

function drawLadder(plate) {
  const rows = view.visible.flatMap((adapter) => adapter.shown).sort((a, b) => a.trial - b.trial);
  if (!rows.length) return plate.empty("No trial yet.");
  const most = Math.max(view.data.columns.length, view.data.folds * view.data.repeats, 1);
  const step = Math.min(15, Math.max(0.5, 420 / rows.length));
  plate.begin(24 + rows.length * step + 46, { left: 44, right: 16, top: 14, bottom: 46 });
  const scale = linear(0, most, plate.left, plate.right_edge);
  const paths = new Map(), add = (look, d) => paths.set(look, (paths.get(look) || "") + d);
  const radius = Math.max(1, Math.min(4, step * 0.32)), width = Math.max(0.5, Math.min(3, step * 0.3));
  let last = -100;
  plate.points = rows.map((row, at) => {
    const y = plate.top + at * step + step / 2, done = foldScores(row).length, x = scale.place(done);
    const colour = colourOf(row), chosen = view.selected.has(row.group.id);
    if (done) add(`rung ${colour}`, `M${plate.left},${y.toFixed(2)}H${x.toFixed(1)}`);
    if (row.state === "complete") add(`mark ${colour} full`, markPath(x, y, "o", radius));
    else if (row.state === "pruned") add("stopped", `M${x.toFixed(1)},${(y - radius - 1).toFixed(2)}v${(2 * radius + 2).toFixed(2)}`);
    else if (row.state === "failed") add("mark failed", markPath(x, y, "X", radius));
    else add(`mark ${colour} open`, markPath(x, y, "o", radius));
    if (chosen) plate.add(s("rect", { class: "chosen-row", x: plate.left, y: y - step / 2, width: plate.right_edge - plate.left, height: step }));
    if (y - last >= 13) {
      plate.add(s("text", { class: row.names.length ? "tick end strong" : "tick end", x: plate.left - 7, y, dy: "0.33em" }, row.trial));
      last = y;
    }
    const words = () => [...pointWords({ row, adapter: row.group }).slice(0, 1), `trial ${row.trial}: ${counted(done, "training")}, ${STATE_WORDS[row.state]}`, ...(row.failure ? [row.failure] : []), ...(done ? [`${view.unit.metric} ${view.unit.score(row.score_mean)}`] : [])];
    return { x, y, row, adapter: row.group, words, line: true };
  });
  for (const [look, d] of paths) plate.add(s("path", { class: look, d, "stroke-width": look.startsWith("rung") ? width : null }));
  const ticks = linearTicks(0, most, 1, 8).map((tick) => tick.value).filter((value) => value % 1 === 0);
  plate.xAxis(scale, ticks, String, "trainings done");
  plate.add(s("text", { class: "title", x: 0, y: 8 }, "trial"));
  plate.end();
}

// Packs as bars over the clock, as high as the cells they trained side by side; long pauses are cut out.
function drawTimeline(plate) {
  const packs = view.data.packs;
  if (!packs.length) return plate.empty("No training has been recorded yet.");
  const rows = Math.max(...packs.map((pack) => pack.cells.length)), lane = Math.max(5, Math.min(16, 150 / rows));
  plate.begin(26 + rows * lane + 48, { left: 8, right: 16, top: 22, bottom: 46 });
  const longest = Math.max(...packs.map((pack) => pack.end - pack.start));
  const bars = [], pauses = [];
  let clock = 0, before = null;
  for (const pack of packs) {
    const gap = before === null ? 0 : Math.max(0, pack.start - before);
    if (gap > 3 * longest + 60) pauses.push({ at: clock, gap });
    else clock += gap;
    const begin = clock;
    clock += pack.end - pack.start;
    before = Math.max(before === null ? -Infinity : before, pack.end);
    bars.push({ pack, begin, end: clock });
  }
  const scale = linear(0, clock || 1, plate.left, plate.right_edge), paths = new Map(), visible = new Set(view.visible);
  plate.points = [];
  for (const { pack, begin, end } of bars) {
    const x = scale.place(begin), width = Math.max(0.4, scale.place(end) - x - (packs.length < 200 ? 1.5 : 0));
    pack.cells.forEach(([trial, column], at) => {
      const row = view.trials[trial], y = plate.top + at * lane;
      const shown = visible.has(row.group) && row.group.shown.includes(row), chosen = view.selected.has(row.group.id);
      const look = `block ${colourOf(row)}${chosen ? " picked" : shown ? "" : " dim"}`;
      paths.set(look, (paths.get(look) || "") + `M${x.toFixed(1)},${y.toFixed(1)}h${width.toFixed(1)}v${(lane - 1).toFixed(1)}h${(-width).toFixed(1)}z`);
      const [repeat, fold] = view.data.columns[column];
      const words = () => [adapterText(row, 40), `trial ${row.trial}, fold ${fold + 1}${repeat ? `, repeat ${repeat + 1}` : ""}`, `pack ${pack.pack} of ${counted(pack.cells.length, "training")}: ${durationText(pack.end - pack.start)}`, `${view.unit.metric} ${view.unit.score(view.data.scores[row.at][column])}`];
      if (packs.length < 4000) plate.points.push({ x: x + width / 2, y: y + lane / 2, row, adapter: row.group, words });
    });
  }
  for (const [look, d] of paths) plate.add(s("path", { class: look, d }));
  for (const { at, gap } of pauses.slice(0, 12)) {
    const x = scale.place(at);
    plate.add(s("path", { class: "pause", d: `M${x},${plate.top - 6}V${plate.bottom_edge}` }), s("text", { class: "side", x: x + 3, y: plate.top - 8 }, `paused ${durationText(gap)}`));
  }
  plate.xAxis(scale, clockTicks(clock || 1, plate.narrow ? 4 : 7), durationText, "clock time since the study began");
  plate.end();
}

// A line for each training of the pack under way; of studies of earlier versions, their mean.
function drawCurves(plate, key) {
  const live = view.live;
  if (!live || !live.losses || live.losses.length < 2) return plate.empty("Waiting for the first steps.");
  const curves = (live.curves || []).filter((curve) => curve.losses.length);
  const lines = curves.length ? curves : [{ cell: null, losses: live.losses }];
  const rows = new Map(curves.map((curve) => [curve, trialRow(curve.cell[0])]));
  const { shade } = shadesOf([...rows.values()].filter(Boolean), key);
  plate.begin(230, { left: 44, right: 20, top: 30, bottom: 46 });
  const values = lines.flatMap((line) => line.losses.map(([, loss]) => loss));
  const top = Math.max(...values), bottom = Math.min(...values), air = Math.max(0.04 * (top - bottom), 0.01);
  const scale = linear(Math.max(0, bottom - air), top + air, plate.bottom_edge, plate.top), steps = linear(0, live.steps, plate.left, plate.right_edge);
  plate.yAxis(scale, linearTicks(scale.low, scale.high, 1, 5).map((tick) => ({ value: tick.value, text: tick.shown.toFixed(tick.digits) })), curves.length ? "training loss" : "training loss, mean over the pack");
  plate.points = [];
  for (const line of lines) {
    const row = rows.get(line), spots = line.losses.map(([step, loss]) => [steps.place(step), scale.place(loss), step, loss]);
    const look = row && view.selected.has(row.group.id) ? "curve picked" : "curve";
    plate.add(s("path", { class: `${look} ${row ? shade(row.rank) : "series-1"}`, d: "M" + spots.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join("L") }));
    const [, repeat, fold] = line.cell || [];
    if (row) for (const [x, y, step, loss] of spots) plate.points.push({ x, y, row, adapter: row.group, words: () => [adapterText(row, 40), `trial ${row.trial}, rate ${rateText(row.learning_rate)}, fold ${fold + 1}${repeat ? `, repeat ${repeat + 1}` : ""}`, `loss ${loss.toPrecision(3)} at step ${step}`] });
  }
  plate.xAxis(steps, linearTicks(0, live.steps, 1, 6).map((tick) => tick.value).filter((value) => value % 1 === 0), String, `step of ${live.steps} \u00b7 ${cut(live.title || "", 70)}`);
  plate.end();
}

// Finalists and selected adapters: score minus the best's on the same fold, which cancels what makes a fold hard.
const STRIP_ROWS = 10;
function drawFolds(plate) {
  const best = trialRow(view.judged.best);
  const candidates = view.visible.map((adapter) => adapter.lead).filter((row) => best && row !== best && row.state === "complete" && foldScores(row).length);
  const weight = (row) => (view.selected.has(row.group.id) ? 100 : 0) + (row.names.length ? 50 : 0) + (row.status === "open" ? 2 : 0) + (row.probability || 0);
  const rows = candidates.sort((a, b) => weight(b) - weight(a)).slice(0, STRIP_ROWS).sort((a, b) => a.adapter_parameters - b.adapter_parameters || a.trial - b.trial);
  if (!rows.length) return plate.empty(best ? "Only one finished adapter: nothing to compare." : "No finished adapter yet.");
  const margin = view.judged.margin, mine = view.data.scores[best.at];
  const strips = rows.map((row) => ({ row, gaps: view.data.scores[row.at].map((score, at) => (known(score) && known(mine[at]) ? { gap: score - mine[at], at } : null)).filter(Boolean) }));
  const all = strips.flatMap((strip) => strip.gaps.map((one) => one.gap)).concat([-1.6 * margin, 0.6 * margin]);
  const low = Math.min(...all), high = Math.max(...all), air = (high - low || 0.02) * 0.05, step = 42;
  plate.begin(34 + rows.length * step + 48, { left: 8, right: 14, top: 30, bottom: 46 });
  const scale = linear(low - air, high + air, plate.left, plate.right_edge), zero = scale.place(0), edge = scale.place(-margin);
  plate.add(s("rect", { class: "band", x: edge, y: plate.top, width: Math.max(0, zero - edge), height: plate.bottom_edge - plate.top }));
  plate.add(s("path", { class: "band-edge", d: `M${edge},${plate.top}V${plate.bottom_edge}` }), s("path", { class: "zero", d: `M${zero},${plate.top}V${plate.bottom_edge}` }));
  plate.add(s("text", { class: "side", x: zero + 4, y: plate.top - 6 }, `best, trial ${best.trial}`), s("text", { class: "side end", x: edge - 4, y: plate.top - 6 }, view.unit.worse + view.unit.amount(margin)));
  plate.points = [];
  strips.forEach(({ row, gaps }, at) => {
    const y = plate.top + at * step + 28, colour = colourOf(row);
    const mean = gaps.reduce((sum, one) => sum + one.gap, 0) / (gaps.length || 1);
    if (view.selected.has(row.group.id)) plate.add(s("rect", { class: "chosen-row", x: plate.left, y: y - 24, width: plate.right_edge - plate.left, height: step - 2 }));
    plate.add(s("path", { class: "rule", d: `M${plate.left},${y}H${plate.right_edge}` }));
    if (known(row.low)) {
      const from = Math.max(plate.left, scale.place(row.low - best.score)), to = Math.min(plate.right_edge, scale.place(row.high - best.score));
      if (to > from) plate.add(s("path", { class: `interval wide ${colour}`, d: `M${from},${y}H${to}` }));
    }
    plate.add(s("path", { class: `mark ${colour} full`, d: gaps.map(({ gap }) => markPath(scale.place(gap), y, "o", 3)).join("") }));
    plate.add(s("path", { class: `mark ${colour} full`, d: markPath(scale.place(mean), y, markerOf(row), 6) }));
    const role = row.names.length ? row.names.join(", ") + " " : "";
    plate.add(s("text", { class: "label", x: plate.left + 2, y: y - 12 }, s("tspan", { class: "strong" }, role), adapterText(row, plate.narrow ? 9 : 28)));
    plate.add(s("text", { class: "side end", x: plate.right_edge, y: y - 12 }, percentText(row.probability)));
    for (const { gap, at: column } of gaps) {
      const [repeat, fold] = view.data.columns[column];
      const words = () => [adapterText(row, 40), `fold ${fold + 1}${repeat ? `, repeat ${repeat + 1}` : ""}: ${view.unit.difference(gap)} ${view.unit.word}`, `${view.unit.score(view.data.scores[row.at][column])} against ${view.unit.score(mine[column])}`];
      plate.points.push({ x: scale.place(gap), y, row, adapter: row.group, words });
    }
  });
  const ticks = linearTicks(scale.low, scale.high, view.unit.per, plate.narrow ? 5 : 8);
  plate.xAxis(scale, ticks.map((tick) => tick.value), (value) => signed(value * view.unit.per, ticks[0].digits), plate.narrow ? `difference to the best, in ${view.unit.measure}` : `difference to the best on the same fold, in ${view.unit.measure}`);
  plate.end();
}
