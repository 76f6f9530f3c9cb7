/** What the datapath has counted: a short line in the foot, all of it with explanations in a dialog. */

import { grouped } from "./format.js";

/**
 * In the order of the dialog; the names are the server's (enum counter in ebpf/types.h).
 * `not-tracked`: why packets belong to no connection.
 * @type {[string, [string, string][]][]}
 */
const GROUPS = [
  ["Traffic", [
    ["offered-packets", "IP packets met, each once"],
    ["offered-bytes", "their bytes, IP headers included"],
    ["fasttrack-packets", "of these, forwarded by XDP itself, past the stack"],
    ["fasttrack-bytes", "their bytes"],
    ["live-packets", "of the connections in the table; with those of ended ones and of none it makes what was met"],
    ["live-bytes", "their bytes"],
    ["unaccounted-packets", "met and counted nowhere, or twice if negative: always 0"],
    ["unaccounted-bytes", "their bytes"],
  ]],
  ["Connections", [
    ["created", "connections begun"],
    ["expired", "ended by their timeout"],
    ["reset", "ended by a reset before any reply"],
    ["reopened", "closed ones that began anew"],
    ["removed", "removed by hand"],
    ["early-drop", "given up for a new one because the table was full"],
    ["refused", "packets that found the table full, with nothing to give up"],
    ["ended-packets", "packets of connections that are over"],
    ["ended-bytes", "their bytes"],
    ["ended-reply-bytes", "of these, what came back"],
    ["merged", "turned out to be the other direction of a translated one"],
    ["nat-learned", "translations learned"],
    ["nat-refused", "translations that there was no room for"],
  ]],
  ["From nf_conntrack", [
    ["conntrack-events", "events read"],
    ["conntrack-lag-ms", "milliseconds that the table may be behind"],
    ["conntrack-overruns", "times that events were lost, and all was read afresh"],
    ["conntrack-malformed", "messages that do not parse"],
    ["conntrack-dumps", "times that all of its table was read"],
    ["conntrack-failures", "times that it could not be followed"],
    ["conntrack-waiting", "of its connections, those no packet has shown here yet"],
  ]],
  ["Names of hosts", [
    ["names-asked", "addresses that the resolver was asked about"],
    ["names-known", "of which the answer is remembered"],
    ["names-waiting", "that wait for their turn, or for the resolver"],
    ["names-refused", "times that too many were waiting"],
  ]],
  ["Packets of no connection", [
    ["untracked-bytes", "the bytes of all below"],
    ["cut-link", "VLAN or PPPoE header cut short or malformed"],
    ["cut-ip", "IP packet longer than its frame"],
    ["malformed-ip", "impossible IP header"],
    ["malformed-extension", "IPv6 extension headers cut, too many or too long"],
    ["cut-transport", "transport header longer than the packet"],
    ["malformed-transport", "impossible lengths or TCP flags"],
    ["fragment", "fragments whose first one has not come"],
    ["invalid-tcp", "TCP that fits no connection and begins none"],
    ["ignored-tcp", "TCP let through without counting: repeated SYN and the like"],
    ["invalid-icmp", "replies nobody asked for, unknown types"],
    ["icmp-error", "ICMP errors about connections in the table"],
    ["neighbour", "neighbour discovery and multicast reports"],
    ["busy", "met an entry just as it was being removed"],
  ]],
];

/** Those whose growth means that something was lost, with the word for it in the foot. @type {[string, string][]} */
const LOSSES = [["early-drop", "early drops"], ["refused", "refused"], ["invalid-tcp", "invalid"], ["failed-sweeps", "failed sweeps"]];

/** @param {Record<string, number>} counters @returns {Map<string, number>} */
function byName(counters) {
  return new Map(Object.entries(counters).map(([name, value]) => [name.replaceAll("_", "-"), value]));
}

/** @param {string} text @param {number} value @param {string} className */
function item(text, value, className) {
  const element = document.createElement("span");
  element.className = `counter ${className}`;
  const number = document.createElement("b");
  number.textContent = grouped(value);
  element.append(`${text} `, number);
  return element;
}

export class Counters {
  /** @type {Map<string, number>} */
  #now = new Map();

  /**
   * @param {HTMLElement} button Shows the short line, opens the dialog.
   * @param {HTMLDialogElement} dialog
   */
  constructor(button, dialog) {
    this.button = button;
    this.dialog = dialog;
    button.addEventListener("click", () => {
      this.#paintDialog();
      dialog.showModal();
    });
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
  }

  /** @param {Record<string, number>} counters */
  paint(counters) {
    const before = this.#now;
    this.#now = byName(counters);
    const items = [];
    for (const name of ["created", "expired"]) {
      const value = this.#now.get(name);
      if (value !== undefined) items.push(item(name, value, ""));
    }
    for (const [name, text] of LOSSES) {
      const value = this.#now.get(name) ?? 0;
      const grows = value > (before.get(name) ?? value);
      if (value || name === "early-drop" || name === "refused") items.push(item(text, value, grows ? "loss" : value ? "" : "zero"));
    }
    this.button.replaceChildren(...items);
    if (this.dialog.open) this.#paintDialog();
  }

  #paintDialog() {
    const rest = new Map(this.#now);
    const parts = [];
    for (const [title, names] of GROUPS) {
      const lines = names.flatMap(([name, meaning]) => {
        const value = rest.get(name);
        rest.delete(name);
        return value === undefined ? [] : this.#line(name, value, meaning);
      });
      if (lines.length) parts.push(this.#group(title, lines));
    }
    if (rest.size) parts.push(this.#group("Server", [...rest].flatMap(([name, value]) => this.#line(name, value, ""))));
    this.dialog.querySelector(".all-counters")?.replaceChildren(...parts);
  }

  /** @param {string} title @param {HTMLElement[]} lines */
  #group(title, lines) {
    const section = document.createElement("section");
    const heading = document.createElement("h3");
    heading.textContent = title;
    const list = document.createElement("dl");
    list.append(...lines);
    section.append(heading, list);
    return section;
  }

  /** @param {string} name @param {number} value @param {string} meaning */
  #line(name, value, meaning) {
    const term = document.createElement("dt");
    term.textContent = name.replaceAll("-", " ");
    const number = document.createElement("dd");
    number.textContent = grouped(value);
    number.className = value ? "value" : "value zero";
    const text = document.createElement("dd");
    text.textContent = meaning;
    return [term, number, text];
  }
}
