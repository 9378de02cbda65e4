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
  const mine = (drawPredictions.turn = (drawPredictions.turn || 0) + 1);
  const found = rows.length ? await predictionsOf(rows) : null;
  if (mine !== drawPredictions.turn) return;
  if (!found || !found.labels.length) {
    box.replaceChildren();
    return;
  }
  box.replaceChildren(...rows.map((row) => confusion(row, found)), ...(rows.length === 2 ? [disagreements(rows, found)] : []));
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

function disagreements([one, other], { labels, truth, predicted, texts }) {
  const first = predicted[one.trial], second = predicted[other.trial], found = [];
  let only_first = 0, only_second = 0;
  first.forEach((label, at) => {
    if (label < 0 || second[at] < 0 || label === second[at]) return;
    if (label === truth[at]) only_first += 1;
    if (second[at] === truth[at]) only_second += 1;
    found.push(at);
  });
  const shown = found.slice(0, MOST_EXAMPLES);
  return h("div", { class: "confusion wide" }, h("h3", null, `They disagree on ${counted(found.length, "example")}`),
    h("p", { class: "reading" }, `Only ${adapterText(one)} is right on ${only_first}, only ${adapterText(other)} on ${only_second}.`),
    shown.length ? h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "examples they disagree on" }, h("table", null, h("thead", null, h("tr", null, h("th", { scope: "col", class: "number" }, "example"), ...(texts ? [h("th", { scope: "col" }, "text")] : []), h("th", { scope: "col" }, "true"), h("th", { scope: "col" }, `r=${one.rank}, trial ${one.trial}`), h("th", { scope: "col" }, `r=${other.rank}, trial ${other.trial}`))),
      h("tbody", null, ...shown.map((at) => h("tr", null, h("td", { class: "number" }, at), ...(texts ? [h("td", { class: "said" }, cut(texts[at] || "", 160))] : []), h("td", null, labels[truth[at]]),
        h("td", { class: first[at] === truth[at] ? "right" : "wrong" }, labels[first[at]]), h("td", { class: second[at] === truth[at] ? "right" : "wrong" }, labels[second[at]])))))) : "");
}
