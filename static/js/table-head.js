/** The headings: sorting by click, order by dragging them, widths by dragging their edges. */

/** @import { Column } from "./columns.js" */

const LEAST_WIDTH = 44;
const MOST_WIDTH = 900;
/** A pointer that moves less than this was clicking. */
const SLOP = 6;

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
  /** A column shall stand before another, undefined: last. @type {(name: string, before: string | undefined) => void} */
  onMove = () => {};

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
    if (column.unsorted) {
      const title = document.createElement("span");
      title.className = "unseen";
      title.textContent = column.title;
      cell.append(title);
      return cell;
    }
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
    button.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "mouse" && event.button === 0) this.#move(event, cell);
    });
    const grip = document.createElement("span");
    grip.className = "grip";
    grip.title = "Drag: width. Double click: as wide as what is in it.";
    grip.addEventListener("pointerdown", (event) => this.#drag(event, column, cell));
    grip.addEventListener("dblclick", () => this.#fit(column));
    cell.append(button, grip);
    return cell;
  }

  /** Carry a heading to another place. @param {PointerEvent} start @param {HTMLElement} cell */
  #move(start, cell) {
    const button = /** @type {HTMLElement} */ (start.currentTarget);
    const headings = /** @type {HTMLElement[]} */ ([...this.element.querySelectorAll("[role=columnheader]")]);
    const carrying = new AbortController();
    const { signal } = carrying;
    let moved = false;
    /** @type {HTMLElement | undefined} */
    let before;
    button.setPointerCapture(start.pointerId);
    /** @param {PointerEvent} event */
    const follow = (event) => {
      moved ||= Math.abs(event.clientX - start.clientX) > SLOP;
      if (!moved) return;
      before = headings.find((heading) => {
        if (!heading.querySelector("button")) return false; // what cannot be carried stays first
        const box = heading.getBoundingClientRect();
        return event.clientX < box.left + box.width / 2;
      });
      cell.classList.add("carried");
      for (const heading of headings) heading.classList.toggle("before-here", heading === before);
      headings.at(-1)?.classList.toggle("after-here", !before);
    };
    const drop = () => {
      carrying.abort();
      if (!moved) return;
      cell.classList.remove("carried");
      for (const heading of headings) heading.classList.remove("before-here", "after-here");
      // A click that follows at once belongs to the drag.
      const dropped = new AbortController();
      button.addEventListener("click", (event) => event.stopImmediatePropagation(), { capture: true, signal: dropped.signal });
      setTimeout(() => dropped.abort());
      if (before !== cell) this.onMove(/** @type {string} */ (cell.dataset.column), before?.dataset.column);
    };
    button.addEventListener("pointermove", follow, { signal });
    button.addEventListener("lostpointercapture", drop, { signal });
  }

  /** @param {PointerEvent} start @param {Column} column @param {HTMLElement} cell */
  #drag(start, column, cell) {
    start.preventDefault();
    const grip = /** @type {HTMLElement} */ (start.currentTarget);
    const before = cell.offsetWidth;
    grip.setPointerCapture(start.pointerId);
    /** @param {PointerEvent} event */
    const move = (event) => {
      this.#widen(column, before + event.clientX - start.clientX);
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

  /** As wide as its heading and the rows on the page need. @param {Column} column */
  #fit(column) {
    this.#layOut(column);
    const cells = /** @type {HTMLElement[]} */ ([...this.element.parentElement?.querySelectorAll(`[data-column="${CSS.escape(column.name)}"]`) ?? []]);
    const needed = Math.max(...cells.map((cell) => cell.offsetWidth));
    this.#widen(column, needed + 1);
    this.onWidths();
  }

  /** To this width, within bounds. @param {Column} column @param {number} pixels */
  #widen(column, pixels) {
    this.widths[column.name] = Math.round(Math.min(MOST_WIDTH, Math.max(LEAST_WIDTH, pixels)));
    this.#layOut();
  }

  /** The widths that the columns have by themselves. */
  forgetWidths() {
    this.widths = {};
    this.#layOut();
    this.onWidths();
  }

  /** Hand the widths to the style sheet, for the headings and every row at once. @param {Column} [free] For now as wide as it needs. */
  #layOut(free) {
    const width = (/** @type {Column} */ column) => this.widths[column.name] ?? column.width;
    const tracks = this.#columns.map((column) => {
      if (column === free) return "max-content";
      const fixed = !column.grows || column.name in this.widths;
      return fixed ? `${width(column)}px` : `minmax(${width(column)}px, 1fr)`;
    });
    const table = this.element.parentElement;
    table?.style.setProperty("--columns", tracks.join(" "));
    table?.style.setProperty("--least-width", `${this.#columns.reduce((sum, column) => sum + width(column), 0)}px`);
  }
}
