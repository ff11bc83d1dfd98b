// The book's moving parts. Nothing is fetched: data lie in the pages.
"use strict";

const make = (name, attributes = {}, ...children) => {
  const node = ["svg", "g", "path", "line", "text", "title", "circle"].includes(name)
    ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
};

// ---- tables that sort by a click on their headings
function sortableTable(table) {
  const key = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = make("button", { type: "button" }, head.textContent);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows];
      const value = (row) => { const text = key(row, column); return text !== "" && !isNaN(text) ? Number(text) : text; };
      rows.sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        return (up ? 1 : -1) * (typeof x === "number" && typeof y === "number" ? x - y : compare(String(x), String(y)));
      });
      table.tBodies[0].append(...rows);
    });
  });
}

// ---- tables as cards, on phones and where a table is many times too wide: each cell is told its heading, each line whose it is where that stands in a line above
function headings(table) {  // the words above each column, those that span several included
  const names = [], until = [];
  [...table.tHead.rows].forEach((row, line) => {
    let column = 0;
    for (const cell of row.cells) {
      while (until[column] > line) column++;
      const words = cell.textContent.replace(/\u00a0/g, " ").trim();
      for (let span = 0; span < cell.colSpan; span++, column++) {
        (names[column] ??= []).push(words);
        until[column] = line + cell.rowSpan;
      }
    }
  });
  return names.map((words) => [...new Set(words.filter(Boolean))].join(", "));
}

const PHONE = matchMedia("(max-width: 46rem)");

function cards(table) {
  if (!table.tHead?.rows.length || !table.tBodies.length) return;
  const names = headings(table), above = [];
  for (const head of table.querySelectorAll("thead th")) if (!head.childElementCount) head.replaceChildren(...head.textContent.split(/(?<=_)/).flatMap((part) => [part, make("wbr")]));
  if (names.length < 3) return;
  const decide = () => {
    table.classList.remove("cards");
    table.classList.toggle("cards", PHONE.matches || table.scrollWidth > 3 * table.parentElement.clientWidth);
  };
  decide();
  PHONE.addEventListener("change", decide);
  table.setAttribute("role", "table");  // a card is a line of a table still
  for (const row of table.tBodies[0].rows) {
    row.setAttribute("role", "row");
    let column = 0;
    const inherit = () => {
      for (; above[column]?.left > 0; column++) {
        above[column].left--;
        if (column === 0) row.dataset.of = above[0].words;
      }
    };
    for (const cell of row.cells) {
      inherit();
      const words = cell.textContent.replace(/\u00a0/g, " ").trim(), head = cell.tagName === "TH";
      cell.setAttribute("role", head ? "rowheader" : "cell");
      if (!head || column > 0) cell.dataset.label = names[column] ?? "";
      cell.classList.toggle("empty", ["", "\u2013"].includes(words) && !cell.querySelector("img, input"));
      if (cell.rowSpan > 1) above[column] = { left: cell.rowSpan - 1, words };
      column += cell.colSpan;
    }
  }
}

// ---- pictures that a click, or Enter, shows as large as they are drawn, or twice that where they stay sharp
const LARGER = 1.35;  // drawings, where there is room

function zoomable(image) {
  if (image.closest("a, button, .play, dialog")) return;
  const drawing = image.src.endsWith(".svg"), widen = () => { image.style.width = `${LARGER * image.naturalWidth}px`; };
  if (drawing && image.complete) widen();
  else if (drawing) image.addEventListener("load", widen);
  const button = make("button", { type: "button", class: "zoom", "aria-label": `Enlarge: ${image.alt}` });
  image.replaceWith(button);
  button.append(image);
  button.addEventListener("click", () => {
    const large = make("img", { src: image.src, alt: image.alt }), sharp = drawing && !PHONE.matches ? 2 : 1.25;
    large.style.width = `${Math.max(image.naturalWidth * sharp, 1.5 * image.clientWidth)}px`;
    const close = make("button", { type: "button" }, "Close"), dialog = make("dialog", { class: "zoomed", "aria-label": image.alt }, make("div", { tabindex: 0 }, large), close);
    large.addEventListener("click", () => large.classList.toggle("fit"));
    close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => { dialog.remove(); button.focus(); });
    document.body.append(dialog);
    dialog.showModal();
    close.focus();
  });
}

