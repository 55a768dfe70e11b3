// Cards: images, histograms, sounds, pages, files, tables and texts, with a slider over their steps.

/** A card of one key with a heading, and a part that changes with the step; the writers are chosen from. */
function card(all, nameOf, show, kind) {
  const { key, role } = all[0];
  const body = make("div");
  const turn = (at) => body.replaceChildren(...partsOf(all[at], show));
  const names = all.map((each, at) => make("option", { value: at }, nameOf(each)));
  const whose = names.length > 1
    ? make("select", { "aria-label": "writer", onchange: (event) => turn(Number(event.target.value)) }, ...names)
    : make("span", { class: "name quiet" }, nameOf(all[0]));
  turn(0);
  const head = make("header", {}, make("h3", { class: "name" }, key), whose);
  return make("article", { class: `card ${kind}`, "data-key": key, "data-role": role }, head, body);
}

/** What one writer logged: a slider, and the item of the step that it is on. */
function partsOf(about, show) {
  if (!about.items.length) return [make("p", { class: "quiet" }, `${plural(about.count, "step")}, for which this page has no room`)];
  const body = make("div", { class: "body" });
  return [stepper(about.items, about.count, (item) => body.replaceChildren(...show(item, about))), body];
}

// ------------------------------------------------------------------ media

function showMedia(item, about) {
  return item.media.map((each) => {
    const content = contentOf(each, about);
    const caption = each.caption ? make("figcaption", { class: "name" }, each.caption) : null;
    return make("figure", {}, content, caption);
  });
}

function contentOf(media, about) {
  if (media.kind === "histogram") return histogram(media, about);
  if (media.html !== undefined) return frameOf(media.html);
  if (!media.src) return fileOf(media);
  if (media.src.startsWith("data:image/")) return make("img", { src: media.src, alt: media.caption || about.key });
  const tag = media.src.startsWith("data:audio/") ? "audio" : "video";
  return make(tag, { src: media.src, controls: "" });
}

/** HTML that a role logged: it runs no script, asks for nothing, and knows nothing of this page. */
function frameOf(html) {
  const frame = make("iframe", { sandbox: "", referrerpolicy: "no-referrer", title: "HTML that was logged" });
  // The page's policy holds in the frame, too. But Chromium connects to the server of a frame before it asks the policy
  // (measured with 156), and no policy is asked for a <link rel=preconnect>. A <template> may become what is in it.
  const inert = new DOMParser().parseFromString(html, "text/html");
  inert.querySelectorAll("link, meta, base, iframe, frame, object, embed, template").forEach((each) => each.remove());
  frame.srcdoc = inert.documentElement.outerHTML;
  return frame;
}

/** What is not in the page: where it is. */
function fileOf(media) {
  const size = media.size === undefined ? "" : ` (${shownBytes(media.size)})`;
  const why = media.problem ? `cannot be read: ${media.problem}` : media.left_out ? "this page has no room for it" : "";
  return make("p", { class: "file" }, make("code", {}, media.path || media.kind), size, why ? make("span", { class: "quiet" }, ` ${why}`) : null);
}

/** The bins of one step, and below them those of all steps, the fuller the darker. */
function histogram(media, about) {
  const [low, high] = [media.edges[0], media.edges[media.edges.length - 1]];
  const most = Math.max(...media.counts, 1e-300);
  const span = high - low || 1;
  const bars = media.counts.map((count, at) => {
    const [from, to] = [media.edges[at], media.edges[at + 1]].map((edge) => ((edge - low) / span) * 300);
    const height = (count / most) * 100;
    const bar = shape("rect", { x: from, y: 100 - height, width: Math.max(0.2, to - from - 0.4), height });
    bar.append(shape("title", {}, `${shown(media.edges[at])} to ${shown(media.edges[at + 1])}: ${shown(count)}`));
    return bar;
  });
  const drawing = shape("svg", { viewBox: "0 0 300 100", preserveAspectRatio: "none", class: "bars" }, ...bars);
  const ends = make("div", { class: "ends" }, make("span", {}, shown(low)), make("span", {}, shown(high)));
  about.overview = about.overview || overview(about.items);
  return make("div", {}, drawing, ends, about.overview);
}

function overview(items) {
  const all = items.flatMap((item) => item.media.slice(0, 1).map((media) => ({ step: item.step, ...media })));
  if (all.length < 2) return null;
  const low = Math.min(...all.map((each) => each.edges[0]));
  const high = Math.max(...all.map((each) => each.edges[each.edges.length - 1]));
  const span = high - low || 1;
  const width = 300 / all.length;
  const cells = all.flatMap((each, column) => {
    const densities = each.counts.map((count, at) => count / (each.edges[at + 1] - each.edges[at] || 1));
    const most = Math.max(...densities, 1e-300);
    return densities.map((density, at) => {
      const [from, to] = [each.edges[at], each.edges[at + 1]].map((edge) => ((edge - low) / span) * 80);
      return density ? shape("rect", { x: column * width, y: 80 - to, width, height: Math.max(0.2, to - from), opacity: (0.1 + 0.9 * (density / most)).toFixed(2) }) : "";
    });
  });
  const drawing = shape("svg", { viewBox: "0 0 300 80", preserveAspectRatio: "none", class: "overview" }, ...cells.filter((cell) => cell));
  const text = `steps ${all[0].step} to ${all[all.length - 1].step}, values ${shown(low)} to ${shown(high)}`;
  return make("div", {}, drawing, make("div", { class: "quiet" }, text));
}

// ----------------------------------------------------------------- tables

function showTable(item) {
  const left = item.count - item.rows.length;
  const parts = [sortable(item.columns, item.rows)];
  if (left > 0) parts.push(make("p", { class: "quiet" }, `${plural(left, "more row")} not shown`));
  return parts;
}

/** A table that is sorted by the column whose heading is clicked: numbers by their value, before strings. */
function sortable(columns, rows) {
  const element = grid(columns, rows.map((row) => row.map((cell) => cellOf(cell))));
  const body = element.querySelector("tbody");
  const lines = [...body.children];
  element.querySelectorAll("th").forEach((heading, column) => {
    const button = make("button", { type: "button" }, ...heading.childNodes);
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const isUp = heading.getAttribute("aria-sort") !== "ascending";
      element.querySelectorAll("th").forEach((each) => each.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", isUp ? "ascending" : "descending");
      const places = rows.map((_, at) => at).sort((a, b) => (isUp ? 1 : -1) * compare(rows[a][column], rows[b][column]));
      body.replaceChildren(...places.map((at) => lines[at]));
    });
  });
  return element;
}

function cellOf(cell) {
  if (cell === null || cell === undefined) return "";
  if (typeof cell === "object" && (cell.src || cell.path)) return contentOf(cell, { key: cell.caption || "" });
  return typeof cell === "object" ? JSON.stringify(cell) : typeof cell === "number" ? shown(cell) : String(cell);
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a === "number") return -1;
  if (typeof b === "number") return 1;
  return String(a).localeCompare(String(b));
}

// ------------------------------------------------------------------ texts

function showText(item) {
  return [make("pre", {}, item.text)];
}
