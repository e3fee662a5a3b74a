"use strict";

// Draws the page from the scripts in compare/data. Each script puts its data into
// window.compareData: fetch would need a server, and the page opens without one. All names come
// from files of results: they go into the document as text, and to Plotly through plain().

const COLOURS = ["#d55e00", "#0072b2", "#009e73", "#b5651d", "#8b6bb8", "#a04a78"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "star"];
const SHAPES = [
  "M5 0A5 5 0 1 1 4.99 0Z", "M1 1H9V9H1Z", "M5 0L10 5L5 10L0 5Z",
  "M5 0L10 9H0Z", "M3 0H7V3H10V7H7V10H3V7H0V3H3Z", "M5 0L6 4H10L7 6L8 10L5 7L2 10L3 6L0 4H4Z",
]; // the symbols again, for the legends
const DASHES = ["solid", "dash", "dot", "dashdot"];
const UNITS = {
  "seconds": "time",
  "seconds per image": "time",
  "bytes per image": "size",
  "ratio": "ratio",
  "count": "count",
};
const SCALES = {
  time: [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]],
  size: [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "B"]],
  ratio: [[1, ""]],
  count: [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]],
};
const VERDICTS = {
  best: ["✓ best", "mark"],
  close: ["cannot tell", "none"],
  same: ["= the same", "mark"],
  worse: [""],
  only: ["the only one", "none"],
  few: ["too few samples", "none"],
};
const COMPLETE = 0.6; // a result with less than this part of the charts is a partial one
const CONTROLS = ["machine", "dataset", "environment", "commit", "table", "library", "workload",
  "over", "figures"];

// The choices that redraw only a part of the page.
const CHOICES = ["table", "encoding", "size", "workers"]; // of the table on top
const REDRAWN = [...CHOICES, "scale", "library", "workload", "over", "figures"];

let index;
let current; // what is chosen, once all of it is drawn
let address = ""; // the part of the URL after "#" for which the page is drawn
let drawings = []; // of the charts that are drawn: plot, chart, points
const waiting = new Map(); // the same of charts that are drawn when they are scrolled to
let turn = 0; // how often the page was redrawn: data for an earlier turn may arrive late

// -- helpers -----------------------------------------------------------------------------------

const byId = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => ![undefined, false, ""].includes(child)));
  return made;
}

const notice = (text) => element("p", { class: "notice" }, text);

// Plotly interprets some HTML in text.
const plain = (text) =>
  String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function unitFor(value, kind) {
  const size = Math.abs(value);
  return SCALES[kind].find(([factor]) => size >= factor * 0.9995) ?? SCALES[kind].at(-1);
}

function digits(value) {
  const size = Math.abs(value);
  if (size >= 99.95) return Math.round(value).toLocaleString("en");
  return value.toFixed(size >= 9.995 ? 1 : size >= 0.0995 || size === 0 ? 2 : 3);
}

function times(factor) {
  if (factor < 9.95) return factor.toFixed(factor < 1.095 ? 2 : 1);
  return Math.round(factor).toLocaleString("en");
}

function amount(value, unit, [factor, name] = unitFor(value, UNITS[unit])) {
  return name ? `${digits(value / factor)} ${name}` : digits(value / factor);
}

const readable = (value) =>
  (typeof value === "number" ? value.toLocaleString("en") : String(value));
// Backends have the names of formats, which are written in capitals.
const shown = (backend) =>
  (index.backends.includes(backend) ? backend.toUpperCase() : String(backend));
const sampled = (number) => `${number} ${number === 1 ? "sample" : "samples"}`;
const day = (date) => new Date(date).toISOString().slice(0, 10);
const newerFirst = (a, b) => b.localeCompare(a, "en", { numeric: true });
const unique = (values) => [...new Set(values)];

function load(key) {
  if (window.compareData?.[key]) return Promise.resolve(window.compareData[key]);
  return new Promise((resolve, reject) => {
    const script = element("script", { src: `compare/data/${key}.js` });
    script.onload = () => resolve(window.compareData[key]);
    script.onerror = () => reject(new Error(`compare/data/${key}.js could not be loaded.`));
    document.head.append(script);
  });
}

const loadPlotly = () =>
  window.Plotly
    ? Promise.resolve()
    : new Promise((resolve, reject) => {
        const script = element("script", { src: "compare/plotly.min.js" });
        script.onload = resolve;
        script.onerror = () => reject(new Error("compare/plotly.min.js could not be loaded."));
        document.head.append(script);
      });

// -- what is chosen ----------------------------------------------------------------------------

const choicesIn = (hash) => Object.fromEntries(new URLSearchParams(hash.slice(1)));
const wanted = () => choicesIn(location.hash);

function go(want) {
  const hash = `#${new URLSearchParams(want)}`;
  if (hash === location.hash) return;
  document.documentElement.dataset.state = "loading";
  location.hash = hash;
}

function choose(changes) {
  const { at, ...want } = wanted();
  go({ ...want, ...changes });
}

// An address with any choice gets all choices, so that a link shows the same after newer results.
function complete(choices) {
  if (!location.hash || location.hash !== address) return; // or another choice was made meanwhile
  history.replaceState(null, "", `#${new URLSearchParams({ ...wanted(), ...choices })}`);
  address = location.hash;
}

const completeView = ({ machine, dataset, environment, row }) => complete({
  machine: machine.name,
  dataset,
  environment: environment.name,
  commit: row.commit.hash,
  scale: scaleOf(wanted()),
});

// The results of a machine: a row for each environment and commit.
const rowsOf = (machine) =>
  machine.environments.flatMap((environment) =>
    environment.results.map(([place, key, charts]) => ({
      environment,
      key,
      place,
      commit: index.commits[place],
      datasets: Object.keys(charts).map((number) => index.datasets[number]),
      charts: (dataset) => charts[index.datasets.indexOf(dataset)] ?? 0,
    })));

// For how many libraries an environment has the newest version.
function newness(environments) {
  const names = unique(environments.flatMap(({ versions }) => Object.keys(versions)));
  const newest = Object.fromEntries(names.map((name) =>
    [name, environments.map(({ versions }) => versions[name] ?? "").sort(newerFirst)[0]]));
  return (environment) =>
    names.filter((name) => environment.versions[name] === newest[name]).length;
}

// What to show: each choice that is wanted if it exists, and otherwise the newest.
function resolve(want) {
  const newestOf = (rows) => rows.reduce((a, b) => (b.place > a.place ? b : a));
  const machine = index.machines.find(({ name }) => name === want.machine) ??
    newestOf(index.machines.map((each) => ({ each, place: newestOf(rowsOf(each)).place }))).each;
  let rows = rowsOf(machine);
  const datasets = unique(rows.flatMap((row) => row.datasets)).sort();
  const dataset = datasets.includes(want.dataset) ? want.dataset : newestOf(rows).datasets[0];
  rows = rows.filter((row) => row.datasets.includes(dataset));
  const environments = unique(rows.map((row) => row.environment));
  const score = newness(environments);
  // The newest commit that has at least COMPLETE of the charts of the commit that has the most.
  const most = Math.max(...rows.map((row) => row.charts(dataset)));
  const isPartial = (row) => row.charts(dataset) < COMPLETE * most;
  const { place } = newestOf(rows.filter((row) => !isPartial(row)));
  const environment = environments.find(({ name }) => name === want.environment) ??
    unique(rows.filter((row) => row.place === place && !isPartial(row))
      .map((row) => row.environment)).toSorted((a, b) => score(b) - score(a))[0];
  rows = rows.filter((row) => row.environment === environment).sort((a, b) => b.place - a.place);
  const row = rows.find(({ commit }) => commit.hash === want.commit) ??
    rows.find((each) => !isPartial(each)) ?? rows[0];
  return { machine, datasets, dataset, environments, environment, rows, row, isPartial };
}

