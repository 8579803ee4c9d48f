// The history on a time line: events in their order, by the hour of the user's day.

import { at, draw, make, onWidth } from "./dom.js";
import { local } from "./moment.js";

const HEIGHT = 150;
const LEFT = 34;
const BOTTOM = 22;
const FEW = 6;

let shown = null;

export function startHistory() {
  onWidth(at("history"), () => shown && render());
}

/** Show events, oldest first; `from` says where they are from if that is not the store. */
export function showHistory(events, cards, from = "") {
  shown = { events, cards, from };
  render();
}

/** Say why no history is shown. */
export function showNoHistory(text) {
  shown = null;
  at("history-count").textContent = "";
  at("history").replaceChildren(make("p", { className: "quiet" }, text));
}

function render() {
  const { events, cards, from } = shown;
  at("history-count").textContent = events.length === 1 ? "1 event" : events.length + " events";
  if (!events.length) {
    at("history").replaceChildren(make("p", { className: "quiet" },
      "Nothing yet. Post an event, and it is here and in the next list at once."));
    return;
  }
  const points = events.map((event) => ({ ...event, ...local(event.timestamp),
    kind: cards.get(event.item_id)?.categories.join(", ") || "",
    name: event.title || cards.get(event.item_id)?.title || event.item_id }));
  const newest = points.slice().reverse();
  const more = newest.slice(FEW);
  at("history").replaceChildren(
    ...(from ? [make("p", { className: "note" }, from)] : []),
    line(points, at("history").clientWidth),
    make("ol", { className: "events", aria: { label: "The newest events" } }, ...newest.slice(0, FEW).map(entry)),
    ...(more.length ? [make("details", {}, make("summary", {}, more.length + " older"),
      make("ol", { className: "events", aria: { label: "Older events" } }, ...more.map(entry)))] : []));
}

function entry(point) {
  const value = point.value === undefined ? "" : " " + point.value;
  return make("li", {}, make("time", { dateTime: point.timestamp }, point.text),
    make("span", { className: "tag" }, point.event_type + value), make("span", { className: "name" }, point.name), make("span", { className: "quiet" }, point.kind));
}

function line(points, width) {
  const room = width - LEFT - 10;
  const x = (place) => LEFT + (points.length > 1 ? room * place / (points.length - 1) : room / 2);
  const y = (point) => 8 + (HEIGHT - BOTTOM - 16) * (point.hour + point.minute / 60) / 24;
  const hours = [0, 6, 12, 18, 24].flatMap((hour) => {
    const height = y({ hour, minute: 0 });
    return [draw("line", { class: "rule", x1: LEFT - 4, x2: width, y1: height, y2: height }),
      draw("text", { class: "tick", x: LEFT - 8, y: height + 4, "text-anchor": "end" }, hour + "h")];
  });
  const path = points.map((point, place) => (place ? "L" : "M") + x(place) + " " + y(point)).join("");
  const dots = points.map((point, place) => draw("circle", { class: place === points.length - 1 ? "dot last" : "dot",
    cx: x(place), cy: y(point), r: points.length > 60 ? 3 : 4.5, title: point.text + ", " + point.event_type + ": " + point.name }));
  const label = points.length + " events by hour of day, oldest first, from " + points[0].text + " to " + points.at(-1).text;
  return draw("svg", { class: "timeline", viewBox: "0 0 " + width + " " + HEIGHT, role: "img", "aria-label": label },
    ...hours, draw("path", { class: "way", d: path }), ...dots, ...dates(points, x, width));
}

/** Return the dates under the line, as many as there is room for. */
function dates(points, x, width) {
  let free = 0;
  const texts = [];
  points.forEach((point, place) => {
    const isNewDay = !place || points[place - 1].date !== point.date;
    if (!isNewDay || x(place) < free || x(place) > width - 62) { return; }
    free = x(place) + 84;
    texts.push(draw("text", { class: "tick", x: x(place), y: HEIGHT - 6, "text-anchor": place ? "middle" : "start" }, point.date));
  });
  return texts;
}
