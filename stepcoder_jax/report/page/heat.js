// The curriculum as a heat map: problems by time, from the rollouts that are kept.

const MOST_ROWS = 240, MOST_COLUMNS = 120, LABELS = 210;
// Cividis, which is read alike with all kinds of colour vision; light is high.
const SCALE = [[0, 34, 78], [42, 63, 110], [87, 93, 109], [125, 124, 120], [166, 157, 117], [211, 193, 100], [254, 232, 56]];

function scaleAt(share) {
  const place = Math.max(0, Math.min(1, share)) * (SCALE.length - 1);
  const i = Math.min(SCALE.length - 2, Math.floor(place)), part = place - i;
  const mixed = SCALE[i].map((a, k) => Math.round(a + (SCALE[i + 1][k] - a) * part));
  return `rgb(${mixed.join(",")})`;
}

/** Mean of `kind` per problem and bin of steps, over the rollouts of a run. */
function heatOf(index, run, kind) {
  const { columns } = index;
  const rows = [], steps = new Set();
  columns.run.forEach((each, i) => {
    if (each === run) { rows.push(i); steps.add(columns.step[i]); }
  });
  const sorted = [...steps].sort((a, b) => a - b);
  const width = Math.max(1, Math.ceil(sorted.length / MOST_COLUMNS));
  const place = new Map(sorted.map((step, i) => [step, Math.floor(i / width)]));
  const passes = index.verdicts.indexOf("pass");
  const cells = new Map();
  for (const i of rows) {
    const problem = columns.problem[i], bin = place.get(columns.step[i]);
    if (!cells.has(problem)) cells.set(problem, new Map());
    const cell = cells.get(problem).get(bin) ?? { sum: 0, count: 0, first: i };
    cell.sum += kind === "stage" ? columns.stage[i] : Number(columns.verdict[i] === passes);
    cell.count += 1;
    cells.get(problem).set(bin, cell);
  }
  const mean = (bins) => [...bins.values()].reduce((sum, cell) => sum + cell.sum / cell.count, 0) / bins.size;
  const difficulty = (problem) => index.order.indexOf(index.difficulties[problem]);
  const order = [...cells.keys()].sort((a, b) => difficulty(a) - difficulty(b) || mean(cells.get(a)) - mean(cells.get(b)) || a - b);
  const bins = Math.ceil(sorted.length / width);
  const first = Array.from({ length: bins }, (_, bin) => sorted[bin * width]);
  return { cells, order: order.slice(0, MOST_ROWS), left_out: Math.max(0, order.length - MOST_ROWS), first };
}

function drawHeat(index, run, kind, open) {
  const heat = heatOf(index, run, kind);
  const root = byId("heat");
  if (!heat.order.length) {
    root.replaceChildren(make("p", { className: "facts" }, "This run has no rollouts here."));
    return;
  }
  let most = 1;
  if (kind === "stage") for (const bins of heat.cells.values()) for (const cell of bins.values()) most = Math.max(most, cell.sum / cell.count);
  const high = heat.order.length > 60 ? 7 : 13;
  const wide = Math.max(6, Math.min(26, Math.floor(900 / heat.first.length)));
  const canvas = make("canvas", { width: LABELS + wide * heat.first.length + 12, height: high * heat.order.length + 20 });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Curriculum: ${heat.order.length} problems by ${heat.first.length} steps`);
  paintHeat(canvas, heat, index, { high, wide, most });
  const cellAt = (event) => {
    const box = canvas.getBoundingClientRect(), ratio = canvas.width / box.width;
    const bin = Math.floor(((event.clientX - box.left) * ratio - LABELS) / wide);
    const problem = heat.order[Math.floor((event.clientY - box.top) * ratio / high)];
    return { problem, bin, cell: heat.cells.get(problem)?.get(bin) };
  };
  canvas.addEventListener("mousemove", (event) => {
    const { problem, bin, cell } = cellAt(event);
    if (problem === undefined) { hideTip(); return; }
    const said = cell ? `${kind === "stage" ? "mean stage" : "passes"} ${short(cell.sum / cell.count)}, ${cell.count} rollouts` : "not drawn";
    showTip(`${index.problems[problem]}\nstep ${heat.first[bin] ?? "–"}: ${said}`, event);
  });
  canvas.addEventListener("mouseleave", hideTip);
  canvas.addEventListener("click", (event) => {
    const { cell } = cellAt(event);
    if (cell) open(cell.first);
  });
  const scale = make("div", { className: "scale" }, kind === "stage" ? "stage 0 (whole)" : "0");
  for (let i = 0; i <= 6; i++) {
    const box = make("i");
    box.style.background = scaleAt(i / 6);
    scale.append(box);
  }
  scale.append(kind === "stage" ? `${short(most)} (most given)` : "1", "; no box: not drawn then; click: its first rollout");
  if (heat.left_out) scale.append(`; ${heat.left_out} problems more are not drawn`);
  root.replaceChildren(make("div", { className: "scroll" }, canvas), scale);
}

function paintHeat(canvas, heat, index, { high, wide, most }) {
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  pen.font = `${Math.min(11, high)}px ui-monospace, "DejaVu Sans Mono", monospace`;
  pen.strokeStyle = style.getPropertyValue("--soft"); // dark boxes stand out on a dark page
  pen.lineWidth = 0.5;
  heat.order.forEach((problem, row) => {
    pen.fillStyle = style.getPropertyValue("--soft");
    if (high > 9) {
      const name = visible(index.problems[problem]);
      pen.fillText(name.length > 30 ? "…" + name.slice(-29) : name, 0, row * high + high - 3);
    }
    for (const [bin, cell] of heat.cells.get(problem)) {
      pen.fillStyle = scaleAt(cell.sum / cell.count / most);
      pen.fillRect(LABELS + bin * wide, row * high, wide - 1, high - 1);
      pen.strokeRect(LABELS + bin * wide + 0.5, row * high + 0.5, wide - 2, high - 2);
    }
  });
  pen.fillStyle = style.getPropertyValue("--soft");
  pen.font = "11px system-ui, sans-serif";
  const every = Math.max(1, Math.ceil(heat.first.length * wide / wide / 14));
  heat.first.forEach((step, bin) => {
    if (bin % every === 0) pen.fillText(String(step), LABELS + bin * wide, heat.order.length * high + 14);
  });
}