function fill(id, options, value) {
  byId(id).replaceChildren(...options.map(([name, text]) =>
    element("option", { value: name, selected: name === value }, text)));
  byId(id).value = value;
}

// Names environments only by what differs between them.
function environmentNames(environments) {
  const names = unique(environments.flatMap(({ versions }) => Object.keys(versions))).sort();
  const varied = names.filter((name) =>
    unique(environments.map(({ versions }) => versions[name])).length > 1);
  // A package that only some of them have is named where it is.
  return ({ versions, name }) =>
    varied.filter((each) => versions[each])
      .map((each) => `${each} ${versions[each]}`).join(", ") || (varied.length ? "default" : name);
}

function commitName({ hash, date, tag }) {
  return [hash.slice(0, 8), tag && `(${tag})`, `of ${day(date)}`].filter(Boolean).join(" ");
}

// -- tables and downloads ----------------------------------------------------------------------

function csvCell(value) {
  const text = value === null || value === undefined ? "" : String(value);
  // A spreadsheet treats text that begins like this as a formula.
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function downloads(id, choice, unit, columns, rows) {
  const records = rows.map((row) =>
    Object.fromEntries(columns.map((name, place) => [name, row[place] ?? null])));
  const from = {
    chart: id,
    machine: choice.machine.name,
    environment: choice.environment.name,
    versions: choice.environment.versions,
    commit: choice.row.commit.hash,
    images: choice.dataset,
    unit,
  };
  const contents = {
    csv: [
      "text/csv",
      [columns, ...rows].map((row) => `${row.map(csvCell).join(",")}\r\n`).join(""),
    ],
    json: ["application/json", JSON.stringify({ ...from, points: records }, null, 2)],
  };
  const links = Object.entries(contents).map(([format, [type, text]]) =>
    element("a", {
      class: "download",
      "data-format": format,
      download: `${id}-${choice.row.commit.hash.slice(0, 8)}.${format}`,
      href: URL.createObjectURL(new Blob([text], { type })),
      "aria-label": `${format.toUpperCase()} of ${id}`,
    }, format.toUpperCase()));
  return element("p", { class: "downloads" }, ...links);
}

// Frees what was made for a place that is about to be redrawn.
function forget(place) {
  for (const link of place.querySelectorAll("a.download")) URL.revokeObjectURL(link.href);
  for (const plot of place.querySelectorAll(".plot")) window.Plotly?.purge(plot);
}

const pointOf = ([panel, line, backend, x, value, low = null, high = null, samples = null]) =>
  ({ panel, line, backend, x, value, low, high, samples });

function table(chart, columns, points) {
  const numbers = new Set(["value", "low", "high", "samples"]);
  const content = (point, name) => {
    if (["value", "low", "high"].includes(name)) {
      return typeof point[name] === "number" ? amount(point[name], chart.unit) : point[name] ?? "";
    }
    return readable(point[name] ?? "");
  };
  const label = `${chart.title}: figures`;
  return element("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": label },
    element("table", {},
      element("caption", {}, `${chart.title}: ${chart.unit}`),
      element("thead", {}, element("tr", {}, ...columns.map(([name, title]) =>
        element("th", { scope: "col", class: numbers.has(name) && "number" }, title)))),
      element("tbody", {}, ...points.map((point) =>
        element("tr", {}, ...columns.map(([name]) =>
          element("td", { class: numbers.has(name) && "number" }, content(point, name))))))));
}

// -- the verdict -------------------------------------------------------------------------------

const colourOf = (backend) => {
  const place = index.backends.indexOf(backend);
  return COLOURS[(place < 0 ? index.backends.length : place) % COLOURS.length];
};

function svg(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children);
  return made;
}

function swatch(backend) {
  const place = Math.max(index.backends.indexOf(backend), 0) % SHAPES.length;
  return svg("svg", { "viewBox": "0 0 10 10", "class": "swatch", "aria-hidden": "true" },
    svg("path", { d: SHAPES[place], fill: colourOf(backend) }));
}

function lineSwatch(place) {
  const dash = ["none", "6 4", "2 3", "6 3 2 3"][place % DASHES.length];
  const fill = place % 2 ? "var(--page)" : "currentColor";
  const stroke = "currentColor";
  return svg("svg", { "viewBox": "0 0 30 10", "class": "swatch wide", "aria-hidden": "true" },
    svg("path", { stroke, "stroke-width": 2, "stroke-dasharray": dash, "d": "M0 5H30" }),
    svg("circle", { stroke, "stroke-width": 1.5, fill, "cx": 15, "cy": 5, "r": 3.5 }));
}

function legend(backends, lines) {
  const named = lines.length > 1 ? lines : [];
  return element("p", { class: "legend" },
    ...backends.map((backend) => element("span", {}, swatch(backend), shown(backend))),
    ...named.map((line, place) => element("span", {}, lineSwatch(place), line)));
}

function summary(workload, cells) {
  const measured = Object.entries(cells).filter(([, { verdict }]) => verdict)
    .sort(([, a], [, b]) => a.cost[0] - b.cost[0]);
  if (!measured.length) return "";
  const [[best, first], ...others] = measured;
  if (!others.length) return `Only ${shown(best)} was measured.`;
  const like = others.filter(([, { verdict }]) => verdict === first.verdict)
    .map(([name]) => shown(name));
  const names = [shown(best), ...like];
  if (first.verdict === "few") return `Too few samples to tell ${names.join(" from ")}.`;
  if (first.verdict === "close") return `Cannot tell ${names.join(" from ")}.`;
  if (first.verdict === "same") return `${names.join(" and ")}: the same.`;
  const [next, second] = others[0];
  const factor = second.cost[0] / first.cost[0];
  const [, less] = comparatives(workload.unit);
  if (!Number.isFinite(factor)) return `${shown(best)} costs nothing.`;
  return `${shown(best)} ${difference(factor)} ${less} than ${shown(next)}.`;
}

// The words for more and less of a unit.
const comparatives = (unit) =>
  ({ size: ["larger", "smaller"], ratio: ["larger", "smaller"] }[UNITS[unit]] ??
    ["slower", "faster"]);

// A factor above 1 in words: a percentage of the larger value below 1.5, and else a factor.
const difference = (factor) =>
  (factor < 1.5 ? `${Number((100 - 100 / factor).toPrecision(2))}%` : `${times(factor)}×`);

