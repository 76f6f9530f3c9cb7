/** The dialog that chooses columns and their order. */

import { COLUMN, COLUMNS, DEFAULT_COLUMNS } from "./columns.js";

export class Chooser {
  /** @type {(names: string[]) => void} */
  onChange = () => {};
  /** @type {string[]} */
  #chosen = [];

  /** Names are wanted, or no longer. @type {(change: {hosts?: boolean, services?: boolean}) => void} */
  onNames = () => {};
  /** All as it was at first: the widths too. @type {() => void} */
  onReset = () => {};
  /** @type {readonly string[]} */
  #first = DEFAULT_COLUMNS;

  /** @param {HTMLDialogElement} dialog */
  constructor(dialog) {
    this.dialog = dialog;
    for (const box of this.#boxes) box.addEventListener("change", () => this.onNames({ [box.name]: box.checked }));
    this.list = /** @type {HTMLElement} */ (dialog.querySelector(".chooser"));
    dialog.querySelector(".dialog-foot")?.addEventListener("click", () => {
      this.onReset();
      this.#use([...this.#first]);
    });
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
  }

  /** @returns {NodeListOf<HTMLInputElement>} */
  get #boxes() {
    return this.dialog.querySelectorAll(".names input");
  }

  /**
   * @param {string[]} chosen
   * @param {readonly string[]} first What is chosen until somebody chooses.
   * @param {{hosts: boolean, services: boolean}} names
   */
  show(chosen, first, names) {
    this.#chosen = chosen;
    this.#first = first;
    for (const box of this.#boxes) box.checked = names[/** @type {"hosts" | "services"} */ (box.name)];
    this.#paint();
    this.dialog.showModal();
  }

  /** @param {string[]} chosen */
  #use(chosen) {
    this.#chosen = chosen;
    this.#paint();
    this.onChange(chosen);
  }

  #paint() {
    const rest = COLUMNS.map(({ name }) => name).filter((name) => !this.#chosen.includes(name));
    this.list.replaceChildren(...[...this.#chosen, ...rest].map((name) => this.#item(name)));
  }

  /** @param {string} name */
  #item(name) {
    const column = /** @type {import("./columns.js").Column} */ (COLUMN.get(name));
    const at = this.#chosen.indexOf(name);
    const item = document.createElement("li");
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = at >= 0;
    // A table without a column has no rows to point at.
    box.disabled = box.checked && this.#chosen.length === 1;
    box.addEventListener("change", () => {
      this.#use(box.checked ? [...this.#chosen, name] : this.#chosen.filter((other) => other !== name));
      this.#focus(name, "input");
    });
    const text = document.createElement("span");
    const help = document.createElement("small");
    help.textContent = name;
    text.append(`${column.title}${column.arrow ? ` ${column.arrow}` : ""} `, help);
    text.title = column.help;
    label.append(box, text);
    item.dataset.name = name;
    item.append(label);
    if (at >= 0) item.append(this.#mover(name, at, -1, "↑"), this.#mover(name, at, 1, "↓"));
    return item;
  }

  /** @param {string} name @param {number} at @param {1 | -1} by @param {string} arrow */
  #mover(name, at, by, arrow) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = arrow;
    button.setAttribute("aria-label", `${COLUMN.get(name)?.title}: ${by < 0 ? "further left" : "further right"}`);
    button.disabled = at + by < 0 || at + by >= this.#chosen.length;
    button.addEventListener("click", () => {
      const order = this.#chosen.filter((other) => other !== name);
      order.splice(at + by, 0, name);
      this.#use(order);
      this.#focus(name, `button:nth-of-type(${by < 0 ? 1 : 2})`);
    });
    return button;
  }

  /** The list is made anew at each change: the focus goes back to where it was. @param {string} name @param {string} what */
  #focus(name, what) {
    /** @type {HTMLElement | null} */ (this.list.querySelector(`[data-name="${CSS.escape(name)}"] ${what}`))?.focus();
  }
}
