// The table of a cohort: sorted, filtered and drawn row by row, so that thousands of scans stay quick.
"use strict";

const ROW = 52; // pixels, as in page.css
const COLUMNS = [
  ["", "", ""],
  ["scan", "Scan", "text"],
  ["status", "Status", "text"],
  ["volume_ml", "Volume, ml", "number"],
  ["mean_hu", "Mean HU", "number"],
  ["quality", "Quality", "number"],
  ["to_review", "Review", "number"],
  ["warned", "Warnings", "number"],
  ["seconds", "Seconds", "number"],
  ["mark", "Mark", "text"],
  ["remark", "Reason or warning", "text"],
];
const PLOTS = [["volume_ml", "Volume, ml"], ["quality", "Quality (predicted IoU)"], ["mean_hu", "Mean HU"], ["seconds", "Seconds"]];
const BINS = 24;
const WORDS = {
  patient: "Patient", study: "Study", series: "Series", description: "Description", status: "Status", reason: "Reason",
  volume_ml: "Volume, ml", range: "Slices", mean_hu: "Mean HU", quality: "Quality", warnings: "Warnings",
  seconds: "Seconds", mask: "Mask", path: "Scan", model: "Model", device: "Device", finished: "Finished",
};

const cohort = window.sammixCohort;
const rows = cohort.rows.map((values) => Object.fromEntries(cohort.columns.map((name, n) => [name, values[n]])));
const byId = (id) => document.getElementById(id);
const shelf = `sammix ${location.pathname}`; // marks stay in this browser until they are downloaded
let marks = {};
try {
  marks = JSON.parse(localStorage.getItem(shelf) || "{}");
} catch (error) {
  marks = {}; // a browser that keeps nothing
}
let order = { key: "scan", down: false };
let ranges = {}; // column -> [low, high) chosen in a plot
let shown = [];
let at = -1; // the row of `shown` that is open
let viewer = null;

for (const row of rows) {
  row.mark = marks[row.scan] || "";
  row.warned = row.warnings ? row.warnings.split("; ").length : 0;
  row.remark = row.reason || row.warnings || "";
  row.words = [row.scan, row.patient, row.study, row.series, row.description, row.remark].join(" ").toLowerCase();
}

function digits(value, name) {
  if (value === null || value === undefined || value === "") return "";
  return typeof value !== "number" ? value : value.toFixed(name === "quality" ? 3 : name === "seconds" ? 1 : 0);
}

function update() {
  const search = byId("search").value.trim().toLowerCase();
  const status = byId("status").value;
  const mark = byId("marked").value;
  const warned = byId("warned").checked;
  const doubtful = byId("doubtful").checked;
  const inside = (row) =>
    Object.entries(ranges).every(([name, [low, high]]) => row[name] !== null && row[name] >= low && row[name] < high);
  shown = rows.filter((row) =>
    (!search || row.words.includes(search)) && (!status || row.status === status) &&
    (!mark || (mark === "none" ? !row.mark : row.mark === mark)) &&
    (!warned || row.warned) && (!doubtful || row.to_review) && inside(row));
  sort();
  byId("shown").textContent = `${shown.length} of ${rows.length} scans`;
  byId("spacer").style.height = `${shown.length * ROW}px`;
  draw();
}

function sort() {
  const { key, down } = order;
  const way = down ? -1 : 1;
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  const missing = (value) => value === null || value === undefined || value === "";
  shown.sort((one, other) => {
    const a = one[key];
    const b = other[key];
    if (missing(a) || missing(b)) return missing(a) - missing(b); // what is not there comes last, whichever way
    return way * (typeof a === "number" ? a - b : compare(a, b));
  });
}

function draw() {
  const scroll = byId("scroll");
  const first = Math.max(0, Math.floor(scroll.scrollTop / ROW) - 5);
  const last = Math.min(shown.length, Math.ceil((scroll.scrollTop + scroll.clientHeight) / ROW) + 5);
  byId("rows").style.transform = `translateY(${first * ROW}px)`;
  byId("rows").replaceChildren(...shown.slice(first, last).map((row, n) => line(row, first + n)));
}

