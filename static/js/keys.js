/** The keyboard, outside of text fields. */

/**
 * @typedef {Record<string, (event: KeyboardEvent) => void>} Bindings By `KeyboardEvent.key`.
 */

/** @param {Bindings} bindings */
export function bindKeys(bindings) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = /** @type {HTMLElement} */ (event.target);
    const typing = target.matches("input, textarea, select");
    if (document.querySelector("dialog:modal") || (typing && event.key !== "Escape")) return;
    // Enter and space on a button press that button, but not one of a dialog that was closed a moment ago.
    if (target.matches("button, a") && !target.closest("dialog:not([open])") && (event.key === "Enter" || event.key === " ")) return;
    // What scrolls by itself keeps the keys that do it.
    if (target.closest("#detail, #charts") && /^(Page|Home|End)/.test(event.key)) return;
    const run = bindings[event.key];
    if (!run) return;
    event.preventDefault();
    run(event);
  });
}
