// Numbers as the report writes them (plots/formats.py): the same digits, the typographic minus, the same units.
const MINUS = "\u2212", DASH = "\u2013", NO_BREAK = "\u00a0";

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

function signed(value, digits) {
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? text : (value < 0 ? MINUS : "+") + text;
}

function significant(value, figures) {
  return String(Number(value.toPrecision(figures)));
}

class Unit {
  constructor(metric) {
    Object.assign(this, metric);
  }
  number(score) {
    return known(score) ? (score * this.factor).toFixed(this.digits).replace(/^-(?=[0.]*$)/, "").replace("-", MINUS) : DASH;
  }
  score(score) {
    return known(score) ? this.number(score) + this.suffix : DASH;
  }
  // The lower as it is shown first.
  range(low, high) {
    return this.factor < 0 ? `${this.number(high)} to ${this.score(low)}` : `${this.number(low)} to ${this.score(high)}`;
  }
  spread(value) {
    return known(value) ? this.number(this.factor < 0 ? -value : value) : DASH;
  }
  difference(value) {
    return known(value) ? signed(value * this.per, this.point_digits) : DASH;
  }
  step(value) {
    return this.word.length <= 6 ? this.amount(value) : significant(value * Math.abs(this.per), 3);
  }
  amount(value) {
    const text = significant(value * Math.abs(this.per), 3);
    return text + NO_BREAK + (text === "1" && this.word === "points" ? "point" : this.word);
  }
}

function countText(value) {
  for (const [size, suffix] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= size * 0.9995) return significant(value / size, 3) + suffix;
  }
  return value.toFixed(0);
}

function durationText(seconds) {
  if (!known(seconds)) return DASH;
  for (const [size, unit] of [[3600, "h"], [60, "min"]]) {
    if (seconds >= size) return significant(seconds / size, 3) + NO_BREAK + unit;
  }
  return significant(seconds, 2) + NO_BREAK + "s";
}

function percentText(value) {
  if (!known(value)) return DASH;
  if (value > 0.999) return ">99.9" + NO_BREAK + "%";
  if (value < 0.01) return "<1" + NO_BREAK + "%";
  const text = value >= 0.9 ? (Math.floor(value * 1000 + 1e-9) / 10).toFixed(1) : (value * 100).toFixed(0);
  return text + NO_BREAK + "%";
}

const grouped = (value) => value.toString().replace(/\B(?=(\d{3})+(?!\d))/g, ",");
const rateText = (value) => Number(value.toPrecision(2)).toString().replace("e-", "e\u2011");
const layersText = (layers) =>
  layers === "all" ? "all layers" : layers.startsWith("top-") ? layers.replace("-", "\u2011") : "layers " + layers;
const cut = (text, longest = 28) => (text.length <= longest ? text : text.slice(0, longest - 1) + "\u2026");
const counted = (count, noun) => `${grouped(count)} ${noun}${count === 1 ? "" : "s"}`;

function ranksText(row) {
  if (row.rank_pattern === "uniform") return "";
  return row.rank_pattern === "eva" ? ", ranks by EVA" : `, ranks ${row.rank_pattern.replaceAll(",", ", ").replaceAll(":", " x ")}`;
}

function adapterText(row, longest = 28) {
  const variants = (row.scaling === "rslora" ? ", rsLoRA" : "") + (row.use_dora ? ", DoRA" : "") + (row.bias === "lora_only" ? ", biases" : "") + ranksText(row);
  const alpha = row.group?.twin ? ` \u03b1=${significant(row.alpha, 4)}` : "";
  return `r=${row.rank}${alpha}, ${cut(row.targets, longest)}, ${layersText(row.layers)}${variants}`;
}

const STATE_WORDS = { complete: "complete", pruned: "stopped", failed: "failed", running: "running" };
const STANDING_WORDS = { "not-worse": "not worse", worse: "worse", open: "open" };
