/** One setting: its name and meaning, a control, what was wrong with the last value, the way back to the default. */

import { make } from "./make.js";
import { Refusal, post } from "./server.js";

const CHECK = "/page/settings/check";
const SET = "/rest/ip/firewall/connection/tracking/set";
/** A pause in typing. */
const PAUSE = 150;
const SAVED_STAYS = 2500;

/**
 * @typedef {object} Setting As the server describes it.
 * @property {string} name
 * @property {"choice" | "yes-no" | "time"} kind
 * @property {string} value
 * @property {string} default
 * @property {string[]} choices
 * @property {string} takes
 * @property {string} doc
 */

export class SettingField {
  element = make("div", "setting");
  /** @type {HTMLInputElement | HTMLSelectElement | HTMLOutputElement} */
  #control;
  #problem = make("p", "problem");
  #saved = make("span", "saved", "Saved");
  #reset = make("button", "reset");
  #name;
  #allowed;
  #default = "";
  /** What the server has. */
  #value = "";
  /** Answers to older questions are no news. */
  #asked = 0;
  /** @type {number | undefined} */
  #timer;
  /** @type {number | undefined} */
  #savedTimer;

  /** It was changed here. @type {() => void} */
  onSaved = () => {};

  /** @param {Setting} setting @param {boolean} allowed Whoever may not change it sees it all the same. */
  constructor(setting, allowed) {
    this.#name = setting.name;
    this.#allowed = allowed;
    const id = `setting-${setting.name}`;
    const label = make("label", "", setting.name);
    label.htmlFor = id;
    const doc = make("p", "doc", setting.doc);
    doc.id = `${id}-doc`;
    this.#problem.id = `${id}-problem`;
    this.#problem.setAttribute("role", "alert");
    this.#problem.hidden = true;
    this.#control = allowed ? (setting.choices.length ? this.#select(setting.choices) : this.#text(setting.takes)) : make("output", "");
    this.#control.id = id;
    this.#control.setAttribute("aria-describedby", `${doc.id} ${this.#problem.id}`);
    this.#control.addEventListener("change", () => void this.#set(this.#control.value.trim()));
    this.#saved.setAttribute("role", "status");
    this.#saved.hidden = true;
    this.#reset.type = "button";
    this.#reset.addEventListener("click", () => {
      this.#control.value = this.#default;
      // The button goes when the value is the default: the focus must not go with it.
      this.#control.focus();
      void this.#set(this.#default);
    });
    const beside = make("p", "beside", this.#saved, this.#reset);
    this.element.append(make("div", "naming", label, doc), this.#control, beside, this.#problem);
    this.update(setting);
  }

  /** @param {string[]} choices */
  #select(choices) {
    const select = make("select", "");
    for (const choice of choices) select.add(new Option(choice));
    return select;
  }

  /** @param {string} takes */
  #text(takes) {
    const input = make("input", "");
    input.type = "text";
    input.title = takes;
    input.maxLength = 40;
    input.autocomplete = "off";
    input.spellcheck = false;
    input.setAttribute("autocapitalize", "off");
    input.enterKeyHint = "done";
    input.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => void this.#check(), PAUSE);
    });
    input.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.#dirty) {
        // Esc takes back what was typed first; the next one closes the dialog.
        event.preventDefault();
        input.value = this.#value;
        this.#complain("");
      }
    });
    return input;
  }

  get #dirty() {
    return this.#control.value.trim() !== this.#value;
  }

  /** What the server has now. What is just being typed stays. @param {Setting} setting */
  update(setting) {
    const typing = document.activeElement === this.#control && this.#dirty;
    this.#value = setting.value;
    this.#default = setting.default;
    if (!typing && (this.#problem.hidden || !this.#dirty)) this.#control.value = setting.value;
    this.element.classList.toggle("changed", setting.value !== setting.default);
    this.#reset.textContent = `Default: ${setting.default}`;
    this.#reset.disabled = !this.#allowed || setting.value === setting.default;
    this.#reset.title = this.#reset.disabled ? "" : `Back to ${setting.default}`;
  }

  async #check() {
    const asked = ++this.#asked;
    try {
      const found = await post(CHECK, { [this.#name]: this.#control.value.trim() });
      if (asked === this.#asked) this.#complain(this.#dirty ? (found[this.#name] ?? "") : "");
    } catch {
      // It is said when the value is to be set.
    }
  }

  /** @param {string} value */
  async #set(value) {
    clearTimeout(this.#timer);
    if (value === this.#value) {
      this.#complain("");
      return;
    }
    const asked = ++this.#asked;
    try {
      await post(SET, { [this.#name]: value });
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (asked === this.#asked) this.#complain(error.message);
      return;
    }
    if (asked !== this.#asked) return;
    this.#complain("");
    this.#value = this.#control.value = value;
    this.#saved.hidden = false;
    clearTimeout(this.#savedTimer);
    this.#savedTimer = setTimeout(() => {
      this.#saved.hidden = true;
    }, SAVED_STAYS);
    this.onSaved();
  }

  /** @param {string} message "" when all is well. */
  #complain(message) {
    this.#problem.textContent = message;
    this.#problem.hidden = !message;
    this.#control.setAttribute("aria-invalid", String(Boolean(message)));
  }
}
