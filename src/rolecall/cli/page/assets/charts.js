// Charts: one for each metric of a role, with a line for each of its ranks.

const settings = { smoothing: 0, isLog: false };
const isDark = window.matchMedia("(prefers-color-scheme: dark)");
// Colours that people who see few of them tell apart, darker or lighter than the page.
const COLOURS = {
  light: ["#1f6fb4", "#d9480f", "#2b8a3e", "#a61e74", "#8a6d00", "#0b7285", "#7048e8", "#c2255c", "#5c5f66", "#12436d"],
  dark: ["#6db3f2", "#ff9f5a", "#69db7c", "#f783ac", "#ffd43b", "#66d9e8", "#b197fc", "#ffa8a8", "#ced4da", "#91a7ff"],
};
const WHOLE = [1, 2, 5].flatMap((digit) => Array.from({ length: 16 }, (_, power) => digit * 10 ** power)).sort((a, b) => a - b);
const HEIGHT = 210;

function styleOf(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function colourOf(at) {
  const colours = COLOURS[isDark.matches ? "dark" : "light"];
  return colours[at % colours.length];
}

/** Numbers from the differences between them. */
function summed(differences) {
  let sum = 0;
  return differences.map((each) => (sum += each));
}

/** The exponential moving average of a line, without a bias to its start. Gaps stay gaps. */
function smoothed(values, weight) {
  let sum = 0;
  let share = 0;
  return values.map((value) => {
    if (value === null || value === undefined) return value;
    sum = sum * weight + (1 - weight) * value;
    share = share * weight + (1 - weight);
    return sum / share;
  });
}

/** The lines of a series. What a role logged again after a restart from a checkpoint is a line of its own, and so old. */
function linesOf(series) {
  const found = [];
  let restart = Infinity;
  for (const { steps, values } of [...series.lines].reverse()) {
    const at = summed(steps);
    const kept = at.findIndex((step) => step >= restart);
    const parts = kept < 0 ? [[at, values, false]] : [[at.slice(0, kept), values.slice(0, kept), false], [at.slice(kept), values.slice(kept), true]];
    for (const [x, y, isOld] of parts) if (x.length) found.push({ steps: x, values: y, isOld });
    restart = Math.min(restart, at[0]);
  }
  return found;
}

class Chart {
  constructor(about, names) {
    this.about = about;
    this.isDirty = true;
    this.lines = about.series.flatMap((series, at) => linesOf(series).map((line) => ({ ...line, at })));
    this.step = make("span", { class: "quiet" });
    this.plot = make("div", { class: "plot" });
    this.notes = make("p", { class: "notes" });
    this.legend = make("div", { class: "legend" });
    this.keys = about.series.map((series, at) => this.keyOf(series, at, names));
    const title = make("header", {}, make("h3", { class: "name" }, about.key), this.step);
    this.element = make("article", { class: "chart", "data-key": about.key, "data-role": about.role }, title, this.plot, this.legend, this.notes);
  }

  keyOf(series, at, names) {
    const mark = make("i");
    const value = make("b", {}, shown(series.last));
    const range = series.min === undefined ? "" : `, ${shown(series.min)} to ${shown(series.max)}`;
    const title = `${plural(series.count, "point")}${range}; click to show or hide`;
    const key = make("button", { type: "button", "aria-pressed": "true", title }, mark, make("span", { class: "name" }, names(series)), value);
    key.addEventListener("click", () => {
      const isShown = key.getAttribute("aria-pressed") === "false";
      key.setAttribute("aria-pressed", String(isShown));
      this.toggle(at, isShown);
    });
    this.legend.append(key);
    return { key, mark, value, at };
  }

  toggle(at, isShown) {
    if (!this.chart) return;
    this.drawn.forEach((line, index) => {
      if (line.at === at) this.chart.setSeries(index + 1, { show: isShown });
    });
  }

  /** The values of a line, as they are drawn: a logarithm knows none that are not positive. */
  valuesOf(line) {
    return this.isLog ? line.values.map((value) => (value > 0 ? value : null)) : line.values;
  }

  prepare() {
    const hasPositive = this.lines.some((line) => line.values.some((value) => value > 0));
    this.isLog = settings.isLog && hasPositive;
    this.drawn = [];
    const tables = this.lines.map((line) => {
      const values = this.valuesOf(line);
      const isSmooth = settings.smoothing > 0 && !line.isOld;
      this.drawn.push({ ...line, isFaint: isSmooth || line.isOld, isValue: !line.isOld });
      if (!isSmooth) return [line.steps, values];
      this.drawn.push({ ...line, isFaint: false, isValue: false });
      return [line.steps, values, smoothed(values, settings.smoothing)];
    });
    this.note(hasPositive);
    return uPlot.join(tables);
  }

  /** What the lines do not show. */
  note(hasPositive) {
    const notes = [];
    for (const series of this.about.series) {
      const odd = Object.entries(series.odd || {}).map(([name, count]) => `${count} ${name}`);
      if (odd.length) notes.push(`${series.writer}: ${odd.join(", ")}, first at step ${series.first_odd}`);
    }
    if (settings.isLog && !hasPositive) notes.push("no value is positive, so the scale is linear");
    else if (this.isLog && this.lines.some((line) => line.values.some((value) => value !== null && value <= 0))) {
      notes.push("values that are not positive are not shown");
    }
    this.notes.replaceChildren(...notes.flatMap((note) => [note, make("br")]).slice(0, -1));
  }

  optionsOf(width) {
    const axis = { stroke: styleOf("--quiet"), grid: { stroke: styleOf("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif", size: 30 };
    const format = (_, splits) => splits.map((value) => (value === null ? "" : ticked(value)));
    return {
      width,
      height: HEIGHT,
      legend: { show: false },
      padding: [10, 12, 0, 0],
      scales: { x: { time: false, range: (_, low, high) => (low === high ? [low - 1, high + 1] : [low, high]) }, y: { distr: this.isLog ? 3 : 1 } },
      axes: [
        { ...axis, incrs: WHOLE, values: format, space: 60 },
        { ...axis, values: format, size: (_, labels) => 16 + 6.5 * Math.max(3, ...(labels || []).map((label) => label.length)) },
      ],
      series: [{}, ...this.drawn.map((line) => this.lineOf(line))],
      cursor: { y: false, drag: { x: true, y: false }, points: { size: 7 } },
      hooks: { setCursor: [(chart) => this.follow(chart)] },
    };
  }

  lineOf(line) {
    const colour = colourOf(line.at);
    const isAlone = line.values.length < 2;
    return {
      stroke: line.isFaint ? `${colour}59` : colour,
      width: line.isFaint ? 1 : 1.6,
      points: isAlone ? { show: true, size: 6, fill: colour } : { size: 4, fill: colour },
      show: this.keys[line.at].key.getAttribute("aria-pressed") === "true",
    };
  }

  draw() {
    if (!this.isDirty || !this.element.isConnected) return;
    const width = this.plot.clientWidth;
    if (!width) return;
    this.isDirty = false;
    if (this.chart) this.chart.destroy();
    const data = this.prepare();
    this.chart = new uPlot(this.optionsOf(width), data, this.plot);
    this.width = width;
    for (const { mark, at } of this.keys) mark.style.background = colourOf(at);
    this.follow(this.chart);
  }

  resize() {
    const width = this.plot.clientWidth;
    if (this.chart && width && width !== this.width) {
      this.width = width;
      this.chart.setSize({ width, height: HEIGHT });
    }
  }

  /** Shows the values below the cursor; without one, the last ones. */
  follow(chart) {
    const isOver = chart.cursor.left >= 0 && chart.cursor.idx !== null && chart.cursor.idx !== undefined;
    const axis = this.about.axis || "step";
    this.step.textContent = isOver ? `${axis} ${chart.data[0][chart.cursor.idx]}` : axis === "step" ? "" : axis;
    for (const { value, at } of this.keys) {
      value.textContent = isOver ? this.valueAt(chart, at) : shown(this.about.series[at].last);
    }
  }

  /** The value of a series that is nearest to the cursor. */
  valueAt(chart, at) {
    const steps = chart.data[0];
    const here = steps[chart.cursor.idx];
    let nearest = Infinity;
    let found = null;
    this.drawn.forEach((line, index) => {
      const idx = chart.cursor.idxs[index + 1];
      if (line.at !== at || !line.isValue || idx === null || idx === undefined) return;
      const distance = Math.abs(steps[idx] - here);
      if (distance < nearest) [nearest, found] = [distance, chart.data[index + 1][idx]];
    });
    return found === null || found === undefined ? "–" : shown(found);
  }
}

/** Draws charts when they come into view, and again when anything changes. */
class Charts {
  constructor() {
    this.all = new Map();
    this.visible = new Set();
    this.seen = new IntersectionObserver((entries) => this.look(entries), { rootMargin: "300px" });
    this.sizes = new ResizeObserver(() => this.visible.forEach((chart) => (chart.isDirty ? chart.draw() : chart.resize())));
    this.sizes.observe(document.documentElement);
    isDark.addEventListener("change", () => this.redraw());
  }

  add(about, names) {
    const chart = new Chart(about, names);
    this.all.set(chart.element, chart);
    this.seen.observe(chart.element);
    return chart.element;
  }

  look(entries) {
    for (const entry of entries) {
      const chart = this.all.get(entry.target);
      if (entry.isIntersecting) this.visible.add(chart);
      else this.visible.delete(chart);
      if (entry.isIntersecting) {
        chart.draw();
        chart.resize();
      }
    }
  }

  redraw() {
    this.all.forEach((chart) => (chart.isDirty = true));
    this.visible.forEach((chart) => chart.draw());
  }
}