function verdictCell(workload, backend, found, scale) {
  const attributes = { "data-backend": backend };
  if (!found && !index.backends.includes(backend)) { // a column that only some rows have
    return element("td", attributes, element("span", { class: "none" }, "–"));
  }
  if (!found || typeof found.cost[0] !== "number") {
    const word = found ? found.cost[0] : "not measured";
    attributes["data-state"] = { "failed": "failed", "not run": "skipped" }[word] ?? "missing";
    return element("td", attributes, element("span", { class: "none" }, word));
  }
  const [value, low, high, samples] = found.cost;
  const [word, style] = VERDICTS[found.verdict] ?? [""];
  const facts = [
    low !== null && `99%: ${amount(low, workload.unit)} to ${amount(high, workload.unit)}`,
    samples !== null && sampled(samples),
    found.floor !== undefined && `${times(found.floor)} × floor`,
  ];
  return element("td", {
    ...attributes,
    "data-state": "measured",
    "data-value": value,
    "data-floor": found.floor,
    "data-verdict": found.verdict,
    title: facts.filter(Boolean).join(", ") || undefined,
  },
  element("span", { class: "cost" }, amount(value, workload.unit, scale)),
  word && element("span", { class: style },
    found.verdict === "few" ? ` ${sampled(samples)}` : ` ${word}`));
}

// The cells of a group by workload and column, as `verdict` has those of the first group.
function cellsOf(group, result, want) {
  if (group.id === index.groups[0].id) return [result.verdict, []];
  const found = result.tables[group.id];
  const choices = group.choices.map((name, place) => {
    const values = unique(found.map(([, , chosen]) => chosen[place])).filter(Boolean);
    return [name, values, values.includes(want[name]) ? want[name] : values[0]];
  });
  const cells = Object.fromEntries(group.workloads.map(({ id }) => [id, {}]));
  for (const [workload, column, chosen, cell] of found) {
    if (chosen.every((value, place) => !value || value === choices[place][2])) {
      cells[workload][column] = cell;
    }
  }
  return [cells, choices];
}

function drawVerdict(choice, want) {
  const { result } = choice;
  const group = index.groups.find(({ id }) => id === want.table) ?? index.groups[0];
  const first = group === index.groups[0];
  const [verdict, choices] = cellsOf(group, result, want);
  const measured = index.groups.filter((each) =>
    each === index.groups[0] || each === group || result.tables[each.id].length);
  fill("table", measured.map(({ id, title }) => [id, title]), group.id);
  const form = byId("choices");
  form.querySelectorAll(".of-table").forEach((label) => label.remove());
  for (const [name, values, value] of choices) {
    const select = element("select", { id: name });
    const title = name[0].toUpperCase() + name.slice(1);
    form.append(element("label", { class: "of-table" }, title, select));
    fill(name, values.map((each) => [each, each]), value);
    select.onchange = (event) => choose({ [name]: event.target.value });
  }
  byId("verdict-title").textContent = first ? "Fastest store by workload" : group.title;
  const named = Object.values(verdict).flatMap(Object.keys);
  const columns = unique([...index.backends.filter((name) => named.includes(name)), ...named]);
  const judged = Object.values(verdict).flatMap(Object.values).some((cell) => cell.verdict);
  const workloads = group.workloads.map((each) =>
    (group.over_plain ? { ...each, unit: "ratio" } : each));
  const body = workloads.map((workload) => {
    const cells = verdict[workload.id];
    const costs = Object.values(cells).map(({ cost: [value] }) => value)
      .filter((value) => typeof value === "number");
    // One unit for each row, so that its figures can be compared at a glance.
    const scale = costs.length ? unitFor(Math.min(...costs) * 10, UNITS[workload.unit]) : undefined;
    return element("tr", { "data-workload": workload.id },
      element("th", { scope: "row" }, workload.title, element("small", {}, workload.what)),
      ...columns.map((backend) => verdictCell(workload, backend, cells[backend], scale)),
      judged && element("td", { class: "summary" }, summary(workload, cells)),
      first && element("td", { class: "since" }));
  });
  byId("verdict-what").textContent =
    `${first ? "Cost of one image." : group.what} Less is better.`;
  byId("verdict-table").replaceChildren(
    element("thead", {}, element("tr", {},
      element("th", { scope: "col" }, "Workload"),
      ...columns.map((backend) => element("th", { scope: "col" },
        index.backends.includes(backend) && swatch(backend), shown(backend))),
      judged && element("th", { scope: "col" }, "In short"),
      first && element("th", { scope: "col" }, "Since"))),
    element("tbody", {}, ...body));
  const names = [
    "workload", "backend", "unit", "value", "low", "high", "samples", "times floor", "verdict",
  ];
  const rows = workloads.flatMap(({ id, unit }) =>
    Object.entries(verdict[id]).map(([backend, { cost, floor = null, verdict: word = null }]) => {
      const [value, low = null, high = null, samples = null] = cost;
      return [id, backend, unit, value, low, high, samples, floor, word];
    }));
  const links = downloads(first ? "verdict" : group.id, choice, "see column unit", names, rows);
  forget(byId("verdict"));
  byId("verdict").querySelector(".downloads").replaceWith(links);
  if (first) drawSince(choice.history);
}

// -- over time ---------------------------------------------------------------------------------

const FIGURES = { times: "time or bytes", counts: "instructions" };
const WINDOW = 10; // commits that are "lately"
const SHOWN = 8; // commits in the list of changes before it is expanded

const changeOf = ([workload, kind, backend, place, factor, elsewhere]) =>
  ({ workload, kind, backend, place, factor, elsewhere });

const hashOf = (place) => index.commits[place].hash.slice(0, 8);

// A change in words, for example "LMDB 20% slower".
function changeWords(workload, { kind, backend, factor }) {
  const [more, less] = kind === "counts" ? ["more instructions", "fewer instructions"] :
    comparatives(workload.unit);
  if (factor === null) return `${shown(backend)} up from 0`;
  const size = factor >= 1.5 || factor <= 1 / 1.5 ? `${times(Math.max(factor, 1 / factor))}×` :
    `${Number((Math.abs(factor - 1) * 100).toPrecision(2))}%`;
  return `${shown(backend)} ${size} ${factor > 1 ? more : less}`;
}

// A link to the chart that shows a change.
function changeLink(workload, change, text) {
  const want = { over: workload.id, figures: change.kind, at: "time" };
  const made = element("a", { href: `#${new URLSearchParams({ ...wanted(), ...want })}` }, text);
  made.onclick = (event) => {
    event.preventDefault();
    go({ ...wanted(), ...want });
    byId("time").scrollIntoView();
  };
  return made;
}

function sparkline(backend, points) {
  const values = points.map(([, value]) => Math.log(value));
  const low = Math.min(...values);
  const high = Math.max(...values, low + Math.log(1.2)); // draws noise lower than a change
  const at = (value, place) =>
    `${(60 * place / (values.length - 1) + 2).toFixed(1)} ${(16 - 14 * (value - low) / (high - low)).toFixed(1)}`;
  return svg("svg", { "viewBox": "0 0 64 18", "class": "spark", "aria-hidden": "true" },
    svg("path", {
      "d": `M${values.map(at).join("L")}`,
      "fill": "none",
      "stroke": colourOf(backend),
      "stroke-width": 1.5,
    }));
}