// ---- the ledger's filter: words as they begin in a line, not in what is folded away there
function filter(box) {
  const rows = [...box.parentElement.querySelectorAll("table.ledger tbody tr")], [input, said] = [box.querySelector("input"), box.querySelector("span")];
  const texts = new Map(rows.map((row) => {
    const open = row.cloneNode(true);
    open.querySelectorAll("details").forEach((folded) => folded.remove());
    return [row, [...open.cells].map((cell) => cell.textContent).join(" ").toLowerCase()];
  }));
  box.hidden = false;
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/[\s,]+/).filter(Boolean).map((word) => ({ holds: "hold", fails: "fail" }[word] ?? word));  // two claims fail
    const begins = words.map((word) => new RegExp("(?<!\\w)" + word.replace(/[^\w]/g, "\\$&")));
    for (const row of rows) row.hidden = !begins.every((word) => word.test(texts.get(row)));
    said.textContent = words.length ? `${rows.filter((row) => !row.hidden).length} of ${rows.length}` : "";
  });
}

// ---- ranked lists: the matches of the query that is pointed at
function rankedLists(box) {
  const buttons = [...box.querySelectorAll("button")];
  const show = (chosen) => {
    for (const button of buttons) button.setAttribute("aria-pressed", button === chosen);
    for (const list of box.querySelectorAll("[data-matches]")) list.hidden = list.dataset.matches !== chosen.dataset.query;
  };
  for (const button of buttons) for (const event of ["mouseenter", "focus", "click"]) button.addEventListener(event, () => show(button));
}

// ---- attention levels
function attentionLevels(box) {
  for (const input of box.querySelectorAll("input"))
    input.addEventListener("change", () => { for (const strip of box.querySelectorAll(`img[data-level="${input.dataset.level}"]`)) strip.hidden = !input.checked; });
}

