// Elements of the page. Whatever a job logged goes through `textContent` or an attribute, and is never markup.

/** An element with attributes, listeners (`onclick`, ...) and children; strings become text. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** An element of a drawing. */
function shape(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A table from its headings and rows of cells; a wide one scrolls inside its box. */
function grid(headings, rows, attributes = {}) {
  const head = make("thead", {}, make("tr", {}, ...headings.map((each) => make("th", {}, each))));
  const lines = rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, cell))));
  return make("div", { class: "scroll" }, make("table", attributes, head, make("tbody", {}, ...lines)));
}

/** What can be opened and closed. */
function fold(title, isOpen, ...children) {
  return make("details", { open: isOpen ? "" : false }, make("summary", {}, title), ...children);
}

/** A number as people read it: 6 digits, and a power of ten where that is shorter. */
function shown(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e9) return String(value);
  // Without zeros at the end, and in the exponent without its plus.
  if (size < 1e-4 || size >= 1e9) return value.toExponential(5).replace(/\.?0+e/, "e").replace("e+", "e");
  return String(Number(value.toPrecision(6)));
}

/** A number beside an axis: short. */
function ticked(value) {
  return Math.abs(value) >= 1e5 && Math.abs(value) < 1e12 ? value.toLocaleString("en", { notation: "compact", maximumFractionDigits: 3 }) : shown(value);
}

function shownBytes(size) {
  const units = ["bytes", "kB", "MB", "GB"];
  let at = 0;
  for (; size >= 1000 && at < units.length - 1; at++) size /= 1000;
  return `${at ? size.toPrecision(3) : size} ${units[at]}`;
}

function shownTime(seconds) {
  if (seconds === null || seconds === undefined) return "";
  const time = new Date(seconds * 1000);
  if (Number.isNaN(time.getTime())) return String(seconds);
  const two = (number) => String(number).padStart(2, "0");
  const day = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
  return `${day} ${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/** A slider over the steps of a card; `show(item)` is called with the item that is chosen, first with the last. */
function stepper(items, count, show) {
  const last = items.length - 1;
  const label = make("output");
  const choose = (at) => {
    label.textContent = `step ${items[at].step}`;
    show(items[at]);
  };
  const slider = make("input", {
    type: "range", min: 0, max: last, value: last, "aria-label": "step",
    oninput: (event) => choose(Number(event.target.value)),
  });
  choose(last);
  const some = count > items.length ? make("span", { class: "quiet" }, `${items.length} of ${plural(count, "step")}`) : null;
  return make("div", { class: "steps" }, label, last > 0 ? slider : null, some);
}
