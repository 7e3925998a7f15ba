// With #selftest in the address the page clicks through itself and says how that went in <html data-selftest>.
const selftest = () => {
  const check = (holds, what) => { if (!holds) throw new Error(what); };
  const click = (node) => node.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true }));
  const change = (node) => node.dispatchEvent(new Event("change", { bubbles: true }));
  check(all("svg.drawing").every((svg) => svg.getAttribute("role") === "img" && one("title", svg) && one("desc", svg)), "a chart has no name or description");
  check(all("svg.inline").every((svg) => svg.getAttribute("aria-label")), "a small bar has no name");
  check(all("header.bar nav a").every((a) => document.getElementById(a.getAttribute("href").slice(1))), "a link of the contents leads nowhere");
  const ids = all("[id]").map((node) => node.id);
  check(new Set(ids).size === ids.length, "two elements share an id");
  testTheme(check, click);
  testFold(check, click);
  testSort(check, click);
  if (pareto) testPareto(check, click, change);
};
const testTheme = (check, click) => {
  const [before, paper] = [theme.current(), getComputedStyle(document.body).backgroundColor];
  click(theme.button);
  check(theme.current() !== before, "the theme did not change");
  check(getComputedStyle(document.body).backgroundColor !== paper, "the theme changed no colour");
  click(theme.button);
  check(theme.current() === before, "the theme did not change back");
};
const testFold = (check, click) => {
  const tables = all("#tables details.metric");
  if (!tables.length) return;
  const before = tables.map((details) => details.open);
  click(fold);
  check(tables.every((details) => details.open), "not all tables opened");
  click(fold);
  check(tables.every((details) => !details.open), "not all tables folded");
  tables.forEach((details, index) => { details.open = before[index]; });
};
const testSort = (check, click) => {
  for (const table of all("table.sortable.numbers")) {
    const heading = [...table.tHead.rows[0].cells].find((cell) => cell.textContent.trim().startsWith("median"));
    if (!heading) continue;
    const values = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[heading.cellIndex].dataset.sort));
    const ordered = (list) => list.every((v, i) => i === 0 || v >= list[i - 1]);
    heading.removeAttribute("aria-sort");
    click(one("button", heading));
    check(ordered(values()) && heading.getAttribute("aria-sort") === "ascending", "a table did not sort upwards");
    click(one("button", heading));
    check(ordered(values().reverse()) && heading.getAttribute("aria-sort") === "descending", "a table did not sort downwards");
  }
};
const testPareto = (check, click, change) => {
  const { data, state, figure } = pareto;
  const count = () => all(".pt", figure).length;
  const expected = (mx, my) => data.cells.filter((_, i) => data.metrics[mx].values[i] && data.metrics[my].values[i]).length;
  check(pareto.drawn === expected(data.x, data.y), `${pareto.drawn} points were drawn without the script`);
  check(count() === expected(state.x, state.y), `${count()} points are drawn`);
  for (let metric = 0; metric < data.metrics.length; metric += 1) {
    const picker = one("#pareto-y");
    picker.value = metric;
    change(picker);
    check(count() === expected(state.x, metric), `picking ${data.metrics[metric].name} draws ${count()} points`);
    check(!/NaN|Infinity|undefined/.test(figure.innerHTML), `${data.metrics[metric].name} cannot be drawn`);
  }
  one("#pareto-y").value = data.y;
  change(one("#pareto-y"));
  const box = one("#filters input");
  if (box) {
    const matching = pareto.points().filter((p) => p.cell.places[0] === box.value).length;
    const before = count();
    box.checked = false;
    change(box);
    check(count() === before - matching, "a filter hides the wrong number of points");
    check(!one("#hidden-cells").hidden, "nothing says that cells are hidden");
    click(one("#hidden-cells button"));
    check(count() === before && box.checked && !one(".is-filtered"), "the filter did not reset");
  }
  figure.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true, cancelable: true }));
  check(!tip.box.hidden && one(".hot", figure), "the arrow keys show no point");
  const point = one(".pt .mark", figure);
  point.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX: 200, clientY: 200 }));
  check(tip.box.textContent === point.closest(".pt").dataset.tip, "hover shows no values");
  figure.dispatchEvent(new Event("blur"));
  check(tip.box.hidden, "the tip stays");
};
if (location.hash === "#selftest") {
  try { selftest(); root.dataset.selftest = "ok"; } catch (error) { root.dataset.selftest = error.message; }
}
