/** The filter box: waits for a pause in typing, shows the server's word on a filter that it cannot use. */

const PAUSE = 180;

export class Search {
  /** @type {number | undefined} */
  #timer;
  #sent = "";

  /** @type {(filter: string) => void} */
  onFilter = () => {};

  /** @param {HTMLFormElement} form */
  constructor(form) {
    this.form = form;
    this.input = /** @type {HTMLInputElement} */ (form.elements.namedItem("filter"));
    this.problem = /** @type {HTMLElement} */ (form.querySelector("[role=alert]"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    form.addEventListener("reset", (event) => {
      event.preventDefault();
      this.set("");
      this.input.focus();
    });
    this.input.addEventListener("scroll", () => this.problem.style.setProperty("--scrolled", `${this.input.scrollLeft}px`));
    this.input.addEventListener("input", () => {
      form.classList.toggle("filled", this.input.value !== "");
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#send(), PAUSE);
    });
  }

  get value() {
    return this.input.value;
  }

  /** Show and use a filter that came from elsewhere. @param {string} filter */
  set(filter) {
    this.fill(filter);
    this.onFilter(filter);
  }

  /** Show a filter that is in use already. @param {string} filter */
  fill(filter) {
    clearTimeout(this.#timer);
    this.#sent = filter;
    this.input.value = filter;
    this.form.classList.toggle("filled", filter !== "");
    this.error("");
  }

  /**
   * @param {string} message "" when all is well.
   * @param {number} [position] The character of the filter that it is about.
   */
  error(message, position = 0) {
    this.problem.textContent = message;
    // Under the place: the box is monospaced.
    this.problem.style.setProperty("--position", String(position));
    this.problem.hidden = !message;
    this.input.setAttribute("aria-invalid", String(Boolean(message)));
  }

  #send() {
    clearTimeout(this.#timer);
    const filter = this.input.value.trim();
    if (filter === this.#sent) return;
    this.#sent = filter;
    this.onFilter(filter);
  }
}
