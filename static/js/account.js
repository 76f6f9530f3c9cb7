/** In the header: who is signed in, and the way out. */

import { post } from "./server.js";
import { session } from "./session.js";

/** @param {HTMLElement} host Its first element is for the name, its button signs out. */
export async function account(host) {
  const { name, role } = await session().catch(() => ({ name: "", role: "none" }));
  if (!name) return;
  const shown = /** @type {HTMLElement} */ (host.firstElementChild);
  const button = /** @type {HTMLButtonElement} */ (host.querySelector("button"));
  shown.textContent = name;
  const may = role === "full" ? "" : ", who may look but change nothing";
  host.title = `Signed in as ${name}${may}`;
  button.setAttribute("aria-label", `Sign out ${name}`);
  button.addEventListener("click", async () => {
    button.disabled = true;
    await post("/page/sign-out").catch(() => undefined);
    location.replace("/sign-in");
  });
  host.hidden = false;
}
