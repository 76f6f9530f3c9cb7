/** The dialog that downloads what is filtered: two links, which lead where the view leads. */

import { grouped } from "./format.js";

export class Export {
  #text;
  /** @type {NodeListOf<HTMLAnchorElement>} */
  #links;
  /** @type {NodeListOf<HTMLInputElement>} */
  #choices;
  #view = { filter: "", sort: "", columns: /** @type {string[]} */ ([]) };

  /** @param {HTMLDialogElement} dialog */
  constructor(dialog) {
    this.dialog = dialog;
    this.#text = /** @type {HTMLElement} */ (dialog.querySelector(".doc"));
    this.#links = dialog.querySelectorAll("a");
    this.#choices = dialog.querySelectorAll("input");
    for (const choice of this.#choices) choice.addEventListener("change", () => this.#paint());
    for (const link of this.#links) link.addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
  }

  /**
   * @param {{filter: string, sort: string, columns: string[]}} view `filter` is one that the server takes.
   * @param {number} count How many connections that is.
   */
  show(view, count) {
    this.#view = view;
    const which = view.filter ? `that match “${view.filter}”` : "there are";
    this.#text.textContent = `${count === 1 ? "The one connection" : `The ${grouped(count)} connections`} ${which}, as they stand when the download begins.`;
    this.#paint();
    this.dialog.showModal();
  }

  #paint() {
    const all = [...this.#choices].some((choice) => choice.checked && choice.value === "all");
    const query = new URLSearchParams();
    if (this.#view.filter) query.set("where", this.#view.filter);
    if (this.#view.sort) query.set("sort", this.#view.sort);
    if (!all) query.set("columns", this.#view.columns.join());
    for (const link of this.#links) link.href = `/export/connections.${link.dataset.format}?${query}`;
  }
}
