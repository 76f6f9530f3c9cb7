/** A finger that stays where it was put, as a second kind of click. */

/** Milliseconds. */
const LONG = 450;
/** Pixels that a finger may wander. */
const STILL = 10;

/**
 * @param {HTMLElement} host
 * @param {(target: Element) => () => void} touched Says what a press is to do: what lies under the finger may change.
 */
export function onPress(host, touched) {
  /** @type {number | undefined} */
  let timer;
  let done = false;
  let from = { x: 0, y: 0 };
  let act = () => {};

  function cancel() {
    clearTimeout(timer);
    timer = undefined;
  }
  function press() {
    cancel();
    done = true;
    act();
  }

  host.addEventListener("pointerdown", (event) => {
    cancel();
    done = false;
    if (event.pointerType !== "touch" || !event.isPrimary) return;
    from = { x: event.clientX, y: event.clientY };
    act = touched(/** @type {Element} */ (event.target));
    timer = setTimeout(press, LONG);
  });
  host.addEventListener("pointermove", (event) => {
    if (Math.hypot(event.clientX - from.x, event.clientY - from.y) > STILL) cancel();
  });
  // Scrolling cancels the pointer.
  for (const over of ["pointerup", "pointercancel"]) host.addEventListener(over, cancel);
  // The system may be sooner to call it a press.
  host.addEventListener("contextmenu", (event) => {
    if (timer !== undefined) press();
    if (done) event.preventDefault();
  });
  // What follows a press is no click.
  host.addEventListener("click", (event) => {
    if (done) event.stopImmediatePropagation();
    done = false;
  }, { capture: true });
}
