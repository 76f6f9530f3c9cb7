/** The websocket: connects, says what it receives, notices silence, comes back by itself. */

/** @import { Message, View } from "./protocol.js" */

const FIRST_DELAY = 500;
const LONGEST_DELAY = 5000;
const TOO_MANY_CLIENTS = 1013;

/**
 * @typedef {object} Trouble Why nothing new arrives.
 * @property {string} reason In words.
 * @property {number} retryAt Milliseconds on performance.now()'s clock; 0 while an attempt is under way.
 */

export class Live {
  /** @type {WebSocket | undefined} */
  #socket;
  /** @type {View | undefined} */
  #view;
  /** @type {number | undefined} */
  #retry;
  #delay = FIRST_DELAY;
  #lastHeard = 0;
  #interval = 1000;

  /** @type {(message: Message) => void} */
  onMessage = () => {};
  /** Called with the trouble when it starts or changes, with undefined when it is over. @type {(trouble: Trouble | undefined) => void} */
  onTrouble = () => {};

  /** @param {string} url */
  constructor(url) {
    this.url = url;
    addEventListener("online", () => this.connect());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && !this.connected) this.connect();
    });
    setInterval(() => this.#checkSilence(), 1000);
  }

  get connected() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** Connect now, whatever the back-off says. */
  connect() {
    if (this.#socket && this.#socket.readyState <= WebSocket.OPEN) return;
    clearTimeout(this.#retry);
    this.#retry = undefined;
    const socket = new WebSocket(this.url);
    this.#socket = socket;
    this.#lastHeard = performance.now();
    socket.onopen = () => {
      if (this.#view) this.#send(this.#view);
    };
    socket.onmessage = (event) => {
      if (socket === this.#socket) this.#receive(event.data);
    };
    socket.onclose = (event) => {
      if (socket === this.#socket) this.#closed(event);
    };
  }

  /**
   * Ask for a view, now and after every reconnection.
   * @param {View} view
   */
  show(view) {
    this.#view = view;
    if (this.connected) this.#send(view);
  }

  /** @param {View} view */
  #send(view) {
    this.#socket?.send(JSON.stringify({ type: "view", ...view }));
  }

  /** @param {string} data */
  #receive(data) {
    this.#lastHeard = performance.now();
    const message = /** @type {Message} */ (JSON.parse(data));
    if (message.type === "hello") this.#interval = message.interval * 1000;
    if (message.type === "rows") {
      // Only rows show that the server is well: one that greets and hangs up must not be asked without pause.
      this.#delay = FIRST_DELAY;
      this.onTrouble(undefined);
    }
    this.onMessage(message);
  }

  /** @param {CloseEvent} event */
  #closed(event) {
    this.#socket = undefined;
    const wait = this.#delay * (0.75 + Math.random() / 2);
    this.#delay = Math.min(LONGEST_DELAY, this.#delay * 2);
    const reason =
      event.code === TOO_MANY_CLIENTS
        ? event.reason || "The server serves as many pages as it may. Close another one."
        : event.reason || "The server does not answer.";
    this.#retry = setTimeout(() => {
      this.onTrouble({ reason, retryAt: 0 });
      this.connect();
    }, wait);
    this.onTrouble({ reason, retryAt: performance.now() + wait });
  }

  /** A cable that was pulled closes nothing: after a silence of several sweeps, hang up and dial again. */
  #checkSilence() {
    const silence = performance.now() - this.#lastHeard;
    if (!this.#socket || document.hidden || silence < Math.max(5000, 5 * this.#interval)) return;
    const socket = this.#socket;
    this.#socket = undefined;
    socket.close();
    this.onTrouble({ reason: "The server has fallen silent.", retryAt: 0 });
    this.connect();
  }
}
