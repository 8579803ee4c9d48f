// The history on a time line, which can be of minutes or of months.

import { at, draw, make, onWidth } from "./dom.js";
import { local } from "./moment.js";

const HOURS_PX = 128;
const LANE_PX = 24;
const MOST_LANES = 6;
const BOTTOM = 26;
const MINUTE_MS = 60000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
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

/** Draw events by how long ago each was of the one before, and by what tells them apart. */
function line(points, width) {
  const lanes = lanesOf(points);
  const x = placesOf(points, lanes.left, width - lanes.left - 10);
  const path = points.map((point, at_) => (at_ ? "L" : "M") + x[at_] + " " + lanes.y(point)).join("");
  const dots = points.map((point, at_) => draw("circle", { class: at_ === points.length - 1 ? "dot last" : "dot",
    cx: x[at_], cy: lanes.y(point), r: points.length > 60 ? 3 : 4.5, title: point.text + ", " + point.event_type + ": " + point.name }));
  const label = points.length + " events by " + lanes.by + ", oldest first, from " + points[0].text + " to " + points.at(-1).text;
  return make("div", {}, draw("svg", { class: "timeline", viewBox: "0 0 " + width + " " + lanes.height, role: "img", "aria-label": label },
    ...lanes.marks.flatMap(([y, text]) => [draw("line", { class: "rule", x1: lanes.left - 4, x2: width, y1: y, y2: y }),
      draw("text", { class: "tick", x: lanes.left - 9, y: y + 4, "text-anchor": "end" }, text)]),
    draw("path", { class: "way", d: path }), ...dots, ...times(points, x, width, lanes)),
    make("p", { className: "note" }, "By " + lanes.by + "; the longer the time between two events, the wider the gap, by its logarithm."));
}

const timeOf = (point) => Date.parse(point.timestamp);
const spanOf = (points) => timeOf(points.at(-1)) - timeOf(points[0]);

/** Return the rows: the hour of day if there are days; within one, what kinds the items are of. */
function lanesOf(points) {
  if (spanOf(points) >= DAY_MS) {
    const height = (hour) => 8 + (HOURS_PX - 8) * hour / 24;
    return { by: "hour of day", left: 34, height: HOURS_PX + BOTTOM, marks: [0, 6, 12, 18, 24].map((hour) => [height(hour), hour + "h"]),
      y: (point) => height(point.hour + point.minute / 60) };
  }
  const [by, of] = [["kind of item", (point) => point.kind], ["type of event", (point) => point.event_type]]
    .find(([, of_]) => new Set(points.map(of_)).size <= MOST_LANES && points.every(of_)) || ["time", () => ""];
  const names = [...new Set(points.map(of))];
  const y = (name) => 14 + LANE_PX * names.indexOf(name);
  const short = (name) => (name.length > 15 ? name.slice(0, 14) + "…" : name);
  const longest = Math.max(...names.map((name) => short(name).length));
  return { by, left: 20 + Math.ceil(longest * 6.2), height: 14 + LANE_PX * names.length + BOTTOM - 10,
    marks: names.map((name) => [y(name), short(name)]), y: (point) => y(of(point)) };
}

/** Return where events are: between two at least as much as a dot needs, more for a longer time. */
function placesOf(points, left, room) {
  const steps = points.map((point, at_) => (at_ ? 1 + Math.log2(1 + Math.max(0, timeOf(point) - timeOf(points[at_ - 1])) / MINUTE_MS) : 0));
  let sum = 0;
  const sums = steps.map((step) => (sum += step));
  return sums.map((reached) => left + 6 + (room - 12) * (sum ? reached / sum : 0.5));
}

/** Return the times under the line, as many as there is room for: dates, and clocks within a day. */
function times(points, x, width, { left, height }) {
  const span = spanOf(points);
  const isDays = span >= DAY_MS;
  const textOf = (point) => isDays ? point.date : point.timestamp.slice(11, span < HOUR_MS / 6 ? 19 : 16);
  let free = left - 30;
  let before = "";
  return points.flatMap((point, at_) => {
    const text = textOf(point);
    const half = text.length * 3.1;
    const middle = Math.min(width - half, Math.max(left + half - 4, x[at_]));
    if (text === before || middle - half < free) { return []; }
    [free, before] = [middle + half + 12, text];
    return [draw("text", { class: "tick", x: middle, y: height - 6, "text-anchor": "middle" }, text)];
  });
}
