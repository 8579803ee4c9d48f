// The page: what is asked is in the forms, what was answered in `state`; the rest shows it.

import { Problem, call, item as itemPath, said, user as userPath } from "./api.js";
import { at, debounced, make } from "./dom.js";
import { showHistory, showNoHistory, startHistory } from "./history.js";
import { movesOf, movesText, nameOf, showKinds, showList } from "./list.js";
import { showMap, startMap } from "./map.js";
import { WEEKDAYS, local, weekdayOf, withOffset } from "./moment.js";
import { clearProblems, curlLine, momentOf, placeOf, requestBody, showAtField } from "./request.js";
import { showWhy } from "./why.js";

const NAMES = ["ada", "ben", "chloe", "david", "emma", "farid", "grace", "hugo", "ines", "jonas"];
const NUM_EVENTS = 100;
const NUM_CARDS = 100;

const state = {
  isLive: true, explain: false, attention: false, about: { reads_texts: false, places: [] },
  user: null, before: null, answer: null, selected: null, events: [], deniedHistory: false, deniedExplanation: "", round: 0, working: 0,
  cards: new Map(), known: new Set(),
};

function say(text, isError = false) {
  at("status").textContent = text;
  at("status").className = isError ? "error" : "";
}

/** Return a function that says, while it works, that what is shown is about to change. */
const busy = (work) => async (...given) => {
  state.working += 1;
  at("main").setAttribute("aria-busy", "true");
  try {
    return await work(...given);
  } finally {
    state.working -= 1;
    if (!state.working) { at("main").removeAttribute("aria-busy"); }
  }
};

/** Ask what is served; without it, as for want of a key, the page can do nothing else. */
async function begin() {
  try {
    state.about = await call("v1/about", "recommend");
  } catch (error) {
    say(said(error), true);
    return false;
  }
  const { name, num_items: items, model_version: version, reads_texts: readsTexts } = state.about;
  at("about").textContent = name + " · " + items.toLocaleString("en") + " items · model " + version.slice(0, 8);
  for (const id of ["query", "query_weight"]) { at(id).disabled = !readsTexts; }
  at("query-note").textContent = readsTexts ? "" : "Not available: the model that is served reads no texts.";
  at("explain").checked = state.explain = true;
  state.isReady = true;
  return true;
}

/** Ask for the list and show it, with what moved; `prefix` says what went before. */
const refresh = busy(async (prefix = "") => {
  const round = state.round += 1;
  clearProblems();
  if (!state.isReady && !await begin()) { return; }
  showTime();
  try {
    const body = requestBody(state);
    const answer = await ask(body);
    // Sliders ask faster than answers come: only the last one counts.
    if (round !== state.round) { return; }
    if (body.user_id !== state.user) { Object.assign(state, { user: body.user_id, before: null, events: [] }); }
    showAnswer(body, answer, prefix);
    await showAround(round);
  } catch (error) {
    if (round === state.round) { tell(error); }
  }
});

/** Return the answer; where the key may not see the history, without the explanation that shows it. */
async function ask(body) {
  try {
    return await call("v1/recommendations", body.explain ? "privacy" : "recommend", body);
  } catch (error) {
    if (!body.explain || !(error instanceof Problem) || error.status !== 403) { throw error; }
    state.explain = state.attention = at("explain").checked = false;
    state.deniedExplanation = error.message;
    delete body.explain;
    delete body.attention;
    return call("v1/recommendations", "recommend", body);
  }
}

function tell(error) {
  const isOurs = showAtField(error);
  if (isOurs) { say("The request is not right yet; see the marked field.", true); }
  else { say(error instanceof Problem ? said(error) : error.control ? error.control + ": " + error.message : said(error), true); }
}

function showAnswer(body, answer, prefix) {
  const moved = movesOf(state.before, answer.items);
  state.answer = answer;
  if (!answer.items.some((item) => item.item_id === state.selected)) {
    state.selected = answer.items.length ? answer.items[0].item_id : null;
  }
  showList(answer, moved, actions, state.selected);
  showKinds(state.cards);
  showWhy(answer, selectedItem(), state);
  const missing = answer.degraded.length ? " Degraded: " + answer.degraded.join(", ") + "." : "";
  say(prefix + answer.items.length + " items for " + body.user_id + ". " + (moved ? movesText(moved) : "") + missing);
  state.before = answer.items;
  at("curl").textContent = curlLine(body, Boolean(at("key").value));
  at("raw-request").textContent = JSON.stringify(body, null, 2);
  at("raw-answer").textContent = JSON.stringify(answer, null, 2);
  remember(body.user_id);
}

