/** The sign-in page: sends name and password, and goes to where one was sent from. */

/** @template {HTMLElement} T @param {string} id @returns {T} */
const byId = (id) => /** @type {T} */ (document.getElementById(id));

const form = /** @type {HTMLFormElement} */ (byId("sign-in"));
const name = /** @type {HTMLInputElement} */ (byId("name"));
const password = /** @type {HTMLInputElement} */ (byId("password"));
const button = /** @type {HTMLButtonElement} */ (form.querySelector("button"));
const refused = byId("refused");

/** The table, as it was asked for: its filter and columns stand in the address. */
const enter = () => location.replace(`/${location.search}`);

/**
 * @typedef {object} Refusal
 * @property {string} why In words.
 * @property {number} [wait] Seconds until the password will be looked at, which it was not yet.
 *
 * @returns {Promise<Refusal | undefined>} Undefined: signed in.
 */
async function signIn() {
  let response;
  try {
    response = await fetch("/page/sign-in", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ name: name.value, password: password.value }),
    });
  } catch {
    return { why: "The server does not answer." };
  }
  if (response.ok) return undefined;
  const answer = await response.json().catch(() => ({}));
  const why = answer.detail ?? answer.message ?? `The server answers ${response.status}.`;
  return { why, wait: response.status === 429 ? Number(response.headers.get("Retry-After")) : undefined };
}

/** Until it is sent once more. @type {number | undefined} */
let waiting;

function stopWaiting() {
  if (waiting === undefined) return;
  clearTimeout(waiting);
  waiting = undefined;
  refused.textContent = "";
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  stopWaiting();
  button.disabled = true;
  refused.textContent = "";
  const refusal = await signIn();
  if (!refusal) {
    enter();
    return;
  }
  button.disabled = false;
  refused.textContent = refusal.why;
  if (refusal.wait) tryAgain(refusal.wait);
  else password.select();
});

/** Send it once more when it will be looked at, unless something else is typed meanwhile. @param {number} seconds */
function tryAgain(seconds) {
  refused.textContent = `The server slows sign-ins down. Yours is tried in ${seconds} s.`;
  waiting = setTimeout(() => form.requestSubmit(), seconds * 1000);
}
form.addEventListener("input", stopWaiting);

byId("host").textContent = location.host;

// Who comes by a link on another site is signed in already, but the cookie stayed behind: SameSite=Strict.
const session = await fetch("/page/session").then((response) => response.json()).catch(() => undefined);
if (session?.name) enter();

export {};
