"use strict";

const $ = (id) => document.getElementById(id);
const OWN = "as the service has it";
const TICK_MS = 1000;

let token = ""; // in memory only
let model = null; // what is known of the chosen one
let job = null; // the placement that is shown, or under way
let turn = 0; // what is asked for later makes void what comes of before

// Asking

class Problem extends Error {}

async function ask(method, path, body, kind = "application/json") {
  const headers = { ...(token && { Authorization: `Bearer ${token}` }), ...(body && { "Content-Type": kind }) };
  let answer;
  try {
    answer = await fetch(path, { method, headers, body, cache: "no-store", credentials: "omit" });
  } catch {
    throw new Problem("the service does not answer; see whether it runs, and ask again");
  }
  if (answer.ok) return answer;
  if (answer.status === 401) $("entry").hidden = false;
  const said = await answer.json().catch(() => ({}));
  const { detail = `${answer.status} ${answer.statusText}`, fix = null } = said;
  throw new Problem(fix && !detail.includes(fix) ? `${detail}; ${fix}` : detail);
}

const read = async (path) => (await ask("GET", path)).json();
const post = async (path, sent) => (await ask("POST", path, JSON.stringify(sent))).json();

// Shows that something is under way, and what is wrong with it.
async function during(said, work) {
  const mine = ++turn;
  const started = Date.now();
  const count = () => ($("seconds").textContent = `${Math.round((Date.now() - started) / 1000)} s`);
  count();
  const ticking = setInterval(count, TICK_MS);
  $("problem").textContent = "";
  $("status").textContent = said;
  $("work").hidden = false;
  $("cancel").hidden = true;
  let end = "";
  try {
    end = await work(() => mine === turn);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (mine === turn) $("problem").textContent = error.message;
    if (mine === turn && !$("entry").hidden) $("token").focus();
  } finally {
    clearInterval(ticking);
    if (mine === turn) {
      $("work").hidden = true;
      $("status").textContent = end ?? "";
    }
  }
}

// Showing

function made(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

function bytes(count) {
  if (count === null) return "unknown";
  const units = ["bytes", "kB", "MB", "GB"];
  const power = count < 1000 ? 0 : Math.min(3, Math.floor(Math.log10(count) / 3));
  return `${Number((count / 1000 ** power).toPrecision(3))} ${units[power]}`;
}

const isNumber = (text) => text === "" || /^[\d.,e+-]+$/.test(text);

function table({ caption, columns, rows }) {
  const numbers = columns.map((_, column) => rows.every((row) => isNumber(row[column])));
  const cell = (name, text, column) =>
    made(name, { textContent: text, className: numbers[column] ? "number" : "", ...(name === "th" && { scope: "col" }) });
  const line = (name, row) => made("tr", {}, ...row.map((text, column) => cell(name, text, column)));
  const shown = made(
    "table",
    {},
    made("caption", { textContent: caption }),
    made("thead", {}, line("th", columns)),
    made("tbody", {}, ...rows.map((row) => line("td", row))),
  );
  return made("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: caption }, shown);
}

function facts({ facts: figures }) {
  const pairs = Object.entries(figures);
  const pair = ([name, value]) =>
    made("div", {}, made("dt", { textContent: name }), made("dd", { textContent: value }));
  return made("dl", {}, ...pairs.map(pair));
}

const charts = new Map(); // by the element that each is drawn in

function chart({ caption, figure }) {
  const plot = made("div", { role: "img", ariaLabel: caption });
  charts.set(plot, figure);
  return made("figure", {}, plot, made("figcaption", { textContent: caption }));
}

const SHOWN = { facts, chart, table };

function show(place, blocks) {
  for (const plot of place.querySelectorAll("[role=img]")) {
    Plotly.purge(plot);
    charts.delete(plot);
  }
  place.replaceChildren(...blocks.map((block) => (block.kind ? SHOWN[block.kind](block) : block)));
  for (const plot of place.querySelectorAll("[role=img]")) draw(plot);
}

// The report's charts are drawn on white; here they are on the page's own ground.
function draw(plot) {
  const look = getComputedStyle(document.documentElement);
  const [ink, line, paper] = ["--ink", "--line", "--paper"].map((name) => look.getPropertyValue(name).trim());
  const { data, layout } = charts.get(plot);
  const axis = { gridcolor: line, linecolor: line, fixedrange: true };
  const own = {
    ...layout,
    paper_bgcolor: paper,
    plot_bgcolor: paper,
    font: { ...layout.font, color: ink },
    xaxis: { ...layout.xaxis, ...axis },
    yaxis: { ...layout.yaxis, ...axis },
  };
  Plotly.newPlot(plot, structuredClone(data), own, { responsive: true, displayModeBar: false });
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((_, plot) => draw(plot)));

// The token

$("entry").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  $("token").value = "";
  $("entry").hidden = true;
  start();
});