/** Show what the list is seen against: the history, and where things are. */
async function showAround(round) {
  const events = await readHistory();
  // Somebody else may have been asked for meanwhile.
  if (round !== state.round) { return; }
  state.events = events;
  await readCards([...state.answer.items, ...state.events].map((one) => one.item_id));
  if (round !== state.round) { return; }
  at("items").replaceChildren(...[...state.cards.values()].map((card) =>
    make("option", { value: card.item_id, label: card.title || card.item_id })));
  if (!state.deniedHistory) { showHistory(state.events, state.cards); }
  else if (state.events.length) { showHistory(state.events, state.cards, state.deniedHistory + " This is what the explanation says of it."); }
  else { showNoHistory(state.deniedHistory); }
  showKinds(state.cards);
  refreshMap();
  if (state.selected && !at("similar").children.length) { await showSimilar(state.selected); }
}

async function readHistory() {
  const explained = state.answer.explanation ? state.answer.explanation.history : [];
  if (state.deniedHistory) { return explained; }
  try {
    const page = await call(userPath(state.user) + "/events?limit=" + NUM_EVENTS, "privacy");
    return page.events.reverse();
  } catch (error) {
    if (!(error instanceof Problem) || !error.scope) { throw error; }
    state.deniedHistory = error.message;
    return explained;
  }
}

async function readCards(ids) {
  const wanted = [...new Set(ids)].filter((id) => !state.known.has(id)).slice(0, NUM_CARDS);
  if (!wanted.length) { return; }
  const query = new URLSearchParams(wanted.map((id) => ["item_id", id]));
  const { items } = await call("v1/items?" + query, "recommend");
  for (const id of wanted) { state.known.add(id); }
  for (const card of items) { state.cards.set(card.item_id, card); }
}

function refreshMap() {
  const placed = (one) => {
    const card = state.cards.get(one.item_id);
    const [lat, lon] = one.lat === undefined ? [card?.lat, card?.lon] : [one.lat, one.lon];
    const isPlaced = typeof lat === "number" && typeof lon === "number";
    return isPlaced ? [{ lat, lon, rank: one.rank, name: one.title || card?.title || one.item_id }] : [];
  };
  showMap({ all: state.about.places, visits: state.events.flatMap(placed),
    items: state.answer.items.flatMap(placed), here: placeOf() });
}

const selectedItem = () => state.answer.items.find((item) => item.item_id === state.selected);

const post = busy(async (itemId, recommendationId) => {
  const event = { user_id: at("user").value, item_id: itemId, event_type: at("type").value, timestamp: withOffset(new Date()) };
  if (event.event_type === "rating" && at("value").value) { event.value = Number(at("value").value); }
  if (recommendationId) { event.recommendation_id = recommendationId; }
  try {
    Object.assign(event, placeOf());
    const { results: [result] } = await call("v1/events", "write-events", { events: [event] });
    if (result.error) { throw new Error(result.error.field + " " + result.error.fix); }
    const name = state.cards.get(itemId)?.title || itemId;
    await refresh("After the " + event.event_type + " of " + name + ": ");
  } catch (error) {
    if (!showAtField(error)) { say(error instanceof TypeError || error instanceof Problem ? said(error) : error.message, true); }
  }
});

async function showSimilar(itemId) {
  at("similar-item").value = itemId;
  try {
    const { items } = await call(itemPath(itemId) + "/similar?k=8", "recommend");
    await readCards([itemId]);
    // Another item was chosen meanwhile.
    if (at("similar-item").value !== itemId) { return; }
    at("similar-status").textContent = items.length + " items most like " + (state.cards.get(itemId)?.title || itemId);
    at("similar").replaceChildren(...items.map((item) => make("li", {},
      make("span", { className: "rank" }, String(item.rank)), make("span", { className: "name" }, nameOf(item)),
      make("span", { className: "quiet" }, item.score.toFixed(3)),
      make("button", { type: "button", className: "small", onclick: () => post(item.item_id),
        aria: { label: "Post an event on " + nameOf(item) } }, "+ event"))));
  } catch (error) {
    at("similar").replaceChildren();
    at("similar-status").textContent = said(error);
  }
}