function drawSince(history) {
  for (const workload of index.workloads) {
    const cell = byId("verdict-table").querySelector(`[data-workload="${workload.id}"] .since`);
    const { times: lines = {} } = history?.lines[workload.id] ?? {};
    const drawn = Object.entries(lines).filter(([, points]) => points.length > 2);
    const rows = drawn.map(([backend]) => {
      const last = history.changes.map(changeOf).find((change) => change.kind === "times" &&
        change.workload === workload.id && change.backend === backend);
      const words = last && `${changeWords(workload, last)} since ${hashOf(last.place)}`;
      return last ? element("div", { "data-backend": backend }, changeLink(workload, last, words),
        last.elsewhere && " (the machine changed, too)") : "";
    }).filter(Boolean);
    cell.replaceChildren(
      element("div", { class: "sparks" },
        ...drawn.map(([backend, points]) => sparkline(backend, points))),
      ...(rows.length ? rows : [element("span", { class: "none" },
        drawn.length ? "no change" : "too few commits")]));
  }
}

// Which backend for what, and whether anything got slower: one line.
function answer(verdict, history) {
  const questions = {
    read: "Reading in order", shuffled: "Shuffled batches", disk: "Least disk space",
  };
  const parts = Object.entries(questions).map(([id, question]) => {
    const cells = Object.entries(verdict[id] ?? {}).filter(([, cell]) => cell.verdict)
      .sort(([, a], [, b]) => a.cost[0] - b.cost[0]);
    if (cells.length < 2) return `${question}: not measured`;
    const [[, first]] = cells;
    const ties = cells.filter(([, cell]) => cell.verdict === first.verdict);
    const names = ties.map(([name]) => shown(name)).join(" or ");
    return `${question}: ${first.verdict === "few" ? "too few samples to tell" : names}`;
  });
  const places = unique(Object.values(history?.lines ?? {})
    .flatMap(({ times: lines }) => Object.values(lines).flat().map(([place]) => place)))
    .sort((a, b) => b - a);
  let lately = "one commit measured, so no history yet";
  if (places.length > 2) {
    const since = places[Math.min(WINDOW, places.length) - 1];
    const slower = history.changes.map(changeOf).filter(({ place, factor, elsewhere }) =>
      place >= since && !elsewhere && (factor === null || factor > 1));
    lately = slower.length ?
      `slower lately: ${unique(slower.map((change) => {
        const workload = index.workloads.find(({ id }) => id === change.workload);
        return `${workload.title}, ${changeWords(workload, change)}`;
      })).slice(0, 3).join("; ")}` :
      `nothing got slower in the last ${Math.min(WINDOW, places.length)} commits`;
  } else if (places.length === 2) {
    lately = "two commits measured, too few for a history";
  }
  byId("answer").textContent = `${parts.join(". ")}. ${lately[0].toUpperCase()}${lately.slice(1)}.`;
}

function drawChanges(history) {
  const body = byId("changes");
  const found = (history?.changes ?? []).map(changeOf);
  const rows = unique(found.map(({ place }) => place)).map((place) => {
    const of = found.filter((change) => change.place === place);
    const elsewhere = unique(of.map((change) => change.elsewhere)).filter(Boolean);
    const links = of.flatMap((change, number) => {
      const workload = index.workloads.find(({ id }) => id === change.workload);
      const words = `${workload.title}: ${changeWords(workload, change)}`;
      return [number ? "; " : "", changeLink(workload, change, words)];
    });
    return element("li", { "data-commit": index.commits[place].hash },
      element("strong", {}, commitName(index.commits[place])), " ", ...links,
      elsewhere.length > 0 && `. The machine changed, too, and may be the cause: ${elsewhere.join("; ")}`,
      ".");
  });
  body.replaceChildren(
    rows.length ? element("ul", {}, ...rows.slice(0, SHOWN)) :
      element("p", { class: "caption" }, "No commit changed these workloads by more than noise."),
    ...(rows.length > SHOWN ? [element("details", {},
      element("summary", {}, `${rows.length - SHOWN} earlier commits`),
      element("ul", {}, ...rows.slice(SHOWN)))] : []),
    element("p", { class: "downloads" }, "All changes, of all benchmarks: ",
      element("a", { href: "compare/changes.txt" }, "text"),
      element("a", { href: "compare/changes.json" }, "JSON")));
}

function drawTime(choice, want, history) {
  const body = byId("time-body");
  const workload = index.workloads.find(({ id }) => id === want.over) ??
    index.workloads.find(({ id }) => id === "read");
  const lines = history?.lines[workload.id] ?? {};
  const kinds = Object.keys(FIGURES).filter((name) => Object.keys(lines[name] ?? {}).length);
  const kind = kinds.includes(want.figures) ? want.figures : kinds[0] ?? "times";
  fill("over", index.workloads.map(({ id, title }) => [id, title]), workload.id);
  fill("figures", (kinds.length ? kinds : ["times"]).map((name) => [name, FIGURES[name]]), kind);
  forget(body);
  const unit = kind === "counts" ? "count" : workload.unit;
  const plainLines = kind === "times" ? lines.plain ?? {} : {};
  const ours = Object.keys(plainLines).length ? "storage_impl" : "";
  const pointsOf = (of, line) => Object.entries(of).flatMap(([backend, cells]) =>
    cells.map(([place, ...cost]) => pointOf(["", line, backend, hashOf(place), ...cost])));
  const points = [...pointsOf(lines[kind] ?? {}, ours), ...pointsOf(plainLines, "plain code")];
  const places = unique([lines[kind] ?? {}, plainLines].flatMap(Object.values).flat()
    .map(([place]) => place)).sort((a, b) => a - b);
  const found = (history?.changes ?? []).map(changeOf)
    .filter((change) => change.workload === workload.id && change.kind === kind);
  const valueAt = ({ backend, place }) =>
    lines[kind]?.[backend]?.find(([at]) => at === place)?.[1];
  const scale = scaleOf(want);
  const calibration = kind === "times" ? (history?.calibration ?? []) : [];
  const chart = {
    id: "time",
    title: `${workload.title} over ${places.length} ${places.length === 1 ? "commit" : "commits"}`,
    caption: `${workload.what[0].toUpperCase()}${workload.what.slice(1)}. ` +
      (calibration.length ? "The grey line at the bottom is the calibration of the CPU: where it " +
        "rises, the machine was slower." : ""),
    x: "commit",
    order: places.map(hashOf),
    label: "commit",
    y: kind === "counts" ? "instructions" :
      workload.unit.startsWith("bytes") ? "bytes per image" : "time per image",
    unit,
    panel: "",
    joined: true,
    benchmarks: [workload.title],
    layout: {
      annotations: found.map((change) => ({
        x: hashOf(change.place),
        y: scale === "log" ? Math.log10(valueAt(change)) : valueAt(change),
        text: change.factor === null ? "from 0" : `× ${times(change.factor)}`,
        showarrow: true,
        arrowhead: 0,
        arrowwidth: 1,
        arrowcolor: "#8a939c",
        ax: 0,
        ay: -28,
      })),
    },
  };
  if (calibration.length > 1 && points.length) {
    const lowest = Math.min(...points.map(({ value }) => value));
    const [[, first]] = calibration;
    chart.further = [{
      type: "scatter",
      mode: "lines",
      x: calibration.map(([place]) => hashOf(place)),
      y: calibration.map(([, value]) => value / first * lowest / 1.4),
      text: calibration.map(([, value]) => `calibration of the CPU ${amount(value, "seconds")}`),
      hoverinfo: "text",
      line: { color: "#8a939c", width: 1.5, dash: "dot" },
    }];
  }
  const made = chartFigure(chart, points, choice);
  if (points.length) {
    made.querySelector(".plot").after(element("ul", { class: "changes" }, ...found.map((change) =>
      element("li", {}, `${changeWords(workload, change)} since ${hashOf(change.place)}`,
        change.elsewhere && `; the machine changed, too: ${change.elsewhere}`, "."))));
  }
  body.replaceChildren(made);
  drawLater(made, chart, points);
}

