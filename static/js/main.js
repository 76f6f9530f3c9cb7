/** Wires the parts together; what each of them does is in its own file. */

/** @import { Trouble } from "./live.js" */
/** @import { Message, RowsMessage } from "./protocol.js" */
import { account } from "./account.js";
import { Act } from "./act.js";
import { Cards } from "./cards.js";
import { Charts } from "./charts.js";
import { Chooser } from "./chooser.js";
import { CARD_COLUMNS, COLUMN, DEFAULT_COLUMNS, MIDDLE_COLUMNS } from "./columns.js";
import { copyPlainly } from "./copying.js";
import { Counters } from "./counters.js";
import { Detail } from "./detail.js";
import { Display } from "./display.js";
import { Empty } from "./empty.js";
import { Export } from "./export.js";
import { GROUPS, groupColumns } from "./groups.js";
import { helpDialog } from "./help.js";
import { Hold } from "./hold.js";
import { bindKeys } from "./keys.js";
import { Live } from "./live.js";
import * as names from "./names.js";
import { Search } from "./search.js";
import { stillSignedIn } from "./session.js";
import { Settings } from "./settings.js";
import { Status } from "./status.js";
import { Suggestions } from "./suggestions.js";
import { Table } from "./table.js";
import { excludes, narrowed, without } from "./terms.js";
import { themeSwitch } from "./theme.js";
import { View } from "./view.js";

/** @template {HTMLElement} T @param {string} id @returns {T} */
const byId = (id) => /** @type {T} */ (document.getElementById(id));

const narrow = matchMedia("(max-width: 720px)");
const middle = matchMedia("(max-width: 1000px)");
/** Pixels, as in narrow.css. */
const CARD_HEIGHT = 72;
const CARD_LINE = 20;

