// The request that the forms say, and the problems of its fields shown where they were typed.

import { at } from "./dom.js";
import { next, withOffset } from "./moment.js";

// Of a field in the API its control here, where that is not of the same name.
const CONTROLS = {
  user_id: "user", "place.lat": "lat", "place.lon": "lon", place: "lat",
  "diversity.max_per_group": "max_per_group", "diversity.strength": "diversity",
  "rotation.strength": "rotation", "exploration.share": "exploration",
};
const NOTES = { lat: "place", lon: "place", max_per_group: "diversity" };
const CHECKED = ["user", "k", "lat", "lon", "query", "query_weight", "candidates", "exclude_seen",
  "filter", "diversity", "max_per_group", "rotation", "exploration"];

export class Unreadable extends Error {
  constructor(control, message) {
    super(message);
    this.control = control;
  }
}

/** Return the body of POST /v1/recommendations; raises Unreadable for what no request can say. */
export function requestBody(state) {
  const body = { user_id: at("user").value, k: whole("k"), now: withOffset(momentOf(state)) };
  const place = placeOf();
  if (place) { body.place = place; }
  const seen = at("exclude_seen").value;
  if (seen) { body.exclude_seen = ["none", "all"].includes(seen) ? seen : [seen]; }
  const candidates = at("candidates").value.split("\n").map((line) => line.trim()).filter(Boolean);
  if (candidates.length) { body.candidates = candidates; }
  const filter = filterOf();
  if (filter !== undefined) { body.filter = filter; }
  addWords(body, state);
  addVariety(body);
  if (state.explain) { body.explain = true; }
  if (state.explain && state.attention) { body.attention = true; }
  return body;
}

export const momentOf = (state) =>
  state.isLive ? new Date() : next(Number(at("weekday").value), Number(at("hour").value));

/** Return the place that was said, or null; half of one is refused here. */
export function placeOf() {
  const [lat, lon] = [at("lat").value, at("lon").value];
  if (!lat && !lon) { return null; }
  if (!lat || !lon) { throw new Unreadable(lat ? "lon" : "lat", "A place has both numbers."); }
  return { lat: Number(lat), lon: Number(lon) };
}

function whole(id) {
  const number = Number(at(id).value);
  if (!at(id).value || !Number.isInteger(number)) { throw new Unreadable(id, "must be whole"); }
  return number;
}

function filterOf() {
  const text = at("filter").value.trim();
  if (!text) { return undefined; }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Unreadable("filter", "This is no JSON yet: " + error.message);
  }
}

function addWords(body, state) {
  const words = at("query").value.trim();
  if (!words || !state.about.reads_texts) { return; }
  body.query = words;
  body.query_weight = Number(at("query_weight").value);
}

function addVariety(body) {
  const [strength, share] = [Number(at("diversity").value), Number(at("exploration").value)];
  const rotation = Number(at("rotation").value);
  if (strength || at("max_per_group").value) {
    body.diversity = { strength };
    if (at("max_per_group").value) { body.diversity.max_per_group = whole("max_per_group"); }
  }
  if (rotation) { body.rotation = { strength: rotation }; }
  if (share) { body.exploration = { share }; }
}

/** Take away what was said of fields before. */
export function clearProblems() {
  for (const id of CHECKED) { at(id).removeAttribute("aria-invalid"); }
  for (const note of document.querySelectorAll(".note.error:not(#key-note)")) { note.textContent = ""; }
}

/** Show an error at its field; return whether it has one here. */
export function showAtField(error) {
  if (error instanceof Unreadable) { return mark(error.control, error.message); }
  let shown = false;
  for (const { field, fix } of error.errors || []) {
    shown = mark(controlOf(field), field + " " + fix) || shown;
  }
  return shown;
}

function controlOf(field) {
  const parts = field.split(".");
  for (let length = parts.length; length; length -= 1) {
    const name = parts.slice(0, length).join(".");
    if (CONTROLS[name] || CHECKED.includes(name)) { return CONTROLS[name] || name; }
  }
  return null;
}

function mark(id, text) {
  const note = id && at((NOTES[id] || id) + "-error");
  if (!note) { return false; }
  at(id).setAttribute("aria-invalid", "true");
  note.textContent = text;
  const panel = note.closest("details");
  if (panel) { panel.open = true; }
  return true;
}

/** Return the request as a line for a shell; a key is named, not told. */
export function curlLine(body, hasKey) {
  const quoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";
  const url = new URL("v1/recommendations", location.href).href;
  const key = hasKey ? ' -H "Authorization: Bearer $SOJOURN_KEY"' : "";
  return "curl -s " + quoted(url) + " -H 'Content-Type: application/json'" + key +
    " -d " + quoted(JSON.stringify(body));
}
