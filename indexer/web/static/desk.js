// Keeps an open page current: listens for commits, asks for the part that is on screen, and marks the cells that changed.
"use strict";
(() => {
  const STALE_SECONDS = 120;
  const part = () => document.getElementById("part");
  const band = () => document.getElementById("band");

  // Ages count up by the server's clock, so that a wrong one here does not make rows look fresh.
  let offset = 0;
  const clock = () => { offset = Number(band()?.dataset.now ?? 0) - Date.now() / 1000; };
  const age = (seconds) => {
    for (const [unit, size] of [["days", 86400], ["h", 3600], ["min", 60]])
      if (seconds >= 2 * size) return `${Math.floor(seconds / size)} ${unit}`;
    return `${Math.max(0, Math.round(seconds))} s`;
  };
  const tick = () => {
    const at = band()?.querySelector("[data-at]");
    if (!at) return;
    const seconds = Date.now() / 1000 + offset - Number(at.dataset.at);
    at.textContent = age(seconds);
    if (seconds > STALE_SECONDS && band().classList.contains("ok")) {
      band().classList.replace("ok", "stale");
      band().querySelector(".words").textContent = "Stale: who is at risk by now is unknown.";
    }
  };

  // Cells by row and heading, before an update and after.
  const texts = () => {
    const found = new Map();
    for (const row of document.querySelectorAll("#part tr[data-key]"))
      for (const cell of row.cells) found.set(`${row.dataset.key}\n${cell.dataset.name}`, cell.textContent);
    for (const value of document.querySelectorAll("#part [data-value]")) found.set(value.dataset.value, value.textContent);
    return found;
  };
  const flash = (before) => {
    const mark = (element, key) => {
      element.classList.remove("changed");
      if (before.has(key) && before.get(key) !== element.textContent) {
        void element.offsetWidth; // begins the animation anew
        element.classList.add("changed");
      }
    };
    for (const row of document.querySelectorAll("#part tr[data-key]"))
      for (const cell of row.cells) mark(cell, `${row.dataset.key}\n${cell.dataset.name}`);
    for (const value of document.querySelectorAll("#part [data-value]")) mark(value, value.dataset.value);
  };

  let updating = false, again = false;
  const update = async () => {
    if (updating) { again = true; return; }
    updating = true;
    try {
      const before = texts();
      if (part()?.dataset.live === "no") await htmx.ajax("GET", "/band", { target: "#band", swap: "outerHTML" });
      else await htmx.ajax("GET", location.pathname + location.search, { target: "#part", swap: "innerMorph" });
      flash(before);
    } finally {
      updating = false;
      clock();
      tick();
      if (again) { again = false; setTimeout(update, 0); }
    }
  };

  const listen = () => {
    const source = new EventSource("/events");
    source.addEventListener("snapshot", () => { if (!document.hidden) update(); else again = true; });
    source.addEventListener("open", () => document.documentElement.classList.remove("unheard"));
    source.addEventListener("error", () => {
      document.documentElement.classList.add("unheard");
      if (source.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
    });
  };

  const draw = () => {
    for (const place of document.querySelectorAll(".plot[data-plot]")) {
      if (place.dataset.drawn === place.dataset.plot || typeof uPlot === "undefined") continue;
      place.dataset.drawn = place.dataset.plot;
      place.replaceChildren();
      const { title, x, series } = JSON.parse(place.dataset.plot);
      const style = getComputedStyle(document.documentElement);
      const ink = style.getPropertyValue("--faint"), grid = style.getPropertyValue("--grid");
      const axis = (more) => ({ stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid }, ...more });
      const short = (value) => value == null ? "unknown" : Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 }).format(value);
      const size = () => ({ width: Math.max(280, place.clientWidth - 18), height: 300 });
      const chart = new uPlot({
        ...size(), title,
        scales: { x: { time: false } },
        axes: [axis({ values: (_, all) => all.map((v) => `${v} %`) }), axis({ size: 70, values: (_, all) => all.map(short) })],
        series: [{ label: "Change", value: (_, v) => v == null ? "" : `${v} %` },
          ...series.map((one, i) => ({ label: one.label, stroke: style.getPropertyValue(`--series-${i + 1}`), width: 2, dash: i ? [6, 4] : [], value: (_, v) => v == null ? "" : short(v) }))],
      }, [x, ...series.map((one) => one.values)], place);
      new ResizeObserver(() => chart.setSize(size())).observe(place);
    }
  };

  const label = (slider) => {
    const output = slider.parentElement.querySelector("output");
    const value = Number(slider.value);
    if (output) output.textContent = slider.dataset.unit === "days" ? `${value} days` : `${value > 0 ? "+" : ""}${value} %`;
  };
  document.addEventListener("input", (event) => { if (event.target.type === "range") label(event.target); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden && again) { again = false; update(); } });
  document.addEventListener("htmx:after:swap", () => { clock(); tick(); draw(); });
  // What says nothing is left out of the address.
  document.addEventListener("htmx:config:request", (event) => {
    const request = event.detail?.ctx?.request;
    if (request?.body instanceof FormData)
      for (const [name, value] of [...request.body.entries()])
        if (value === "" || (name.startsWith("price.") && Number(value) === 0) || (name === "days" && Number(value) === 0)) request.body.delete(name);
  });
  // On a phone the rows come first, and filters unfold.
  const phone = matchMedia("(max-width: 640px)");
  const fold = () => {
    for (const filters of document.querySelectorAll("details.narrow")) filters.open = !phone.matches || location.search !== "";
  };
  phone.addEventListener("change", fold);
  const here = () => document.querySelector(".top nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });
  const start = () => { fold(); here(); clock(); tick(); draw(); setInterval(tick, 1000); if (band()) listen(); };
  document.readyState === "loading" ? document.addEventListener("DOMContentLoaded", start) : start();
})();
