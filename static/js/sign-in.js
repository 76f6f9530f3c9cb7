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
 * @returns {Promise<string>} Why not, in words; "": signed in.
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
    return "The server does not answer.";
  }
  if (response.ok) return "";
  const answer = await response.json().catch(() => ({}));
  return answer.detail ?? answer.message ?? `The server answers ${response.status}.`;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  refused.textContent = "";
  const why = await signIn();
  if (!why) {
    enter();
    return;
  }
  button.disabled = false;
  refused.textContent = why;
  password.select();
});

byId("host").textContent = location.host;

// Who comes by a link on another site is signed in already, but the cookie stayed behind: SameSite=Strict.
const session = await fetch("/page/session").then((response) => response.json()).catch(() => undefined);
if (session?.name) enter();

export {};
