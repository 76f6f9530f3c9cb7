/**
 * What a cell shows. A maker fills an empty cell once and returns its painter; a painter runs each second for every row that is
 * seen, and touches the document only where something changed. What has data-term can be clicked to filter by it.
 */

/** @import { Row } from "./protocol.js" */
import { duration, grouped, rate, splitEndpoint } from "./format.js";
import { hostName, serviceName } from "./names.js";
import { term } from "./terms.js";

/**
 * @callback Paint
 * @param {Row} row
 * @param {number} age Seconds since the row was read.
 * @returns {void}
 *
 * @callback CellMaker
 * @param {HTMLElement} host
 * @returns {Paint}
 */

/**
 * @param {string} className
 * @param {HTMLElement} host
 */
function part(className, host) {
  const element = document.createElement("span");
  element.className = className;
  host.append(element);
  return element;
}

/**
 * Text that is cut in its middle where it is too long, if it is an IPv6 address: what tells hosts apart is its last group.
 * @param {HTMLElement} host
 * @returns {(text: string) => void}
 */
function bothEnds(host) {
  const begin = part("begin", host);
  const end = part("end", host);
  return (text) => {
    const last = text.lastIndexOf(":");
    const cut = last > text.indexOf(":") ? last : text.length;
    begin.textContent = text.slice(0, cut);
    end.textContent = text.slice(cut);
  };
}

/**
 * A painter that hands over only what changed.
 * @template {string | number | undefined} T
 * @param {(row: Row, age: number) => T} read
 * @param {(value: T, row: Row) => void} write
 * @returns {Paint}
 */
function onChange(read, write) {
  /** @type {T | symbol} */
  let shown = Symbol("nothing yet");
  return (row, age) => {
    const value = read(row, age);
    if (value === shown) return;
    shown = value;
    write(value, row);
  };
}

/**
 * The property as it is.
 * @param {string} name
 * @returns {CellMaker}
 */
export const plain = (name) => (host) =>
  onChange(
    (row) => row[name],
    (value) => {
      host.textContent = value === undefined ? "" : String(value);
    },
  );

/**
 * A name that can be asked for.
 * @param {string} name
 * @param {string} field Its name in a filter.
 * @returns {CellMaker}
 */
export const named = (name, field) => (host) => {
  const value = part("value", host);
  return onChange(
    (row) => /** @type {string | undefined} */ (row[name]) ?? "",
    (text) => {
      value.textContent = text;
      value.dataset.term = term(field, text);
      host.dataset.value = text;
    },
  );
};

/**
 * An address with its port a shade quieter, or their names, where those are wanted and known.
 * @param {string} name
 * @param {string} addressField
 * @param {string} portField
 * @returns {CellMaker}
 */
export const endpoint = (name, addressField, portField) => (host) => {
  const addressPart = part("address", host);
  const write = bothEnds(addressPart);
  const portPart = part("port", host);
  return onChange(
    (row) => {
      const value = /** @type {string | undefined} */ (row[name]) ?? "";
      const [address, port] = splitEndpoint(value);
      return `${value} ${hostName(address)} ${port && serviceName(row.protocol, port)}`;
    },
    (shown) => {
      const [value = "", named = "", service = ""] = shown.split(" ");
      const [address, port] = splitEndpoint(value);
      write(named || (port && address.includes(":") ? `[${address}]` : address));
      addressPart.classList.toggle("named", named !== "");
      portPart.textContent = port && `:${service || port}`;
      addressPart.dataset.term = term(addressField, address);
      portPart.dataset.term = term(portField, port);
    },
  );
};

/** The name of the host or service that a group is of. @param {Row} row */
function groupName(row) {
  const group = String(row["group"] ?? "");
  const [protocol = "", port] = group.split("/");
  return port === undefined ? hostName(group) : serviceName(protocol, port);
}