function start() {
  return during("Asking what there is", async () => {
    const [kept, options] = await Promise.all([read("v1/models"), read("v1/options")]);
    for (const each of kept) offer(each);
    for (const group of ["fleet", "link", "objective"]) {
      const choices = options[group].map((name) => new Option(name, name));
      $(group).replaceChildren(new Option(OWN, ""), ...choices);
    }
  });
}

// The model

function offer(known, name = known.model.slice(0, 12)) {
  const there = [...$("models").options].find((option) => option.value === known.model);
  if (there) there.text = name === known.model.slice(0, 12) ? there.text : name;
  else $("models").add(new Option(`${name} (${bytes(known.bytes)})`, known.model));
}

$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (!file) return;
  during(`Sending ${file.name} (${bytes(file.size)}), which is then checked`, async (current) => {
    const known = await (await ask("POST", "v1/models", file, "application/octet-stream")).json();
    $("file").value = ""; // the same one can be chosen again
    if (!current()) return "";
    offer(known, `${file.name}, ${known.model.slice(0, 12)}`);
    $("models").value = known.model;
    return choose(known, current);
  });
});

$("models").addEventListener("change", () => {
  const chosen = $("models").value;
  if (chosen) during("Reading the model", async (current) => choose(await read(`v1/models/${chosen}`), current));
});

const border = ({ name, dtype, shape }) => `${name} (${dtype}, ${shape ? shape.join(" x ") : "any shape"})`;

function choose(known, current) {
  model = known;
  $("batch").value = $("dims").value = "";
  for (const id of ["cuts", "place", "plan"]) $(id).hidden = true;
  const operators = known.operators === null ? "" : `${known.operators} operators; `;
  const [inputs, outputs] = [known.inputs, known.outputs].map((each) => each.map(border).join(", "));
  $("facts").textContent = `${bytes(known.bytes)}; ${operators}from ${inputs} to ${outputs}`;
  $("wanted").textContent = known.sizes_wanted ?? "";
  const open = known.inputs.some(({ shape }) => !shape || shape.some((size) => typeof size !== "number"));
  $("sizes").hidden = known.sizes_wanted === null && !open;
  return known.sizes_wanted === null ? cut(current) : "This model leaves sizes open: give them.";
}

function sizes() {
  const pairs = $("dims").value.split(",").map((pair) => pair.trim()).filter(Boolean);
  const dims = {};
  for (const pair of pairs) {
    const [, name, size] = /^(.+?)\s*=\s*(\d+)$/.exec(pair) ?? [];
    if (!name) throw new Problem(`dimensions: '${pair}' is no NAME=SIZE; give them as in N=4, seq=128`);
    dims[name] = Number(size);
  }
  return { ...($("batch").value && { batch: Number($("batch").value) }), ...(pairs.length && { dims }) };
}

$("sizes").addEventListener("submit", (event) => {
  event.preventDefault();
  during("Looking for cuts", cut);
});

// Cuts

