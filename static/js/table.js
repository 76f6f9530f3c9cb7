/**
 * The virtual table: a scroll bar true to the whole, and document rows only for what is seen.
 *
 * Row elements are used in turn: element k shows the rows whose index is k modulo their number, so that scrolling by a
 * row repaints a row. Which connection stands at an index is the source's business.
 */

/** @import { Row } from "./protocol.js" */
/** @import { Paint } from "./cells.js" */
/** @import { Column } from "./columns.js" */
import { Scale } from "./scale.js";
import { TableHead } from "./table-head.js";

/**
 * @typedef {object} Shown
 * @property {Row} row
 * @property {number} age Seconds since it was read.
 * @property {boolean} ended It is no longer in the table.
 *
 * @typedef {object} Source
 * @property {number} count
 * @property {(index: number) => Shown | undefined} at Undefined: not here yet.
 *
 * @typedef {object} Slot A row element and what it shows.
 * @property {HTMLElement} element
 * @property {HTMLElement[]} cells
 * @property {Paint[]} paint
 * @property {number} index -1: nothing.
 * @property {number} top
 */

/** Rows painted beyond what is seen, each way. */
const OVERSCAN = 6;
/** Rows asked for beyond what is seen, each way. */
const MARGIN = 30;
const MOST_ROWS = 500;
/** At most one question in so many milliseconds while scrolling. */
const ASK_EVERY = 60;

export class Table {
  #scale = new Scale();
  /** @type {Slot[]} */
  #slots = [];
  /** @type {Column[]} */
  #columns = [];
  /** @type {{offset: number, limit: number} | undefined} */
  #asked;
  #askedAt = 0;
  #leaving = false;
  /** @type {number | undefined} */
  #askTimer;
  #frame = 0;
  #anchor = 0;
  /** @type {string | undefined} */
  #selectedId;
  #selectedIndex = -1;

  /** @type {(offset: number, limit: number) => void} */
  onRange = () => {};
  /** @type {() => void} */
  onScroll = () => {};
  /** @type {(row: Row | undefined) => void} */
  onSelect = () => {};

