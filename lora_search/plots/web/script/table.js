// The table: adapters with their settings behind them, or every trial; sorted, with chosen columns, as CSV.
// Past a few hundred rows only those in sight exist.
const ROW_HEIGHT = 34, ALL_ROWS = 240;

const COLUMNS = [
  { key: "trial", title: "trial", number: true },
  { key: "rank", title: "rank", number: true },
  { key: "alpha", title: "alpha", number: true, text: (row) => significant(row.alpha, 4) },
  { key: "targets", title: "target modules", text: (row) => cut(row.targets, 34) },
  { key: "layers", title: "layers" },
  { key: "scaling", title: "scaling" },
  { key: "use_dora", title: "DoRA", text: (row) => (row.use_dora ? "yes" : "no") },
  { key: "bias", title: "bias" },
  { key: "rank_pattern", title: "ranks" },
  { key: "learning_rate", title: "learning rate", number: true, text: (row) => rateText(row.learning_rate) },
  { key: "dropout", title: "dropout", number: true },
  { key: "adapter_parameters", title: "parameters", number: true, text: (row) => grouped(row.adapter_parameters) },
  { key: "head_parameters", title: "head parameters", number: true, text: (row) => grouped(row.head_parameters) },
  { key: "score", title: "score", number: true, text: (row) => view.unit.score(row.score) },
  { key: "score_std", title: "\u00b1 folds", number: true, text: (row) => view.unit.spread(row.score_std) },
  { key: "difference", title: "to the best", number: true, text: (row) => view.unit.difference(row.difference) },
  { key: "low", title: "where it may stand", strip: true },
  { key: "probability", title: "P(not worse)", number: true, text: (row) => percentText(row.probability) },
  { key: "status", title: "standing", text: (row) => STANDING_WORDS[row.status] || DASH },
  { key: "cells", title: "trainings", number: true },
  { key: "seconds", title: "compute", number: true, text: (row) => (row.cells ? durationText(row.seconds) : DASH) },
  { key: "wall_seconds", title: "clock", number: true, text: (row) => (row.cells ? durationText(row.wall_seconds) : DASH) },
  { key: "state", title: "state", text: (row) => STATE_WORDS[row.state] || row.state },
  { key: "origin", title: "asked by" },
];
const USUAL = ["learning_rate", "adapter_parameters", "score", "difference", "low", "probability", "status", "cells", "state"];

const chosenColumns = () => COLUMNS.filter((column) => (view.columns || USUAL).includes(column.key));

function tableLines() {
  const order = (a, b) => {
    const one = a[view.sort], other = b[view.sort];
    const missing = (value) => value === null || value === undefined || Number.isNaN(value);
    if (missing(one) || missing(other)) return missing(one) - missing(other) || a.trial - b.trial;
    const step = one < other ? -1 : one > other ? 1 : 0;
    return (view.down ? -step : step) || a.trial - b.trial;
  };
  if (view.group === "none") return view.visible.flatMap((adapter) => adapter.shown).sort(order).map((row) => ({ row, depth: 0 }));
  const sorted = view.visible.slice().sort((a, b) => order(a.lead, b.lead));
  const linesOf = (adapter) => [{ row: adapter.lead, depth: 0, adapter }, ...(view.open.has(adapter.id) ? adapter.shown.slice().sort(order).map((row) => ({ row, depth: 1 })) : [])];
  if (view.group === "adapter") return sorted.flatMap(linesOf);
  return gathered(sorted, view.group).flatMap(([value, members]) => {
    const key = `${view.group} ${value}`;
    return [{ heading: key, value, members }, ...(view.closed.has(key) ? [] : members.flatMap(linesOf))];
  });
}

// Adapters by one of their parameters, in its own order.
function gathered(adapters, name) {
  const groups = new Map();
  for (const adapter of adapters) {
    const value = adapter.lead[name];
    if (!groups.has(value)) groups.set(value, []);
    groups.get(value).push(adapter);
  }
  const order = name === "rank" ? null : Object.keys(view.data.encoding[name]);
  return [...groups].sort(([a], [b]) => (order ? order.indexOf(a) - order.indexOf(b) : a - b));
}

