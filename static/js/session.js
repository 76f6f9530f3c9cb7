/** Who is signed in, as the server knows it: name, role, and the token that a change must carry. */

import { get } from "./server.js";

/**
 * @typedef {object} Session
 * @property {string} name
 * @property {"read" | "full"} role `full` may change and remove; `read` only look.
 * @property {string} csrf To be sent as X-CSRF-Token with what changes something; server.js does.
 */

/** @type {Promise<Session> | undefined} */
let asked;

/**
 * Asked for once.
 * @returns {Promise<Session>}
 */
export function session() {
  asked ??= get("/page/session");
  asked.catch(() => (asked = undefined));
  return asked;
}
