// Elements without a framework. Text only ever becomes a text node: nothing a study says can become markup.
const SVG_SPACE = "http://www.w3.org/2000/svg";

const byId = (id) => document.getElementById(id);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG_SPACE, tag), attributes, children);

// Markup that the page's own templates made, every text in it escaped; never anything else.
const lastMarkup = new WeakMap();
function setMarkup(element, markup) {
  if (element && lastMarkup.get(element) !== markup) {
    element.innerHTML = markup;
    lastMarkup.set(element, markup);
  }
}

const tip = {
  box: null,
  show(lines, x, y) {
    if (!this.box) document.body.append((this.box = h("div", { class: "tip", role: "status" })));
    this.box.replaceChildren(...lines.map((line, at) => h(at ? "div" : "b", null, line)));
    this.box.hidden = false;
    const { width, height } = this.box.getBoundingClientRect();
    const left = x + 14 + width > innerWidth - 6 ? Math.max(6, x - 14 - width) : x + 14;
    const top = Math.min(Math.max(6, y - height / 2), innerHeight - height - 6);
    this.box.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  },
  hide() {
    if (this.box) this.box.hidden = true;
  },
};

function savedFile(name, text, type) {
  const link = h("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function soon(action, milliseconds) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), milliseconds);
  };
}
