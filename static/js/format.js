/** Numbers, rates, times and addresses in RouterOS's way of writing. Pure functions. */

const NARROW_SPACE = "\u202f";

/**
 * Thousands in groups, as RouterOS prints them: `47 603`.
 * @param {number} value
 */
export function grouped(value) {
  const digits = String(Math.trunc(value));
  if (digits.length < 4) return digits;
  let text = digits.slice(-3);
  for (let end = digits.length - 3; end > 0; end -= 3) {
    text = digits.slice(Math.max(0, end - 3), end) + NARROW_SPACE + text;
  }
  return text;
}

const RATE_UNITS = ["bps", "kbps", "Mbps", "Gbps", "Tbps"];

/**
 * A rate as number and unit: `["6.4", "kbps"]`. One decimal from kbps up, so that a column lines up.
 * @param {number} bits Bits per second.
 * @returns {[string, string]}
 */
export function rate(bits) {
  let value = bits;
  let unit = 0;
  // 999.95 would round to 1000.0: it belongs to the next unit already.
  while (value >= (unit ? 999.95 : 1000) && unit < RATE_UNITS.length - 1) {
    value /= 1000;
    unit++;
  }
  return [unit ? value.toFixed(1) : String(Math.round(value)), /** @type {string} */ (RATE_UNITS[unit])];
}

const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/**
 * Bytes for people, for tooltips beside the exact number: `1.4 GiB`.
 * @param {number} bytes
 */
export function roughBytes(bytes) {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < BYTE_UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit ? value.toFixed(1) : value} ${BYTE_UNITS[unit]}`;
}

const TIME_UNITS = /** @type {[string, number][]} */ ([["w", 604800], ["d", 86400], ["h", 3600], ["m", 60], ["s", 1]]);

/**
 * Seconds as RouterOS writes a time: `23h59m52s`, zero units left out, `0s`.
 * @param {number} seconds
 */
export function duration(seconds) {
  let left = Math.max(0, Math.floor(seconds));
  let text = "";
  for (const [letter, size] of TIME_UNITS) {
    const count = Math.floor(left / size);
    left -= count * size;
    if (count) text += count + letter;
  }
  return text || "0s";
}

/**
 * `10.0.0.1:443` and `[2001:db8::1]:443` as address and port; the port is "" where there is none.
 * @param {string} endpoint
 * @returns {[string, string]}
 */
export function splitEndpoint(endpoint) {
  if (endpoint.startsWith("[")) {
    const end = endpoint.indexOf("]");
    return [endpoint.slice(1, end), endpoint.slice(end + 2)];
  }
  const colon = endpoint.indexOf(":");
  if (colon < 0 || colon !== endpoint.lastIndexOf(":")) return [endpoint, ""];
  return [endpoint.slice(0, colon), endpoint.slice(colon + 1)];
}

/**
 * The time of day, with its date if it is another day's.
 * @param {Date} date
 */
export function dateAndClock(date) {
  const day = [date.getFullYear(), date.getMonth() + 1, date.getDate()].map((part) => String(part).padStart(2, "0")).join("-");
  return date.toDateString() === new Date().toDateString() ? clock(date) : `${day} ${clock(date)}`;
}

/**
 * The time of day, `14:03:12`.
 * @param {Date} date
 */
export function clock(date) {
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
}
