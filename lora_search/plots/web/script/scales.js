// Where values lie on an axis, and which of them are written there.
const log10 = Math.log10;

function linear(low, high, from, to) {
  const place = (value) => from + ((value - low) / (high - low)) * (to - from);
  return { place, low, high, from, to, log: false };
}

function logarithmic(values, from, to) {
  let low = Math.min(...values.slice(0, 1), ...values), high = low;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const air = high > low ? Math.max((high / low) ** 0.06, 1.08) : 1.6;
  low /= air;
  high *= air;
  const span = log10(high / low);
  const place = (value) => from + (log10(value / low) / span) * (to - from);
  return { place, low, high, from, to, log: true };
}

// Probabilities by their log odds, so that 95 and 99 % are told apart as well as 5 and 1 %.
function chances(from, to) {
  const odds = (value) => Math.log(value / (1 - value)), low = 0.004, high = 0.9985;
  const place = (value) => from + ((odds(Math.min(high, Math.max(low, value))) - odds(low)) / (odds(high) - odds(low))) * (to - from);
  return { place, low, high, from, to, log: true };
}

// The chosen values whose labels have room, the first come first.
function roomy(scale, wanted, gap) {
  const chosen = [];
  for (const value of wanted) {
    if (value < scale.low || value > scale.high) continue;
    const at = scale.place(value);
    if (chosen.every((other) => Math.abs(scale.place(other) - at) >= gap)) chosen.push(value);
  }
  return chosen.sort((a, b) => a - b);
}

function valueTicks(scale, values, keep, gap) {
  const all = [...new Set(values)].sort((a, b) => a - b);
  if (all.length > 60) return roundTicks(scale, gap);
  return roomy(scale, [all[0], all[all.length - 1], ...keep, ...all], gap);
}

function roundTicks(scale, gap) {
  const wanted = [];
  for (const step of [1, 2, 5, 3, 1.5, 7]) {
    for (let power = Math.floor(log10(scale.low)); power <= Math.ceil(log10(scale.high)); power++) {
      wanted.push(Number((step * 10 ** power).toPrecision(6)));
    }
  }
  return roomy(scale, wanted, gap);
}

// Round ticks with just the decimals they need, after multiplication by the factor.
function linearTicks(low, high, factor, most = 6) {
  // a negative factor turns the scale round: the lowest value is written as the highest number
  const [first, last] = [low * factor, high * factor].sort((a, b) => a - b);
  const span = last - first;
  const rough = span / most, power = 10 ** Math.floor(log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((part) => part * power).find((part) => part >= rough * 0.999);
  const digits = Math.max(0, Math.ceil(-log10(step) - 1e-9) + (Math.abs((step / power) % 1) > 0.1 ? 1 : 0));
  const ticks = [];
  for (let at = Math.ceil(first / step - 1e-9); at * step <= last + 1e-9; at++) {
    ticks.push({ value: (at * step) / factor, digits, shown: at * step });
  }
  return ticks;
}

// From zero on, at whole seconds, minutes, hours or days.
function clockTicks(high, most) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
  const step = steps.find((one) => high / one <= most) || 86400 * Math.ceil(high / most / 86400);
  return high < 2 ? linearTicks(0, high, 1, most).map((tick) => tick.value) : Array.from({ length: Math.floor(high / step) + 1 }, (_, at) => at * step);
}

// A range that shows the contenders; one diverged trial at chance must not flatten everything worth seeing.
function scoreLimits(scores, best, margin, intervals = null, others = []) {
  const ordered = Float64Array.from(scores).sort();
  const top = Math.max(ordered[ordered.length - 1], known(best) ? best : -Infinity);
  const median = ordered[ordered.length >> 1];
  const reach = Math.max(3 * (top - median), 2 * margin);
  const low = Math.max(ordered[0], top - reach);
  const span = Math.max(top - low, 1.5 * margin || 1e-3);
  const high = known(intervals) ? Math.min(intervals + span * 0.04, top + span * 0.6) : top;
  // what is no adapter and beats them all is shown with them, within reason
  const higher = others.reduce((most, score) => (known(score) ? Math.max(most, Math.min(score, top + 2 * span)) : most), top);
  return [top - span * 1.1, Math.max(high, higher + span * 0.2)];
}

// Positions as near as possible to the wanted ones and at least a gap apart (pool adjacent violators).
function spread(wanted, gap) {
  const order = wanted.map((_, at) => at).sort((a, b) => wanted[a] - wanted[b]);
  const blocks = [];
  for (const at of order) {
    blocks.push({ members: [at], start: wanted[at] });
    while (blocks.length > 1) {
      const last = blocks[blocks.length - 1], before = blocks[blocks.length - 2];
      if (before.start + gap * before.members.length <= last.start) break;
      blocks.pop();
      before.members.push(...last.members);
      const wishes = before.members.map((member, place) => wanted[member] - gap * place);
      before.start = wishes.reduce((sum, wish) => sum + wish, 0) / wishes.length;
    }
  }
  const places = [];
  for (const block of blocks) block.members.forEach((member, place) => (places[member] = block.start + gap * place));
  return places;
}
