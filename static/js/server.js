/** Questions to the server outside of the websocket. */

import { session } from "./session.js";

/** The server did not do it; the message is in its own words, or says that it does not answer. */
export class Refusal extends Error {
  /** @param {string} message @param {number} [status] Of its answer; without one, there was none. */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/**
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<any>}
 */
async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refusal("The server does not answer.");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refusal(answer.detail ?? answer.message ?? `The server answers ${response.status}.`, response.status);
  return answer;
}

/** @param {string} path */
export const get = (path) => ask(path);

/**
 * What changes something carries the session's token, which a page of another site does not know.
 * @param {string} method
 * @param {string} path
 * @param {unknown} [body]
 */
async function change(method, path, body) {
  const headers = new Headers({ "X-CSRF-Token": (await session()).csrf });
  if (body !== undefined) headers.set("Content-Type", "application/json");
  return ask(path, { method, headers, ...(body !== undefined && { body: JSON.stringify(body) }) });
}

/** @param {string} path @param {unknown} [body] */
export const post = (path, body) => change("POST", path, body);
