"use strict";

// Charts are drawn when they come near the window, so that a page with hundreds of them opens at once.
async function unpackLibrary() {
  const packed = document.getElementById("library").textContent;
  if (!packed) return;
  const bytes = Uint8Array.from(atob(packed), (sign) => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

function draw(chart) {
  const data = chart.querySelector("script");
  if (!data) return;
  const figure = JSON.parse(data.textContent);
  data.remove();
  const options = {
    responsive: true,
    displaylogo: false,
    displayModeBar: !chart.closest(".grid"),
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    toImageButtonOptions: { format: "svg" },
  };
  Plotly.newPlot(chart.querySelector(".plot"), figure.data, figure.layout, options);
}

unpackLibrary().then(() => {
  const charts = document.querySelectorAll(".chart");
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        watcher.unobserve(entry.target);
        draw(entry.target);
      }
    },
    { rootMargin: "800px" },
  );
  charts.forEach((chart) => watcher.observe(chart));
  window.addEventListener("beforeprint", () => charts.forEach(draw));
  document.documentElement.dataset.ready = "true";
});

// A click on a header sorts; a second one turns the order round.
function key(row, column) {
  const text = row.cells[column].textContent;
  const value = Number(text.replaceAll(",", ""));
  return text === "" || Number.isNaN(value) ? text : value;
}

function compare(a, b) {
  if (a === "" || b === "") return (a === "") - (b === "");
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
}

for (const table of document.querySelectorAll("table")) {
  table.tHead.addEventListener("click", (event) => {
    const column = event.target.cellIndex;
    const down = event.target.ariaSort === "ascending";
    for (const header of table.tHead.rows[0].cells) header.ariaSort = null;
    event.target.ariaSort = down ? "descending" : "ascending";
    const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
    rows.sort(([a], [b]) => (down ? compare(b, a) : compare(a, b)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  });
}

for (const box of document.querySelectorAll("details input")) {
  const folded = box.closest("details");
  const rows = [...folded.querySelector("tbody").rows];
  const count = () => {
    const shown = rows.filter((row) => !row.hidden).length;
    folded.querySelector("output").textContent = `${shown} of ${rows.length} rows`;
  };
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    count();
  });
  count();
}
