// What a reader turns: filters, how many, margin and confidence, columns; and what is shown of the selected adapters.

function chips(name, values, write) {
  return values.map((value) => {
    const box = h("input", { type: "checkbox", value, onchange: (event) => {
      const held = view.filters[name].filter((one) => one !== value);
      view.filters[name] = event.target.checked ? [...held, value] : held;
      refresh();
    } });
    box.checked = view.filters[name].includes(value);
    return h("label", { class: "chip" }, box, h("span", null, write(value)));
  });
}

function drawFilters() {
  const values = (name) => [...new Set(view.trials.map((row) => String(row[name])))];
  const encoding = view.data.encoding, groups = [
    ["rank", "rank", values("rank").sort((a, b) => a - b), String],
    ["targets", "modules", Object.keys(encoding.targets), (value) => cut(value, 22)],
    ["layers", "layers", Object.keys(encoding.layers), (value) => cut(layersText(value), 18)],
    ["state", "state", ["complete", "pruned", "failed", "running"].filter((state) => values("state").includes(state)), (value) => STATE_WORDS[value]],
  ];
  const key = JSON.stringify([groups.map((group) => group[2]), view.filters]);
  if (drawFilters.key !== key) {
    drawFilters.key = key;
    const held = document.activeElement?.closest("#filters") ? [document.activeElement.value, document.activeElement.closest("fieldset")?.id] : null;
    byId("filters").replaceChildren(...groups.filter(([, , options]) => options.length > 1).map(([name, title, options, write]) =>
      h("fieldset", { id: `filter-${name}` }, h("legend", null, title), ...chips(name, options.slice(0, 24), write))));
    if (held && held[1]) [...byId(held[1])?.querySelectorAll("input") || []].find((box) => box.value === held[0])?.focus();
  }
  const left = view.visible.length, all = view.adapters.length;
  byId("left").textContent = left === all ? counted(all, "adapter") : `${grouped(left)} of ${counted(all, "adapter")}`;
  const settings = view.trials.length;
  if (settings !== all) byId("left").textContent += `, ${counted(settings, "trial")}`;
  drawRanges();
  byId("clear").hidden = !FILTERS.some((name) => view.filters[name].length) && !Object.keys(view.ranges).length && !view.top;
  byId("top").value = String(view.top);
  for (const box of document.getElementsByName("cost")) box.checked = box.value === view.cost;
  byId("group").value = view.group;
}

// What was brushed on an axis: said beside the filters, where it can be taken back.
function drawRanges() {
  const write = { learning_rate: rateText, score: (value) => view.unit.number(value) };
  byId("ranges").replaceChildren(...Object.entries(view.ranges).map(([name, ends]) => {
    const words = `${RANGES[name]} ${ends.map((value) => (write[name] || String)(value)).join(" to ")}`;
    return h("button", { type: "button", class: "quiet", "aria-label": `${words}: remove this filter`, onclick: () => {
      delete view.ranges[name];
      refresh();
    } }, `${words} \u00d7`);
  }));
}

function bindControls(table) {
  byId("clear").addEventListener("click", () => {
    for (const name of FILTERS) view.filters[name] = [];
    view.ranges = {};
    view.top = 0;
    refresh();
  });
  byId("top").addEventListener("change", (event) => {
    view.top = Number(event.target.value);
    refresh();
  });
  for (const box of document.getElementsByName("cost")) {
    box.addEventListener("change", () => {
      view.cost = box.value;
      refresh();
    });
  }
  byId("group").addEventListener("change", (event) => {
    view.group = event.target.value;
    refresh();
  });
  byId("csv").addEventListener("click", () => savedFile("trials.csv", csvText(), "text/csv"));
  byId("unselect").addEventListener("click", () => {
    view.selected.clear();
    refresh();
  });
  const varied = (column) => !["scaling", "use_dora", "bias", "rank_pattern", "dropout"].includes(column.key) || new Set(view.trials.map((row) => row[column.key])).size > 1;
  byId("columns").replaceChildren(...COLUMNS.filter(varied).map((column) => {
    const box = h("input", { type: "checkbox", value: column.key, onchange: () => {
      view.columns = [...byId("columns").querySelectorAll("input:checked")].map((one) => one.value);
      refresh();
    } });
    box.checked = (view.columns || USUAL).includes(column.key);
    return h("label", { class: "chip" }, box, h("span", null, column.title));
  }));
}

// -- margin and confidence: the stops of the server's own judgement, or those kept in the page -----------------------

