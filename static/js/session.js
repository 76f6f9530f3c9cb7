/** Who is signed in, as the server knows it: name, role, and the token that a change must carry. */

import { get } from "./server.js";

/**
 * @typedef {object} Session
 * @property {string} name
 * @property {"read" | "full" | "none"} role `full` may change and remove; `read` only look; `none` is not signed in.
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

/** To be called when the server stops to answer: it may be that the session is over, and one must sign in again. */
export async function stillSignedIn() {
  asked = undefined;
  const { role } = await session().catch(() => ({ role: undefined }));
  if (role === "none") location.replace(`/sign-in${location.search}`);
}
