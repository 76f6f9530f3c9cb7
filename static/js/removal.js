/** The dialog that removes connections: one, those that were picked, or all that match; it says how many before. */

/** @import { Row } from "./protocol.js" */
import { grouped, splitEndpoint } from "./format.js";
import { make } from "./make.js";
import { Refusal, post } from "./server.js";

const TREES = ["/rest/ip/firewall/connection", "/rest/ipv6/firewall/connection"];
/** More than these are removed only after their number has been typed. */
const WITHOUT_TYPING = 100;
/** So many are named. */
const NAMED = 6;

/** @param {Row} row */
const isIpv6 = (row) => splitEndpoint(row["src-address"])[0].includes(":");

/** @param {number} count */
const connections = (count) => (count === 1 ? "1 connection" : `${grouped(count)} connections`);

/** How many match in both families. @param {string} filter @returns {Promise<number>} */
async function matching(filter) {
  const answers = await Promise.all(TREES.map((tree) => post(`${tree}/print`, { where: filter, "count-only": "" })));
  return answers.reduce((sum, answer) => sum + Number(answer.ret), 0);
}

/** @param {Row[]} rows @returns {Promise<number>} How many were still there, as far as the server says so. */
async function removeRows(rows) {
  let removed = 0;
  for (const [at, tree] of TREES.entries()) {
    const ids = rows.filter((row) => isIpv6(row) === (at === 1)).map((row) => row[".id"]);
    if (!ids.length) continue;
    try {
      await post(`${tree}/remove`, { ".id": ids });
      removed += ids.length;
    } catch (error) {
      // None of them is there any more: that is what was wanted.
      if (!(error instanceof Refusal) || error.status !== 404) throw error;
    }
  }
  return removed;
}

/** @param {string} filter @returns {Promise<number>} */
async function removeMatching(filter) {
  let removed = 0;
  for (const tree of TREES) removed += Number((await post(`${tree}/remove`, { where: filter })).ret);
  return removed;
}

export class Removal {
  #question;
  #list;
  #typing;
  #number;
  #typed;
  #alert;
  #button;
  /** @type {Row[]} */
  #rows = [];
  /** Empty: it is about rows. */
  #filter = "";
  #count = 0;

  /** Said when it is done. @type {(text: string) => void} */
  onDone = () => {};

  /** @param {HTMLDialogElement} dialog */
  constructor(dialog) {
    /** @template {Element} T @param {string} selector @returns {T} */
    const part = (selector) => /** @type {T} */ (dialog.querySelector(selector));
    this.dialog = dialog;
    this.#question = part(".question");
    this.#list = part(".to-remove");
    this.#typing = /** @type {HTMLElement} */ (part(".typing"));
    this.#number = part(".typing b");
    this.#typed = /** @type {HTMLInputElement} */ (part("input"));
    this.#alert = /** @type {HTMLElement} */ (part("[role=alert]"));
    this.#button = /** @type {HTMLButtonElement} */ (part(".danger"));
    this.#typed.addEventListener("input", () => this.#allow());
    part(".actions").addEventListener("submit", (event) => {
      event.preventDefault();
      // A key may reach the button still when the dialog has just been left.
      if (dialog.open) void this.#remove();
    });
    part(".cancel").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
  }

  /** @param {Row[]} rows */
  askAbout(rows) {
    this.#filter = "";
    this.#rows = rows;
    this.#open(rows.length);
  }

  /** @param {string} filter One that the server takes; not empty. */
  async askAboutMatching(filter) {
    this.#filter = filter;
    this.#rows = [];
    this.#open(0);
    await this.#try(async () => this.#show(await matching(filter)));
  }

  /** @param {number} count */
  #open(count) {
    this.#typed.value = "";
    this.#complain("");
    this.#show(count);
    if (!this.dialog.open) this.dialog.showModal();
    (count > WITHOUT_TYPING ? this.#typed : this.#button).focus();
  }

  /** @param {number} count */
  #show(count) {
    this.#count = count;
    const which = this.#filter ? ` that match${count === 1 ? "es" : ""} “${this.#filter}”` : "";
    this.#question.textContent = `${count ? connections(count) : "No connection"}${which}`;
    const named = this.#rows.slice(0, NAMED).map((row) => make("li", "", `${row.protocol} ${row["src-address"]} → ${row["dst-address"]}`));
    if (this.#rows.length > NAMED) named.push(make("li", "more", `and ${grouped(this.#rows.length - NAMED)} more`));
    this.#list.replaceChildren(...named);
    this.#typing.hidden = count <= WITHOUT_TYPING;
    this.#number.textContent = String(count);
    this.#button.textContent = count === 1 ? "Remove it" : `Remove ${grouped(count)}`;
    this.#allow();
  }

  #allow() {
    const typed = this.#typed.value.replace(/[\s,.'_]/g, "") === String(this.#count);
    this.#button.disabled = !this.#count || (this.#count > WITHOUT_TYPING && !typed);
  }

  async #remove() {
    if (this.#button.disabled) return;
    this.#button.disabled = true;
    const done = await this.#try(async () => {
      if (this.#filter && this.#count <= WITHOUT_TYPING) {
        // It may be many more by now: then they are to be confirmed as many.
        const now = await matching(this.#filter);
        if (now > WITHOUT_TYPING) {
          this.#show(now);
          this.#complain("There are more of them now.");
          this.#typed.focus();
          return undefined;
        }
      }
      return this.#filter ? removeMatching(this.#filter) : removeRows(this.#rows);
    });
    if (done === undefined) return;
    this.dialog.close();
    this.onDone(done ? `${connections(done)} removed` : "None of them was there any more");
  }

  /** @template T @param {() => Promise<T>} what @returns {Promise<T | undefined>} */
  async #try(what) {
    try {
      return await what();
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.#complain(error.message);
      this.#allow();
      return undefined;
    }
  }

  /** @param {string} message "" when all is well. */
  #complain(message) {
    this.#alert.textContent = message;
    this.#alert.hidden = !message;
  }
}