/** What a group has in common; a click leads to its connections. @type {CellMaker} */
export const group = (host) => {
  const value = part("value", host);
  const write = bothEnds(value);
  const name = part("name", host);
  return onChange(
    (row) => `${row[".id"]}\n${groupName(row)}`,
    (_, row) => {
      write(/** @type {string | undefined} */ (row["group"]) ?? "");
      value.dataset.term = row[".id"];
      name.textContent = groupName(row);
    },
  );
};

/** What stands in the state column of a connection that is not TCP. @param {Row} row */
function detail(row) {
  if (row["icmp-type"] !== undefined) return `type ${row["icmp-type"]} id ${row["icmp-id"] ?? ""}`;
  if (row["gre-key"] !== undefined) return `key ${row["gre-key"]}`;
  return "";
}

/** @type {CellMaker} */
export const state = (host) => {
  const chip = part("chip", host);
  return onChange(
    (row) => /** @type {string | undefined} */ (row["tcp-state"]) ?? `\n${detail(row)}`,
    (value, row) => {
      const tcp = row["tcp-state"] !== undefined;
      chip.className = tcp ? "chip" : "detail";
      chip.dataset.state = tcp ? value : "";
      if (tcp) chip.dataset.term = term("state", value);
      else delete chip.dataset.term;
      chip.textContent = value.trim();
    },
  );
};

/** @type {CellMaker} */
export const flags = (host) =>
  onChange(
    (row) => row.flags,
    (value) => {
      host.replaceChildren(
        ...[...value].map((letter) => {
          const element = document.createElement("i");
          element.dataset.flag = letter;
          element.dataset.term = term("flag", letter);
          element.textContent = letter;
          return element;
        }),
      );
    },
  );

/** Counts down by the page's own clock between two sweeps. @type {CellMaker} */
export const timeout = (host) =>
  onChange(
    // Whole seconds arrive: rounding up keeps each for the second that it stands for.
    (row, age) => Math.max(0, Math.ceil(row.timeout - age)),
    (seconds) => {
      host.textContent = duration(seconds);
      host.classList.toggle("soon", seconds < 5);
    },
  );

/**
 * A counter, thousands grouped.
 * @param {string} name
 * @returns {CellMaker}
 */
export const count = (name) => (host) =>
  onChange(
    (row) => /** @type {number | undefined} */ (row[name]),
    (value) => {
      host.textContent = value === undefined ? "" : grouped(value);
      host.classList.toggle("zero", value === 0);
    },
  );

// The bar is logarithmic: 100 bps is empty, 10 Gbps is full.
const BAR_FROM = 2;
const BAR_TO = 10;

/**
 * A rate with its unit, above a thin bar.
 * @param {string} name
 * @returns {CellMaker}
 */
export const speed = (name) => (host) => {
  const number = part("number", host);
  const unit = part("unit", host);
  const bar = part("rate-bar", host);
  return onChange(
    (row) => /** @type {number | undefined} */ (row[name]) ?? 0,
    (bits) => {
      const [value, unitName] = rate(bits);
      number.textContent = value;
      unit.textContent = bits ? unitName : "";
      host.classList.toggle("zero", !bits);
      const share = bits ? (Math.log10(bits) - BAR_FROM) / (BAR_TO - BAR_FROM) : 0;
      bar.style.transform = `scaleX(${Math.min(1, Math.max(0, share)).toFixed(3)})`;
    },
  );
};

/**
 * A box that says whether the row is picked.
 * @param {(id: string) => boolean} picked
 * @returns {CellMaker}
 */
export const pick = (picked) => (host) => {
  part("box", host).setAttribute("aria-hidden", "true");
  host.title = "Select it (space); with Shift: all from the one selected before";
  return onChange(
    (row) => Number(picked(row[".id"])),
    (value) => {
      host.setAttribute("aria-selected", String(value === 1));
      host.setAttribute("aria-label", value ? "selected" : "not selected");
    },
  );
};
