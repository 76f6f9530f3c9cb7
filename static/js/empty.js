/** What stands where there are no rows: why, and what to do. */

/** @import { RowsMessage } from "./protocol.js" */
/** @import { Trouble } from "./live.js" */
import { grouped } from "./format.js";
import { nextTry } from "./status.js";

/** @param {string} id */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

export class Empty {
  #panel = byId("empty");
  #title = byId("empty-title");
  #text = byId("empty-text");
  #button = /** @type {HTMLButtonElement} */ (byId("empty-action"));

  /** @type {() => void} */
  onClear = () => {};
  /** @type {() => void} */
  onRetry = () => {};
  /** @type {() => void} */
  onSettings = () => {};

  /**
   * @param {RowsMessage | undefined} message
   * @param {Trouble | undefined} trouble
   */
  paint(message, trouble) {
    if (message?.matched) {
      this.#panel.hidden = true;
    } else if (!message && trouble) {
      this.#show("The server does not answer", `${trouble.reason === "The server does not answer." ? "Is ctweb still running?" : trouble.reason} ${nextTry(trouble)}`, "Try now", this.onRetry);
    } else if (!message) {
      this.#show("Connecting…", "", "", undefined);
    } else if (message.total) {
      const all = message.total === 1 ? "The one connection does not match" : `None of ${grouped(message.total)} connections matches`;
      this.#show("Nothing matches", `${all} “${message.filter}”.`, "Clear the filter", this.onClear);
    } else if (message.tracking?.active === false) {
      this.#show("Connections are not tracked", `${message.tracking.reason}.`, "Settings", this.onSettings);
    } else {
      this.#show("No connection yet", "The first packet that crosses a tracked interface appears here within a second. If there is traffic and nothing appears, “ctweb doctor” says what is missing.", "", undefined);
    }
  }

  /** @param {string} title @param {string} text @param {string} action @param {(() => void) | undefined} run */
  #show(title, text, action, run) {
    this.#panel.hidden = false;
    // Written only when it changes: a screen reader would read it out each second.
    if (this.#title.textContent !== title) this.#title.textContent = title;
    if (this.#text.textContent !== text) this.#text.textContent = text;
    this.#button.hidden = !action;
    this.#button.textContent = action;
    this.#button.onclick = run ?? null;
  }
}
