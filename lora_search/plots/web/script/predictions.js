// Out-of-fold predictions of the shown adapters: who is taken for whom, and where two adapters disagree.
const heldPredictions = new Map();
const MOST_LABELS = 12, MOST_EXAMPLES = 12;

async function predictionsOf(rows) {
  const wanted = rows.map((row) => row.trial), kept = view.data.predictions;
  if (kept) return wanted.every((trial) => kept.predicted[trial]) ? kept : null;
  if (!view.data.links) return null;
  const key = `${view.data.token} ${wanted}`;
  if (!heldPredictions.has(key)) {
    if (heldPredictions.size > 40) heldPredictions.clear();
    heldPredictions.set(key, fetch(`${view.data.links}/predictions.json?trials=${wanted}`).then((answer) => (answer.ok ? answer.json() : null)).catch(() => null));
  }
  return heldPredictions.get(key);
}

async function drawPredictions(adapters) {
  const box = byId("predictions"), rows = adapters.map((adapter) => adapter.row).filter((row) => row.cells > 0);
  const key = rows.map((row) => `${row.trial} ${row.cells}`).join();
  if (drawPredictions.key === key) return; // nothing of theirs is new: what was opened or scrolled stays
  drawPredictions.key = key;
  const mine = (drawPredictions.turn = (drawPredictions.turn || 0) + 1);
  const found = rows.length ? await predictionsOf(rows) : null;
  if (mine !== drawPredictions.turn) return;
  if (!found) {
    box.replaceChildren();
    return;
  }
  const [one, two] = found.labels ? [confusion, disagreements] : [spans, sentences];
  box.replaceChildren(...rows.map((row) => one(row, found)), ...(rows.length === 2 ? [two(rows, found)] : []));
}

function confusion(row, { labels, truth, predicted }) {
  const size = labels.length, table = Array.from({ length: size }, () => new Array(size).fill(0));
  predicted[row.trial].forEach((label, at) => {
    if (label >= 0) table[truth[at]][label] += 1;
  });
  const title = h("h3", null, `Predictions of ${adapterText(row)}`);
  if (size > MOST_LABELS) {
    const pairs = table.flatMap((line, true_label) => line.map((count, label) => ({ count, true_label, label }))).filter((pair) => pair.count && pair.label !== pair.true_label);
    pairs.sort((a, b) => b.count - a.count);
    return h("div", { class: "confusion" }, title, h("p", { class: "reading" }, "Labels most often taken for each other."),
      h("ol", null, ...pairs.slice(0, 12).map((pair) => h("li", null, `${labels[pair.true_label]} taken for ${labels[pair.label]}: ${pair.count}`))));
  }
  return h("div", { class: "confusion" }, title, h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "confusion matrix" }, h("table", null,
    h("thead", null, h("tr", null, h("th", { scope: "col" }, "true \u2193 \u00b7 predicted \u2192"), ...labels.map((label) => h("th", { scope: "col", class: "number" }, cut(label, 16))), h("th", { scope: "col", class: "number" }, "found"))),
    h("tbody", null, ...table.map((line, at) => {
      const total = line.reduce((sum, count) => sum + count, 0) || 1;
      return h("tr", null, h("th", { scope: "row" }, cut(labels[at], 22)), ...line.map((count, label) =>
        h("td", { class: `number heat-cell heat-${Math.round((5 * count) / total)}${label === at ? " hit" : ""}` }, grouped(count))),
      h("td", { class: "number" }, percentText(line[at] / total)));
    })))));
}

// Entities that are there against entities that are marked; a hit has the right type and both ends.
function spans(row, { truth, predicted }) {
  const { hits, marked } = predicted[row.trial], seen = (values) => values.reduce((sum, value, at) => sum + (hits[at] < 0 ? 0 : value), 0);
  const hit = seen(hits), all = seen(marked), there = seen(truth);
  const cell = (count, total, right) => h("td", { class: `number heat-cell heat-${Math.round((5 * count) / (total || 1))}${right ? " hit" : ""}` }, grouped(Math.round(count)));
  const head = (name, scope, number) => h("th", { scope, class: number ? "number" : null }, name);
  return h("div", { class: "confusion" }, h("h3", null, `Entities marked by ${adapterText(row)}`), h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "entities found and missed" }, h("table", null,
    h("thead", null, h("tr", null, head("", "col"), head("is one", "col", true), head("is none, or another", "col", true), head("right", "col", true))),
    h("tbody", null,
      h("tr", null, head("marked", "row"), cell(hit, all, true), cell(all - hit, all), h("td", { class: "number" }, all ? percentText(hit / all) : "\u2013")),
      h("tr", null, head("not marked so", "row"), cell(there - hit, there), h("td", { class: "number" }, ""), h("td", { class: "number" }, "")),
      h("tr", null, head("found", "row"), h("td", { class: "number" }, there ? percentText(hit / there) : "\u2013"), h("td", { class: "number" }, ""), h("td", { class: "number" }, ""))))));
}

