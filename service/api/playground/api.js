// Calls of the service, with the key that was typed; errors as its problems say them.

import { at } from "./dom.js";

// What each call needs where the operator has set keys; docs/security.md has the whole table.
const PURPOSES = {
  recommend: "see lists, explanations and similar items",
  "write-events": "post events",
  privacy: "see the stored history",
};

export class Problem extends Error {
  /** `errors` are the fields that are wrong, with what would be right. */
  constructor(status, body) {
    super(body.detail || body.title || "The service answered with status " + status);
    this.status = status;
    this.errors = body.errors || [];
  }
}

/** Return the answer's body; raises Problem, and TypeError if the service cannot be reached. */
export async function call(path, scope, body) {
  const headers = {};
  const key = at("key").value.trim();
  if (key) { headers.Authorization = "Bearer " + key; }
  const options = { headers };
  if (body !== undefined) {
    options.method = "POST";
    options.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  const answer = await fetch(path, options);
  const text = await answer.text();
  const read = text ? JSON.parse(text) : {};
  if (answer.ok) { return read; }
  const problem = new Problem(answer.status, read);
  if (problem.status === 401 || problem.status === 403) { tellScope(problem, scope); }
  throw problem;
}

/** Say at the key which scope is missing, and for what. */
function tellScope(problem, scope) {
  const wanted = "with the scope " + scope + ", to " + PURPOSES[scope];
  problem.message = problem.status === 401
    ? "This service asks for a key " + wanted + "."
    : "This needs a key " + wanted + "; yours has not that scope.";
  problem.scope = scope;
  const note = at("key-note");
  if (!note.textContent.includes(problem.message)) {
    note.textContent = (note.textContent + " " + problem.message).trim();
  }
}

/** Return what a call that is no answer of the service says. */
export function said(error) {
  return error instanceof Problem ? error.message : "The service cannot be reached: " + error.message;
}

export const user = (id) => "v1/users/" + encodeURIComponent(id);
export const item = (id) => "v1/items/" + encodeURIComponent(id);
