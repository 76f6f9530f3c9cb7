/** The settings dialog: what is tracked and why, how full the table is, every setting as the server describes it. */

/** @import { Setting } from "./setting-field.js" */
/** @import { RowsMessage } from "./protocol.js" */
import { grouped } from "./format.js";
import { make } from "./make.js";
import { Refusal, get } from "./server.js";
import { session } from "./session.js";
import { SettingField } from "./setting-field.js";

/**
 * @typedef {object} Described
 * @property {number} version
 * @property {Setting[]} settings
 * @property {{active: boolean, reason: string}} tracking
 * @property {number} max-entries
 * @property {number} total-entries
 * @property {number} total-ip4-entries
 * @property {number} total-ip6-entries
 * @property {{name: string, hook: string}[]} interfaces
 * @property {{packets: number, offered: number, interfaces: {name: string, reason: string}[], refusals: string[]} | null} fasttrack
 */

/** Totals and interfaces change without a version: so often they are asked for while the dialog is open. */
const REFRESH = 3000;

const HOOKS = /** @type {Record<string, string>} */ ({
  xdp: "incoming packets are met in the driver, outgoing ones at tc",
  tc: "packets are met at tc, both ways",
});

/** @type {[string, (setting: Setting) => boolean][]} */
const SECTIONS = [
  ["Tracking", (setting) => setting.kind !== "time"],
  ["TCP timeouts", (setting) => setting.name.startsWith("tcp-")],
  ["Other timeouts", () => true],
];

export class Settings {
  /** @type {Map<string, SettingField>} */
  #fields = new Map();
  #version = -1;
  #asked = 0;
  #alert;
  #state;
  #body;

  /** @param {HTMLDialogElement} dialog */
  constructor(dialog) {
    this.dialog = dialog;
    this.#alert = /** @type {HTMLElement} */ (dialog.querySelector(".dialog-alert"));
    this.#state = /** @type {HTMLElement} */ (dialog.querySelector(".state"));
    this.#body = /** @type {HTMLElement} */ (dialog.querySelector(".fields"));
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
    setInterval(() => {
      if (dialog.open && !document.hidden) void this.#load();
    }, REFRESH);
  }

  show() {
    if (this.dialog.open) return;
    this.dialog.showModal();
    void this.#load();
  }

  /** Somebody may have changed something, here or on another page. @param {RowsMessage} message */
  follow(message) {
    if (this.dialog.open && message.settings !== this.#version) void this.#load();
  }

  async #load() {
    const asked = ++this.#asked;
    try {
      const described = /** @type {Described} */ (await get("/page/settings"));
      const { role } = await session();
      if (asked === this.#asked) this.#paint(described, role === "full");
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.#alert.textContent = error.message;
    }
    this.#alert.hidden = asked !== this.#asked || !this.#alert.textContent;
  }

  /** @param {Described} described @param {boolean} allowed */
  #paint(described, allowed) {
    this.#alert.textContent = "";
    this.#version = described.version;
    if (!this.#fields.size) this.#make(described.settings, allowed);
    for (const setting of described.settings) this.#fields.get(setting.name)?.update(setting);
    const tiles = make("div", "state", this.#tracking(described), this.#room(described), this.#interfaces(described), ...this.#fasttrack(described));
    if (tiles.isEqualNode(this.#state)) return;
    this.#state.replaceWith(tiles);
    this.#state = tiles;
  }

  /** @param {Setting[]} settings @param {boolean} allowed Whether this user may change them. */
  #make(settings, allowed) {
    // With nothing in it to go to, the keyboard scrolls it as a whole.
    if (!allowed) /** @type {HTMLElement} */ (this.#body.parentElement).tabIndex = 0;
    if (!allowed) this.#body.append(make("p", "may-look", "You may look at the settings; changing them takes a user of the full role."));
    let rest = settings;
    for (const [title, belongs] of SECTIONS) {
      const chosen = rest.filter(belongs);
      rest = rest.filter((setting) => !belongs(setting));
      if (!chosen.length) continue;
      const section = make("section", "", make("h3", "", title));
      const takes = chosen.find((setting) => setting.kind === "time")?.takes;
      if (takes && title === "TCP timeouts") section.append(make("p", "takes", `Each timeout takes ${takes}.`));
      for (const setting of chosen) {
        const field = new SettingField(setting, allowed);
        field.onSaved = () => void this.#load();
        this.#fields.set(setting.name, field);
        section.append(field.element);
      }
      this.#body.append(section);
    }
  }

  /** @param {Described} described */
  #tracking({ tracking }) {
    const tile = make("div", "tile", make("h3", "", "State"), make("p", "big", tracking.active ? "Tracking" : "Not tracking"), make("p", "doc", tracking.reason));
    tile.dataset.active = String(tracking.active);
    return tile;
  }

  /** @param {Described} described */
  #room(described) {
    const total = described["total-entries"];
    const most = described["max-entries"];
    const bar = make("meter", "");
    bar.max = most;
    bar.high = most * 0.9;
    bar.value = total;
    bar.setAttribute("aria-label", "How full the table is");
    const share = most ? (100 * total) / most : 0;
    const size = make("p", "big", grouped(total), make("small", "", ` of ${grouped(most)}`));
    size.title = "max-entries is set in the configuration file, for the table is made when the program starts";
    const families = `IPv4 ${grouped(described["total-ip4-entries"])} · IPv6 ${grouped(described["total-ip6-entries"])} · ${share.toFixed(share < 10 ? 1 : 0)} % full`;
    return make("div", "tile", make("h3", "", "Connections of max-entries"), size, bar, make("p", "doc", families));
  }

  /** @param {Described} described */
  #interfaces({ interfaces }) {
    const chips = interfaces.map(({ name, hook }) => {
      const chip = make("li", "", make("b", "", name), ` ${hook}`);
      chip.title = HOOKS[hook] ?? hook;
      return chip;
    });
    const list = chips.length ? make("ul", "interfaces", ...chips) : make("p", "doc", "No program is attached anywhere.");
    return make("div", "tile", make("h3", "", "Interfaces and their hooks"), list);
  }

  /** Nothing without a rule that asks for it. @param {Described} described */
  #fasttrack({ fasttrack }) {
    if (!fasttrack) return [];
    const { packets, offered, interfaces, refusals } = fasttrack;
    const share = offered ? (100 * packets) / offered : 0;
    const size = make("p", "big", `${share.toFixed(share < 10 ? 1 : 0)} %`, make("small", "", " of all packets so far"));
    const fast = interfaces.filter(({ reason }) => !reason).map(({ name }) => name);
    const where = make("p", "doc", fast.length ? `Between ${fast.join(", ")}` : "No interface takes part");
    const others = interfaces.filter(({ reason }) => reason).map(({ name, reason }) => make("p", "doc", make("b", "", name), ` takes the normal way: ${reason}`));
    const refused = refusals.map((line) => make("p", "doc", "Not in force: ", line));
    return [make("div", "tile fasttrack", make("h3", "", "FastTrack"), size, where, ...others, ...refused)];
  }
}
