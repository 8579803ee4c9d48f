// The list, what moved in it since it was last shown, and why an item is there.

import { at, draw, make, signed } from "./dom.js";

// Where there is no explanation: what docs/api.md says of each source.
const SOURCES = {
  model: "chosen by the model for this history and time",
  repeat: "one of the user's own items",
  nearby: "popular within 5 km of the place",
  explore: "drawn by exploration",
  popular: "popular with everybody",
  similar: "like the chosen item",
  new: "new: placed by its text or categories",
};

export const nameOf = (item) => item.title || item.item_id;

/** Return how each item moved, and what is gone; null for the first list of a user. */
export function movesOf(before, items) {
  if (!before) { return null; }
  const old = new Map(before.map((item) => [item.item_id, item.rank]));
  const moves = new Map();
  for (const item of items) {
    const rank = old.get(item.item_id);
    moves.set(item.item_id, rank === undefined ? "new" : rank - item.rank);
  }
  const gone = before.filter((item) => !moves.has(item.item_id));
  const count = (test) => [...moves.values()].filter(test).length;
  return {
    moves,
    gone,
    up: count((move) => move > 0),
    down: count((move) => move < 0),
    new: count((move) => move === "new"),
  };
}

/** Say in words what moved. */
export function movesText(moved) {
  const parts = [["up", moved.up], ["down", moved.down], ["new", moved.new], ["gone", moved.gone.length]];
  const said = parts.filter(([, number]) => number).map(([name, number]) => number + " " + name);
  return said.length ? said.join(", ") + "." : "Nothing moved.";
}

/** Show a list; `actions` are what the buttons of an item do. */
export function showList(answer, moved, actions, selected) {
  const tops = topsOf();
  // One measure for all strips: what hardly counted is faint, however little else there was.
  const most = Math.max(...answer.items.flatMap((item) => (item.explanation ? item.explanation.events.map(Math.abs) : [])), 1e-9);
  const rows = answer.items.map((item) => row(item, moved, { ...answer, most }, actions, selected));
  at("list").replaceChildren(...rows);
  glide(tops);
  const gone = moved ? moved.gone.map((item) => nameOf(item) + " (was " + item.rank + ")") : [];
  at("gone").textContent = gone.length ? "Gone: " + gone.join("; ") : "";
  at("source").hidden = !answer.source;
  at("source").textContent = answer.source || "";
}

function row(item, moved, answer, actions, selected) {
  const name = nameOf(item);
  const button = (text, label, act, className) =>
    make("button", { type: "button", className, onclick: () => act(item), aria: { label } }, text);
  const why = button("Why", "Why " + name, actions.why, "small");
  why.setAttribute("aria-pressed", String(item.item_id === selected));
  return make("li", { data: { item: item.item_id } },
    make("span", { className: "rank" }, String(item.rank)),
    make("div", { className: "name" },
      make("strong", {}, name),
      make("span", { className: "about" }, item.title ? item.item_id : ""),
      make("span", { className: "reason" }, reasonOf(item))),
    moveMark(moved && moved.moves.get(item.item_id)),
    answer.explanation && item.explanation ? strip(item.explanation.events, "strip mini", null, answer.most) : null,
    make("div", { className: "buttons" },
      button("+ " + at("type").value, "Post " + at("type").value + " of " + name, actions.post, "primary small post"),
      why,
      button("Similar", "Items similar to " + name, actions.similar, "small")));
}

/** Say of the items in the list what kind they are, once that is known. */
export function showKinds(cards) {
  for (const line of at("list").children) {
    const card = cards.get(line.dataset.item);
    const parts = card ? [card.title ? card.item_id : "", card.categories.join(", ")] : [];
    if (card) { line.querySelector(".about").textContent = parts.filter(Boolean).join(" · "); }
  }
}

/** Return why an item is there, in a sentence. */
export function reasonOf(item) {
  if (item.reason) { return item.reason; }
  const [first] = item.explanation ? item.explanation.because : [];
  return first ? "because of " + (first.title || first.item_id) : SOURCES[item.source] || item.source;
}

function moveMark(move) {
  if (!move) { return make("span", { className: "move" }); }
  const isNew = move === "new";
  const text = isNew ? "new" : (move > 0 ? "▲ " : "▼ ") + Math.abs(move);
  const label = isNew ? "new" : (move > 0 ? "up " : "down ") + Math.abs(move);
  const kind = isNew ? "is-new" : move > 0 ? "is-up" : "is-down";
  return make("span", { className: "move " + kind },
    make("span", { aria: { hidden: "true" } }, text), make("span", { className: "unseen" }, label));
}

/** Return a strip of what each event of the history gave, oldest first; `most` is full colour. */
export function strip(events, className, names = null, most = Math.max(...events.map(Math.abs), 1e-9)) {
  const cells = events.map((value, place) => {
    const weight = (Math.abs(value) / most).toFixed(3);
    const named = names ? { title: names[place] + ": " + signed(value) } : {};
    return draw("rect", { x: place, y: 0, width: 0.9, height: 1, class: value < 0 ? "against" : "for",
      "fill-opacity": Math.max(0.12, weight), ...named });
  });
  const label = names ? { role: "img", "aria-label": labelOf(events, names) } : { "aria-hidden": "true" };
  return draw("svg", { class: className, viewBox: "0 0 " + events.length + " 1",
    preserveAspectRatio: "none", ...label }, ...cells);
}

function labelOf(events, names) {
  const best = events.map((value, place) => [value, names[place]])
    .sort(([one], [other]) => Math.abs(other) - Math.abs(one)).slice(0, 3);
  return "What each event gave, oldest first; most: " +
    best.map(([value, name]) => name + " " + signed(value)).join(", ");
}

function topsOf() {
  const lines = [...at("list").children];
  return new Map(lines.map((line) => [line.dataset.item, line.getBoundingClientRect().top]));
}

/** Let items glide from where they were, unless the reader wants less motion. */
function glide(tops) {
  if (!tops.size || matchMedia("(prefers-reduced-motion: reduce)").matches) { return; }
  for (const line of at("list").children) {
    const old = tops.get(line.dataset.item);
    const by = old === undefined ? 0 : old - line.getBoundingClientRect().top;
    const from = old === undefined ? { opacity: 0 } : { transform: "translateY(" + by + "px)" };
    if (old === undefined || by) { line.animate([from, {}], { duration: 300, easing: "ease-out" }); }
  }
}
