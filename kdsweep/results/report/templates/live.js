"use strict";
// Follows a running sweep: asks the server for a newer page, and replaces the text and the figures.
(() => {
  const SECONDS = 2, SECONDS_AFTER_FAULT = 10;
  let version = document.querySelector("meta[name=kdsweep-version]").content;

  const note = document.createElement("p");
  note.id = "live";
  note.setAttribute("role", "status");
  document.body.append(note);
  const tell = (text, fault) => {
    note.classList.toggle("fault", fault);
    if (note.textContent !== text) note.textContent = text;
  };

  const keyOf = (details) => (details.closest("tr") ? details.closest("tr").dataset.trial : details.className);

  const replace = (html) => {
    const next = new DOMParser().parseFromString(html, "text/html");
    const height = scrollY;
    const opened = new Set([...document.querySelectorAll("details[open]")].map(keyOf));
    for (const details of next.querySelectorAll("details")) details.open = opened.has(keyOf(details));
    // Charts keep their elements, so that they are redrawn in place.
    const kept = new Set();
    for (const chart of next.querySelectorAll(".chart")) {
      const old = document.getElementById(chart.id);
      if (!old) continue;
      old.dataset.height = chart.dataset.height;
      chart.replaceWith(old);
      kept.add(chart.id);
    }
    for (const chart of document.querySelectorAll(".chart")) if (!kept.has(chart.id)) Plotly.purge(chart);
    for (const part of ["header", "main", "footer", "#selection", "#figures"]) {
      const [old, fresh] = [document.querySelector(part), next.querySelector(part)];
      if (old && fresh) old.replaceWith(fresh);
    }
    document.title = next.title;
    scrollTo({ top: height, behavior: "instant" });
    document.dispatchEvent(new Event("kdsweep-replaced"));
  };

  // An update would close an open list or lose selected text.
  const busy = () => document.hidden || document.activeElement.matches("select") || !getSelection().isCollapsed;

  const look = async () => {
    let wait = SECONDS;
    try {
      if (!busy()) {
        const answer = await fetch(`update?have=${version}`, { cache: "no-store" });
        if (!answer.ok) throw new Error(answer.statusText);
        const found = await answer.json();
        if (found.html) replace(found.html);
        if (found.version !== version) version = found.version;
        const time = new Date(found.time * 1000).toLocaleTimeString();
        tell(found.problem ? `Not updated: ${found.problem}` : `Live, updated at ${time}`, Boolean(found.problem));
      }
    } catch {
      tell("No longer updated: kdsweep watch has stopped.", true);
      wait = SECONDS_AFTER_FAULT;
    }
    setTimeout(look, 1000 * wait);
  };
  setTimeout(look, 1000 * SECONDS);
})();