function line(row, n) {
  const element = document.createElement("div");
  element.className = n === at ? "row at" : "row";
  element.setAttribute("role", "row");
  element.dataset.scan = row.scan;
  element.onclick = () => open(n);
  element.append(thumbnail(row));
  for (const [name, , kind] of COLUMNS.slice(1)) {
    const cell = document.createElement("span");
    cell.setAttribute("role", "cell");
    cell.textContent = digits(row[name], name);
    if (kind === "number") cell.className = "number";
    if (name === "status") cell.className = row.status;
    if (name === "remark") cell.className = "note";
    if (name === "mark" && row.mark) cell.className = `mark ${row.mark.replace(" ", "-")}`;
    if (kind === "text") cell.title = cell.textContent;
    element.append(cell);
  }
  return element;
}

function thumbnail(row) {
  const place = document.createElement(row.status === "done" ? "img" : "span");
  if (row.status === "done") {
    place.loading = "lazy";
    place.alt = "";
    place.onerror = () => { place.style.visibility = "hidden"; };
    place.src = address("thumbnails", row, ".png");
  } else place.className = "blank";
  return place;
}

const address = (room, row, suffix) => `${room}/${row.scan.split("/").map(encodeURIComponent).join("/")}${suffix}`;

function head() {
  for (const [name, title, kind] of COLUMNS) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = title;
    button.dataset.column = name;
    if (kind === "number") button.className = "number";
    if (name) {
      button.onclick = () => {
        order = { key: name, down: order.key === name ? !order.down : false };
        arrows();
        update();
      };
    }
    byId("head").append(button);
  }
  arrows();
}

function arrows() {
  for (const button of byId("head").children) {
    if (button.dataset.column === order.key) button.setAttribute("aria-sort", order.down ? "descending" : "ascending");
    else button.removeAttribute("aria-sort");
  }
}

function plots() {
  for (const [name, title] of PLOTS) {
    const values = rows.map((row) => row[name]).filter((value) => typeof value === "number");
    if (!values.length) continue;
    let low = Infinity;
    let high = -Infinity;
    for (const value of values) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    const step = (high - low) / BINS || 1;
    const counts = new Array(BINS).fill(0);
    for (const value of values) counts[Math.min(BINS - 1, Math.floor((value - low) / step))] += 1;
    byId("plots").append(plot(name, title, { low, high, step, counts, median: values.sort((a, b) => a - b)[values.length >> 1] }));
  }
}

function plot(name, title, { low, high, step, counts, median }) {
  const figure = document.createElement("figure");
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", `0 0 ${BINS} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Distribution: ${title}`);
  const most = Math.max(...counts);
  counts.forEach((count, n) => {
    const bar = document.createElementNS(space, "rect");
    const height = count ? Math.max(3, (100 * count) / most) : 0;
    const from = low + n * step;
    const to = n === BINS - 1 ? Infinity : from + step;
    for (const [key, value] of Object.entries({ x: n + 0.06, y: 100 - height, width: 0.88, height })) bar.setAttribute(key, value);
    const words = document.createElementNS(space, "title");
    words.textContent = `${digits(from, name)} to ${digits(Math.min(to, high), name)}: ${count}`;
    bar.append(words);
    bar.onclick = () => {
      const on = bar.classList.contains("on");
      svg.querySelectorAll(".on").forEach((other) => other.classList.remove("on"));
      delete ranges[name];
      if (!on) {
        ranges[name] = [from, to];
        bar.classList.add("on");
      }
      update();
    };
    svg.append(bar);
  });
  const caption = document.createElement("figcaption");
  caption.append(title, document.createElement("span"));
  caption.lastChild.textContent = `median ${digits(median, name)}`;
  const ends = document.createElement("div");
  ends.className = "ends";
  ends.append(document.createElement("span"), document.createElement("span"));
  ends.firstChild.textContent = digits(low, name);
  ends.lastChild.textContent = digits(high, name);
  figure.append(caption, svg, ends);
  return figure;
}