// -- charts ------------------------------------------------------------------------------------

const niceLog = (low, high) => {
  const decades = Math.log10(high / low);
  const steps = decades > 2.5 ? [1] : decades > 0.8 ? [1, 2, 5] :
    [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const step of steps) ticks.push(step * 10 ** power);
  }
  return ticks.filter((tick) => tick >= low && tick <= high);
};

const axisText = (value, unit) => {
  const [factor, name] = unitFor(value, UNITS[unit]);
  return `${Number((value / factor).toPrecision(3)).toLocaleString("en")}${name && ` ${name}`}`;
};

// The range has room for the intervals, but not for one that is far wider than the figures.
function yAxis(chart, points, scale) {
  const values = points.map(({ value }) => value);
  const top = Math.max(...values);
  const high = Math.min(Math.max(...points.map(({ value, high: end }) => end ?? value)), top * 3);
  const positive = values.filter((value) => value > 0);
  if (scale === "log" && positive.length) {
    const bottom = Math.min(...positive);
    const ends = points.map(({ value, low: end }) => end ?? value);
    const low = Math.max(Math.min(...ends), bottom / 3);
    const range = [low / 1.5, high * 1.5];
    const ticks = niceLog(...range);
    return {
      type: "log",
      range: range.map(Math.log10),
      tickvals: ticks,
      ticktext: ticks.map((tick) => axisText(tick, chart.unit)),
    };
  }
  const power = 10 ** Math.floor(Math.log10(high / 5 || 1));
  const step = [1, 2, 2.5, 5].map((size) => size * power).find((size) => size * 5 >= high) ??
    10 * power;
  const ticks = Array.from({ length: 6 }, (_, place) => place * step);
  return {
    type: "linear",
    range: [0, Math.max(high * 1.08, 1e-12)],
    tickvals: ticks,
    ticktext: ticks.map((tick) => (tick ? axisText(tick, chart.unit) : "0")),
  };
}

function xAxis(chart, points, scale, narrow) {
  if (chart.against) {
    const values = points.map(({ x }) => ({ value: x }));
    return { joined: false, tickangle: 0, ...yAxis({ unit: chart.against }, values, scale) };
  }
  const values = chart.order ?? unique(points.map(({ x }) => x));
  if (values.every((x) => typeof x === "number" && x > 0) && values.length > 2) {
    const sorted = values.toSorted((a, b) => a - b);
    const even = scale === "log";
    // On a linear axis, the labels of all except the largest counts would overlap.
    const ticks = even ? sorted : sorted.filter((x) => x === sorted[0] || x >= sorted.at(-1) / 10);
    const notation = narrow ? "compact" : "standard";
    return {
      joined: true,
      type: even ? "log" : "linear",
      tickvals: ticks,
      ticktext: ticks.map((x) => x.toLocaleString("en", { notation })),
      tickangle: 0,
    };
  }
  const names = values.map((x) => plain(readable(x)));
  const step = Math.ceil(names.length / (narrow ? 4 : 10));
  return {
    joined: false,
    type: "category",
    categoryorder: "array",
    categoryarray: names,
    // The axis has no room for the names of all commits of a history.
    ...(chart.id === "time" && { tickvals: names.filter((_, place) => place % step === 0) }),
  };
}

function hover(chart, point) {
  const { value, low, high, samples, note } = point;
  const what = [
    point.line,
    point.panel !== "" && `${chart.panel}: ${readable(point.panel)}`,
    chart.against ? `${amount(point.x, chart.against)} ${chart.label}` :
      `${chart.label} ${readable(point.x)}`.trim(),
  ];
  const each = chart.unit.endsWith("per image") ? " per image" : "";
  const rows = [
    `${amount(value, chart.unit)}${each}`,
    low !== null && `99%: ${amount(low, chart.unit)} to ${amount(high, chart.unit)}`,
    samples !== null && sampled(samples),
    note,
  ];
  const first = `<b>${plain(shown(point.backend))}</b> ${plain(unique(what.filter(Boolean)).join(", "))}`;
  return [first, ...rows.filter(Boolean).map(plain)].join("<br>");
}

function traces(chart, points, x, panels, lines, scale, printed) {
  const made = [];
  for (const [panelPlace, panel] of panels.entries()) {
    for (const [linePlace, line] of (chart.against ? [null] : lines).entries()) {
      for (const backend of unique(points.map((point) => point.backend))) {
        const own = points.filter((point) =>
          point.panel === panel && (line === null || point.line === line) &&
          point.backend === backend);
        if (!own.length) continue;
        const place = Math.max(index.backends.indexOf(backend), 0);
        const symbol = SYMBOLS[place % SYMBOLS.length];
        const colour = colourOf(backend);
        const number = panelPlace ? String(panelPlace + 1) : "";
        const low = (point) => (scale === "log" && point.low <= 0 ? point.value / 1e3 : point.low);
        made.push({
          type: "scatter",
          mode: chart.against ? "markers+text" : x.joined ? "lines+markers" : "markers",
          x: own.map((point) => (x.type === "category" ? plain(readable(point.x)) : point.x)),
          y: own.map((point) => point.value),
          text: own.map((point) => plain(point.line || shown(point.backend))),
          textposition: "top center",
          hovertext: own.map((point) => hover(chart, point)),
          hoverinfo: "text",
          offsetgroup: `${backend} ${line}`,
          xaxis: `x${number}`,
          yaxis: `y${number}`,
          line: { color: colour, width: printed ? 1 : 2, dash: DASHES[linePlace % DASHES.length] },
          marker: {
            color: colour,
            size: printed ? 5 : 9,
            symbol: linePlace % 2 ? `${symbol}-open` : symbol,
            line: { color: colour, width: 1.5 },
          },
          error_y: {
            type: "data",
            symmetric: false,
            array: own.map((point) => (point.high === null ? 0 : point.high - point.value)),
            arrayminus: own.map((point) => (point.low === null ? 0 : point.value - low(point))),
            color: colour,
            thickness: 1.5,
            width: 4,
          },
        });
      }
    }
  }
  return made;
}

