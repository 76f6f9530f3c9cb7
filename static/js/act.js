/** What a user of the full role may do to connections: pick them and remove them. Others do not see any of it. */

/** @import { Column } from "./columns.js" */
/** @import { Display } from "./display.js" */
/** @import { Row } from "./protocol.js" */
/** @import { Table } from "./table.js" */
import * as cells from "./cells.js";
import { grouped } from "./format.js";
import { Picks } from "./picks.js";
import { onPress } from "./press.js";
import { Removal } from "./removal.js";
import { session } from "./session.js";

/** @param {string} id */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

const TOLD_FOR = 4000;

export class Act {
  picks = new Picks();
  #allowed = false;
  #removal = new Removal(/** @type {HTMLDialogElement} */ (byId("remove")));
  #matching = /** @type {HTMLButtonElement} */ (byId("remove-matching"));
  #bar = byId("picked");
  #told = byId("told");
  /** @type {number | undefined} */
  #timer;
  /** @type {Column} */
  #column = { name: "picked", title: "Selected", help: "", unsorted: true, width: 36, cell: cells.pick((id) => this.picks.has(id)) };

  /** It is known now whether this user may act. @type {() => void} */
  onAllowed = () => {};
  /** Others are picked, or have been removed. @type {() => void} */
  onChange = () => {};

  /** @param {Table} table @param {Display} display */
  constructor(table, display) {
    this.table = table;
    this.display = display;
    this.picks.onChange = () => {
      this.#paint();
      this.onChange();
    };
    this.#removal.onDone = (text) => {
      this.picks.clear();
      this.#tell(text);
      this.onChange();
    };
    this.#matching.addEventListener("click", () => {
      const filter = display.message?.filter;
      if (filter) void this.#removal.askAboutMatching(filter);
    });
    byId("remove-picked").addEventListener("click", () => this.remove());
    byId("let-go").addEventListener("click", () => this.picks.clear());
    onPress(table.body, (target) => {
      const index = table.indexOf(target);
      const row = display.at(index)?.row;
      return () => this.#toggle(row, index);
    });
    table.body.addEventListener("click", (event) => this.#clicked(event), { capture: true });
    session().then(({ role }) => {
      this.#allowed = role === "full";
      document.documentElement.dataset.role = role;
      this.onAllowed();
    }, () => {});
  }

  /** The columns before those that were chosen. @returns {Column[]} */
  get columns() {
    return this.#allowed ? [this.#column] : [];
  }

  /** There are other rows. */
  follow() {
    const message = this.display.message;
    if (!message) return;
    if (message.watched) this.picks.forgetEnded(message.watched);
    this.#matching.disabled = !message.filter;
    this.#matching.title = message.filter ? "Remove all that match" : "Remove all that match: only with a filter";
  }

  /** Those that are picked; without any, the one that is chosen. @param {Row} [one] */
  remove(one) {
    if (!this.#allowed || this.display.message?.group) return;
    const chosen = this.table.selected;
    const rows = one ? [one] : this.picks.count ? this.picks.rows : chosen ? [chosen] : [];
    if (rows.length) this.#removal.askAbout(rows);
  }

  /** Pick the chosen row, or let it go. */
  toggle() {
    this.#toggle(this.table.selected, this.table.selectedIndex);
  }

  /** @param {Row | undefined} row @param {number} index Where it stands. */
  #toggle(row, index) {
    if (this.#allowed && row && !this.display.message?.group) this.picks.toggle(row, index);
  }

  /** A click on the box of a row is for picking it; once some are picked, a finger's anywhere on it. @param {MouseEvent} event */
  #clicked(event) {
    const target = /** @type {Element} */ (event.target);
    const picking = this.picks.count && /** @type {PointerEvent} */ (event).pointerType === "touch";
    if (!picking && !target.closest('[data-column="picked"]')) return;
    event.stopPropagation();
    const index = this.table.indexOf(target);
    const row = this.display.at(index)?.row;
    if (!row) return;
    if (event.shiftKey) this.picks.extend(index, (at) => this.display.at(at)?.row);
    else this.picks.toggle(row, index);
  }

  #paint() {
    const { count } = this.picks;
    this.#bar.hidden = !count;
    this.table.host.classList.toggle("picking", count > 0);
    byId("picked-count").textContent = `${grouped(count)} selected`;
    this.table.refresh();
  }

  /** @param {string} text */
  #tell(text) {
    this.#told.textContent = text;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (this.#told.textContent = ""), TOLD_FOR);
  }
}