function groupWords(name, value, members) {
  const finished = members.filter((adapter) => adapter.lead.state === "complete").map((adapter) => adapter.lead.score);
  const mean = finished.reduce((sum, score) => sum + score, 0) / finished.length;
  const scores = finished.length ? `best ${view.unit.score(Math.max(...finished))}, mean ${view.unit.score(mean)}` : "none finished";
  return [{ rank: `rank ${value}`, targets: value, layers: name === "layers" ? layersText(value) : "" }[name], `${counted(members.length, "adapter")}, ${scores}`];
}

class Table {
  constructor(box) {
    this.box = box;
    this.head = h("thead");
    this.body = h("tbody");
    this.table = h("table", { class: "trials" }, h("caption", { class: "unseen" }, "Adapters and the trials that set them"), this.head, this.body);
    box.replaceChildren(this.table);
    box.addEventListener("scroll", () => this.window(), { passive: true });
    this.lines = [];
  }

  render() {
    this.columns = chosenColumns();
    this.lines = tableLines();
    const heading = (key, title, number) =>
      h("th", { scope: "col", class: number ? "number" : null, "aria-sort": view.sort === key ? (view.down ? "descending" : "ascending") : null },
        h("button", { type: "button", "data-sort": key, onclick: () => this.sort(key) }, title));
    const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.sort : null;
    this.head.replaceChildren(h("tr", null, h("th", { scope: "col", class: "check" }, h("span", { class: "unseen" }, "select")),
      heading("rank", "adapter", false),
      ...this.columns.map((column) => heading(column.key, column.title, column.number))));
    if (focused) this.head.querySelector(`[data-sort="${focused}"]`)?.focus();
    this.scale();
    this.first = this.last = -1;
    this.box.classList.toggle("windowed", this.lines.length > ALL_ROWS);
    this.window();
  }

  sort(key) {
    view.down = view.sort === key ? !view.down : ["score", "probability", "difference"].includes(key);
    view.sort = key;
    this.box.scrollTop = 0;
    refresh();
  }

  // All strips on one scale: from three margins (or the typical adapter) below the best to a margin above it.
  scale() {
    const best = bestScore(), margin = view.judged.margin;
    const gaps = view.visible.map((adapter) => adapter.lead.difference).filter(known).sort((a, b) => a - b);
    const typical = gaps.length ? gaps[gaps.length >> 2] : 0;
    const low = Math.min(-3 * margin || -1e-4, 1.5 * typical), high = 1.5 * margin || 1e-4;
    this.best = best;
    this.place = (value) => (100 * Math.min(1, Math.max(0, (value - low) / (high - low)))).toFixed(1);
  }

  window() {
    const count = this.lines.length, all = count <= ALL_ROWS;
    const from = all ? 0 : Math.max(0, Math.floor(this.box.scrollTop / ROW_HEIGHT) - 12);
    const to = all ? count : Math.min(count, from + Math.ceil((this.box.clientHeight || 600) / ROW_HEIGHT) + 24);
    if (from === this.first && to === this.last) return;
    const held = document.activeElement && this.body.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    [this.first, this.last] = [from, to];
    const space = (rows) => (rows > 0 ? [h("tr", { class: "space", "aria-hidden": "true" }, h("td", { colspan: this.columns.length + 2, height: rows * ROW_HEIGHT }))] : []);
    this.body.replaceChildren(...space(from), ...this.lines.slice(from, to).map((line) => this.line(line)), ...space(count - to));
    if (!count) this.body.append(h("tr", null, h("td", { colspan: this.columns.length + 2, class: "nothing" }, "No trial passes the filters.")));
    if (held) this.body.querySelector(`[data-key="${held}"]`)?.focus({ preventScroll: true });
  }