// ---- accuracy against cost
function scatter(box) {
  const { points, costs, accuracies } = JSON.parse(box.querySelector("script").textContent);
  const [dataset, metric, measure] = ["dataset", "metric", "measure"].map((name) => box.querySelector(`[data-choice="${name}"]`));
  const ours = box.querySelector('[data-choice="ours"]'), about = box.querySelector(".about");
  const options = (select, values, words = {}) => {
    const before = select.value;
    select.replaceChildren(...values.map((value) => make("option", { value }, words[value] ?? value)));
    if (values.includes(before)) select.value = before;
  };
  const distinct = (list, name) => {  // the most frequent first, so that the first choice shows most
    const counts = new Map();
    for (const point of list) counts.set(point[name], (counts.get(point[name]) ?? 0) + 1);
    return [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
  };
  const shortCost = (value, name) => name === "Params_M" ? `${value} M` : value >= 1e9 ? `${+(value / 1e9).toPrecision(3)} G` : `${+(value / 1e6).toPrecision(3)} M`;
  const describe = (point) => `${point.row}${point.group ? `, ${point.group}` : ""} (${point.table}): ${accuracies[point.metric]} ${point.accuracy} % `
    + (point.whose === "ours" ? (point.data ? `on ${point.data}, our stand-in, ${point.n} seed${point.n > 1 ? "s" : ""}, a narrower network` : "ours") : "as printed")
    + `; ${costs[point.measure]} ${shortCost(point.cost, point.measure)}${point.convention ? ` (${point.convention})` : ""}`;

  function marks(chosen, [width, height, left, bottom]) {
    const xs = chosen.map((point) => Math.log10(point.cost)), ys = chosen.map((point) => point.accuracy);
    const [x0, x1] = [Math.min(...xs) - 0.1, Math.max(...xs) + 0.1], [y0, y1] = [Math.max(0, Math.min(...ys) - 3), Math.min(100, Math.max(...ys) + 3)];
    const x = (value) => left + (Math.log10(value) - x0) / (x1 - x0) * (width - left - 15), y = (value) => height - bottom - (value - y0) / (y1 - y0) * (height - bottom - 15);
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${chosen.length} models: ${accuracies[metric.value]} on ${dataset.value} against ${costs[measure.value]}` });
    const step = [1, 2, 5, 10, 20].find((size) => (y1 - y0) / size <= 8);
    for (let value = Math.ceil(y0 / step) * step; value <= y1; value += step)
      svg.append(make("line", { class: "grid", x1: left, x2: width - 15, y1: y(value), y2: y(value) }), make("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, value));
    const factors = (x1 - x0) * 500 < width ? [1, 2, 5] : (x1 - x0) * 130 < width ? [1, 3] : [1];  // as many marks as there is room for
    for (let power = Math.floor(x0); power <= x1; power++) for (const factor of factors) {
      const value = factor * 10 ** power;
      if (Math.log10(value) < x0 || Math.log10(value) > x1) continue;
      svg.append(make("line", { class: "grid", x1: x(value), x2: x(value), y1: 15, y2: height - bottom }),
        make("text", { x: x(value), y: height - bottom + 18, "text-anchor": "middle" }, shortCost(value, measure.value)));
    }
    svg.append(make("text", { x: left, y: 11 }, `${accuracies[metric.value]}, %${metric.value.startsWith("Error") ? " (lower is better)" : ""}`),
      make("text", { x: width - 15, y: height - 6, "text-anchor": "end" }, `${costs[measure.value]}, logarithmic`));
    const ring = make("circle", { class: "ring", r: 10 }), placed = [];
    const tell = (chosen) => {  // of marks that lie on one another only the last can be pointed at, so all are told
      const near = placed.filter((other) => other !== chosen && Math.hypot(other.cx - chosen.cx, other.cy - chosen.cy) < 8);
      ring.setAttribute("cx", chosen.cx); ring.setAttribute("cy", chosen.cy); ring.classList.add("shown");
      about.replaceChildren(...[chosen, ...near].map(({ point }, place) => make("span", {}, (place ? "There as well: " : "") + describe(point))));
    };
    const order = ["printed", "ours", "method"];
    for (const point of [...chosen].sort((a, b) => order.indexOf(a.whose) - order.indexOf(b.whose))) {
      const [cx, cy] = [x(point.cost), y(point.accuracy)];
      const common = { class: `mark ${point.whose}`, tabindex: 0, role: "img", "aria-label": describe(point) };
      const mark = point.whose === "ours" ? make("path", { ...common, d: `M${cx - 7} ${cy}L${cx} ${cy - 7}L${cx + 7} ${cy}L${cx} ${cy + 7}Z` }) : make("circle", { ...common, cx, cy, r: 5.5 });
      const here = { point, cx, cy };
      placed.push(here);
      mark.addEventListener("focus", () => tell(here));
      svg.append(mark);
    }
    svg.addEventListener("pointermove", (event) => {
      const { x: px, y: py } = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const away = ({ cx, cy }) => Math.hypot(cx - px, cy - py), nearest = placed.reduce((a, b) => (away(b) < away(a) ? b : a));
      if (away(nearest) < 14) tell(nearest);
    });
    svg.append(ring);
    return svg;
  }

  function draw() {
    options(metric, distinct(points.filter((point) => point.dataset === dataset.value), "metric"), accuracies);
    options(measure, distinct(points.filter((point) => point.dataset === dataset.value && point.metric === metric.value), "measure"), costs);
    const chosen = points.filter((point) => point.dataset === dataset.value && point.metric === metric.value && point.measure === measure.value
      && (ours.checked || !(point.whose === "ours" && point.data)));
    box.querySelector(".plot").replaceChildren(marks(chosen, box.clientWidth < 500 ? [420, 380, 40, 45] : [820, 470, 45, 45]));
    const counts = ["printed", "method", "ours"].map((kind) => chosen.filter((point) => point.whose === kind).length);
    about.textContent = `\u25cb ${counts[0]} printed rivals, \u25cf ${counts[1]} of the papers' own methods, \u25c6 ${counts[2]} of ours. Point at one to read it.`;
    const heads = ["model", "group", "printed in", "whose", `${accuracies[metric.value]}, %`, "cost", "counted as"];
    const cells = (point) => [point.row, point.group, point.table, point.whose === "ours" ? `ours${point.data ? ` on ${point.data}` : ""}` : point.whose === "method" ? "the paper's own" : "rival",
      point.accuracy, shortCost(point.cost, point.measure), point.convention];
    box.querySelector(".points").replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...chosen.map((point) => make("tr", {}, ...cells(point).map((text) => make("td", {}, String(text))))))));
  }
  options(dataset, distinct(points, "dataset"));
  for (const input of [dataset, metric, measure, ours]) input.addEventListener("change", draw);
  draw();
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("table.sortable, .cell_output table").forEach(cards);
  document.querySelectorAll("table.sortable").forEach(sortableTable);
  document.querySelectorAll(".cell_output img, figure img").forEach(zoomable);
  document.querySelectorAll(".filter").forEach(filter);
  document.querySelectorAll(".ranked").forEach(rankedLists);
  document.querySelectorAll(".levels").forEach(attentionLevels);
  document.querySelectorAll(".scatter").forEach(scatter);
  for (const wide of document.querySelectorAll(".cell_output, div.highlight pre, .table-wrapper, div.math-wrapper, div.math"))  // what scrolls can be reached by keyboard
    if (wide.scrollWidth > wide.clientWidth) wide.tabIndex = 0;
});
