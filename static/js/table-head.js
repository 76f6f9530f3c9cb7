/** The headings: sorting by click, widths by dragging their edges. */

/** @import { Column } from "./columns.js" */

const LEAST_WIDTH = 44;
const MOST_WIDTH = 900;

export class TableHead {
  element = document.createElement("div");
  /** Widths that were set by hand. @type {Record<string, number>} */
  widths = {};
  /** @type {Column[]} */
  #columns = [];
  #sort = "";

  /** @type {(name: string) => void} */
  onSort = () => {};
  /** @type {() => void} */
  onWidths = () => {};

  constructor() {
    this.element.className = "head";
    this.element.setAttribute("role", "rowgroup");
  }

  /** @param {Column[]} columns */
  setColumns(columns) {
    this.#columns = columns;
    const row = document.createElement("div");
    row.className = "head-row";
    row.setAttribute("role", "row");
    row.setAttribute("aria-rowindex", "1");
    row.append(...columns.map((column, at) => this.#heading(column, at)));
    this.element.replaceChildren(row);
    this.#layOut();
    this.setSort(this.#sort);
  }

  /** @param {string} sort A property, `-` before it for descending. */
  setSort(sort) {
    this.#sort = sort;
    const name = sort.replace(/^-/, "");
    for (const heading of this.element.querySelectorAll("[role=columnheader]")) {
      const sorted = /** @type {HTMLElement} */ (heading).dataset.column === name;
      heading.setAttribute("aria-sort", !sorted ? "none" : sort.startsWith("-") ? "descending" : "ascending");
    }
  }

  /** @param {Column} column @param {number} at */
  #heading(column, at) {
    const cell = document.createElement("div");
    cell.className = `heading${column.numeric ? " numeric" : ""}`;
    cell.dataset.column = column.name;
    cell.setAttribute("role", "columnheader");
    cell.setAttribute("aria-colindex", String(at + 1));
    const button = document.createElement("button");
    button.type = "button";
    button.title = column.help;
    const title = document.createElement("span");
    title.className = "title";
    title.textContent = column.title;
    button.append(title);
    if (column.arrow) {
      const arrow = document.createElement("span");
      arrow.className = column.arrow === "→" ? "arrow original" : "arrow reply";
      arrow.textContent = column.arrow;
      button.append(arrow);
      button.setAttribute("aria-label", `${column.title}, ${column.arrow === "→" ? "original direction" : "reply direction"}`);
    }
    button.addEventListener("click", () => this.onSort(column.name));
    const grip = document.createElement("span");
    grip.className = "grip";
    grip.addEventListener("pointerdown", (event) => this.#drag(event, column, cell));
    grip.addEventListener("dblclick", () => {
      delete this.widths[column.name];
      this.#layOut();
      this.onWidths();
    });
    cell.append(button, grip);
    return cell;
  }

  /** @param {PointerEvent} start @param {Column} column @param {HTMLElement} cell */
  #drag(start, column, cell) {
    start.preventDefault();
    const grip = /** @type {HTMLElement} */ (start.currentTarget);
    const before = cell.offsetWidth;
    grip.setPointerCapture(start.pointerId);
    /** @param {PointerEvent} event */
    const move = (event) => {
      this.widths[column.name] = Math.round(Math.min(MOST_WIDTH, Math.max(LEAST_WIDTH, before + event.clientX - start.clientX)));
      this.#layOut();
    };
    grip.addEventListener("pointermove", move);
    grip.addEventListener(
      "lostpointercapture",
      () => {
        grip.removeEventListener("pointermove", move);
        this.onWidths();
      },
      { once: true },
    );
  }

  /** Hand the widths to the style sheet, for the headings and every row at once. */
  #layOut() {
    const width = (/** @type {Column} */ column) => this.widths[column.name] ?? column.width;
    const tracks = this.#columns.map((column) => {
      const fixed = !column.grows || column.name in this.widths;
      return fixed ? `${width(column)}px` : `minmax(${width(column)}px, 1fr)`;
    });
    const table = this.element.parentElement;
    table?.style.setProperty("--columns", tracks.join(" "));
    table?.style.setProperty("--least-width", `${this.#columns.reduce((sum, column) => sum + width(column), 0)}px`);
  }
}
