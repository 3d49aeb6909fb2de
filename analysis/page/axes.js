"use strict";
// Show a figure over the horizontal axis that the reader chooses, and remember the choice for all reports.
const KEPT = "cppo-lab axis";
for (const label of document.querySelectorAll("label.axis")) {
  const choice = label.querySelector("select");
  const show = () => {
    for (const view of label.parentElement.querySelectorAll(".view")) view.hidden = view.dataset.axis !== choice.value;
  };
  // A page opened from disk may be refused its storage.
  try {
    const kept = localStorage.getItem(KEPT);
    if ([...choice.options].some((one) => one.value === kept)) choice.value = kept;
  } catch {}
  choice.addEventListener("change", () => {
    show();
    try {
      localStorage.setItem(KEPT, choice.value);
    } catch {}
  });
  label.hidden = false;
  show();
}