function layout(chart, x, y, panels, wide, width, printed) {
  const made = {
    width,
    font: { family: "system-ui, sans-serif", size: printed ? 8 : 13 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 20, r: 12, t: 24, b: 44 },
    height: printed ? 165 : wide ? 290 : 290 + (panels.length - 1) * 220,
    hovermode: "closest",
    hoverlabel: { align: "left" },
    dragmode: false,
    scattermode: x.joined ? "overlay" : "group",
    scattergap: 0.4,
    showlegend: false,
    annotations: [],
    ...chart.layout,
  };
  const { joined: _, ...xPart } = x;
  const gap = wide ? 0.03 : 0.3 / panels.length;
  const span = (1 - gap * (panels.length - 1)) / panels.length;
  for (const [place, panel] of panels.entries()) {
    const number = place ? String(place + 1) : "";
    const start = wide ? place * (span + gap) : 1 - span - place * (span + gap);
    const domain = [start, start + span];
    made[`xaxis${number}`] = {
      ...xPart,
      anchor: `y${number}`,
      domain: wide ? domain : [0, 1],
      title: { text: plain(chart.label), standoff: 8, font: { size: printed ? 8 : 12 } },
      fixedrange: true,
      showgrid: false,
      zeroline: false,
      showline: true,
      linewidth: 1,
      ticks: "",
    };
    made[`yaxis${number}`] = {
      ...y,
      anchor: `x${number}`,
      domain: wide ? [0, 1] : domain,
      showticklabels: !wide || place === 0,
      title: {
        text: place && wide ? "" : plain(chart.y),
        standoff: printed ? 4 : 10,
        font: { size: printed ? 8 : 12 },
      },
      automargin: true,
      fixedrange: true,
      zeroline: false,
      ticks: "",
    };
    if (panels.length > 1) {
      made.annotations.push({
        text: plain(`${chart.panel}: ${readable(panel)}`),
        x: wide ? start : 0,
        y: wide ? 1 : start + span,
        xref: "paper",
        yref: "paper",
        xanchor: "left",
        yanchor: "bottom",
        showarrow: false,
      });
    }
  }
  return made;
}

function draw([plot, chart, points], printed = false) {
  const onPaper = plot.closest(".charts > :not(.wide)") ? 225 : 690;
  const width = printed ? onPaper : plot.clientWidth;
  const scale = scaleOf(wanted());
  const measured = points.filter(({ value }) => typeof value === "number");
  const panels = unique(measured.map(({ panel }) => panel));
  const lines = unique(measured.map(({ line }) => line));
  const x = xAxis(chart, measured, scale, width < 480 * Math.max(1, panels.length - 1));
  if (chart.joined) x.joined = true;
  const y = yAxis(chart, measured, scale);
  const wide = printed || width >= 260 * panels.length;
  const made = layout(chart, x, y, panels, wide, width, printed);
  made.margin.t = panels.length > 1 ? 28 : 12;
  if (printed) made.margin.b = 30;
  else if (!chart.label) made.margin.b = 32;
  plot.style.height = `${made.height}px`;
  const data = [
    ...(chart.further ?? []), ...traces(chart, measured, x, panels, lines, scale, printed),
  ];
  return window.Plotly.react(plot, data, made, { displayModeBar: false });
}

// A chart is drawn when it is scrolled to, or printed.
const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (isIntersecting && window.Plotly) drawNow(target);
  }
}, { rootMargin: "600px" });

function drawLater(made, chart, points) {
  const plot = made.querySelector(".plot");
  if (plot && index.plotly) {
    waiting.set(made, [plot, chart, points]);
    seen.observe(made);
  } else {
    plot?.remove();
    made.dataset.drawn = "true";
  }
}

function drawNow(made) {
  const drawing = waiting.get(made);
  seen.unobserve(made);
  waiting.delete(made);
  if (!drawing || !made.isConnected) return;
  drawings = drawings.filter(([plot]) => plot.isConnected).concat([drawing]);
  draw(drawing);
  made.dataset.drawn = "true";
}

const scaleOf = (want) => (want.scale === "linear" ? "linear" : "log");

function scaleButtons() {
  const buttons = ["log", "linear"].map((name) => {
    const made = element("button", {
      type: "button",
      "data-scale": name,
      "aria-pressed": String(name === scaleOf(wanted())),
    }, name === "log" ? "logarithmic" : "linear");
    made.onclick = () => choose({ scale: name });
    return made;
  });
  const group = { class: "scale", role: "group", "aria-label": "Axes of all charts" };
  return element("span", group, "Axes ", ...buttons);
}

function chartFigure(chart, points, choice) {
  const what = chart.label || "what";
  const columns = [
    ["x", what],
    ...(points.some(({ panel }) => panel !== "") ? [["panel", chart.panel]] : []),
    ...(chart.x && points.some(({ line }) => line !== "") ? [["line", "what"]] : []),
    ["backend", "backend"],
    ["value", chart.y],
    ["low", "99% from"],
    ["high", "to"],
    ["samples", "samples"],
  ];
  const made = element("figure",
    { class: "chart", id: `chart-${chart.id}`, "data-chart": chart.id },
    element("h3", {}, chart.title), element("p", { class: "caption" }, chart.caption));
  const measured = points.filter(({ value }) => typeof value === "number");
  const backends = unique(measured.map(({ backend }) => backend));
  if (unique(measured.map(({ panel }) => panel)).length > 1) made.classList.add("wide");
  const failures = points.filter(({ value }) => value === "failed")
    .map(({ backend, x }) => `${shown(backend)}, ${chart.label} ${readable(x)}`);
  if (failures.length) made.append(notice(`Failed: ${unique(failures).join("; ")}.`));
  if (measured.length) {
    made.append(legend(backends, chart.against ? [] : unique(measured.map(({ line }) => line))));
    made.append(element("div", {
      class: "plot",
      role: "img",
      "aria-label": `${chart.title}: ${chart.y} by ${chart.label || "what is done"}, for ` +
        `${backends.map(shown).join(", ")}. The table below has the figures.`,
    }));
  } else if (!failures.length) {
    made.append(notice("Not run."));
  }
  const words = { x: what, panel: chart.panel, line: "what" };
  const names = columns.map(([name]) => words[name] ?? name);
  const rows = points.map((point) => columns.map(([name]) => point[name]));
  made.append(element("footer", {},
    element("details", { class: "table" },
      element("summary", {}, "Table"), table(chart, columns, points),
      downloads(chart.id, choice, chart.unit, names, rows))));
  return made;
}

// One line names the charts of a section that have no figures.
const missing = (charts) => (charts.length
  ? element("p", { class: "missing" },
    `Not measured: ${charts.map(({ title }) => title).join(", ")}.`)
  : "");

// -- library versions --------------------------------------------------------------------------

const versionName = (version) => version || "none";

