"use strict";
// Sort tables by any column: numeric columns by the number a cell starts with, text in natural order.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const numeric = head.classList.contains("number");
    const compare = (x, y) => (numeric ? parseFloat(x) - parseFloat(y) : x.localeCompare(y, "en", { numeric: true }));
    const absent = (x) => (numeric ? Number.isNaN(parseFloat(x)) : x === "");
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value;
      const order = (a, b) => {
        const x = value(a), y = value(b);
        if (absent(x) || absent(y)) return absent(x) - absent(y);
        return up ? compare(x, y) : compare(y, x);
      };
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
    });
  });
}
// Enlarge figures.
const large = document.getElementById("large");
for (const picture of document.querySelectorAll(".picture")) {
  picture.addEventListener("click", () => {
    large.querySelector("div").replaceChildren(picture.firstElementChild.cloneNode(true));
    large.style.setProperty("--wide", picture.style.getPropertyValue("--wide"));
    large.setAttribute("aria-label", picture.closest("figure").querySelector("h3").textContent);
    large.showModal();
  });
}
large.addEventListener("click", (event) => {
  if (event.target === large || event.target.id === "close") large.close();
});
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