const view = new View();
const display = new Display();
const status = new Status();
const empty = new Empty();
const search = new Search(byId("search"));
new Suggestions(search.input, byId("suggestions"));
const table = new Table(byId("table"), display);
const cards = new Cards(byId("card-sort"), byId("card-order"));
const chooser = new Chooser(byId("columns"));
const detail = new Detail(byId("detail"));
const counters = new Counters(byId("counters"), byId("all-counters"));
const charts = new Charts(byId("charts"), byId("open-charts"));
const exporting = new Export(byId("export"));
const settings = new Settings(byId("settings"));
const act = new Act(table, display);
const hold = new Hold(table.body);
const live = new Live(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`);

/** The window that the table needs. */
let range = { offset: 0, limit: 0 };
/** While paused, an answer to a question of ours is still shown: scrolling goes on. */
let answerDue = false;
/** The filter that the server could not use: the one before stays in force. @type {string | undefined} */
let refused;

function ask() {
  answerDue = true;
  const filter = refused === view.filter ? (display.message?.filter ?? "") : view.filter;
  const held = display.message?.group ? [] : display.heldIds;
  const watch = [...new Set([...(detail.row ? [detail.row[".id"]] : []), ...act.picks.ids, ...held])].slice(0, 500);
  live.show({ filter, sort: view.sort, ...range, ...(view.group && { group: view.group }), ...(watch.length && { watch }), ...(names.wanted.hosts && { names: true }) });
}

/** Another filter or order. What is shown stays until the answer is here. */
function askAnew() {
  table.head.setSort(view.sort);
  groupBy.value = view.group;
  cards.show(view.sort);
  table.askFromTop();
}

/** @param {RowsMessage} message */
function take(message) {
  const before = display.message;
  const regrouped = before?.group !== message.group;
  const other = before !== undefined && (regrouped || before.filter !== message.filter || before.sort !== message.sort);
  const answers = message.sort === view.sort && (message.group ?? "") === view.group && message.offset === range.offset;
  if (status.paused && !(answerDue && answers) && !other) return;
  if (answers) answerDue = false;
  display.accept(message);
  if (regrouped) useColumns();
  if (other) {
    act.picks.clear();
    table.restart();
  }
  table.refresh();
}

/** Those that were chosen, or that the width of the screen suggests. */
function columnNames() {
  if (narrow.matches) return view.cards;
  const chosen = view.columns.join() !== DEFAULT_COLUMNS.join();
  return chosen || !middle.matches ? view.columns : [...MIDDLE_COLUMNS];
}

/** Those of what is shown, which may not be what has been asked for yet. */
function useColumns() {
  const group = display.message ? (display.message.group ?? "") : view.group;
  const chosen = columnNames().flatMap((name) => COLUMN.get(name) ?? []);
  const lines = chosen.filter(({ name }) => !CARD_COLUMNS.includes(name)).length;
  table.host.style.setProperty("--row-height", narrow.matches && !group ? `${CARD_HEIGHT + lines * CARD_LINE}px` : "");
  table.host.classList.toggle("grouped", group !== "");
  table.host.setAttribute("aria-label", group ? `Connections by ${GROUPS.get(group)?.one}` : "Connections");
  table.setColumns(group ? groupColumns(group, narrow.matches) : [...act.columns, ...chosen]);
  cards.fill(view.group ? groupColumns(view.group, true) : [...COLUMN.values()].filter((column) => !column.optional), view.sort);
}

live.onMessage = (/** @type {Message} */ message) => {
  if (message.type === "hello") {
    byId("version").textContent = message.version;
  } else if (message.type === "error") {
    if (message.field === "sort" && display.message) {
      view.sort = display.message.sort;
      table.head.setSort(view.sort);
      table.stay();
      return;
    }
    // An error may come late: about a filter that has been typed over since.
    if (message.filter !== view.filter) return;
    search.error(message.message, message.position);
    if (refused === view.filter) return;
    refused = view.filter;
    table.stay();
  } else {
    if (message.filter === view.filter) search.error("");
    if (message.names) names.take(message.names);
    take(message);
    applyHold();
    if (detail.row && !status.paused) {
      const id = detail.row[".id"];
      const row = message.watched && id in message.watched ? message.watched[id] : message.rows.find((one) => one[".id"] === id);
      if (row !== undefined) detail.update(row ?? undefined);
    }
    act.follow();
    status.count(message);
    counters.paint(message.counters ?? {});
    settings.follow(message);
    void charts.follow();
    status.held = display.held;
    status.paint();
    empty.paint(display.message, status.trouble);
  }
};

live.onTrouble = (/** @type {Trouble | undefined} */ trouble) => {
  if (!trouble && !status.trouble) return;
  if (trouble?.retryAt) void stillSignedIn();
  status.trouble = trouble;
  display.stopTime(status.paused || trouble !== undefined);
  status.paint();
  empty.paint(display.message, trouble);
};

table.onRange = (/** @type {number} */ offset, /** @type {number} */ limit) => {
  range = { offset, limit };
  ask();
};

table.head.onSort = (/** @type {string} */ name) => {
  view.sortBy(name);
  askAnew();
};
table.head.onWidths = () => view.keepWidths(table.head.widths);

search.onFilter = (/** @type {string} */ filter) => {
  view.filter = filter;
  refused = undefined;
  view.write("replace");
  askAnew();
};
empty.onClear = () => search.set("");
empty.onRetry = () => live.connect();
empty.onSettings = () => settings.show();
byId("retry").addEventListener("click", () => live.connect());

/** @param {string[]} names */
function chooseColumns(names) {
  if (narrow.matches) {
    view.cards = names;
    useColumns();
    return;
  }
  view.columns = names;
  view.keepColumns();
  view.write("replace");
  useColumns();
}
chooser.onChange = chooseColumns;
chooser.onReset = () => table.head.forgetWidths();
table.head.onMove = (/** @type {string} */ name, /** @type {string | undefined} */ before) => {
  const rest = columnNames().filter((other) => other !== name);
  const at = before === undefined ? rest.length : rest.indexOf(before);
  chooseColumns(rest.toSpliced(at, 0, name));
};
byId("open-columns").addEventListener("click", () => {
  chooser.show(columnNames(), narrow.matches ? CARD_COLUMNS : DEFAULT_COLUMNS, names.wanted);
});

/** Numbers become names, or the other way. */
function repaint() {
  table.refresh();
  if (detail.row) detail.update(detail.row);
}
chooser.onNames = async (/** @type {Partial<typeof names.wanted>} */ change) => {
  await names.choose(change);
  repaint();
  ask();
};

view.onChange = () => {
  refused = undefined;
  search.fill(view.filter);
  useColumns();
  askAnew();
};

/* Paused by hand, or held in order while the pointer is over the rows. */

function setPaused(/** @type {boolean} */ paused) {
  status.paused = paused;
  display.stopTime(paused || status.trouble !== undefined);
  if (!paused) ask();
  status.paint();
}

function applyHold() {
  // An order with holes in it is not one to keep: wait for the rows that are still on their way.
  const held = hold.wanted && (display.held || display.covers(...table.seen));
  if (held === display.held) return;
  if (held) display.hold();
  else display.release();
  status.held = held;
  table.refresh();
  status.paint();
  ask();
}
hold.onChange = applyHold;
table.onScroll = () => hold.scrolled();
byId("live").addEventListener("click", () => setPaused(!status.paused));

cards.onSort = table.head.onSort;

/* Groups instead of connections, and from a group to its connections. */

const groupBy = /** @type {HTMLSelectElement} */ (byId("group"));
for (const [name, { title }] of GROUPS) groupBy.add(new Option(title, name));
groupBy.addEventListener("change", () => {
  detail.close();
  view.groupBy(groupBy.value);
  view.write("push");
  askAnew();
});
/** The choice stands where there is room for it. */
function placeGroupBy() {
  const label = /** @type {HTMLElement} */ (groupBy.parentElement);
  if (narrow.matches) byId("cards").append(label);
  else byId("search").after(label);
}

/* One connection is chosen: by a click or by j and k. Its panel follows the choice while it is open. */

/** @param {number} by */
function step(by) {
  const [first, last] = table.seen;
  const from = table.selectedIndex;
  const inView = from >= first && from <= last;
  // Where the chosen one has gone, the next one stands in its place.
  const next = table.selected || by < 0 ? from + by : from;
  table.select(inView ? Math.min(display.count - 1, Math.max(0, next)) : by > 0 ? first : last);
}

function openDetail() {
  const row = table.selected;
  if (!row) return;
  if (display.message?.group) {
    filterBy(row[".id"], false);
    return;
  }
  detail.show(row);
  ask();
}

act.onAllowed = useColumns;
act.onChange = ask;
byId("remove-one").addEventListener("click", () => act.remove(detail.row));

table.onSelect = () => {
  if (detail.open && !display.message?.group) openDetail();
};
detail.onTerm = (/** @type {string} */ term, /** @type {boolean} */ exclude) => {
  if (narrow.matches) detail.close();
  filterBy(term, exclude);
};
detail.onClose = () => {
  table.host.focus();
  ask();
};
table.body.addEventListener("click", (event) => {
  // A click that ends a selection of text is no click.
  if (getSelection()?.isCollapsed === false) return;
  const target = /** @type {Element} */ (event.target);
  const term = /** @type {HTMLElement | null} */ (target.closest("[data-term]"))?.dataset.term;
  // A finger is too broad for a part of a cell: it opens the panel.
  if (term && /** @type {PointerEvent} */ (event).pointerType === "mouse") {
    filterBy(term, excludes(event));
  } else {
    table.select(table.indexOf(target));
    openDetail();
  }
});
// With Shift the browser would select text from the last click to this one.
table.body.addEventListener("mousedown", (event) => {
  if (event.shiftKey) event.preventDefault();
});

/**
 * Only what has this, and of a group its connections; or all but that.
 * @param {string} term
 * @param {boolean} exclude
 */
function filterBy(term, exclude) {
  view.filter = narrowed(view.filter, exclude ? without(term) : term);
  if (!exclude) view.groupBy("");
  view.write("push");
  search.fill(view.filter);
  refused = undefined;
  askAnew();
}

copyPlainly(table.host);

/** A tooltip is made when it is wanted, not for every row each second. */
table.body.addEventListener("pointerover", (event) => {
  const target = /** @type {HTMLElement} */ (event.target);
  const cell = /** @type {HTMLElement | null} */ (target.closest(".cell"));
  const shown = cell && display.at(table.indexOf(cell));
  const column = cell && table.columnOf(cell);
  if (!cell || !shown || !column) return;
  const only = display.message?.group ? "Click: its connections. Shift-click: without it." : "Click: only these. Shift-click: without these.";
  const hint = target.closest("[data-term]") ? only : "";
  cell.title = [column.tooltip?.(shown.row), hint].filter(Boolean).join("\n");
});

byId("open-export").addEventListener("click", () => {
  const message = display.message;
  if (!message) return;
  const sort = message.group ? "" : message.sort;
  exporting.show({ filter: message.filter, sort, columns: view.columns }, message.connections ?? message.matched);
});

const help = helpDialog(byId("help"));
byId("open-help").addEventListener("click", () => help.showModal());
for (const opener of ["open-settings", "not-tracking"]) byId(opener).addEventListener("click", () => settings.show());

bindKeys({
  "/": () => search.input.select(),
  "?": () => help.showModal(),
  s: () => settings.show(),
  g: () => groupBy.focus(),
  c: () => charts.toggle(),
  p: () => setPaused(!status.paused),
  Escape: () => {
    if (document.activeElement === search.input) {
      if (search.value) search.set("");
      else table.host.focus();
    } else if (detail.open) {
      detail.close();
    } else if (act.picks.count) {
      act.picks.clear();
    } else {
      table.select(-1);
    }
  },
  j: () => step(1),
  k: () => step(-1),
  ArrowDown: () => step(1),
  ArrowUp: () => step(-1),
  PageDown: () => table.turnPage(1),
  PageUp: () => table.turnPage(-1),
  Home: () => table.turnPage(-Infinity),
  End: () => table.turnPage(Infinity),
  Enter: openDetail,
  " ": () => act.toggle(),
  x: () => act.remove(),
});

names.load().then(repaint);
themeSwitch(byId("theme"));
void account(byId("account"));
search.fill(view.filter);
table.head.widths = view.keptWidths();
table.head.setSort(view.sort);
placeGroupBy();
groupBy.value = view.group;
useColumns();
for (const width of [narrow, middle]) {
  width.addEventListener("change", () => {
    placeGroupBy();
    useColumns();
  });
}
status.paint();
empty.paint(undefined, undefined);
live.connect();

setInterval(() => {
  if (document.hidden) return;
  if (!status.paused && !status.trouble) {
    table.tick();
    detail.tick();
  }
  if (status.trouble) {
    status.paint();
    empty.paint(display.message, status.trouble);
  }
}, 200);
