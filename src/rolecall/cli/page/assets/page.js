// The page: what the job is, and a section for each role.

const data = JSON.parse(document.getElementById("data").textContent);
const charts = new Charts();
const isOne = data.jobs.length === 1;

/** What a writer is called on the page: with its job, where there are several. */
function nameOf(each) {
  return isOne ? each.writer : `${data.jobs[each.job].name} · ${each.writer}`;
}

// ------------------------------------------------------------------- head

function headOf(job) {
  const title = make("h1", {}, make("span", { class: "name" }, `${job.project} / ${job.name}`), " ", stateOf(job.state));
  const rows = job.writers.reduce((sum, writer) => sum + writer.rows, 0);
  const facts = [`run ${job.run_id}`, plural(job.writers.length, "writer"), plural(rows, "row"), `launched ${shownTime(job.created)}`];
  const damaged = job.writers.flatMap((writer) => [...writer.damages, ...moreDamages(writer)]);
  return make(
    "header", { class: "job" },
    title,
    make("p", { class: "quiet" }, facts.join(" · ")),
    make("p", { class: "quiet name" }, job.directory),
    job.tags.length ? make("p", { class: "tags" }, ...job.tags.map((tag) => make("span", { class: "tag name" }, tag))) : null,
    ...job.backends.map(backendOf),
    ...job.hints.map((hint) => make("p", { class: "hint" }, hint)),
    damaged.length ? fold(`${plural(damaged.length, "damaged place")}`, false, ...damaged.map((each) => make("p", {}, each))) : null,
    make("div", { class: "folds" }, writersOf(job), summaryOf(job), job.configs.length ? fold("Config", false, ...job.configs.map(configOf)) : null),
  );
}

function moreDamages(writer) {
  const more = writer.damaged - writer.damages.length;
  return more > 0 ? [`${writer.writer}: ${more} more places`] : [];
}

function stateOf(state) {
  return make("span", { class: `state ${state}` }, state);
}

/** One line for each backend, as what matters is whether it holds everything, and where to look. */
function backendOf(backend) {
  const sum = (name) => backend.writers.reduce((total, writer) => total + writer[name], 0);
  const parts = [`${plural(sum("delivered"), "row")} delivered`];
  if (sum("waiting")) parts.push(`${sum("waiting").toLocaleString("en")} waiting`);
  if (sum("rejected")) parts.push(`${sum("rejected").toLocaleString("en")} rejected`);
  const runs = backend.runs.slice(0, 8).map((run) => make("div", {}, linkOf(run)));
  if (backend.runs.length > 8) runs.push(make("div", { class: "quiet" }, `${backend.runs.length - 8} more runs`));
  const why = backend.why.map((each) => make("div", { class: "hint" }, each));
  return make("div", { class: "backend" }, make("b", {}, backend.backend), `: ${parts.join(", ")}`, ...runs, ...why);
}

/** A link if it is an address; else it is a command or a path. */
function linkOf(run) {
  return /^https?:\/\//.test(run) ? make("a", { href: run, rel: "noopener noreferrer", target: "_blank" }, run) : make("code", {}, run);
}

function writersOf(job) {
  const rows = job.writers.map((each) => [make("span", { class: "name" }, each.writer), stateOf(each.state), each.rows.toLocaleString("en"), shown(each.step), shownTime(each.last_time)]);
  return fold("Writers", false, grid(["writer", "state", "rows", "step", "last row"], rows));
}

function summaryOf(job) {
  if (!job.summary.length) return null;
  const rows = job.summary.map(([writer, name, value]) => [make("span", { class: "name" }, writer), make("span", { class: "name" }, name), make("b", { class: "name" }, shown(value))]);
  return fold("Summary", true, grid(["writer", "name", "value"], rows));
}

function configOf(config) {
  const rows = config.settings.map(([name, value]) => [make("code", {}, name), make("span", { class: "name" }, value)]);
  const more = config.left_out ? make("p", { class: "quiet" }, `${plural(config.left_out, "more setting")} not shown`) : null;
  return make("div", { class: "config" }, make("h3", {}, config.of.join(", ")), grid(["setting", "value"], rows), more);
}

// --------------------------------------------------------------- sections

/** Lists of what was logged under one key. */
function byKey(list) {
  const found = new Map();
  for (const each of list) found.set(each.key, [...(found.get(each.key) || []), each]);
  return [...found.values()];
}

