// A plane of points: axes, a margin band, lines, intervals, named points; hover, click and arrow keys find a point.
// Points that look alike are one path, so that ten thousand of them are a dozen elements.
const MARKS = {
  o: (r) => `m${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0z`,
  s: (r) => `m${-r * 0.88},${-r * 0.88}h${r * 1.76}v${r * 1.76}h${-r * 1.76}z`,
  "^": (r) => `m0,${-r * 1.15}l${r * 1.08},${r * 1.95}h${-r * 2.16}z`,
  v: (r) => `m0,${r * 1.15}l${r * 1.08},${-r * 1.95}h${-r * 2.16}z`,
  D: (r) => `m0,${-r * 1.2}l${r * 1.2},${r * 1.2}l${-r * 1.2},${r * 1.2}l${-r * 1.2},${-r * 1.2}z`,
  P: (r) => `m${-r * 0.4},${-r * 1.1}h${r * 0.8}v${r * 0.7}h${r * 0.7}v${r * 0.8}h${-r * 0.7}v${r * 0.7}h${-r * 0.8}v${-r * 0.7}h${-r * 0.7}v${-r * 0.8}h${r * 0.7}z`,
  X: (r) => `m0,${-r * 0.45}l${r * 0.6},${-r * 0.6}l${r * 0.45},${r * 0.45}l${-r * 0.6},${r * 0.6}l${r * 0.6},${r * 0.6}l${-r * 0.45},${r * 0.45}l${-r * 0.6},${-r * 0.6}l${-r * 0.6},${r * 0.6}l${-r * 0.45},${-r * 0.45}l${r * 0.6},${-r * 0.6}l${-r * 0.6},${-r * 0.6}l${r * 0.45},${-r * 0.45}z`,
  p: (r) => `m0,${-r * 1.1}l${r * 1.05},${r * 0.76}l${-r * 0.4},${r * 1.23}h${-r * 1.3}l${-r * 0.4},${-r * 1.23}z`,
};
const NARROW = 460, BASE_FONT = 17, PAPER_WIDTH = 640;
const markPath = (x, y, mark, radius) => `M${x.toFixed(1)},${y.toFixed(1)}${(MARKS[mark] || MARKS.o)(radius)}`;

class Plate {
  // One figure's drawing: an SVG in pixels of its box, drawn anew when the data or the width changes.
  constructor(box, label) {
    this.box = box;
    this.root = s("svg", { role: "img", "aria-label": label, tabindex: "0", class: "chart" });
    box.replaceChildren(this.root);
    this.points = [];
    this.at = -1;
    this.scale = 1;
    this.root.addEventListener("pointermove", (event) => this.hover(event));
    this.root.addEventListener("pointerleave", () => this.leave());
    this.root.addEventListener("click", (event) => {
      if (this.brushed) return void (this.brushed = false);
      const found = this.nearest(event);
      if (found && found.adapter) pick(found.adapter, event.shiftKey || event.ctrlKey || event.metaKey);
    });
    bindBrush(this);
    this.root.addEventListener("keydown", (event) => this.key(event));
    this.root.addEventListener("blur", () => this.leave());
  }

  begin(height, margins) {
    this.box.parentElement.classList.remove("blank");
    this.width = this.room();
    this.height = height;
    Object.assign(this, margins);
    this.box.replaceChildren(this.root);
    this.root.setAttribute("viewBox", `0 0 ${this.width} ${height}`);
    this.root.setAttribute("width", this.width * this.scale);
    this.root.setAttribute("height", height * this.scale);
    this.parts = [];
    this.points = [];
    this.brush = null;
    this.right_edge = this.width - this.right;
    this.bottom_edge = height - this.bottom;
  }

  // The width there is, in units of which a letter has twelve, on a large screen as on a small one.
  room() {
    if (drawing.paper) return (this.scale = 1) && PAPER_WIDTH;
    this.scale = Math.max(1, parseFloat(getComputedStyle(document.documentElement).fontSize) / BASE_FONT);
    return Math.max(260, Math.floor(this.box.clientWidth / this.scale));
  }

  get narrow() {
    return this.room() < NARROW;
  }

  // Where a pointer is, in units of the drawing.
  spot(event) {
    const bounds = this.root.getBoundingClientRect();
    return [(event.clientX - bounds.left) / this.scale, (event.clientY - bounds.top) / this.scale];
  }

  add(...parts) {
    this.parts.push(...parts.flat());
  }

  end() {
    this.ring = s("g", { class: "ring" });
    this.root.replaceChildren(...this.parts, this.ring);
  }

  // What does not fit into the drawing, under it, where it hides nothing.
  say(words) {
    this.box.append(h("p", { class: "under" }, words));
  }

  empty(words) {
    this.begin(40, { left: 0, right: 0, top: 0, bottom: 0 });
    this.add(s("text", { x: 0, y: 24, class: "none" }, words));
    this.end();
    this.box.parentElement.classList.add("blank"); // how to read a figure is not said of none
  }

