// Why an item is in the list: its shares, what each event gave, and the model's attention.

import { at, draw, make, signed } from "./dom.js";
import { nameOf, reasonOf, strip } from "./list.js";
import { local } from "./moment.js";

const SHARES = {
  base: "the item itself", history: "the history", time: "the time", place: "the place",
  repeat: "been there before", text: "the words",
};
const CELL_PX = 14;
const MOST_PX = 560;

/** Show the explanation of an item of the answer; say so where there is none. */
export function showWhy(answer, item, state) {
  at("why-body").replaceChildren(...parts(answer, item, state));
  showAttention(answer.explanation, state);
}

function parts(answer, item, state) {
  const quiet = (text) => [make("p", { className: "quiet" }, text)];
  if (!item) { return quiet("Choose “Why” at an item of the list."); }
  const title = make("p", {}, make("strong", {}, item.rank + ". " + nameOf(item)), " – " + reasonOf(item));
  if (!state.explain) {
    const fix = state.deniedExplanation || "Tick “Explain” to ask for one.";
    return [title, ...quiet("There is no explanation in this answer. " + fix)];
  }
  if (!answer.explanation) {
    const missing = answer.degraded.length ? " (degraded: " + answer.degraded.join(", ") + ")" : "";
    return [title, ...quiet("There is no explanation: the list did not come from the model, its source is " +
      answer.source + missing + ".")];
  }
  if (!item.explanation) {
    return [title, ...quiet("There is no explanation of this item: its source is " + item.source + ".")];
  }
  return [title, ...history(answer.explanation, item.explanation), shares(item)];
}

function history(explanation, of) {
  const names = explanation.history.map((event) =>
    (event.title || event.item_id) + ", " + event.event_type + " " + local(event.timestamp).text);
  const examined = explanation.history.length;
  const left = explanation.num_events - examined;
  if (!examined) { return [make("p", { className: "quiet" }, "The history is empty.")]; }
  return [
    make("h3", {}, "What each event of the history gave"),
    strip(of.events, "strip", names),
    make("p", { className: "ends quiet" }, make("span", {}, "oldest"), make("span", {}, "newest")),
    make("p", { className: "note" }, "Score with all events minus the score without the one (" + explanation.method + ")" +
      (left > 0 ? "; the newest " + examined + " of " + explanation.num_events + " were examined." : ".")),
    make("details", {}, make("summary", {}, "As a table"), table(["Event", "Contribution"],
      names.map((name, place) => [name, signed(of.events[place], 3)]).reverse())),
  ];
}

function shares(item) {
  const values = Object.entries(item.explanation.shares);
  const most = Math.max(...values.map(([, value]) => Math.abs(value)), 1e-9);
  const sum = values.reduce((total, [, value]) => total + value, 0);
  const rows = values.map(([name, value]) => make("tr", { className: value ? "" : "quiet" },
    make("th", { scope: "row" }, SHARES[name] || name),
    make("td", { className: "bar" }, shareBar(value / most)),
    make("td", { className: "number" }, signed(value, 3))));
  return make("div", {}, make("h3", {}, "What the score is made of"),
    make("table", { className: "shares" }, make("tbody", {}, ...rows),
      make("tfoot", {}, make("tr", {}, make("th", { scope: "row" }, "the model's score"), make("td", {}),
        make("td", { className: "number" }, signed(sum, 3))))));
}

function shareBar(part) {
  const width = Math.abs(part) * 50;
  return draw("svg", { class: "share", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    draw("line", { class: "rule", x1: 50, x2: 50, y1: 0, y2: 10 }),
    draw("rect", { class: part < 0 ? "against" : "for", x: part < 0 ? 50 - width : 50, y: 1, width, height: 8 }));
}

function table(heads, rows) {
  return make("div", { className: "scroll", tabIndex: 0, role: "region", aria: { label: heads.join(", ") } },
    make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)))),
      make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map((text) => make("td", {}, text)))))));
}

/** Show which events each event looked at; what a head looks at is no cause of the list. */
function showAttention(explanation, state) {
  const box = at("attention");
  const attention = explanation && explanation.attention;
  if (!attention) {
    const text = state.explain && state.attention ? "The answer has no attention." : "Comes with an explanation.";
    box.replaceChildren(make("p", { className: "quiet" }, text));
    return;
  }
  const chosen = Math.min(Number(box.dataset.layer || 0), attention.length - 1);
  const layer = select("Layer", attention.length, chosen, (at_) => { box.dataset.layer = at_; });
  const heads = attention[chosen].length;
  const head = select("Head", heads + 1, Math.min(Number(box.dataset.head || 0), heads), (at_) => { box.dataset.head = at_; },
    (at_) => (at_ ? String(at_) : "mean of all"));
  const matrix = Number(head.control.value) ? attention[chosen][Number(head.control.value) - 1] : meanOf(attention[chosen]);
  const names = namesOf(explanation, matrix.length);
  box.replaceChildren(make("div", { className: "pair" }, layer.field, head.field), matrixCanvas(matrix, names),
    make("p", { className: "note" }, "A row is an event that looks, a column one that is looked at; oldest first. Attention shows where the model read, not what changed the score."),
    make("h3", {}, "The newest event looks most at"), table(["Event", "Attention"], strongest(matrix.at(-1), names)));

  function select(name, count, value, keep, text = (at_) => String(at_ + 1)) {
    const control = make("select", { id: "attention-" + name.toLowerCase() },
      ...Array.from({ length: count }, (_, place) => make("option", { value: String(place) }, text(place))));
    control.value = String(value);
    control.addEventListener("change", () => {
      keep(control.value);
      showAttention(explanation, state);
      at(control.id).focus();
    });
    return { control, field: make("div", { className: "field" }, make("label", { htmlFor: control.id }, name), control) };
  }
}

const meanOf = (heads) => heads[0].map((row, y) =>
  row.map((_, x) => heads.reduce((sum, head) => sum + head[y][x], 0) / heads.length));

/** Return the names of a matrix's rows; the window may be longer than what was examined. */
function namesOf(explanation, size) {
  const known = explanation.history.map((event) => event.title || event.item_id);
  return Array.from({ length: size }, (_, place) => known[place - size + known.length] || "event " + (place + 1));
}

function strongest(row, names) {
  return row.map((value, place) => [names[place], value]).sort(([, one], [, other]) => other - one)
    .slice(0, 5).map(([name, value]) => [name, value.toFixed(3)]);
}

function matrixCanvas(matrix, names) {
  const size = matrix.length;
  const side = Math.max(1, Math.min(CELL_PX, Math.floor(MOST_PX / size)));
  const canvas = make("canvas", { className: "attention", width: size * side, height: size * side, role: "img",
    aria: { label: "Attention of " + size + " events to each other; the strongest of the newest event are in the table" } });
  const pen = canvas.getContext("2d");
  pen.fillStyle = getComputedStyle(document.body).getPropertyValue("--accent");
  const most = Math.max(...matrix.flat(), 1e-9);
  matrix.forEach((row, y) => row.forEach((value, x) => {
    // The root, because a few strong cells would leave all others white.
    pen.globalAlpha = Math.sqrt(Math.max(0, value) / most);
    pen.fillRect(x * side, y * side, Math.max(1, side - 1), Math.max(1, side - 1));
  }));
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top].map((part) => Math.floor(part / box.width * size));
    if (matrix[y] && matrix[y][x] !== undefined) { canvas.title = names[y] + " → " + names[x] + ": " + matrix[y][x].toFixed(3); }
  });
  return canvas;
}