  /**
   * @param {HTMLElement} host
   * @param {Source} source
   */
  constructor(host, source) {
    this.host = host;
    this.source = source;
    this.head = new TableHead();
    this.body = document.createElement("div");
    this.body.className = "body";
    this.body.setAttribute("role", "rowgroup");
    this.layer = document.createElement("div");
    this.layer.className = "layer";
    this.layer.setAttribute("role", "presentation");
    this.body.append(this.layer);
    host.append(this.head.element, this.body);
    host.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    host.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    new ResizeObserver(() => this.#resized()).observe(host);
  }

  /** @param {Column[]} columns */
  setColumns(columns) {
    this.#columns = columns;
    this.head.setColumns(columns);
    this.host.setAttribute("aria-colcount", String(columns.length));
    this.#slots = [];
    this.layer.replaceChildren();
    this.#resized();
  }

  /** The row elements on the page, for whoever needs to find a row again: its index, or -1. @param {Element} target */
  indexOf(target) {
    const element = target.closest(".row");
    return this.#slots.find((slot) => slot.element === element)?.index ?? -1;
  }

  /** The column whose cell or heading this is. @param {Element} target */
  columnOf(target) {
    const name = /** @type {HTMLElement | null} */ (target.closest("[data-column]"))?.dataset.column;
    return this.#columns.find((column) => column.name === name);
  }

  /** The source has changed. */
  refresh() {
    this.#scale.rows = this.source.count;
    this.#scale.moveTo(this.#scale.top);
    this.body.style.height = `${this.#scale.bodyHeight}px`;
    this.host.setAttribute("aria-rowcount", String(this.source.count + 1));
    this.#followSelection();
    this.#paint(true);
  }

  /** Time has passed: repaint only what changes by itself. */
  tick() {
    const ticking = this.#columns.flatMap((column, at) => (column.ticks ? [at] : []));
    for (const slot of this.#slots) {
      const shown = slot.index < 0 ? undefined : this.source.at(slot.index);
      if (shown && !shown.ended) for (const at of ticking) slot.paint[at]?.(shown.row, shown.age);
    }
  }

  /** Ask for the top, to go there once other rows are here (`restart`), or not (`stay`). */
  askFromTop() {
    this.#leaving = true;
    this.#askFor(0);
  }

  stay() {
    this.#leaving = false;
    this.#askFor(this.#scale.first);
  }

  /** Other rows altogether: from the top. */
  restart() {
    this.#leaving = false;
    this.#scale.moveTo(0);
    this.#place();
    this.select(-1);
  }

  /** First and last index that is at least partly seen. @returns {[number, number]} */
  get seen() {
    const first = this.#scale.first;
    return [first, Math.min(this.source.count, first + this.#scale.seen) - 1];
  }

  get selectedIndex() {
    return this.#selectedIndex;
  }

  /** The row that was chosen, as long as it stands near where it was seen: no other one takes its place. */
  get selected() {
    const row = this.#selectedIndex < 0 ? undefined : this.source.at(this.#selectedIndex)?.row;
    return row?.[".id"] === this.#selectedId ? row : undefined;
  }

  /** @param {number} index -1 for none. */
  select(index) {
    const shown = index < 0 ? undefined : this.source.at(index);
    this.#selectedIndex = shown ? index : -1;
    this.#selectedId = shown?.row[".id"];
    if (shown) {
      this.#scale.reveal(index);
      this.#place();
    }
    this.#paint(false);
    this.onSelect(shown?.row);
  }

  #followSelection() {
    if (this.#selectedId === undefined) return;
    const [first, last] = this.seen;
    for (let index = Math.max(0, first - MARGIN); index <= last + MARGIN; index++) {
      if (this.source.at(index)?.row[".id"] === this.#selectedId) this.#selectedIndex = index;
    }
  }

  #scrolled() {
    this.#scale.follow(this.host.scrollTop);
    this.onScroll();
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#paint(false));
  }

  /** Where the scroll bar is coarser than the table, the wheel still moves by its own pixels. @param {WheelEvent} event */
  #wheel(event) {
    if (this.#scale.factor === 1 || event.ctrlKey || event.deltaY === 0) return;
    event.preventDefault();
    const unit = [1, this.#scale.rowHeight, this.#scale.view][event.deltaMode] ?? 1;
    this.host.scrollLeft += event.deltaX;
    this.#moveBy(event.deltaY * unit);
  }

  /** A page further, so that its last row becomes the first; the browser's own pages would be as coarse as the scroll bar. @param {number} pages */
  turnPage(pages) {
    const { rowHeight, view } = this.#scale;
    this.#moveBy(pages * Math.max(1, Math.floor(view / rowHeight) - 1) * rowHeight);
  }

  /** @param {number} pixels Of the table's own. */
  #moveBy(pixels) {
    this.#scale.moveTo(this.#scale.top + pixels);
    this.#place();
    this.onScroll();
    this.#paint(false);
  }

  /** Bring the scroll bar to where the table stands. */
  #place() {
    this.host.scrollTop = this.#scale.scrollTop;
  }

  #resized() {
    const rowHeight = parseInt(getComputedStyle(this.host).getPropertyValue("--row-height"), 10);
    const first = this.#scale.top / this.#scale.rowHeight;
    const [from, to] = this.seen;
    const inView = this.#selectedIndex >= from && this.#selectedIndex <= to;
    this.#scale.rowHeight = rowHeight;
    this.#scale.view = Math.max(0, this.host.clientHeight - this.head.element.offsetHeight);
    this.#scale.moveTo(first * rowHeight);
    if (inView) this.#scale.reveal(this.#selectedIndex);
    this.#place();
    this.#makeSlots(this.#scale.seen + 2 * OVERSCAN);
    this.refresh();
  }

  /** @param {number} wanted */
  #makeSlots(wanted) {
    while (this.#slots.length > wanted) this.#slots.pop()?.element.remove();
    while (this.#slots.length < wanted) {
      const element = document.createElement("div");
      element.className = "row";
      element.id = `row-${this.#slots.length}`;
      element.setAttribute("role", "row");
      const cells = this.#columns.map((column, at) => {
        const cell = document.createElement("div");
        cell.className = `cell${column.numeric ? " numeric" : ""}${column.mono ? " mono" : ""}`;
        cell.dataset.column = column.name;
        cell.dataset.title = `${column.title}${column.arrow ? ` ${column.arrow}` : ""}`;
        cell.setAttribute("role", "gridcell");
        cell.setAttribute("aria-colindex", String(at + 1));
        element.append(cell);
        return cell;
      });
      const paint = this.#columns.map((column, at) => column.cell(/** @type {HTMLElement} */ (cells[at])));
      this.layer.append(element);
      this.#slots.push({ element, cells, paint, index: -1, top: -1 });
    }
    // Another number of elements: another element for each index.
    for (const slot of this.#slots) slot.index = -1;
  }

