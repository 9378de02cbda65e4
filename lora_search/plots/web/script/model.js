// What is shown: the study's trials gathered into adapters, what of them the filters leave, and what is selected.
// An adapter is rank, alpha, targets, layers, scaling, DoRA, biases and ranks by module; its settings are the trials that train it at other rates.
const view = {
  data: null, trials: [], adapters: [], visible: [], unit: null, judged: null,
  selected: new Set(), filters: { rank: [], targets: [], layers: [], state: [] }, ranges: {}, top: 0,
  cost: "parameters", margin: null, confidence: null, sort: "adapter_parameters", down: false, open: new Set(),
  columns: null, group: "adapter", closed: new Set(),
};
const listeners = [];
const FILTERS = ["rank", "targets", "layers", "state"];
const RANGES = { learning_rate: "learning rate", alpha: "alpha", dropout: "dropout", score: "score" };
const GROUPS = ["adapter", "rank", "targets", "layers", "none"];

function take(data) {
  view.data = data;
  view.unit = new Unit(data.metric);
  const names = Object.keys(data.trials);
  view.trials = data.trials.trial.map((_, at) => {
    const row = { at };
    for (const name of names) row[name] = data.trials[name][at];
    return row;
  });
  const byAdapter = new Map();
  for (const row of view.trials) {
    if (!byAdapter.has(row.adapter)) byAdapter.set(row.adapter, []);
    byAdapter.get(row.adapter).push(row);
  }
  view.adapters = [...byAdapter.values()].map((members) => ({ id: members[0].trial, members }));
  const alike = (row) => [row.rank, row.targets, row.layers, row.scaling, row.use_dora, row.bias, row.rank_pattern].join(), counts = new Map();
  for (const { members } of view.adapters) counts.set(alike(members[0]), (counts.get(alike(members[0])) || 0) + 1);
  for (const adapter of view.adapters) adapter.twin = counts.get(alike(adapter.members[0])) > 1; // told apart by alpha alone
  apply(data.judged);
}

function apply(judged) {
  view.judged = judged;
  for (const row of view.trials) {
    for (const name of ["score", "low", "high", "difference", "probability", "status"]) row[name] = judged[name][row.at];
    row.names = judged.roles[row.trial] || [];
  }
  for (const adapter of view.adapters) {
    const best = adapter.members.reduce((one, other) => (rankOf(other) > rankOf(one) ? other : one));
    adapter.row = best;
    adapter.names = adapter.members.flatMap((row) => row.names);
    for (const row of adapter.members) row.group = adapter;
  }
}

// The setting that stands for an adapter, as in plots/landscape.py: one the verdict names, else one it compares, else a
// finished one, else the one that came furthest; then the score.
function rankOf(row) {
  const named = row.trial === view.judged.recommended || row.trial === view.judged.best;
  const weight = (named ? 4 : 0) + (known(row.probability) ? 2 : 0) + (row.state === "complete" ? 1 : 0);
  return 1e7 * weight + 100 * row.cells + (known(row.score_mean) ? row.score_mean : -10);
}

function passes(row) {
  return FILTERS.every((name) => !view.filters[name].length || view.filters[name].includes(String(row[name])))
    && Object.entries(view.ranges).every(([name, [low, high]]) => known(row[name]) && row[name] >= low && row[name] <= high);
}

function refresh() {
  let visible = [];
  for (const adapter of view.adapters) {
    adapter.shown = adapter.members.filter(passes);
    if (adapter.shown.length) visible.push(adapter);
  }
  if (view.top && visible.length > view.top) {
    const kept = visible.filter((adapter) => adapter.names.length || view.selected.has(adapter.id));
    const rest = visible.filter((adapter) => !kept.includes(adapter) && known(adapter.row.score));
    rest.sort((a, b) => b.row.score - a.row.score);
    const chosen = new Set([...kept, ...rest.slice(0, Math.max(0, view.top - kept.length))]);
    visible = visible.filter((adapter) => chosen.has(adapter));
  }
  view.visible = visible;
  for (const adapter of visible) {
    adapter.lead = adapter.shown.includes(adapter.row)
      ? adapter.row
      : adapter.shown.reduce((one, other) => (rankOf(other) > rankOf(one) ? other : one));
  }
  writeAddress();
  for (const listener of listeners) listener();
}

function pick(adapter, adding) {
  const had = view.selected.has(adapter.id);
  if (!adding && !(had && view.selected.size === 1)) view.selected.clear();
  if (had) view.selected.delete(adapter.id);
  else view.selected.add(adapter.id);
  refresh();
}

const selectedAdapters = () => [...view.selected].map((id) => view.adapters.find((one) => one.id === id)).filter(Boolean);
const trialRow = (number) => view.trials.find((row) => row.trial === number) || null;
const colourOf = (row) => {
  const index = view.data.encoding.targets[row.targets];
  return index === undefined || index > 5 ? "other" : `series-${index + 1}`;
};
const markerOf = (row) => view.data.encoding.layers[row.layers] || "o";

// -- the address: everything a colleague needs to see the same page -----------------------------------------------

function writeAddress() {
  const parts = new URLSearchParams();
  for (const name of FILTERS) for (const value of view.filters[name]) parts.append(name, value);
  for (const [name, ends] of Object.entries(view.ranges)) parts.set(name, ends.join(".."));
  if (view.top) parts.set("top", view.top);
  if (view.cost !== "parameters") parts.set("cost", view.cost);
  if (view.selected.size) parts.set("selected", [...view.selected].join(","));
  if (view.sort !== "adapter_parameters" || view.down) parts.set("sort", (view.down ? "-" : "") + view.sort);
  if (view.group !== "adapter") parts.set("group", view.group);
  if (view.margin !== null) parts.set("margin", view.margin);
  if (view.confidence !== null) parts.set("confidence", view.confidence);
  if (view.columns) parts.set("columns", view.columns.join(","));
  const hash = parts.toString();
  if (hash !== location.hash.slice(1)) history.replaceState(null, "", hash ? "#" + hash : location.pathname + location.search);
}

function readAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const number = (name) => (parts.has(name) && known(Number(parts.get(name))) ? Number(parts.get(name)) : null);
  for (const name of FILTERS) view.filters[name] = parts.getAll(name);
  view.ranges = {};
  for (const name of Object.keys(RANGES)) {
    const ends = (parts.get(name) || "").split("..").map(parseFloat);
    if (ends.length === 2 && ends.every(known)) view.ranges[name] = ends;
  }
  view.top = number("top") || 0;
  view.cost = ["compute", "wall"].includes(parts.get("cost")) ? parts.get("cost") : "parameters";
  view.selected = new Set((parts.get("selected") || "").split(",").filter(Boolean).map(Number));
  const sort = parts.get("sort") || "adapter_parameters";
  view.sort = sort.replace(/^-/, "");
  view.down = sort.startsWith("-");
  view.group = GROUPS.includes(parts.get("group")) ? parts.get("group") : "adapter";
  view.margin = number("margin");
  view.confidence = number("confidence");
  view.columns = parts.has("columns") ? parts.get("columns").split(",") : null;
}
