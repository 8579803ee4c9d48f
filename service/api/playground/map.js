// A map without tiles: the catalogue's places as points on a grid of degrees, the history, the
// list. It needs nobody else's server.

import { at, draw, make, onWidth } from "./dom.js";

const KM_PER_DEGREE = 111.195;
const MARGIN = 22;
const STEPS = [1, 2, 5];

let shown = null;
let isWhole = false;

/** `choose` is called with the place that was clicked. */
export function startMap(choose) {
  onWidth(at("map"), () => shown && render());
  at("map-view").addEventListener("click", () => {
    isWhole = !isWhole;
    at("map-view").setAttribute("aria-pressed", String(isWhole));
    render();
  });
  at("map").addEventListener("click", (event) => {
    const svg = event.target.closest("svg");
    if (!svg || !shown.scale) { return; }
    const box = svg.getBoundingClientRect();
    choose(shown.scale.place(event.clientX - box.left, event.clientY - box.top));
  });
}

/** Show places: all are [lat, lon] pairs, `visits` and `items` have `lat`, `lon`, `name`. */
export function showMap(places) {
  shown = { ...places, scale: null };
  render();
}

function render() {
  const { all, visits, items, here } = shown;
  const inList = [...visits, ...items, ...(here ? [here] : [])].map((one) => [one.lat, one.lon]);
  const isEmpty = !all.length && !inList.length;
  at("map-view").hidden = isEmpty || !inList.length;
  if (isEmpty) {
    shown.scale = null;
    at("map").replaceChildren(make("p", { className: "quiet" }, "The items have no places."));
    return;
  }
  const width = at("map").clientWidth;
  const height = Math.round(Math.min(460, Math.max(260, width * 0.62)));
  const scale = scaleOf(isWhole || !inList.length ? middleOf(all.length ? all : inList) : boundsOf(inList), width, height);
  shown.scale = scale;
  const svg = draw("svg", { class: "map", viewBox: "0 0 " + width + " " + height, role: "img", "aria-label": label() },
    ...grid(scale, width, height),
    ...all.map(([lat, lon]) => draw("circle", { class: "place", cx: scale.x(lon), cy: scale.y(lat), r: 1.6 })),
    ...visits.map((one) => draw("circle", { class: "visit", cx: scale.x(one.lon), cy: scale.y(one.lat), r: 5, title: one.name })),
    ...items.slice().reverse().map((one) => pin(one, scale)),
    ...(here ? [cross(here, scale)] : []));
  at("map").replaceChildren(svg, legend(here));
}

function pin(item, scale) {
  const [x, y] = [scale.x(item.lon), scale.y(item.lat)];
  return draw("g", { class: "pin", title: item.rank + ". " + item.name },
    draw("circle", { cx: x, cy: y, r: 10 }),
    draw("text", { x, y: y + 4, "text-anchor": "middle" }, String(item.rank)));
}

function cross(here, scale) {
  const [x, y] = [scale.x(here.lon), scale.y(here.lat)];
  return draw("path", { class: "here", title: "the request's place",
    d: "M" + (x - 11) + " " + y + "h22M" + x + " " + (y - 11) + "v22" });
}

function label() {
  return shown.items.length + " recommended and " + shown.visits.length + " visited places. " +
    "To choose the request's place without a pointer, type its latitude and longitude.";
}

function legend(here) {
  const key = (name, text) => make("span", { className: "key " + name }, text);
  return make("p", { className: "legend" }, key("pin", "recommended"), key("visit", "history"),
    key("place", "catalogue"), key("here", here ? "the request's place" : "click: a place for the request"));
}

/** Return bounds [south, west, north, east] with some room; never a point. */
function boundsOf(pairs) {
  const [lats, lons] = [pairs.map(([lat]) => lat), pairs.map(([, lon]) => lon)];
  const least = 0.008;
  return [Math.min(...lats) - least, Math.min(...lons) - least, Math.max(...lats) + least, Math.max(...lons) + least];
}

/** Return the bounds without the outermost hundredth: one place abroad would make all others a dot. */
function middleOf(pairs) {
  const cut = (values) => values.slice(Math.floor(values.length / 100), values.length - Math.floor(values.length / 100));
  const inner = (at_) => cut(pairs.map((pair) => pair[at_]).sort((one, other) => one - other));
  const [lats, lons] = [inner(0), inner(1)];
  return boundsOf([[lats[0], lons[0]], [lats.at(-1), lons.at(-1)]]);
}

function scaleOf([south, west, north, east], width, height) {
  const shrink = Math.max(0.05, Math.cos((south + north) / 2 * Math.PI / 180));
  const perDegree = Math.min((width - 2 * MARGIN) / ((east - west) * shrink), (height - 2 * MARGIN) / (north - south));
  const [midLat, midLon] = [(south + north) / 2, (west + east) / 2];
  const x = (lon) => width / 2 + (lon - midLon) * shrink * perDegree;
  const y = (lat) => height / 2 - (lat - midLat) * perDegree;
  const place = (px, py) => ({
    lat: clamp(midLat - (py - height / 2) / perDegree, 90),
    lon: clamp(midLon + (px - width / 2) / perDegree / shrink, 180),
  });
  return { x, y, place, perDegree, shrink };
}

const clamp = (value, limit) => Number(Math.min(limit, Math.max(-limit, value)).toFixed(5));

/** Return a round step, about so large. */
function roundStep(about) {
  const power = 10 ** Math.floor(Math.log10(about));
  return power * (STEPS.find((step) => step * power >= about) || 10);
}

function grid(scale, width, height) {
  const topLeft = scale.place(0, 0);
  const bottomRight = scale.place(width, height);
  const step = roundStep(90 / scale.perDegree);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const marks = [];
  for (let lon = Math.ceil(topLeft.lon / step) * step; lon < bottomRight.lon; lon += step) {
    marks.push(draw("line", { class: "rule", x1: scale.x(lon), x2: scale.x(lon), y1: 0, y2: height }));
    if (scale.x(lon) > 60) { marks.push(draw("text", { class: "tick", x: scale.x(lon) + 4, y: 13 }, lon.toFixed(digits) + "°")); }
  }
  for (let lat = Math.ceil(bottomRight.lat / step) * step; lat < topLeft.lat; lat += step) {
    marks.push(draw("line", { class: "rule", x1: 0, x2: width, y1: scale.y(lat), y2: scale.y(lat) }));
    marks.push(draw("text", { class: "tick", x: 4, y: scale.y(lat) - 4 }, lat.toFixed(digits) + "°"));
  }
  const km = roundStep(60 / scale.perDegree * KM_PER_DEGREE);
  const long = km / KM_PER_DEGREE * scale.perDegree;
  const right = width - 12;
  marks.push(draw("path", { class: "bar", d: "M" + (right - long) + " " + (height - 16) + "v6h" + long + "v-6" }),
    draw("text", { class: "tick", x: right, y: height - 20, "text-anchor": "end" }, (km < 1 ? km * 1000 + " m" : km + " km")));
  return marks;
}