/** What is below a role's heading. */
function sectionOf(role) {
  const own = (list) => list.filter((each) => each.role === role);
  const ranks = new Set(data.jobs.flatMap((job) => job.writers.map((writer) => writer.writer)).filter((name) => name.split("/")[0] === role));
  const parts = [
    make("div", { class: "charts" }, ...own(data.charts).map((each) => charts.add(each, nameOf))),
    make("div", { class: "cards" }, ...byKey(own(data.media)).map((all) => card(all, nameOf, showMedia, "media"))),
    make("div", { class: "tables" }, ...byKey(own(data.tables)).map((all) => card(all, nameOf, showTable, "table"))),
    make("div", { class: "cards" }, ...byKey(own(data.texts)).map((all) => card(all, nameOf, showText, "text"))),
  ].filter((part) => part.childElementCount);
  const title = make("h2", {}, make("span", { class: "name" }, role), ranks.size > 1 ? make("small", {}, ` ${ranks.size} ranks`) : null);
  return make("section", { id: `role-${role}`, "data-role": role }, title, ...parts);
}

/** Settings of all charts: which are shown, how smooth, and on which scale. */
function toolsOf(sections) {
  const found = make("output", { class: "quiet" });
  const filter = make("input", { type: "search", placeholder: "Filter: loss, explorer, ...", "aria-label": "filter", oninput: () => apply(filter.value, sections, found) });
  const weight = make("output", {}, "0");
  const smoothing = make("input", {
    type: "range", min: 0, max: 0.99, step: 0.01, value: 0, id: "smoothing",
    oninput: () => {
      settings.smoothing = Number(smoothing.value);
      weight.textContent = smoothing.value;
      charts.redraw();
    },
  });
  const log = make("input", {
    type: "checkbox", id: "log",
    onchange: () => {
      settings.isLog = log.checked;
      charts.redraw();
    },
  });
  const links = sections.length > 1 ? sections.map((each) => make("a", { href: `#${each.id}`, class: "name" }, each.dataset.role)) : [];
  return make("div", { class: "tools" }, filter, found, make("label", { for: "smoothing" }, "Smoothing ", smoothing, weight), make("label", { for: "log" }, log, " Log scale"), make("nav", {}, ...links));
}

/** Shows what has all the words of the filter in its role and key. */
function apply(text, sections, found) {
  const words = text.toLowerCase().split(/\s+/).filter((word) => word);
  let count = 0;
  for (const section of sections) {
    let left = 0;
    for (const each of section.querySelectorAll("article")) {
      const name = `${each.dataset.role}/${each.dataset.key}`.toLowerCase();
      each.hidden = !words.every((word) => name.includes(word));
      left += !each.hidden;
    }
    section.hidden = words.length > 0 && !left;
    count += left;
  }
  found.textContent = words.length ? `${count} found` : "";
}

// ------------------------------------------------------------------- all

function show() {
  // In the order in which they began: what feeds the others comes first.
  const writers = data.jobs.flatMap((job) => job.writers).sort((a, b) => (a.first_time ?? Infinity) - (b.first_time ?? Infinity));
  const roles = [...new Set(writers.map((writer) => writer.writer.split("/")[0]))];
  const lists = [data.charts, data.media, data.tables, data.texts];
  const sections = roles.filter((role) => lists.some((list) => list.some((each) => each.role === role))).map(sectionOf);
  const left = data.charts_left_out ? make("p", { class: "hint" }, `${plural(data.charts_left_out, "more chart")} had no room on this page; choose some with --metric`) : null;
  const others = data.cards_left_out + data.jobs.reduce((sum, job) => sum + job.left_out, 0);
  const more = others ? make("p", { class: "hint" }, `${plural(others, "more thing")} had no room on this page`) : null;
  const none = sections.length ? null : make("p", { class: "quiet" }, "Nothing was logged yet.");
  const foot = make("footer", { class: "quiet" }, `Made by rolecall ${data.version} at ${shownTime(data.made)}. Drag over a chart to zoom in, double-click to zoom out.`);
  document.getElementById("page").append(...[...data.jobs.map(headOf), toolsOf(sections), left, more, none, make("main", {}, ...sections), foot].filter((each) => each));
}

show();
