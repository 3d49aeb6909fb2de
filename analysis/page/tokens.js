"use strict";
// The tokens of a response and their numbers. Everything from the data is inserted as text, never as HTML.
const REASONS = { ".": "kept", t: "masked by threshold", b: "masked by budget" };
const CLASSES = { ".": "token", t: "token threshold", b: "token budget" };
const SYMBOLS = {
  divergence: "D_t",
  weight: "w_t",
  weighted: "w_t D_t",
  threshold: "threshold c_t",
  delta: "token threshold δ",
  ratio: "ratio",
  advantage: "advantage",
};

const element = (tag, className, ...children) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
};

const isolated = (text) => element("bdi", "", text);

const number = (value) => {
  if (value === null || value === undefined) return "–";
  const small = value !== 0 && Math.abs(value) < 1e-4;
  return (small ? value.toExponential(3) : String(Number(value.toPrecision(4)))).replaceAll("-", "−");
};

/** A symbol such as w_t with its index as a subscript. */
const symbol = (name) =>
  SYMBOLS[name].split(/_(t)/).map((part, place) => (place % 2 ? element("sub", "", part) : part));

const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

const isMasked = (response) => /[tb]/.test(response.tokens?.masked ?? "");

/** The numbers of one token by name, without those that the method does not have. */
const numbersOf = (tokens, place) => {
  const at = (name) => (Array.isArray(tokens[name]) ? tokens[name][place] : tokens[name]);
  const names = Object.keys(SYMBOLS).filter((name) => name in tokens);
  const found = Object.fromEntries(names.map((name) => [name, at(name)]));
  if ("weight" in found && "divergence" in found) {
    const known = found.weight !== null && found.divergence !== null;
    found.weighted = known ? found.weight * found.divergence : null;
  }
  if (found.delta === found.threshold) delete found.delta;
  return found;
};

/** A response without recorded tokens. */
const textOf = (response) => {
  const text = element("pre", "", isolated(response.completion));
  text.tabIndex = 0;
  if (response.cut) text.append(element("span", "soft", ` … ${plural(response.cut, "more character")}`));
  const why = "Tokens not recorded: no update used this response, or the step was not evaluated.";
  return element("div", "", text, element("p", "soft", why));
};

/** A response as a list of tokens that the arrow keys move through. */
const tokensOf = (response) => {
  const { text, masked, length } = response.tokens;
  const spans = text.map((piece, place) => {
    const span = element("span", CLASSES[masked[place]], piece);
    span.setAttribute("role", "option");
    span.setAttribute("aria-selected", "false");
    span.setAttribute("aria-label", `token ${place + 1}, ${piece}, ${REASONS[masked[place]]}`);
    span.tabIndex = place === 0 ? 0 : -1;
    span.numbers = { place, length, piece, reason: masked[place], ...numbersOf(response.tokens, place) };
    return span;
  });
  const list = element("bdi", "", ...spans);
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-orientation", "horizontal");
  list.setAttribute("aria-label", `Tokens of a response, ${response.verdict}`);
  const box = element("pre", "tokens", list);
  const more = length - text.length;
  if (more) box.append(element("span", "soft", ` … ${plural(more, "more token")}`));
  return box;
};

/** The numbers of the hovered or focused token, in a box beside it. */
class TokenNumbers {
  constructor(list, box) {
    this.box = box;
    list.addEventListener("pointerover", (event) => {
      if (event.pointerType === "mouse") this.show(event.target.closest(".token") ?? this.focused());
    });
    list.addEventListener("pointerleave", () => this.show(this.focused()));
    list.addEventListener("focusin", (event) => this.show(event.target.closest(".token")));
    list.addEventListener("focusout", () => this.show(null));
    list.addEventListener("click", (event) => event.target.closest(".token")?.focus({ preventScroll: true }));
    list.addEventListener("keydown", (event) => this.move(event));
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.show(null));
    document.addEventListener("scroll", () => this.place(), { capture: true, passive: true });
    document.addEventListener("change", () => this.show(null));
  }

  focused() {
    return document.activeElement.closest?.("#responses .token") ?? null;
  }

  show(token) {
    if (this.token === token) return;
    this.token?.removeAttribute("aria-describedby");
    this.token?.setAttribute("aria-selected", "false");
    this.token = token;
    this.box.hidden = !token;
    if (!token) return;
    token.setAttribute("aria-selected", "true");
    token.setAttribute("aria-describedby", this.box.id);
    this.box.replaceChildren(...TokenNumbers.linesOf(token.numbers));
    this.place();
    // At the bottom of a narrow window the box may cover the token itself.
    const over = token.getBoundingClientRect().bottom - this.box.getBoundingClientRect().top;
    if (this.isAtFoot() && over > 0) scrollBy({ top: over + 24 });
  }

  isAtFoot() {
    return getComputedStyle(this.box).getPropertyValue("--at-foot") !== "";
  }

  static linesOf({ place, length, piece, reason, ...numbers }) {
    const title = element("p", "title", `token ${place + 1} of ${length} `, element("code", "", isolated(piece)));
    const rows = Object.keys(SYMBOLS).filter((name) => name in numbers).map((name) => {
      const row = element("div", "", element("dt", "", ...symbol(name)), element("dd", "", number(numbers[name])));
      row.dataset.name = name;
      return row;
    });
    return [title, element("dl", "", ...rows), element("p", `reason ${CLASSES[reason]}`, REASONS[reason])];
  }

  /** Below the token, or above it when there is no room; in a narrow window CSS puts the box at the bottom. */
  place() {
    if (!this.token || this.isAtFoot()) return;
    const at = this.token.getClientRects()[0];
    const { offsetWidth: width, offsetHeight: height } = this.box;
    const below = at.bottom + 8 + height <= innerHeight;
    this.box.style.left = `${Math.max(8, Math.min(at.left, innerWidth - width - 8))}px`;
    this.box.style.top = `${below ? at.bottom + 8 : Math.max(8, at.top - height - 8)}px`;
  }

  move(event) {
    const token = event.target.closest(".token");
    if (!token || event.ctrlKey || event.altKey || event.metaKey) return;
    const all = [...token.parentElement.children];
    const place = all.indexOf(token);
    const masked = (one) => one.classList.contains("threshold") || one.classList.contains("budget");
    const goals = {
      ArrowRight: () => all[place + 1],
      ArrowLeft: () => all[place - 1],
      ArrowDown: () => all.slice(place + 1).find(masked),
      ArrowUp: () => all.slice(0, place).reverse().find(masked),
      Home: () => all[0],
      End: () => all.at(-1),
    };
    if (!(event.key in goals)) return;
    event.preventDefault();
    const goal = goals[event.key]();
    if (!goal) return;
    token.tabIndex = -1;
    goal.tabIndex = 0;
    goal.focus();
  }
}