  heading({ heading, value, members }) {
    const [name, words] = groupWords(view.group, value, members), open = !view.closed.has(heading);
    return h("tr", { class: "gathered" }, h("td", { class: "check" }), h("th", { scope: "rowgroup", colspan: this.columns.length + 1 },
      h("button", { type: "button", "data-key": heading, "aria-expanded": String(open), onclick: () => {
        if (open) view.closed.add(heading);
        else view.closed.delete(heading);
        this.render();
      } }, `${open ? "\u25be" : "\u25b8"} ${name}`), h("small", null, words)));
  }

  line({ row, depth, adapter, ...rest }) {
    if (!row) return this.heading(rest);
    const group = row.group, picked = view.selected.has(group.id), settings = group.shown.length;
    const key = `${depth}-${row.trial}`;
    const more = adapter && settings > 1
      ? h("button", { type: "button", class: "more", "data-key": `open-${key}`, "aria-expanded": String(view.open.has(group.id)), onclick: (event) => this.toggle(event, group) }, `${settings} settings`)
      : null;
    const name = depth
      ? h("span", { class: "setting" }, `trial ${row.trial}, rate ${rateText(row.learning_rate)}`)
      : h("span", null, row.names.length ? h("b", null, row.names.join(", ") + " ") : "", adapterText(row, 30), view.group === "none" ? h("small", null, ` trial ${row.trial}`) : "");
    const classes = [row.state, picked ? "picked" : "", row.names.length && !depth ? "named" : "", depth ? "member" : ""].filter(Boolean).join(" ");
    return h("tr", { class: classes, "data-trial": row.trial, onclick: (event) => !event.target.closest("button, input, a") && pick(group, event.shiftKey || event.ctrlKey || event.metaKey) },
      h("td", { class: "check" }, depth ? "" : this.check(row, group, picked, key)),
      h("th", { scope: "row" }, name, " ", more),
      ...this.columns.map((column) => this.cell(column, row)));
  }

  check(row, group, picked, key) {
    const box = h("input", { type: "checkbox", "data-key": `pick-${key}`, "aria-label": `select ${adapterText(row)}`, onchange: () => pick(group, true) });
    box.checked = picked;
    return box;
  }

  cell(column, row) {
    if (column.strip) return h("td", { class: "where" }, this.strip(row));
    const value = row[column.key];
    const text = column.text ? column.text(row) : value === null ? DASH : String(value);
    return h("td", { class: column.number ? "number" : null, title: column.key === "state" && row.failure ? row.failure : null }, text);
  }

  strip(row) {
    if (!known(row.difference) || !known(this.best)) return "";
    const margin = view.judged.margin, from = this.place(-margin), to = this.place(0);
    const parts = [s("rect", { class: "band", x: from, width: to - from, y: 0, height: 12 })];
    if (known(row.low)) {
      const low = this.place(row.low - this.best), high = this.place(row.high - this.best);
      parts.push(s("rect", { class: "bar", x: low, width: Math.max(0, high - low).toFixed(1), y: 5, height: 2 }));
    }
    parts.push(s("rect", { class: "dot", x: Math.max(0, this.place(row.difference) - 1.2), width: 2.4, y: 2, height: 8 }));
    return s("svg", { class: "strip", viewBox: "0 0 100 12", preserveAspectRatio: "none", "aria-hidden": "true" }, ...parts);
  }

  toggle(event, group) {
    event.stopPropagation();
    if (view.open.has(group.id)) view.open.delete(group.id);
    else view.open.add(group.id);
    this.render();
  }
}

// trials.csv, line for line as the study folder has it; with filters, the lines they leave.
function csvText() {
  const kept = new Set(view.visible.flatMap((adapter) => adapter.shown.map((row) => row.at)));
  const [head, ...lines] = view.data.csv;
  return [head, ...lines.filter((_, at) => kept.has(at))].join("");
}
