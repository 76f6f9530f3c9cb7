/** The list under the filter box that completes what is typed. A combobox in ARIA's sense: the focus stays in the box. */

/** @import { Completion } from "./completion.js" */
import { complete } from "./completion.js";

export class Suggestions {
  /** @type {Completion} */
  #completion = { from: 0, to: 0, options: [] };
  #active = -1;

  /**
   * @param {HTMLInputElement} input
   * @param {HTMLElement} list
   */
  constructor(input, list) {
    this.input = input;
    this.list = list;
    input.addEventListener("input", () => this.#show(complete(input.value, input.selectionStart ?? 0)));
    input.addEventListener("blur", () => this.close());
    input.addEventListener("keydown", (event) => this.#key(event));
    // Before the box loses the focus.
    list.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      const option = /** @type {Element} */ (event.target).closest("[role=option]");
      if (option) this.#accept([...list.children].indexOf(option));
    });
  }

  get open() {
    return !this.list.hidden;
  }

  close() {
    this.#show({ from: 0, to: 0, options: [] });
  }

  /** @param {Completion} completion */
  #show(completion) {
    this.#completion = completion;
    this.#active = -1;
    this.list.hidden = !completion.options.length;
    this.input.setAttribute("aria-expanded", String(this.open));
    this.list.style.setProperty("--position", String(Math.min(completion.from, 50)));
    this.list.replaceChildren(
      ...completion.options.map(({ insert, help }, at) => {
        const option = document.createElement("li");
        option.id = `suggestion-${at}`;
        option.setAttribute("role", "option");
        const text = document.createElement("code");
        text.textContent = insert;
        const meaning = document.createElement("span");
        meaning.textContent = help;
        option.append(text, meaning);
        return option;
      }),
    );
    this.#mark(-1);
  }

  /** @param {number} active */
  #mark(active) {
    this.#active = active;
    [...this.list.children].forEach((option, at) => option.setAttribute("aria-selected", String(at === active)));
    if (active < 0) this.input.removeAttribute("aria-activedescendant");
    else this.input.setAttribute("aria-activedescendant", `suggestion-${active}`);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (!this.open) return;
    const number = this.#completion.options.length;
    if (event.key === "ArrowDown") this.#mark((this.#active + 1) % number);
    else if (event.key === "ArrowUp") this.#mark((this.#active < 0 ? number : this.#active) - 1);
    else if (event.key === "Tab" && !event.shiftKey) this.#accept(Math.max(0, this.#active));
    else if (event.key === "Enter" && this.#active >= 0) this.#accept(this.#active);
    else if (event.key === "Escape") this.close();
    else {
      if (event.key === "Enter") this.close();
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  /** @param {number} at */
  #accept(at) {
    const { from, to, options } = this.#completion;
    const option = options[at];
    if (!option) return;
    // A value is complete, and a term comes next; a field waits for its value.
    const isField = /[:>]$/.test(option.insert);
    this.input.setRangeText(option.insert + (isField ? "" : " "), from, to, "end");
    // Everybody hears of it as if it had been typed, this list too: it goes on with the field's values.
    this.input.dispatchEvent(new Event("input"));
  }
}