// Sentences in which two adapters mark entities differently well.
function sentences([one, other], { truth, predicted, texts }) {
  const wrong = (row, at) => truth[at] + predicted[row.trial].marked[at] - 2 * predicted[row.trial].hits[at];
  const found = truth.map((_, at) => at).filter((at) => predicted[one.trial].hits[at] >= 0 && predicted[other.trial].hits[at] >= 0 && wrong(one, at) !== wrong(other, at));
  const said = (row, at) => h("td", { class: wrong(row, at) ? null : "right" }, `${predicted[row.trial].hits[at]} of ${predicted[row.trial].marked[at]}`);
  return examplesOf([one, other], found, texts, "sentence", {
    reading: `${adapterText(one)} does better in ${found.filter((at) => wrong(one, at) < wrong(other, at)).length}, ${adapterText(other)} in ${found.filter((at) => wrong(other, at) < wrong(one, at)).length}. Under each: hits among what it marked.`,
    truth: (at) => h("td", null, truth[at]), said,
  });
}

function disagreements([one, other], { labels, truth, predicted, texts }) {
  const first = predicted[one.trial], second = predicted[other.trial], found = [];
  let only_first = 0, only_second = 0;
  first.forEach((label, at) => {
    if (label < 0 || second[at] < 0 || label === second[at]) return;
    if (label === truth[at]) only_first += 1;
    if (second[at] === truth[at]) only_second += 1;
    found.push(at);
  });
  const named = (label, kind) => h("td", { class: kind }, cut(labels[label], 30));
  return examplesOf([one, other], found, texts, "example", {
    reading: `Only ${adapterText(one)} is right on ${only_first}, only ${adapterText(other)} on ${only_second}.`,
    truth: (at) => named(truth[at], null),
    said: (row, at) => named(predicted[row.trial][at], predicted[row.trial][at] === truth[at] ? "right" : "wrong"),
  });
}

// Examples on which two adapters differ: a dozen at a time, with their texts where those can be had.
function examplesOf([one, other], found, texts, noun, { reading, truth, said }) {
  const body = h("tbody"), more = h("button", { type: "button", class: "quiet" }), note = h("p", { class: "reading" });
  const show = async () => {
    const next = found.slice(body.childElementCount, body.childElementCount + MOST_EXAMPLES), cells = new Map();
    for (const at of next) {
      const text = h("td", { class: "said" });
      cells.set(at, text);
      body.append(h("tr", null, h("td", { class: "number" }, at), text, truth(at), said(one, at), said(other, at)));
    }
    const left = found.length - body.childElementCount;
    more.hidden = left < 1;
    more.textContent = `${Math.min(left, MOST_EXAMPLES)} more of ${grouped(left)}`;
    note.textContent = "Reading the examples\u2026";
    note.hidden = false;
    const { known_texts, problem } = await textsOf(next, texts);
    for (const [at, cell] of cells) cell.textContent = cut(known_texts[at] || "", 220);
    body.parentElement.classList.toggle("untold", !Object.keys(known_texts).length);
    note.textContent = problem || "";
    note.hidden = !problem;
  };
  more.addEventListener("click", show);
  const head = (name, number) => h("th", { scope: "col", class: number ? "number" : null }, name);
  const table = h("table", { class: "untold" }, h("thead", null, h("tr", null, head(noun, true), h("th", { scope: "col", class: "said" }, "text"), head("true"), head(`r=${one.rank}, trial ${one.trial}`), head(`r=${other.rank}, trial ${other.trial}`))), body);
  const box = h("div", { class: "confusion wide" }, h("h3", null, `They disagree on ${counted(found.length, noun)}`),
    h("p", { class: "reading" }, reading),
    found.length ? h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "examples they disagree on" }, table) : "", note, more);
  if (found.length) show();
  else more.hidden = note.hidden = true;
  return box;
}

// Texts by number: kept in the page, or asked of the server, which reads the study's source; or why there are none.
async function textsOf(numbers, kept) {
  if (kept) return { known_texts: Object.fromEntries(numbers.map((at) => [at, kept[at]])) };
  if (!view.data.links) return { known_texts: {}, problem: "Texts are not kept in this file; lora-search report --texts keeps them, and the dashboard shows them." };
  try {
    const answer = await fetch(`${view.data.links}/examples.json?numbers=${numbers}`);
    const { texts, problem } = await answer.json();
    return { known_texts: texts, problem: problem && `No texts: ${problem}` };
  } catch {
    return { known_texts: {}, problem: "No texts: the dashboard does not answer." };
  }
}