// A point for each version and backend, and a list of the points at which something changed.
function versionPoints(group, workload, library) {
  const [more, less] = comparatives(workload.unit);
  const changed = [];
  const points = Object.entries(group.lines[workload.id]).flatMap(([backend, cells]) =>
    cells.flatMap((found, place) => {
      if (!found) return [];
      const [change, ...cost] = found;
      const point = pointOf(["", "", backend, versionName(group.versions[place]), ...cost]);
      if (change) {
        const [factor, from] = change;
        const before = versionName(group.versions[from]);
        const words = factor > 1
          ? `${times(factor)}× ${more}`
          : `${times(1 / factor)}× ${less}`;
        point.note = `${words} than with ${before}`;
        const text = `${shown(backend)} ${words} with ${library} ${point.x} than with ${before}.`;
        changed.push({ ...point, factor, text });
      }
      return [point];
    }));
  return { points, changed };
}

// The range of the calibration, because the versions were measured at different times.
function calibrationOf(group) {
  const names = unique(group.calibration.flatMap(Object.keys));
  return names.map((name) => {
    const values = group.calibration.map((loads) => loads[name]).filter((value) => value);
    const ends = [Math.min(...values), Math.max(...values)];
    return `${name} ${ends.map((value) => amount(value, "seconds")).join(" to ")}`;
  }).join(", ");
}

async function drawVersions(choice, want, ofTurn) {
  const body = byId("versions-body");
  byId("versions").dataset.state = "loading";
  // The chosen commit if several environments measured it; else the nearest such commit before it;
  // else the first such commit.
  const several = (place) => choice.machine.environments.filter(({ results }) =>
    results.some(([at, , numbers]) =>
      at === place && index.datasets.indexOf(choice.dataset) in numbers)).length > 1;
  const places = Object.keys(choice.machine.files).map(Number).filter(several)
    .sort((a, b) => a - b);
  const place = places.findLast((at) => at <= choice.row.place) ?? places[0] ?? choice.row.place;
  const content = await load(choice.machine.files[place]);
  if (ofTurn !== turn) return;
  forget(body);
  const byLibrary = content[choice.dataset] ?? {};
  const libraries = Object.keys(byLibrary);
  byId("versions").querySelector("form").hidden = !libraries.length;
  if (!libraries.length) {
    body.replaceChildren(notice("There is nothing to compare: no commit of this machine has " +
      "results of two environments that differ in only one library."));
    byId("versions").dataset.state = "ready";
    return;
  }
  const workload = index.workloads.find(({ id }) => id === want.workload) ??
    index.workloads.find(({ id }) => id === "read");
  // The group of versions that has the chosen environment, or the largest group.
  const groupOf = (each) =>
    byLibrary[each].find(({ environments }) => environments.includes(choice.environment.name)) ??
    byLibrary[each][0];
  const changes = (each) => Object.values(groupOf(each).lines[workload.id]).flat()
    .some((found) => found?.[0]);
  const { library: wantedName } = want;
  const name = libraries.find((each) => each === wantedName) ??
    libraries.find(changes) ?? libraries[0];
  fill("library", libraries.map((each) => [each, each]), name);
  fill("workload", index.workloads.map(({ id, title }) => [id, title]), workload.id);
  complete({ library: name, workload: workload.id });
  const group = groupOf(name);
  const { points, changed } = versionPoints(group, workload, name);
  const others = Object.entries(group.others).filter(([, version]) => version)
    .map(([each, version]) => `${each} ${version}`);
  const elsewhere = unique(byLibrary[name].filter((each) => each !== group)
    .flatMap(({ versions }) => versions.map(versionName)))
    .filter((version) => !group.versions.map(versionName).includes(version));
  const calibration = calibrationOf(group);
  const caption = [
    `${workload.what[0].toUpperCase()}${workload.what.slice(1)}.`,
    `All else is the same: ${others.join(", ")}.`,
    calibration && `Calibration: ${calibration}.`,
    elsewhere.length && `${name} ${elsewhere.join(", ")} ran with other versions of the other ` +
      "libraries: choose such an environment to see them.",
    place !== choice.row.place && `Measured at ${commitName(index.commits[place])}, because the ` +
      "chosen commit has only one environment.",
  ];
  const chart = {
    id: "versions",
    title: `${workload.title} by version of ${name}`,
    caption: caption.filter(Boolean).join(" "),
    x: "version",
    order: group.versions.map(versionName),
    label: `version of ${name}`,
    y: workload.unit.startsWith("bytes") ? "bytes per image" : "time per image",
    unit: workload.unit,
    panel: "",
    joined: true,
    benchmarks: [workload.title],
  };
  const scale = scaleOf(want);
  chart.layout = {
    annotations: changed.map(({ x, value, factor }) => ({
      x: plain(x),
      y: scale === "log" ? Math.log10(value) : value,
      text: `× ${times(factor)}`,
      showarrow: true,
      arrowhead: 0,
      arrowwidth: 1,
      arrowcolor: "#8a939c",
      ax: 0,
      ay: -28,
    })),
  };
  const made = chartFigure(chart, points, {
    ...choice,
    environment: { versions: group.others },
    row: { commit: index.commits[place] },
  });
  made.querySelector(".plot")?.after(changed.length
    ? element("ul", { class: "changes" }, ...changed.map(({ text }) => element("li", {}, text)))
    : element("p", { class: "caption" }, "No change beyond noise and 10%."));
  body.replaceChildren(made);
  drawLater(made, chart, points);
  byId("versions").dataset.state = "ready";
}

// -- the page ----------------------------------------------------------------------------------

function drawControls(choice) {
  fill("machine", index.machines.map(({ name }) => [name, name]), choice.machine.name);
  fill("dataset", choice.datasets.map((name) => [name, name]), choice.dataset);
  const named = environmentNames(choice.environments);
  const environments = choice.environments.map((each) => [each.name, named(each)]);
  fill("environment", environments, choice.environment.name);
  const commits = choice.rows.map((row) =>
    [row.commit.hash, `${commitName(row.commit)}${choice.isPartial(row) ? ", partial" : ""}`]);
  fill("commit", commits, choice.row.commit.hash);
  const link = (id, title) => {
    const made = element("a", { href: `#${new URLSearchParams({ ...wanted(), at: id })}` }, title);
    made.onclick = (event) => {
      event.preventDefault();
      go({ ...wanted(), at: id });
      byId(id).scrollIntoView();
    };
    return made;
  };
  byId("contents").replaceChildren(
    ...index.sections.map(({ id, title }) => link(id, title)),
    link("time", "Over time"),
    link("versions", "Library versions"),
    scaleButtons());
}

