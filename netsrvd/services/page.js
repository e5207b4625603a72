"use strict";
(() => {
  const EVERY_MS = 2000, SILENT_MS = 10000, KEPT = 180, HEIGHT = 40;
  const charts = [...document.querySelectorAll("figure")].map((figure) => ({
    key: figure.dataset.series,
    isRate: figure.dataset.rate === "yes",
    unit: figure.dataset.unit,
    output: figure.querySelector("output"),
    line: figure.querySelector("polyline"),
    values: [],
  }));
  const state = document.getElementById("state");
  let before = null;

  const shown = (number, unit) => {
    const steps = ["", "k", "M", "G", "T"];
    let step = 0;
    while (number >= 1000 && step < steps.length - 1) {
      number /= 1000;
      step += 1;
    }
    const digits = Number.isInteger(number) || number >= 100 ? 0 : 1;
    return `${number.toFixed(digits)} ${steps[step]}${unit}`.trim();
  };

  const draw = (chart) => {
    const highest = Math.max(...chart.values, 1e-9);
    const first = KEPT - chart.values.length;
    const points = chart.values.map(
      (value, place) => `${first + place},${(HEIGHT - 1 - (HEIGHT - 2) * value / highest).toFixed(1)}`
    );
    chart.line.setAttribute("points", points.join(" "));
    chart.output.textContent = shown(chart.values[chart.values.length - 1], chart.unit);
  };

  const note = (now) => {
    // Counts begin anew with the daemon, and so does the difference.
    const seconds = before && before.start === now.start ? now.at - before.at : 0;
    for (const chart of charts) {
      const value = now.series[chart.key];
      if (!chart.isRate) {
        chart.values.push(value);
      } else if (seconds > 0) {
        chart.values.push(Math.max(0, value - before.series[chart.key]) / seconds);
      }
      chart.values.splice(0, chart.values.length - KEPT);
      if (chart.values.length) {
        draw(chart);
      }
    }
    before = now;
  };

  const fill = (table, rows) => {
    const heads = table.tHead.rows[0].cells;
    table.tBodies[0].replaceChildren(...rows.map((row) => {
      const line = document.createElement("tr");
      row.forEach((text, place) => {
        const cell = document.createElement(place ? "td" : "th");
        cell.textContent = text;
        cell.className = heads[place].className;
        line.append(cell);
      });
      return line;
    }));
  };

  const show = (now) => {
    for (const [id, [text, isBad]] of Object.entries(now.facts)) {
      const value = document.getElementById(id);
      value.textContent = text;
      value.className = isBad ? "bad" : "";
    }
    for (const [id, rows] of Object.entries(now.tables)) {
      fill(document.getElementById(id), rows);
    }
    note(now);
    state.textContent = `As of ${new Date(now.at * 1000).toLocaleTimeString()}`;
    state.className = "";
  };

  const ask = async () => {
    try {
      const answer = await fetch("status.json", {
        cache: "no-store",
        signal: AbortSignal.timeout(SILENT_MS),
      });
      if (!answer.ok) {
        throw new Error(`status ${answer.status}`);
      }
      show(await answer.json());
    } catch (error) {
      state.textContent = `No answer (${error.message}); the figures are old`;
      state.className = "bad";
    }
    setTimeout(ask, EVERY_MS);
  };

  document.getElementById("charts").hidden = false;
  ask();
})();