function open(n) {
  if (n < 0 || n >= shown.length) return;
  at = n;
  const row = shown[n];
  const dialog = byId("open");
  if (!dialog.open) dialog.showModal();
  byId("name").textContent = row.scan;
  row.range = row.first_slice === null ? "none" : `${row.first_slice} to ${row.last_slice} of ${row.slices}`;
  byId("facts").replaceChildren(...Object.entries(WORDS).filter(([name]) => digits(row[name], name) !== "").map(([name, word]) => {
    const line = document.createElement("tr");
    const header = document.createElement("th");
    const value = document.createElement("td");
    header.textContent = word;
    value.textContent = digits(row[name], name);
    line.append(header, value);
    return line;
  }));
  marked();
  if (row.status === "done" && cohort.viewer) {
    viewer ||= new ScanViewer(byId("viewer"));
    viewer.show(row.scan, address("viewer", row, ".js"), row.review ? row.review.split(";").map(Number) : []);
  } else {
    viewer = null;
    byId("viewer").replaceChildren(...(row.status === "done" ? [thumbnail(row), hint()] : []));
  }
  const scroll = byId("scroll");
  if (n * ROW < scroll.scrollTop || (n + 1) * ROW > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = (n - 2) * ROW;
  draw();
}

function hint() {
  const note = document.createElement("p");
  note.className = "note";
  note.textContent = "The mask alone, seen along three axes. To look at it on the CT, run sammix cohort with --viewer.";
  return note;
}

function marked() {
  byId("accept").classList.toggle("on", shown[at].mark === "accept");
  byId("needs-work").classList.toggle("on", shown[at].mark === "needs work");
}

function mark(word) {
  const row = shown[at];
  row.mark = row.mark === word ? "" : word;
  if (row.mark) marks[row.scan] = row.mark;
  else delete marks[row.scan];
  try {
    localStorage.setItem(shelf, JSON.stringify(marks));
  } catch (error) {
    // the marks stay until the page is closed, and the download has them
  }
  marked();
  draw();
}

function marksAsCsv() {
  const quoted = (value) => `"${String(value ?? "").replaceAll('"', '""')}"`;
  const lines = rows.filter((row) => row.mark).map((row) => [row.scan, row.mark, row.to_review, row.review].map(quoted).join(","));
  return ["scan,mark,to_review,review", ...lines].join("\r\n") + "\r\n";
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([marksAsCsv()], { type: "text/csv" }));
  link.download = "marks.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function clear() {
  byId("filters").reset();
  ranges = {};
  document.querySelectorAll("#plots .on").forEach((bar) => bar.classList.remove("on"));
  update();
}

document.addEventListener("keydown", (event) => {
  if (!byId("open").open || event.ctrlKey || event.metaKey || event.altKey) return;
  const keys = {
    j: () => open(at + 1), k: () => open(at - 1), ArrowRight: () => open(at + 1), ArrowLeft: () => open(at - 1),
    a: () => mark("accept"), w: () => mark("needs work"), r: () => viewer?.nextReview(),
  };
  if (keys[event.key]) {
    event.preventDefault();
    keys[event.key]();
  }
});
byId("summary").textContent = cohort.summary;
byId("scroll").addEventListener("scroll", () => requestAnimationFrame(draw));
window.addEventListener("resize", draw);
for (const id of ["search", "status", "marked", "warned", "doubtful"]) byId(id).addEventListener("input", update);
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("clear").onclick = clear;
byId("download").onclick = download;
byId("accept").onclick = () => mark("accept");
byId("needs-work").onclick = () => mark("needs work");
byId("close").onclick = () => byId("open").close();
head();
plots();
update();
