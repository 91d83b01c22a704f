// What htmx has no word for: sliders beside numbers, lines between completions, and a server that is gone.
"use strict";

const SVG = "http://www.w3.org/2000/svg";

function toSlider(number) {
  const slider = document.querySelector(`input[type=range][data-for="${number.id}"]`);
  if (!slider) return;
  const value = Number(number.value);
  slider.value = slider.dataset.scale === "log" ? Math.log10(value / Number(slider.dataset.center)) : value;
}

function toNumber(slider) {
  const value = Number(slider.value);
  const scaled = slider.dataset.scale === "log" ? Number(slider.dataset.center) * 10 ** value : value;
  document.getElementById(slider.dataset.for).value = Number(scaled.toPrecision(4));
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// A pair is a curve from the chosen to the rejected completion; the further apart, the further out.
function drawPair(svg, places, pair, current) {
  const { chosen, rejected } = pair.dataset;
  const from = places.get(chosen), to = places.get(rejected);
  if (!from || !to) return;
  const width = svg.clientWidth, reach = width * (0.25 + 0.75 * Math.abs(from.rank - to.rank) / places.size);
  const x = width - 4, bend = width - reach * 1.25;
  const d = `M ${x} ${from.y} C ${bend} ${from.y}, ${bend} ${to.y}, ${x} ${to.y}`;
  const name = `${chosen}-${rejected}`;
  svg.append(element("path", { d, class: name === current ? "current" : "" }));
  svg.append(element("circle", { cx: x, cy: from.y, r: 3.5, class: "chosen" }));
  svg.append(element("circle", { cx: x, cy: to.y, r: 3.5, class: "rejected" }));
  const hit = element("path", { d, class: "hit", "data-pair": name });
  const title = element("title", {});
  title.textContent = `${chosen} over ${rejected}`;
  hit.append(title);
  svg.append(hit);
}

function draw(samples) {
  const svg = samples.querySelector("svg.lines"), top = svg.getBoundingClientRect().top, places = new Map();
  const shown = document.getElementById("pair"), current = shown ? shown.dataset.pair : "";
  const [chosen, rejected] = current.split("-");
  samples.querySelectorAll("li[data-id]").forEach((row, rank) => {
    const box = row.getBoundingClientRect();
    places.set(row.dataset.id, { rank, y: box.top - top + Math.min(box.height / 2, 40) });
    row.classList.toggle("is-chosen", row.dataset.id === chosen);
    row.classList.toggle("is-rejected", row.dataset.id === rejected);
  });
  svg.replaceChildren();
  samples.querySelectorAll(".pair-ends li").forEach((pair) => drawPair(svg, places, pair, current));
}

function drawAll() {
  document.querySelectorAll("[data-samples]").forEach(draw);
}

function setUp() {
  document.querySelectorAll("input[type=number][id]").forEach(toSlider);
  drawAll();
}

function say(text) {
  const line = document.createElement("p");
  line.className = "problem";
  line.textContent = text;
  document.getElementById("notice").replaceChildren(line);
}

document.addEventListener("input", (event) => {
  if (event.target.matches("input[type=range][data-for]")) toNumber(event.target);
  else if (event.target.matches("input[type=number]")) toSlider(event.target);
}, true);
document.addEventListener("click", (event) => {
  const line = event.target.closest && event.target.closest("path.hit");
  const link = line && document.getElementById(`pair-${line.dataset.pair}`);
  if (link) link.click();
});
document.addEventListener("toggle", drawAll, true);
document.addEventListener("htmx:afterSettle", setUp);
document.addEventListener("htmx:sendError", () => say("The server does not answer: was it stopped? Start it again, then reload."));
document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.successful) document.getElementById("notice").replaceChildren();
});
window.addEventListener("resize", drawAll);
window.addEventListener("load", setUp);