async function cut(current) {
  const { operators, cuts } = await post(`v1/models/${model.model}/cuts`, sizes());
  if (!current()) return "";
  const rows = cuts.map((each) => [
    String(each.operators_before),
    bytes(each.bytes),
    each.tensors.join(", "),
    each.shapes.map((shape) => (shape ? shape.join(" x ") : "unknown")).join(", "),
  ]);
  const caption = `${operators} operators in order: the bytes that cross at each of ${cuts.length} places to cut`;
  const columns = ["operators before", "bytes", "tensors", "shapes"];
  const figures = made("details", {}, made("summary", { textContent: "The same in figures" }));
  figures.append(table({ caption, columns, rows }));
  $("cuts").hidden = $("place").hidden = false;
  show($("cuts-shown"), [...(cuts.length ? [{ kind: "chart", caption, figure: crossing(operators, cuts) }] : []), figures]);
  return `${cuts.length} places to cut. Next: choose where to place the model.`;
}

function crossing(operators, cuts) {
  const known = cuts.filter((each) => each.bytes !== null);
  const data = {
    type: "bar",
    x: known.map((each) => each.operators_before),
    y: known.map((each) => each.bytes),
    width: Math.max(0.6, operators / 200),
    marker: { color: "#0072b2" },
    hovertext: known.map((each) => `behind operator ${each.operators_before}: ${bytes(each.bytes)}`),
    hovertemplate: "%{hovertext}<extra></extra>",
  };
  const layout = {
    height: 260,
    margin: { l: 56, r: 12, t: 16, b: 44 },
    font: { family: "system-ui, sans-serif", size: 12 },
    xaxis: { title: { text: "operators of the model, in order" }, range: [0, operators], ...(operators < 10 && { dtick: 1 }) },
    yaxis: { title: { text: "bytes that cross" }, automargin: true, exponentformat: "SI", rangemode: "tozero" },
  };
  return { data: [data], layout };
}

// The placement

$("asked").addEventListener("submit", (event) => {
  event.preventDefault();
  during("The placement waits for its turn", place);
});

async function place(current) {
  const chosen = Object.fromEntries(["fleet", "link", "objective"].map((id) => [id, $(id).value || null]));
  const most = $("parts").value ? Number($("parts").value) : null;
  const asked = { model: model.model, ...sizes(), ...chosen, max_parts: most, split: true };
  $("plan").hidden = true;
  const mine = (await post("v1/place", asked)).job;
  if (!current()) return drop(mine); // something else is wanted meanwhile
  job = mine;
  $("cancel").hidden = false;
  await ended(mine, current);
  if (!current()) return drop(mine);
  const blocks = await read(`v1/jobs/${mine}/report`);
  if (!current()) return "";
  $("plan").hidden = false;
  show($("plan-shown"), blocks);
  $("plan-title").focus();
  return "The plan is ready.";
}

async function drop(mine) {
  await ask("DELETE", `v1/jobs/${mine}`).catch(() => undefined); // it may have ended
  return "";
}

async function ended(mine, current) {
  while (current()) {
    const found = await read(`v1/jobs/${mine}?wait_seconds=2`);
    if (found.state === "done") return;
    if (found.state === "error") throw new Problem(found.problem.detail);
    if (found.state === "cancelled") throw new Problem("the placement was cancelled; press Place to ask again");
    if (found.state === "processing" && current()) $("status").textContent = "The model is being placed and split";
  }
}

$("cancel").addEventListener("click", async () => {
  try {
    await ask("DELETE", `v1/jobs/${job}`);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    $("problem").textContent = error.message;
  }
});

// Downloads

function save(content, name) {
  const link = made("a", { href: URL.createObjectURL(content), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

$("get-plan").addEventListener("click", () =>
  during("Fetching the plan", async () => {
    const { plan } = await read(`v1/jobs/${job}/result`);
    save(new Blob([JSON.stringify(plan, null, 2)], { type: "application/json" }), "plan.json");
    return "plan.json is downloaded.";
  }),
);

$("get-parts").addEventListener("click", () =>
  during("Fetching the parts", async () => {
    save(await (await ask("GET", `v1/jobs/${job}/parts`)).blob(), "parts.zip");
    return "parts.zip is downloaded.";
  }),
);

start();
