/**
 * What is being looked at: filter, grouping, order and columns. It lives in the address, so that a view can be sent as a link; what is a matter
 * of taste and not of the view (widths, the columns one always wants) stays in this browser.
 */

import { CARD_COLUMNS, COLUMN, DEFAULT_COLUMNS } from "./columns.js";
import { DEFAULT_GROUP_SORT, GROUPS, sortsGroups } from "./groups.js";

const DEFAULT_SORT = "-orig-rate";
const COLUMNS_KEY = "ctweb.columns";
const WIDTHS_KEY = "ctweb.widths";
const CARDS_KEY = "ctweb.cards";

/** @param {string} list @returns {string[]} */
function knownColumns(list) {
  return [...new Set(list.split(","))].filter((name) => COLUMN.has(name));
}

/** A value that this browser keeps; what is not JSON is as good as nothing. @param {string} key @returns {unknown} */
function kept(key) {
  try {
    return JSON.parse(localStorage.getItem(key) ?? "null");
  } catch {
    return null;
  }
}

export class View {
  filter = "";
  sort = DEFAULT_SORT;
  /** One of GROUPS, or "": connections, not groups. */
  group = "";
  /** @type {string[]} */
  columns = [...DEFAULT_COLUMNS];

  /** Something else was chosen by the browser's Back or Forward. @type {() => void} */
  onChange = () => {};

  constructor() {
    this.#read();
    addEventListener("popstate", () => {
      this.#read();
      this.onChange();
    });
  }

  #read() {
    const query = new URLSearchParams(location.search);
    const favourite = kept(COLUMNS_KEY);
    this.filter = query.get("filter") ?? "";
    this.group = query.get("group") ?? "";
    if (!GROUPS.has(this.group)) this.group = "";
    this.sort = query.get("sort") ?? this.#defaultSort;
    const by = this.sort.replace(/^-/, "");
    if (!(this.group ? sortsGroups(by) : COLUMN.has(by))) this.sort = this.#defaultSort;
    const chosen = knownColumns(query.get("columns") ?? (Array.isArray(favourite) ? favourite.join() : ""));
    this.columns = chosen.length ? chosen : [...DEFAULT_COLUMNS];
  }

  get #defaultSort() {
    return this.group ? DEFAULT_GROUP_SORT : DEFAULT_SORT;
  }

  /** Groups have an order of their own, so they begin with their usual one. @param {string} group */
  groupBy(group) {
    if (group === this.group) return;
    const stays = Boolean(group && this.group);
    this.group = group;
    if (!stays) this.sort = this.#defaultSort;
  }

  /**
   * Put the view into the address.
   * @param {"push" | "replace"} how "push" where Back should lead to the view before.
   */
  write(how) {
    const query = new URLSearchParams();
    if (this.filter) query.set("filter", this.filter);
    if (this.group) query.set("group", this.group);
    if (this.sort !== this.#defaultSort) query.set("sort", this.sort);
    if (this.columns.join() !== DEFAULT_COLUMNS.join()) query.set("columns", this.columns.join());
    // Commas and colons are legal in a query and easier to read.
    const text = query.toString().replaceAll("%2C", ",").replaceAll("%3A", ":").replaceAll("%2F", "/");
    const address = location.pathname + (text && `?${text}`);
    if (how === "push") history.pushState(null, "", address);
    else history.replaceState(null, "", address);
  }

  /** What a row shows on a narrow screen: kept in this browser, and no part of the address. @returns {string[]} */
  get cards() {
    const cards = kept(CARDS_KEY);
    const known = knownColumns(Array.isArray(cards) ? cards.join() : "");
    return known.length ? known : [...CARD_COLUMNS];
  }

  set cards(names) {
    localStorage.setItem(CARDS_KEY, JSON.stringify(names));
  }

  keepColumns() {
    localStorage.setItem(COLUMNS_KEY, JSON.stringify(this.columns));
  }

  /** @param {Record<string, number>} widths */
  keepWidths(widths) {
    localStorage.setItem(WIDTHS_KEY, JSON.stringify(widths));
  }

  /** @returns {Record<string, number>} */
  keptWidths() {
    const widths = kept(WIDTHS_KEY);
    if (typeof widths !== "object" || widths === null) return {};
    return Object.fromEntries(Object.entries(widths).filter(([name, width]) => COLUMN.has(name) && Number.isFinite(width)));
  }

  /** Click on a heading: this column, its natural way first, the other way on the next click. @param {string} name */
  sortBy(name) {
    const descending = `-${name}`;
    if (this.sort === name) this.sort = descending;
    else if (this.sort === descending) this.sort = name;
    else {
      const numeric = this.group ? name !== "group" : COLUMN.get(name)?.numeric && name !== "timeout";
      this.sort = numeric ? descending : name;
    }
    this.write("replace");
  }
}
