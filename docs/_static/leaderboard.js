"use strict";
// Hides the columns (weights), rows (recordings, tasks) of the leaderboard that a filter leaves out. Without it all are shown.
document.addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector(".board-filters");
  if (!form) return;
  const fits = (wanted, found) => !wanted || wanted === found;
  const apply = () => {
    const wanted = Object.fromEntries(new FormData(form));
    for (const cell of document.querySelectorAll(".board [data-model]")) {
      cell.hidden = !fits(wanted.model, cell.dataset.model);
    }
    for (const row of document.querySelectorAll(".board tbody tr")) {
      row.hidden = !fits(wanted.set, row.dataset.set) || !fits(wanted.task, row.dataset.task);
    }
    document.querySelector(".board-none").hidden =
      document.querySelector(".board tbody tr:not([hidden]) td:not([hidden])") !== null;
  };
  form.hidden = false;
  form.addEventListener("change", apply);
  apply(); // a browser keeps what was chosen when a page is loaded again
});