// What the figures were measured with: groups of facts. No line breaks within a fact.
function measuredWith(choice, result) {
  const { hardware } = choice.machine;
  const loads = Object.entries(result.calibration)
    .map(([name, value]) => `${name} ${amount(value, "seconds")}`);
  const versions = Object.entries(choice.environment.versions).filter(([, version]) => version)
    .map(([name, version]) => `${name === "python" ? "Python" : name} ${version}`);
  const { kernel, ...facts } = result.facts;
  const others = Object.entries(facts).map(([name, value]) => `${name} ${value}`);
  if (kernel && !hardware.endsWith(kernel)) others.push(kernel); // unless the hardware names it
  const groups = [
    hardware.split(", "),
    loads.length ? [`calibration: ${loads.join(", ")}`] : [],
    versions,
    others,
  ].filter((group) => group.length);
  return groups.flatMap((group, place) => group.flatMap((fact, at) => {
    const end = at < group.length - 1 ? "," : place < groups.length - 1 ? " ·" : "";
    return [element("span", { class: "fact" }, fact, end), " "];
  }));
}

// Redraws only what the new address changes.
async function update() {
  const want = wanted();
  const before = choicesIn(address);
  const changed = Object.keys({ ...before, ...want })
    .filter((name) => name !== "at" && before[name] !== want[name]);
  const unnamed = !address;
  address = location.hash;
  if (!current || changed.some((name) => !REDRAWN.includes(name))) {
    await show(want);
    return;
  }
  completeView(current);
  if (changed.includes("scale")) {
    for (const button of document.querySelectorAll("[data-scale]")) {
      button.setAttribute("aria-pressed", String(button.dataset.scale === scaleOf(want)));
    }
    for (const drawing of drawings) await draw(drawing);
  }
  if (changed.some((name) => CHOICES.includes(name))) drawVerdict(current, want);
  if (unnamed || changed.some((name) => !CHOICES.includes(name))) {
    drawTime(current, want, current.history);
    await drawVersions(current, want, turn);
  }
  if (want.at) byId(want.at)?.scrollIntoView();
  document.documentElement.dataset.state = "ready";
}

async function show(want) {
  turn += 1;
  const ofTurn = turn;
  const page = document.documentElement;
  page.dataset.state = "loading";
  current = undefined;
  const choice = resolve(want);
  completeView(choice);
  const result = await load(choice.row.key);
  if (ofTurn !== turn) return;
  const histories = await load(choice.environment.history);
  if (ofTurn !== turn) return;
  choice.history = histories[choice.dataset];
  drawControls(choice);
  const { verdict, charts } = result.datasets[choice.dataset];
  const commit = commitName(choice.row.commit);
  byId("measured").replaceChildren(
    element("span", { class: "printed" },
      `${choice.machine.name}, commit ${commit}, images: ${choice.dataset} · `),
    ...measuredWith(choice, result),
  );
  choice.result = result.datasets[choice.dataset];
  drawVerdict(choice, want);
  const backends = unique(Object.values(verdict).flatMap(Object.keys));
  answer(verdict, choice.history);
  drawChanges(choice.history);
  const notices = [];
  if (!backends.length) notices.push("None of these workloads was measured.");
  if (backends.length === 1) {
    notices.push(`Only ${shown(backends[0])} was measured: there is nothing to compare it with.`);
  }
  if (choice.isPartial(choice.row)) {
    const all = index.sections.flatMap((section) => section.charts).length;
    notices.push(`A partial run: it has figures for ${choice.row.charts(choice.dataset)} of ` +
      `${all} charts. Another commit may have more.`);
  }
  const few = Object.values(verdict).flatMap(Object.values)
    .filter((cell) => cell.verdict === "few").map(({ cost: [, , , samples] }) => samples);
  if (few.length) {
    notices.push(`Figures with fewer than ${index.enough} samples get no verdict: some have only ` +
      `${Math.min(...few)}. python -m tox run -e bench-full takes more.`);
  }
  if (!index.plotly) {
    notices.push("There are no charts, because the Python package plotly was missing when the " +
      "site was made: pip install plotly.");
  }
  if (result.outdated) {
    const were = result.outdated === 1 ? "benchmark was" : "benchmarks were";
    notices.push(`${result.outdated} ${were} measured by an older version of the suite ` +
      "and left out.");
  }
  byId("verdict").querySelector(".notices").replaceChildren(...notices.map(notice));
  forget(byId("sections"));
  drawings = [];
  waiting.clear();
  byId("sections").replaceChildren(...index.sections.map((section) =>
    element("section", { id: section.id, "aria-labelledby": `${section.id}-title` },
      element("h2", { id: `${section.id}-title` }, section.title),
      ...(section.charts.some(({ id }) => charts[id].length)
        ? [element("div", { class: "charts" }, ...section.charts
          .filter(({ id }) => charts[id].length).map((chart) => {
            const points = charts[chart.id].map(pointOf);
            const made = chartFigure(chart, points, choice);
            drawLater(made, chart, points);
            return made;
          }))]
        : []),
      missing(section.charts.filter(({ id }) => !charts[id].length)))));
  byId("message").hidden = true;
  for (const id of ["choices", "verdict", "contents", "time", "versions"]) {
    byId(id).hidden = false;
  }
  if (want.at) byId(want.at)?.scrollIntoView();
  drawTime(choice, want, choice.history);
  await drawVersions(choice, want, ofTurn);
  if (ofTurn !== turn) return;
  if (want.at) byId(want.at)?.scrollIntoView();
  current = choice;
  page.dataset.state = "ready";
  if (index.plotly) {
    await loadPlotly();
    for (const made of waiting.keys()) { // observing a chart again reports it if it is in view
      seen.unobserve(made);
      seen.observe(made);
    }
  }
}

function empty(text) {
  document.documentElement.dataset.state = "empty";
  for (const id of ["verdict", "contents", "time", "versions"]) byId(id).hidden = true;
  byId("sections").replaceChildren();
  byId("message").hidden = false;
  byId("message").textContent = text;
}

function failed(error) {
  document.documentElement.dataset.state = "error";
  byId("message").hidden = false;
  byId("message").textContent = `The page cannot be shown: ${error.message}`;
}

function start() {
  index = window.compareData?.index;
  if (!index) {
    failed(new Error("compare/data/index.js could not be loaded."));
    return;
  }
  byId("project").textContent = index.project;
  byId("workloads").replaceChildren(...index.workloads.map(({ title, what }) =>
    element("li", {}, element("em", {}, title), `: ${what}.`)));
  document.title = `Compare backends – ${index.project}`;
  if (!index.machines.length) {
    empty("There are no results yet: python -m tox run -e bench makes some.");
    return;
  }
  for (const id of CONTROLS) byId(id).onchange = (event) => choose({ [id]: event.target.value });
  const follow = () => {
    const done = update();
    const ofTurn = turn;
    done.catch((error) => ofTurn === turn && failed(error));
  };
  window.addEventListener("hashchange", follow);
  const redraw = (printed = false) => drawings.forEach((drawing) => draw(drawing, printed));
  let before = innerWidth;
  let resized;
  window.addEventListener("resize", () => {
    clearTimeout(resized);
    resized = setTimeout(() => {
      if (innerWidth !== before) redraw();
      before = innerWidth;
    }, 100);
  });
  window.addEventListener("beforeprint", () => {
    if (window.Plotly) [...waiting.keys()].forEach(drawNow);
    redraw(true);
  });
  window.addEventListener("afterprint", () => redraw());
  follow();
}

start();