  xAxis(scale, ticks, write, title) {
    const y = this.bottom_edge;
    this.add(s("path", { class: "axis", d: `M${this.left},${y}H${this.right_edge}` + ticks.map((v) => `M${scale.place(v).toFixed(1)},${y}v4`).join("") }));
    for (const value of ticks) {
      this.add(s("text", { class: "tick middle", x: scale.place(value).toFixed(1), y: y + 17 }, write(value)));
    }
    this.add(s("text", { class: "title middle", x: (this.left + this.right_edge) / 2, y: y + 35 }, title));
  }

  yAxis(scale, ticks, title) {
    for (const { value, text } of ticks) {
      const y = scale.place(value).toFixed(1);
      this.add(s("path", { class: "rule", d: `M${this.left},${y}H${this.right_edge}` }));
      this.add(s("text", { class: "tick end", x: this.left - 7, y, dy: "0.33em" }, text));
    }
    this.add(s("text", { class: "title", x: 0, y: this.top - 12 }, title));
  }

  scoreAxis(low, high, title) {
    const scale = linear(low, high, this.bottom_edge, this.top);
    const ticks = linearTicks(low, high, view.unit.factor).map((tick) => ({ value: tick.value, text: tick.shown.toFixed(tick.digits).replace("-", MINUS) }));
    this.yAxis(scale, ticks, title || `${view.unit.axis}, mean over folds`);
    return scale;
  }

  band(scale, best, margin) {
    if (!known(best)) return;
    const top = scale.place(best), bottom = Math.min(scale.place(best - margin), this.bottom_edge);
    this.add(s("rect", { class: "band", x: this.left, y: top, width: this.right_edge - this.left, height: Math.max(0, bottom - top) }));
    this.add(s("path", { class: "band-edge", d: `M${this.left},${bottom}H${this.right_edge}` }));
    const [high, low] = spread([top, bottom], 13);
    this.add(s("text", { class: "side", x: this.right_edge + 6, y: high, dy: "0.33em" }, `best ${view.unit.number(best)}`));
    if (margin > 0) this.add(s("text", { class: "side", x: this.right_edge + 6, y: low, dy: "0.33em" }, view.unit.worse + view.unit.step(margin)));
  }

  // What is no adapter and is compared with them: a line; below the axis, only its name.
  baselines(scale, limits) {
    const shown = view.judged.baselines.filter(({ score }) => known(score) && score >= limits[0]);
    const levels = shown.map(({ score }) => scale.place(Math.min(score, limits[1]))), named = spread(levels, 13);
    for (const [at, { name, score }] of shown.entries()) {
      const y = levels[at].toFixed(1);
      this.add(s("path", { class: "baseline", d: `M${this.left},${y}H${this.right_edge}` }), s("text", { class: "side halo", x: this.left + 6, y: named[at] - 4 }, `${name} ${view.unit.number(score)}`));
    }
  }

  // points: {x, y, adapter, row, faint, low, high} in pixels; drawn in groups of one look.
  draw(points, radius) {
    const intervals = new Map(), marks = new Map();
    for (const point of points) {
      const colour = point.colour || colourOf(point.row), open = point.row.state !== "complete";
      if (known(point.low) && point.high !== point.low) {
        intervals.set(colour, (intervals.get(colour) || "") + `M${point.x.toFixed(1)},${point.low.toFixed(1)}V${point.high.toFixed(1)}`);
      }
      const look = [colour, open ? "open" : "full", point.faint ? "faint" : "plain"].join(" ");
      const mark = point.below ? "v" : markerOf(point.row);
      marks.set(look, (marks.get(look) || "") + markPath(point.x, point.y, mark, point.faint ? radius * 0.75 : radius));
    }
    for (const [colour, d] of intervals) this.add(s("path", { class: `interval ${colour}`, d }));
    for (const faint of ["faint", "plain"]) {
      for (const [look, d] of marks) if (look.endsWith(faint)) this.add(s("path", { class: `mark ${look}`, d }));
    }
    this.points = points;
  }

  // Rings around what is named or selected, and the names beside them where there is room.
  name(points, radius) {
    const labels = [];
    for (const point of points) {
      const chosen = view.selected.has(point.adapter.id);
      if (!chosen && !point.row.names.length) continue;
      const strong = point.row.trial === view.judged.recommended;
      this.add(s("circle", { class: chosen ? "chosen" : strong ? "named strong" : "named", cx: point.x, cy: point.y, r: radius + 4 }));
      if (point.row.names.length) labels.push({ point, text: `${point.row.names.join(", ")}: r=${point.row.rank}`, strong });
    }
    labels.sort((a, b) => b.strong - a.strong);
    const taken = [];
    for (const label of labels.slice(0, 6)) this.label(label, points, taken);
  }

