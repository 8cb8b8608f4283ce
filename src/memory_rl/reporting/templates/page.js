"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const boxes = Array.from(document.querySelectorAll(".legend input"));
  const views = new Map();
  const ZOOM_STEP = 0.25;

  function theme() {
    return root.dataset.theme;
  }

  function hidden() {
    return boxes.filter((box) => !box.checked).map((box) => box.value);
  }

  function heightOf({ rows, rowHeight }) {
    const names = hidden();
    return rowHeight * Math.max(1, rows.filter((row) => !names.includes(row)).length);
  }

  // Vega-Lite 6.4 looks up texts of a nearest point one level too high (vega-lite pull request 9707); numbers are right.
  function fixTooltips(marks) {
    for (const mark of marks || []) {
      const tooltip = mark.encode && mark.encode.update && mark.encode.update.tooltip;
      if (tooltip && /_voronoi$/.test(mark.name || "")) tooltip.signal = tooltip.signal.replace(/(?<!datum\.)datum\[/g, "datum.datum[");
      fixTooltips(mark.marks);
    }
  }

  async function draw(id) {
    const place = document.getElementById(id);
    const { spec, canvas, rows } = data.panels[id];
    if (views.has(id)) views.get(id).finalize();
    const result = await window.vegaEmbed(place, spec, {
      mode: "vega-lite",
      actions: false,
      ast: true, // expressions are interpreted, so that the page may forbid eval
      config: data.themes[theme()],
      renderer: canvas ? "canvas" : "svg",
      tooltip: { theme: "custom" },
      patch: (compiled) => {
        const signal = (compiled.signals || []).find((candidate) => candidate.name === "hidden");
        if (signal) signal.value = hidden();
        if (rows.length) compiled.height = heightOf(data.panels[id]);
        fixTooltips(compiled.marks);
        return compiled;
      },
    });
    views.set(id, result);
  }

  async function drawAll() {
    root.dataset.drawn = "no";
    await hideEmpty();
    for (const panel of document.querySelectorAll(".panel:not([hidden])")) await draw(panel.dataset.panel);
    root.dataset.drawn = "yes";
  }

  // A panel whose conditions are all switched off takes no room.
  async function hideEmpty() {
    const names = hidden();
    for (const panel of document.querySelectorAll(".panel:not([data-choice])")) {
      const { series } = data.panels[panel.dataset.panel];
      const was = panel.hidden;
      panel.hidden = series.length > 0 && series.every((name) => names.includes(name));
      if (was && !panel.hidden && root.dataset.drawn === "yes") await draw(panel.dataset.panel);
    }
  }

  async function applyLegend() {
    await hideEmpty();
    const names = hidden();
    for (const [id, { view }] of views) {
      const panel = data.panels[id];
      if (panel.rows.length) view.height(heightOf(panel));
      await view.signal("hidden", names).runAsync();
    }
  }

  function setTheme(name) {
    root.dataset.theme = name;
    button.textContent = name === "dark" ? "Light theme" : "Dark theme";
    button.setAttribute("aria-pressed", String(name === "dark"));
  }

  // The part of the axis between these fractions of its length becomes the whole.
  function move(view, fractions) {
    for (const [channel, scaleName, [from, to]] of [["x", "x", fractions.x], ["y", "y", fractions.y]]) {
      const scale = view.scale(scaleName);
      const [start, end] = scale.range();
      const field = fieldOf(view, channel);
      if (field) view.signal(field, [scale.invert(start + from * (end - start)), scale.invert(start + to * (end - start))]);
    }
    return view.runAsync();
  }

  // Vega-Lite names the signals of a zoom by the fields on the axes; their order is x, then y.
  function fieldOf(view, channel) {
    const names = Object.keys(view.getState({ data: () => false, signals: (name) => /^zoom_/.test(name) }).signals);
    const fields = names.filter((name) => !/^zoom_(x|y|tuple|toggle|modify|translate|zoom|scale|tuple_fields)/.test(name));
    return fields[channel === "x" ? 0 : 1];
  }

  const MOVES = {
    in: { x: [ZOOM_STEP / 2, 1 - ZOOM_STEP / 2], y: [ZOOM_STEP / 2, 1 - ZOOM_STEP / 2] },
    out: { x: [-ZOOM_STEP / 2, 1 + ZOOM_STEP / 2], y: [-ZOOM_STEP / 2, 1 + ZOOM_STEP / 2] },
    left: { x: [-ZOOM_STEP, 1 - ZOOM_STEP], y: [0, 1] },
    right: { x: [ZOOM_STEP, 1 + ZOOM_STEP], y: [0, 1] },
    up: { x: [0, 1], y: [ZOOM_STEP, 1 + ZOOM_STEP] },
    down: { x: [0, 1], y: [-ZOOM_STEP, 1 - ZOOM_STEP] },
  };
  const KEYS = { "+": "in", "=": "in", "-": "out", 0: "reset", ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down" };

  function zoom(id, what) {
    return what === "reset" ? draw(id) : move(views.get(id).view, MOVES[what]);
  }

  for (const panel of document.querySelectorAll(".panel")) {
    const id = panel.dataset.panel;
    for (const control of panel.querySelectorAll("[data-zoom]")) control.addEventListener("click", () => zoom(id, control.dataset.zoom));
    const chart = panel.querySelector(".chart[tabindex]");
    if (!chart) continue;
    chart.addEventListener("keydown", (event) => {
      if (!(event.key in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      zoom(id, KEYS[event.key]);
    });
  }

  for (const box of boxes) box.addEventListener("change", applyLegend);

  function show(wanted) {
    for (const box of boxes) box.checked = wanted(box.value);
    return applyLegend();
  }

  for (const control of document.querySelectorAll(".legend [data-show]")) control.addEventListener("click", () => show(() => control.dataset.show === "all"));
  for (const control of document.querySelectorAll(".legend [data-only]")) control.addEventListener("click", () => show((name) => name === control.dataset.only));

  for (const select of document.querySelectorAll("select[data-figure]")) {
    select.addEventListener("change", async () => {
      for (const panel of document.querySelectorAll(`#figure-${select.dataset.figure} .panel`)) {
        panel.hidden = panel.dataset.choice !== select.value;
        if (!panel.hidden) await draw(panel.dataset.panel);
      }
    });
  }

  // What is unknown stands last, whichever way a column is sorted.
  function sortBy(table, head) {
    const column = head.cellIndex;
    const before = head.getAttribute("aria-sort");
    const order = before === null ? head.dataset.first : before === "ascending" ? "descending" : "ascending";
    const sign = order === "ascending" ? 1 : -1;
    const keyOf = (row) => row.cells[column].dataset.sort;
    const compare = (one, other) => (isNaN(one) || isNaN(other) ? one.localeCompare(other) : one - other);
    const rows = Array.from(table.tBodies[0].rows);
    rows.sort((one, other) => (keyOf(one) === "") - (keyOf(other) === "") || sign * compare(keyOf(one), keyOf(other)));
    for (const cell of head.parentElement.cells) cell.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    table.tBodies[0].append(...rows);
  }

  for (const table of document.querySelectorAll(".sortable")) {
    for (const head of table.tHead.rows[0].cells) head.querySelector("button").addEventListener("click", () => sortBy(table, head));
  }

  button.addEventListener("click", () => {
    setTheme(theme() === "dark" ? "light" : "dark");
    drawAll();
  });

  const preference = window.matchMedia("(prefers-color-scheme: dark)");
  setTheme(preference.matches ? "dark" : "light");
  preference.addEventListener("change", (event) => {
    setTheme(event.matches ? "dark" : "light");
    drawAll();
  });
  drawAll();
})();
