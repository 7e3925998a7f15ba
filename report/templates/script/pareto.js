// The trade-off plot: pick metrics, filter by axis values, walk through points with the arrow keys.
const pareto = (() => {
  const source = one("#pareto-data");
  if (!source) return null;
  const data = JSON.parse(source.textContent);
  const figure = one("#pareto-plot");
  const state = { x: data.x, y: data.y, size: data.size, hidden: data.axes.map(() => new Set()), at: -1 };
  const gain = (metric, value) => (metric.direction === "lower" ? -value : value);
  const shown = (cell) => cell.places.every((place, axis) => !state.hidden[axis].has(place));
  const unit = (metric) => (metric.suffix ? `\u202f${metric.suffix}` : "");
  const text = (metric, index) => {
    const v = metric.values[index];
    if (!v) return "–";
    const [m, low, high] = v.map((value) => digits(value * metric.factor));
    return `${m}${unit(metric)}${v[1] < v[2] ? ` [${low}, ${high}]` : ""}, n = ${metric.counts[index]}`;
  };
  const picked = () => [state.x, state.y, state.size].filter((m) => m !== null).map((m) => data.metrics[m]);
  const title = (metric) => `${metric.name}${metric.suffix ? ` (${metric.suffix})` : ""}, ${metric.better}`;

  const points = () => {
    const [mx, my] = [data.metrics[state.x], data.metrics[state.y]];
    const ms = state.size === null ? null : data.metrics[state.size];
    const largest = ms ? Math.max(...ms.values.filter(Boolean).map((v) => v[0])) : 0;
    const scaled = (metric, v) => v.slice(0, 3).map((value) => value * metric.factor);
    const list = [];
    data.cells.forEach((cell, index) => {
      const [vx, vy] = [mx.values[index], my.values[index]];
      if (!vx || !vy || !shown(cell)) return;
      const share = ms && ms.values[index] ? Math.sqrt(Math.max(0, ms.values[index][0] / largest)) : null;
      const tipText = [cell.label, ...picked().map((m) => `${m.name}: ${text(m, index)}`)].join("\n");
      list.push({ cell, index, x: scaled(mx, vx), y: scaled(my, vy), g: [gain(mx, vx[0]), gain(my, vy[0])], r: share === null ? 7 : 4.5 + 6.5 * share, tip: tipText });
    });
    return list;
  };
  const frontier = (list) => {
    const open = list.filter((p) => p.cell.role !== "aa-control");
    const beats = (a, b) => a.g[0] >= b.g[0] && a.g[1] >= b.g[1] && (a.g[0] > b.g[0] || a.g[1] > b.g[1]);
    return open.filter((p) => !open.some((q) => beats(q, p))).sort((a, b) => b.g[0] - a.g[0]);
  };
  // by the paired comparison where the page holds one, else by intervals that do not meet
  const told = (metric, a, b) => {
    if (metric.told) return metric.told[a.index][b.index] === "1";
    const [va, vb] = [metric.values[a.index], metric.values[b.index]];
    const disjoint = va[1] > vb[2] || vb[1] > va[2];
    const known = !metric.clocked || (va[3] > 1 && vb[3] > 1);
    const beyond = !(va[0] > 0 && vb[0] > 0) || Math.abs(Math.log(va[0] / vb[0])) > metric.floor;
    return gain(metric, va[0]) > gain(metric, vb[0]) && disjoint && known && beyond;
  };
  const standing = (list, best) => {
    const [mx, my] = [data.metrics[state.x], data.metrics[state.y]];
    const beats = (f, p) => (told(mx, f, p) && !told(my, p, f)) || (told(my, f, p) && !told(mx, p, f));
    const apart = (f, p) => [mx, my].some((metric) => told(metric, f, p) || told(metric, p, f));
    for (const p of list) {
      const by = best.includes(p) ? null : best.find((f) => beats(f, p));
      const from = best.filter((f) => !apart(f, p)).map((f) => f.cell.label);
      p.beaten = Boolean(by) && p.cell.role !== "aa-control";
      if (p.cell.role === "aa-control") p.place = "control";
      else if (best.includes(p)) p.place = "frontier";
      else if (by) p.place = `beaten by ${by.cell.label}`;
      else p.place = from.length ? `not told apart from ${from.join(", ")}` : "not beaten";
      p.tip += `\n${p.place}`;
    }
  };
  const glyph = (p, cx, cy) => {
    const { shape, fill, tick } = p.cell;
    const nodes = [draw("path", { class: fill ? "mark hollow" : "mark solid", d: data.shapes[shape], transform: `translate(${cx} ${cy}) scale(${p.r})` })];
    if (fill === 2) nodes.push(draw("circle", { class: "dot", cx, cy, r: p.r * 0.35 }));
    if (tick) {
      const y = cy + (tick === 1 ? -1.7 : 1.7) * p.r;
      nodes.push(draw("line", { class: "tick-bar", x1: cx - p.r, x2: cx + p.r, y1: y, y2: y }));
    }
    return nodes;
  };
  const labels = (svg, list, wanted, place, [left, right, top, bottom]) => {
    const taken = list.map((p) => { const [x, y] = place(p); const r = p.r + 2; return [x - r, y - r * (p.cell.tick === 1 ? 2 : 1), x + r, y + r * (p.cell.tick === 2 ? 2 : 1)]; });
    for (const p of wanted) {
      const reference = p.cell.role === "reference";
      const words = reference ? `${p.cell.label} (reference)` : p.cell.label;
      const [x, y] = place(p);
      const [w, gap] = [words.length * 6.6, p.r + (reference ? 9 : 5)];
      const spots = [[x + gap, y + 4, "start", x + gap], [x - gap, y + 4, "end", x - gap - w], [x, y - gap - (p.cell.tick === 1 ? p.r + 3 : 3), "middle", x - w / 2], [x, y + gap + 11, "middle", x - w / 2]];
      for (const [tx, ty, anchor, from] of spots) {
        const own = [from, ty - 11, from + w, ty + 3];
        const inside = own[0] >= left && own[2] <= right + 12 && own[1] >= top - 8 && own[3] <= bottom;
        if (!inside || taken.some((t) => own[2] > t[0] && own[0] < t[2] && own[3] > t[1] && own[1] < t[3])) continue;
        taken.push(own);
        svg.append(draw("text", { class: "label", x: tx, y: ty, "text-anchor": anchor }, words));
        break;
      }
    }
  };
  const frame = (svg, sx, sy, [left, right, top, bottom], width, height) => {
    for (const v of ticks(sx, Math.floor((right - left) / 80))) {
      const x = sx.at(v);
      svg.append(draw("line", { class: "grid", x1: x, x2: x, y1: top, y2: bottom }), draw("text", { x, y: bottom + 17, "text-anchor": "middle" }, tickText(v)));
    }
    for (const v of ticks(sy, Math.floor((bottom - top) / 48))) {
      const y = sy.at(v);
      svg.append(draw("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }), draw("text", { x: left - 7, y: y + 4, "text-anchor": "end" }, tickText(v)));
    }
    const [mx, my] = [data.metrics[state.x], data.metrics[state.y]];
    const log = (scale) => (scale.log ? ", log scale" : "");
    const brief = (metric, room) => (title(metric).length * 6.4 > room ? `${metric.name.split(",")[0]}${metric.suffix ? ` (${metric.suffix})` : ""}` : title(metric));
    svg.append(draw("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }));
    svg.append(draw("text", { class: "axis-title", x: (left + right) / 2, y: height - 8, "text-anchor": "middle" }, brief(mx, right - left) + log(sx)));
    svg.append(draw("text", { class: "axis-title", transform: `translate(13 ${(top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, brief(my, bottom - top) + log(sy)));
    const [lowX, lowY] = [mx.direction === "lower", my.direction === "lower"];
    const arrow = lowX ? (lowY ? "↙ better" : "↖ better") : lowY ? "better ↘" : "better ↗";
    svg.append(draw("text", { class: "better", x: lowX ? left + 8 : right - 6, y: lowY ? bottom - 9 : top + 14, "text-anchor": lowX ? "start" : "end" }, arrow));
  };
  const one_point = (p, [x, y], sx, sy) => {
    const reference = p.cell.role === "reference";
    const classes = ["pt", `c${p.cell.colour}`, p.beaten && !reference && "beaten", reference && "reference", p.cell.role === "aa-control" && "control"];
    const group = draw("g", { class: classes.filter(Boolean).join(" "), "data-cell": p.cell.id, "data-tip": p.tip });
    if (p.x[1] < p.x[2]) group.append(draw("line", { class: "error", x1: sx.at(p.x[1]), x2: sx.at(p.x[2]), y1: y, y2: y }));
    if (p.y[1] < p.y[2]) group.append(draw("line", { class: "error", x1: x, x2: x, y1: sy.at(p.y[1]), y2: sy.at(p.y[2]) }));
    if (reference) group.append(draw("circle", { class: "ring", cx: x, cy: y, r: p.r + 5 }));
    group.append(...glyph(p, x, y));
    return group;
  };
  const render = () => {
    const width = Math.max(300, Math.round(figure.clientWidth || 960));
    const height = Math.round(Math.min(540, Math.max(340, width * 0.55)));
    const area = [66, width - 16, 14, height - 46];
    const list = points();
    const [sx, sy] = [fit(list.flatMap((p) => p.x), [area[0], area[1]]), fit(list.flatMap((p) => p.y), [area[3], area[2]])];
    const best = frontier(list);
    standing(list, best);
    const place = (p) => [sx.at(p.x[0]), sy.at(p.y[0])];
    const names = best.map((p) => p.cell.label).join("; ");
    const about = `Scatter plot of ${list.length} cells. Across: ${title(data.metrics[state.x])}. Upwards: ${title(data.metrics[state.y])}. On the frontier: ${names}.`;
    const svg = draw("svg", { class: "drawing", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-labelledby": "pareto-live-title pareto-live-desc" },
      draw("title", { id: "pareto-live-title" }, `${data.metrics[state.y].name} against ${data.metrics[state.x].name}`), draw("desc", { id: "pareto-live-desc" }, about));
    frame(svg, sx, sy, area, width, height);
    const corners = [];
    for (const p of best) {
      const [x, y] = place(p);
      if (corners.length) corners.push([x, corners.at(-1)[1]]);
      corners.push([x, y]);
    }
    svg.append(draw("path", { class: "frontier", d: corners.map(([x, y], i) => `${i ? "L" : "M"}${x} ${y}`).join("") }));
    for (const p of [...list.filter((q) => !best.includes(q)), ...best]) svg.append(one_point(p, place(p), sx, sy));
    labels(svg, list, list.filter((p) => best.includes(p) || p.cell.role === "reference"), place, area);
    figure.replaceChildren(svg);
    figure.classList.add("live");
    table(list);
  };
  const table = (list) => {
    const element = one("#pareto-table");
    const heads = [...element.tHead.rows[0].cells];
    const metrics = picked();
    heads.slice(1, -1).forEach((head, i) => { (one("button", head) || head).textContent = metrics[i] ? metrics[i].name : ""; });
    for (const row of element.tBodies[0].rows) {
      const index = data.cells.findIndex((cell) => cell.id === row.dataset.cell);
      const point = list.find((p) => p.index === index);
      [...row.cells].slice(1, -1).forEach((cell, i) => {
        cell.textContent = metrics[i] ? text(metrics[i], index) : "";
        cell.dataset.sort = metrics[i]?.values[index]?.[0] ?? NaN;
      });
      row.cells[row.cells.length - 1].textContent = point ? point.place : "not measured";
    }
  };
  const filter = () => {
    const gone = new Set(data.cells.filter((cell) => !shown(cell)).map((cell) => cell.id));
    for (const node of all("[data-cell]")) node.classList.toggle("is-filtered", gone.has(node.dataset.cell));
    const note = one("#hidden-cells");
    note.hidden = gone.size === 0;
    one("span", note).textContent = `${gone.size} of ${data.cells.length} cells hidden`;
    render();
  };

  const columns = one("#pareto-table").tHead.rows[0];
  if (state.size === null) columns.cells[columns.cells.length - 1].before(Object.assign(document.createElement("th"), { scope: "col" }));
  if (state.size === null) for (const row of one("#pareto-table").tBodies[0].rows) row.cells[row.cells.length - 1].before(document.createElement("td"));
  one("#pareto-controls").hidden = false;
  for (const key of ["x", "y", "size"]) {
    one(`#pareto-${key}`).addEventListener("change", (event) => {
      state[key] = event.target.value === "" ? null : Number(event.target.value);
      render();
    });
  }
  const hint = one("#filter-hint");
  if (hint) hint.hidden = false;
  for (const box of all("#filters input")) {
    box.hidden = false;
    box.addEventListener("change", () => {
      const set = state.hidden[Number(box.closest("fieldset").dataset.axis)];
      if (box.checked) set.delete(box.value); else set.add(box.value);
      filter();
    });
  }
  one("#hidden-cells button").addEventListener("click", () => {
    state.hidden.forEach((set) => set.clear());
    all("#filters input").forEach((box) => { box.checked = true; });
    filter();
  });
  figure.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const nodes = all(".pt", figure);
    if (!step || !nodes.length) return;
    event.preventDefault();
    state.at = (state.at + step + nodes.length) % nodes.length;
    nodes.forEach((node, i) => node.classList.toggle("hot", i === state.at));
    const spot = nodes[state.at].getBoundingClientRect();
    tip.show(nodes[state.at].dataset.tip, spot.right, spot.bottom);
  });
  figure.addEventListener("blur", () => { tip.hide(); all(".hot", figure).forEach((node) => node.classList.remove("hot")); });
  let width = 0;
  new ResizeObserver(() => { if (Math.abs(figure.clientWidth - width) > 2) { width = figure.clientWidth; render(); } }).observe(figure);
  const drawn = all(".pt", figure).length;
  render();
  return { data, state, figure, render, points, drawn };
})();