  label({ point, text, strong }, points, taken) {
    const width = text.length * (strong ? 7.1 : 6.5) + 4, high = 15;
    let best = null;
    for (const distance of [13, 22, 34, 50]) {
      for (const [dx, dy, anchor] of [[1, 0, "start"], [0, -1, "middle"], [-1, 0, "end"], [0, 1, "middle"], [0.7, -0.8, "start"], [-0.7, -0.8, "end"], [0.7, 0.8, "start"], [-0.7, 0.8, "end"]]) {
        const x = point.x + dx * distance, y = point.y + dy * (dx ? distance : distance + 5); // a ring is round, a text is not
        const left = anchor === "start" ? x : anchor === "end" ? x - width : x - width / 2;
        const box = { left, right: left + width, top: y - high / 2, bottom: y + high / 2 };
        let cost = distance / 10;
        if (box.right > this.right_edge + 2) cost += 6; // where the margin is named
        if (box.left < this.left) cost += 12; // where the ticks are
        if (box.left < 0 || box.right > this.width || box.top < 0 || box.bottom > this.bottom_edge) cost += 30;
        for (const other of points) {
          if (other !== point && other.x > box.left - 6 && other.x < box.right + 6 && other.y > box.top - 6 && other.y < box.bottom + 6) cost += 4;
          if (known(other.low) && other.x > box.left - 2 && other.x < box.right + 2 && other.high < box.bottom && other.low > box.top) cost += 0.7;
        }
        for (const other of taken) if (!(box.right < other.left || box.left > other.right || box.bottom < other.top || box.top > other.bottom)) cost += 40;
        if (!best || cost < best.cost) best = { cost, x, y, anchor, box, distance };
      }
    }
    taken.push(best.box);
    if (best.distance > 20) this.add(s("path", { class: "leader", d: `M${point.x},${point.y}L${best.x},${best.y}` }));
    const { x, y } = best;
    this.add(s("text", { class: `label ${strong ? "strong " : ""}${best.anchor}`, x: x.toFixed(1), y: y.toFixed(1), dy: "0.34em" }, text));
  }

  // -- finding a point -------------------------------------------------------------------------------------------

  nearest(event) {
    const [x, y] = this.spot(event);
    // of a point that stands for a line of the figure, any place on the line will do
    let best = null, least = event.pointerType === "touch" ? 40 : 26;
    for (const point of this.points) {
      const distance = point.line ? Math.abs(point.y - y) : Math.hypot(point.x - x, point.y - y) + (point.faint ? 3 : 0);
      if (distance < least) [best, least] = [point, distance];
    }
    return best;
  }

  hover(event) {
    if (this.dragging) return;
    const found = this.nearest(event);
    this.root.classList.toggle("over", Boolean(found));
    if (found) this.point(found, event.clientX, event.clientY);
    else this.leave();
  }

  point(point, x, y) {
    this.ring.replaceChildren(s("circle", { cx: point.x, cy: point.y, r: 9 }));
    tip.show(point.words ? point.words() : pointWords(point), x, y);
  }

  leave() {
    if (this.ring) this.ring.replaceChildren();
    this.root.classList.remove("over");
    tip.hide();
  }

  key(event) {
    if (event.key === "Escape") return this.leave();
    if (!["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Enter", " "].includes(event.key) || !this.points.length) return;
    event.preventDefault();
    const order = (this.order = this.points.slice().sort((a, b) => a.x - b.x || a.y - b.y));
    if (event.key === "Enter" || event.key === " ") {
      const point = order[this.at];
      if (point && point.adapter) pick(point.adapter, event.shiftKey);
      return;
    }
    const step = event.key === "ArrowRight" || event.key === "ArrowDown" ? 1 : -1;
    this.at = (this.at + step + order.length) % order.length;
    const point = order[this.at], bounds = this.root.getBoundingClientRect();
    this.point(point, bounds.left + point.x * this.scale, bounds.top + point.y * this.scale);
  }
}

// What a point says: the adapter, its score and interval, and its score on every fold.
function pointWords({ row, adapter }) {
  const unit = view.unit, lines = [adapterText(row, 40) + (row.names.length ? ` \u00b7 ${row.names.join(", ")}` : "")];
  const settings = adapter.members.length > 1 ? `, best of ${adapter.members.length} settings` : "";
  lines.push(`trial ${row.trial}, alpha ${significant(row.alpha, 4)}, rate ${rateText(row.learning_rate)}${settings}`);
  lines.push(`${countText(row.adapter_parameters)} parameters, ${durationText(row.compute)} of compute a training`);
  if (known(row.score)) {
    const interval = known(row.low) ? `, may stand at ${unit.range(row.low, row.high)}` : "";
    lines.push(`${unit.metric} ${unit.score(row.score)}${interval}`);
  }
  if (known(row.probability)) lines.push(`P(within ${unit.amount(view.judged.margin)} of the best) ${percentText(row.probability)}`);
  if (row.state !== "complete") lines.push(STATE_WORDS[row.state] + (row.failure ? `: ${row.failure}` : ""));
  const folds = foldScores(row);
  if (folds.length) lines.push("folds " + folds.slice(0, 12).map((score) => unit.number(score)).join(" \u00b7 ") + (folds.length > 12 ? " \u2026" : ""));
  return lines;
}

const foldScores = (row) => (view.data.scores[row.at] || []).filter(known);