const actions = {
  post: (item) => post(item.item_id, state.answer.recommendation_id),
  why: (item) => {
    state.selected = item.item_id;
    for (const button of document.querySelectorAll("#list [aria-pressed]")) {
      button.setAttribute("aria-pressed", String(button.closest("li").dataset.item === item.item_id));
    }
    showWhy(state.answer, item, state);
    reveal("why-title");
  },
  similar: (item) => showSimilar(item.item_id).then(() => reveal("similar-title")),
};

function reveal(id) {
  at(id).focus({ preventScroll: true });
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  at(id).scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
}

/** Show the time of the request at the sliders; the present moves them along. */
function showTime() {
  const moment = momentOf(state);
  if (state.isLive) {
    at("weekday").value = String(weekdayOf(moment));
    at("hour").value = String(moment.getHours());
  }
  const [day, hour] = [WEEKDAYS[at("weekday").value], at("hour").value.padStart(2, "0") + ":00"];
  at("weekday-text").textContent = day;
  at("hour-text").textContent = hour;
  at("weekday").setAttribute("aria-valuetext", day);
  at("hour").setAttribute("aria-valuetext", hour);
  at("live").setAttribute("aria-pressed", String(state.isLive));
  at("time-note").textContent = state.isLive ? "The list is for this moment."
    : "The list is for " + local(withOffset(moment)).text + ", the next such hour.";
  at("no-place").disabled = !at("lat").value && !at("lon").value;
}

function remember(user) {
  const options = [...at("users").children].map((option) => option.value);
  if (!options.includes(user)) { at("users").append(make("option", { value: user })); }
}

function showNumbers() {
  for (const id of ["query_weight", "diversity", "rotation", "exploration"]) {
    const text = Number(at(id).value) ? at(id).value : "off";
    at(id + "-text").textContent = text;
    at(id).setAttribute("aria-valuetext", text);
  }
}

function listen(id, name, act) { at(id).addEventListener(name, act); }

function start() {
  const soon = debounced(() => refresh());
  const later = debounced(() => refresh(), 500);
  listen("user-form", "submit", (event) => { event.preventDefault(); refresh(); });
  listen("event-form", "submit", (event) => { event.preventDefault(); post(at("item").value); });
  listen("similar-form", "submit", (event) => { event.preventDefault(); showSimilar(at("similar-item").value); });
  listen("key", "change", () => { state.isReady = false; state.deniedHistory = false; state.deniedExplanation = ""; at("key-note").textContent = ""; refresh(); });
  listen("invent", "click", () => {
    at("user").value = NAMES[Math.floor(Math.random() * NAMES.length)] + "-" + Math.floor(100 + Math.random() * 900);
    refresh();
  });
  for (const id of ["weekday", "hour"]) { listen(id, "input", () => { state.isLive = false; showTime(); soon(); }); }
  listen("live", "click", () => { state.isLive = true; refresh(); });
  for (const id of ["lat", "lon"]) { listen(id, "input", later); }
  listen("no-place", "click", () => { at("lat").value = at("lon").value = ""; refresh(); });
  for (const id of ["query_weight", "diversity", "rotation", "exploration"]) { listen(id, "input", () => { showNumbers(); soon(); }); }
  for (const id of ["query", "candidates", "filter", "max_per_group"]) { listen(id, "input", later); }
  listen("exclude_seen", "change", () => refresh());
  listen("type", "change", () => {
    at("value-field").hidden = at("type").value !== "rating";
    if (state.answer) {
      showList(state.answer, null, actions, state.selected);
      showKinds(state.cards);
    }
  });
  listen("explain", "change", () => { state.deniedExplanation = ""; state.explain = at("explain").checked; refresh(); });
  listen("attention-panel", "toggle", () => {
    state.attention = at("attention-panel").open;
    if (state.attention && state.explain) { refresh(); }
  });
  listen("copy", "click", copyCurl);
  startHistory();
  startMap((place) => { at("lat").value = place.lat; at("lon").value = place.lon; refresh(); });
  showNumbers();
  refresh();
}

async function copyCurl() {
  // Where the page is served without TLS, browsers give no clipboard: the text is selected.
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(at("curl").textContent);
    at("copy").textContent = "Copied";
    setTimeout(() => { at("copy").textContent = "Copy"; }, 2000);
  } else {
    getSelection().selectAllChildren(at("curl"));
  }
}

start();