  /**
   * Put the rows that are seen on their elements.
   * @param {boolean} all Also those that stand where they stood: the source has changed.
   */
  #paint(all) {
    const scale = this.#scale;
    const first = Math.max(0, scale.first - OVERSCAN);
    const last = Math.min(scale.rows, scale.first + scale.seen + OVERSCAN);
    if (Math.abs(first - this.#anchor) > 2000) this.#anchor = first;
    const offset = scale.factor === 1 ? 0 : this.host.scrollTop - scale.top;
    this.layer.style.transform = `translateY(${Math.round(this.#anchor * scale.rowHeight + offset)}px)`;
    for (const slot of this.#slots) {
      if (slot.index < first || slot.index >= last) this.#hide(slot);
    }
    let selected = "";
    const stands = this.selected !== undefined;
    for (let index = first; index < last; index++) {
      const slot = /** @type {Slot} */ (this.#slots[index % this.#slots.length]);
      const moved = slot.index !== index;
      const top = (index - this.#anchor) * scale.rowHeight;
      if (slot.top !== top) {
        slot.top = top;
        slot.element.style.transform = `translateY(${top}px)`;
      }
      if (all || moved || slot.element.classList.contains("waiting")) this.#paintRow(slot, index);
      const chosen = stands && index === this.#selectedIndex;
      slot.element.classList.toggle("selected", chosen);
      slot.element.setAttribute("aria-selected", String(chosen));
      if (chosen) selected = slot.element.id;
    }
    if (selected) this.host.setAttribute("aria-activedescendant", selected);
    else this.host.removeAttribute("aria-activedescendant");
    this.#ask();
  }

  /** @param {Slot} slot @param {number} index */
  #paintRow(slot, index) {
    const shown = this.source.at(index);
    if (slot.index !== index) {
      slot.index = index;
      slot.element.hidden = false;
      slot.element.setAttribute("aria-rowindex", String(index + 2));
    }
    slot.element.classList.toggle("waiting", !shown);
    slot.element.classList.toggle("ended", shown?.ended ?? false);
    if (!shown) return;
    slot.element.classList.toggle("dying", shown.row.flags.includes("D"));
    slot.element.dataset.id = shown.row[".id"];
    for (const paint of slot.paint) paint(shown.row, shown.age);
  }

  /** @param {Slot} slot */
  #hide(slot) {
    if (slot.index < 0 && slot.element.hidden) return;
    slot.index = -1;
    slot.element.hidden = true;
  }

  /** Ask for the rows around what is seen, unless they have been asked for. */
  #ask() {
    if (this.#leaving) return;
    const { first, seen, rows } = this.#scale;
    const asked = this.#asked;
    const near = MARGIN / 3;
    if (
      asked &&
      asked.offset <= Math.max(0, first - near) &&
      asked.offset + asked.limit >= Math.min(Math.max(rows, seen), first + seen + near)
    ) {
      return;
    }
    const wait = this.#askedAt + ASK_EVERY - performance.now();
    if (wait > 0) {
      this.#askTimer ??= setTimeout(() => {
        this.#askTimer = undefined;
        this.#ask();
      }, wait);
      return;
    }
    this.#askFor(first);
  }

  /** @param {number} first First row that is seen. */
  #askFor(first) {
    this.#askedAt = performance.now();
    this.#asked = { offset: Math.max(0, first - MARGIN), limit: Math.min(MOST_ROWS, this.#scale.seen + 2 * MARGIN) };
    this.onRange(this.#asked.offset, this.#asked.limit);
  }
}
