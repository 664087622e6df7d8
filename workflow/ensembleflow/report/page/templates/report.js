"use strict";
const darkScheme = matchMedia("(prefers-color-scheme: dark)");
const darkColours = JSON.parse(document.getElementById("dark").textContent);
const choosers = [...document.querySelectorAll("[data-choose]")];
const plots = [...document.querySelectorAll("script[data-plot]")].map((script) => ({
  node: document.getElementById(script.dataset.plot),
  text: script.textContent,
}));
const settings = {
  responsive: true,
  displayModeBar: false,
};
// A finger that drags across a plot wants to scroll.
const dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";
let chosen = null;
// What belongs to several budgets names them all, separated by blanks.
const isChosen = (budgets) => budgets.split(" ").includes(chosen);

function draw(plot) {
  const { data, layout } = JSON.parse(plot.text, (_, value) =>
    darkScheme.matches && typeof value === "string" ? (darkColours[value] ?? value) : value,
  );
  const traces = data.map((trace) =>
    trace.meta?.budget ? { ...trace, visible: isChosen(trace.meta.budget) } : trace,
  );
  plot.byBudget = data.some((trace) => trace.meta?.budget);
  return Plotly.react(plot.node, traces, { ...layout, dragmode }, settings);
}

function choose(budget, announce) {
  chosen = budget;
  for (const chooser of choosers) {
    if (chooser.type === "radio") chooser.checked = chooser.value === budget;
    else chooser.value = budget;
  }
  for (const part of document.querySelectorAll("[data-budget]")) part.hidden = !isChosen(part.dataset.budget);
  for (const plot of plots) if (plot.byBudget) draw(plot);
  if (announce) {
    const panel = document.querySelector(`article:not([hidden])`);
    const facts = [...panel.querySelectorAll(".facts > div")].map((fact) => fact.innerText.replaceAll("\n", " "));
    document.getElementById("announced").textContent = `${panel.querySelector("h3").textContent}. ${facts.join(". ")}`;
  }
}

function chooseClicked(event) {
  const budgets = event.points[0]?.data.hovertemplate?.startsWith("budget") && event.points[0].customdata?.split(" ");
  if (budgets) choose(budgets[(budgets.indexOf(chosen) + 1) % budgets.length], true);
}

for (const plot of plots) draw(plot).then((node) => node.on("plotly_click", chooseClicked));
for (const chooser of choosers) chooser.addEventListener("change", () => choose(chooser.value, true));
if (choosers.length) choose(document.querySelector("[data-choose]:checked").value, false);
darkScheme.addEventListener("change", () => plots.forEach(draw));
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const label = button.firstChild;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      label.data = "Copied";
    } catch {
      getSelection().selectAllChildren(button.previousElementSibling);
      label.data = "Selected";
    }
  });
}
document.documentElement.dataset.ready = "";
