"use strict";
(() => {
  // Set by open(), which a live page calls again after each update; the reader's choices are kept.
  let figures, board, rows;
  const filter = { method: "", state: "", trials: null };
  let limit = 0;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const INK = "#30343b"; // the text colour of the figures, replaced by the page's own
  const drawn = new Map();

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const inked = (value, ink) => {
    if (value === INK) return ink;
    if (Array.isArray(value)) return typeof value[0] === "object" || value[0] === INK ? value.map((item) => inked(item, ink)) : value;
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, inked(item, ink)]));
  };

  const layoutOf = (figure, element) => {
    const layout = inked(figure.layout, colour("--ink"));
    layout.font.size = element.clientWidth < 520 ? 12 : 13;
    layout.hoverlabel = { ...layout.hoverlabel, bgcolor: colour("--page"), bordercolor: colour("--line"), font: { color: colour("--ink") } };
    delete layout.width;
    if (element.layout && element.layout.selections) layout.selections = element.layout.selections;
    if (element.dataset.chart === "parallel") narrowed(layout, element.clientWidth);
    return layout;
  };

  // On a narrow page the names of the axes stand upright, and only the ends of each axis keep their labels.
  const narrowed = (layout, width) => {
    const axes = layout.xaxis.tickvals.length;
    if (width / axes >= 95) return;
    layout.xaxis = { ...layout.xaxis, tickangle: -90 };
    layout.annotations = (layout.annotations || []).map((note) => ({ ...note, font: { ...note.font, size: 9 }, xshift: 3 }));
  };

  const draw = (element) => {
    const figure = figures[element.dataset.chart];
    const config = {
      responsive: true, displaylogo: false, displayModeBar: false, doubleClick: "reset",
      scrollZoom: false, showTips: false,
    };
    return Plotly.react(element, inked(figure.data, colour("--ink")), layoutOf(figure, element), config).then(() => {
      drawn.set(element.dataset.chart, element);
    });
  };

  // The leaderboard

  const update = () => {
    const matching = rows.filter((row) =>
      (!filter.method || row.dataset.method === filter.method) &&
      (!filter.state || row.dataset.state === filter.state) &&
      (!filter.trials || filter.trials.has(row.dataset.trial)));
    const visible = new Set(matching.slice(0, limit));
    for (const row of rows) row.hidden = !visible.has(row);
    const filtered = matching.length < rows.length;
    const count = filtered ? `${matching.length} of ${rows.length} trials` : `${rows.length} trials`;
    document.getElementById("count").textContent = count;
    document.getElementById("clear").hidden = !filtered;
    const more = document.getElementById("more");
    more.hidden = matching.length <= limit;
    more.textContent = `Show more (${matching.length - visible.size} left)`;
    const bar = document.getElementById("selection");
    bar.hidden = !filter.trials;
    bar.querySelector("span").textContent = `${count} selected`;
  };

  const choices = (id, name) => {
    const select = document.getElementById(id);
    for (const value of [...new Set(rows.map((row) => row.dataset[name]))].sort()) select.add(new Option(value, value));
    select.value = filter[name];
    if (select.selectedIndex < 0) select.value = filter[name] = "";
    select.addEventListener("change", () => { filter[name] = select.value; update(); });
  };

  const clear = () => {
    filter.method = filter.state = "";
    document.getElementById("by-method").value = document.getElementById("by-state").value = "";
    brush([]);
    const element = drawn.get("parallel");
    if (element) Plotly.relayout(element, { selections: [] });
  };

  const openBoard = () => {
    board = document.getElementById("board");
    rows = board ? [...board.tBodies[0].rows] : [];
    if (!board) return;
    limit = limit || Number(board.dataset.shown);
    for (const row of rows) row.classList.remove("later");
    document.getElementById("filters").hidden = false;
    choices("by-method", "method");
    choices("by-state", "state");
    document.getElementById("more").addEventListener("click", () => { limit += 100; update(); });
    document.getElementById("clear").addEventListener("click", clear);
    document.querySelector("#selection button").addEventListener("click", clear);
    update();
  };

  // Brushing: a box over an axis selects the trials whose point on that axis is in it. Boxes on several axes must all
  // hold; of two boxes on one axis, one must.

  const brush = (boxes) => {
    const figure = figures.parallel;
    if (!figure) return;
    const { axes, trials } = figure.data.at(-1).meta;
    const ranges = new Map();
    for (const box of boxes) {
      const [left, right] = [Math.min(box.x0, box.x1), Math.max(box.x0, box.x1)];
      axes.forEach((_, place) => {
        if (left > place || place > right) return;
        ranges.set(place, [...(ranges.get(place) || []), [Math.min(box.y0, box.y1), Math.max(box.y0, box.y1)]]);
      });
    }
    const within = (place, row) => ranges.get(place).some(([low, high]) => low <= axes[place].heights[row] && axes[place].heights[row] <= high);
    filter.trials = ranges.size ? new Set(trials.filter((_, row) => [...ranges.keys()].every((place) => within(place, row)))) : null;
    const element = drawn.get("parallel");
    figure.data.forEach((trace, place) => {
      if (!trace.meta || !trace.meta.lines || !element) return;
      const size = axes.length + 1;
      const kept = trace.meta.lines.map((key) => !filter.trials || filter.trials.has(key));
      const y = trace.y.map((value, at) => (kept[Math.floor(at / size)] ? value : null));
      Plotly.restyle(element, { y: [y] }, [place]);
    });
    update();
  };

  const brushed = (element) => {
    const boxes = () => (element.layout.selections || []).filter((box) => box.type === "rect");
    for (const name of ["plotly_selected", "plotly_deselect", "plotly_relayout"]) element.removeAllListeners(name);
    if (boxes().length) brush(boxes());
    element.on("plotly_selected", () => brush(boxes()));
    element.on("plotly_deselect", () => brush([]));
    element.on("plotly_relayout", (change) => {
      if (Object.keys(change).some((key) => key.startsWith("selections"))) brush(boxes());
    });
  };

  // One chart at a time, those in view first, so that the text can be read and scrolled meanwhile.
  let waiting = [], round = 0;
  const pause = window.requestIdleCallback
    ? () => new Promise((next) => requestIdleCallback(next, { timeout: 100 }))
    : () => new Promise((next) => setTimeout(next));

  const isInView = (element) => {
    const box = element.getBoundingClientRect();
    return box.bottom > 0 && box.top < innerHeight;
  };

  const drawAll = async () => {
    const mine = ++round; // a later call, such as that of an update, takes over
    waiting = [...document.querySelectorAll(".chart")];
    let opened = false;
    while (waiting.length) {
      const place = waiting.findIndex(isInView);
      if (place < 0 && !opened) {
        opened = true;
        performance.mark("charts in view drawn");
      }
      const [element] = waiting.splice(Math.max(0, place), 1);
      await draw(element);
      if (element.dataset.chart === "parallel") brushed(element);
      await pause();
      if (mine !== round) return;
    }
    if (!opened) performance.mark("charts in view drawn");
    performance.mark("charts drawn");
    document.documentElement.dataset.ready = "true";
  };

  const open = () => {
    figures = JSON.parse(document.getElementById("figures").textContent);
    drawn.clear();
    openBoard();
    for (const element of document.querySelectorAll(".chart")) element.style.minHeight = `${element.dataset.height}px`;
    drawAll();
  };

  addEventListener("beforeprint", () => waiting.splice(0).forEach(draw));
  open();
  document.addEventListener("kdsweep-replaced", open);
  dark.addEventListener("change", drawAll);
})();