function bindSliders(judgeAt) {
  const { margins, confidences } = view.data.stops;
  const near = (stops, value) => stops.reduce((best, stop, at) => (Math.abs(stop - value) < Math.abs(stops[best] - value) ? at : best), 0);
  const margin = byId("margin"), confidence = byId("confidence");
  margin.max = margins.length - 1;
  confidence.max = confidences.length - 1;
  const show = () => {
    const chosen = margins[margin.value], sure = confidences[confidence.value];
    byId("margin-shown").textContent = view.unit.amount(chosen);
    byId("confidence-shown").textContent = significant(sure * 100, 4) + NO_BREAK + "%";
    margin.setAttribute("aria-valuetext", byId("margin-shown").textContent);
    confidence.setAttribute("aria-valuetext", byId("confidence-shown").textContent);
    return [chosen, sure];
  };
  const ask = soon(async ([chosen, sure]) => {
    view.margin = chosen === view.data.asked.margin ? null : chosen;
    view.confidence = sure === view.data.asked.confidence ? null : sure;
    await judgeAt(chosen, sure);
  }, 60);
  margin.value = near(margins, view.margin ?? view.data.asked.margin);
  confidence.value = near(confidences, view.confidence ?? view.data.asked.confidence);
  const moved = () => {
    byId("verdict").classList.add("waiting");
    ask(show());
  };
  margin.addEventListener("input", moved);
  confidence.addEventListener("input", moved);
  byId("sliders").hidden = margins.length < 2 && confidences.length < 2;
  byId("as-asked").addEventListener("click", () => {
    margin.value = near(margins, view.data.asked.margin);
    confidence.value = near(confidences, view.data.asked.confidence);
    moved();
  });
  show();
}

function drawVerdict() {
  const { html, captions, margin, confidence } = view.judged;
  for (const name of ["verdict", "facts", "summary", "beside", "warnings"]) setMarkup(byId(name), html[name]);
  byId("warnings").hidden = !html.warnings;
  byId("beside").hidden = !html.beside;
  byId("verdict").classList.remove("waiting");
  byId("as-asked").hidden = margin === view.data.asked.margin && confidence === view.data.asked.confidence;
  for (const place of document.querySelectorAll("[data-caption]")) {
    if (captions[place.dataset.caption]) place.textContent = captions[place.dataset.caption];
  }
}

// -- the selected ---------------------------------------------------------------------------------------------------

function drawSelected() {
  const chosen = selectedAdapters();
  const bar = byId("selection");
  bar.hidden = !chosen.length;
  byId("selection-names").textContent = chosen.slice(0, 3).map((adapter) => adapterText(adapter.row, 20)).join(" \u00b7 ") + (chosen.length > 3 ? ` and ${chosen.length - 3} more` : "");
  const shown = chosen.length ? chosen : [trialRow(view.judged.recommended ?? -1)?.group].filter(Boolean);
  byId("adapters-title").textContent = ["The recommended adapter", "The selected adapter", "The selected adapters"][Math.min(2, chosen.length)];
  if (!chosen.length && !view.judged.decided) byId("adapters-title").textContent = "The best guess so far";
  byId("adapters-section").hidden = !shown.length;
  byId("adapters").replaceChildren(...shown.slice(0, 4).map(card));
  drawPredictions(shown.slice(0, 2));
}

function card(adapter) {
  const row = adapter.row, unit = view.unit, links = view.data.links;
  const fact = (name, text) => h("div", null, h("dt", null, name), h("dd", null, text));
  const command = view.data.command.replace("{trial}", row.trial);
  const files = links ? h("p", { class: "files" },
    h("a", { href: `${links}/trials/${row.trial}/adapter_config.json`, download: "adapter_config.json" }, "adapter_config.json"),
    h("a", { href: `${links}/trials/${row.trial}/adapter.zip`, download: true }, "zip"),
    ...["trl", "axolotl", "llamafactory"].map((recipe) => h("a", { href: `${links}/trials/${row.trial}/adapter.zip?recipe=${recipe}`, download: true }, `${{ trl: "TRL", axolotl: "Axolotl", llamafactory: "LLaMA-Factory" }[recipe]} recipe`))) : null;
  return h("article", { class: "card" },
    h("h3", null, row.names.length ? h("b", null, row.names.join(", ") + " ") : "", adapterText(row, 60)),
    h("dl", null,
      fact(unit.metric, unit.score(row.score)),
      fact("may stand", known(row.low) ? unit.range(row.low, row.high) : DASH),
      fact(`${unit.word} to the best`, row.trial === view.judged.best ? DASH : unit.difference(row.difference)),
      fact(`within ${unit.amount(view.judged.margin)}`, percentText(row.probability)),
      fact("adapter parameters", grouped(row.adapter_parameters)),
      fact("one training", `${durationText(row.compute)} of compute`),
      fact("settings", adapter.members.map((one) => `${rateText(one.learning_rate)}: ${unit.number(one.score_mean)}`).slice(0, 8).join(" \u00b7 ") + (adapter.members.length > 8 ? " \u2026" : "")),
      fact("state", STATE_WORDS[row.state] + (row.failure ? `: ${row.failure}` : ""))),
    files,
    h("p", { class: "command" }, h("code", null, command), h("button", { type: "button", class: "quiet", onclick: (event) => copy(event.target, command) }, "copy")));
}

async function copy(button, text) {
  const said = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "copied";
  } catch {
    getSelection().selectAllChildren(button.previousSibling);
    button.textContent = "selected";
  }
  setTimeout(() => (button.textContent = said), 1500);
}
