// Curves as SVG: a line per arm with its interval over runs, or the parts of one arm.

const WIDTH = 420, HEIGHT = 210, LEFT = 46, RIGHT = 10, TOP = 8, BOTTOM = 22;
// So that a verdict looks the same in each chart and in the table.
const OF_VERDICTS = { pass: 2, wrong: 1, runtime: 3, timeout: 4, memory: 5, output: 7, compile: 0, infra: 6, all: 6 };
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 4", "1 2", "12 4", "6 2 1 2"];

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes ?? {})) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function colour(number) {
  return `var(--c${number % 8})`;
}

/** A sample of a line's stroke, as it stands in a legend. */
function swatch(number) {
  const line = svg("line", {
    x1: 0, x2: 26, y1: 5, y2: 5, stroke: colour(number), "stroke-width": 2.4,
    "stroke-dasharray": DASHES[number % DASHES.length],
  });
  return svg("svg", { width: 26, height: 10, "aria-hidden": "true" }, line);
}

function block(number) {
  const rect = svg("rect", { width: 12, height: 10, fill: fillOf(number) });
  return svg("svg", { width: 12, height: 10, "aria-hidden": "true" }, rect);
}

/** Round places on an axis. */
function ticks(low, high, count) {
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / count));
  const step = [1, 2, 5, 10].map((x) => x * power).find((x) => span / x <= count);
  const found = [];
  for (let x = Math.ceil(low / step - 1e-9); x * step <= high + span * 1e-9; x++) {
    found.push(Number((x * step).toPrecision(12)));
  }
  return found;
}

// The axis is that of the lines. Of two runs an interval is many times as wide as their
// distance: it may make the axis twice as long, and is cut at its ends.
function boundsOf(lines, chart) {
  const known = (value) => value !== null && value !== undefined;
  const xs = lines.flatMap((line) => [line.x, ...(line.runs ?? []).map((run) => run[0])]).flat();
  const least = (values) => values.filter(known).reduce((a, b) => Math.min(a, b), Infinity);
  const most = (values) => values.filter(known).reduce((a, b) => Math.max(a, b), -Infinity);
  const ys = lines.flatMap((line) => [line.y, ...(line.runs ?? []).map((run) => run[1])]).flat();
  let low = least(ys), high = most(ys);
  const reach = (high - low) / 2;
  low = Math.min(low, Math.max(low - reach, least(lines.flatMap((line) => line.low ?? []))));
  high = Math.max(high, Math.min(high + reach, most(lines.flatMap((line) => line.high ?? []))));
  if (known(chart.least) && least(ys) >= chart.least) low = chart.least;
  if (known(chart.floor)) low = Math.max(low, Math.min(chart.floor, high));
  if (known(chart.most)) high = Math.max(high, chart.most);
  if (!(high > low)) [low, high] = [low - 0.5, high + 0.5];
  if (low !== chart.least) low -= (high - low) * 0.05;
  if (!known(chart.most)) high += (high - low) * 0.06;
  const left = least(xs), right = most(xs);
  return { left, right: right > left ? right : left + 1, low, high };
}

/** The frame of a chart: axes, grid, and how numbers become places. */
function frameOf(bounds) {
  const x = (value) => LEFT + (WIDTH - LEFT - RIGHT) * (value - bounds.left) / (bounds.right - bounds.left);
  const inside = (share) => Math.min(1, Math.max(0, share));
  const y = (value) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * inside((value - bounds.low) / (bounds.high - bounds.low));
  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  for (const tick of ticks(bounds.low, bounds.high, 5)) {
    const kind = tick === 0 && bounds.low < 0 ? "zero" : "grid";
    root.append(svg("line", { class: kind, x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick) }));
    const text = svg("text", { x: LEFT - 6, y: y(tick) + 3.5, "text-anchor": "end" });
    text.textContent = short(tick, 4);
    root.append(text);
  }
  for (const tick of ticks(bounds.left, bounds.right, 6)) {
    const text = svg("text", { x: x(tick), y: HEIGHT - 6, "text-anchor": "middle" });
    text.textContent = short(tick, 6);
    root.append(text);
  }
  const unit = svg("text", { x: 2, y: HEIGHT - 6 });
  unit.textContent = "iter.";
  root.append(unit);
  return { root, x, y, bounds };
}

/** The path through points; it breaks where a value is missing. */
function pathOf(frame, xs, ys) {
  let path = "", pen = "M";
  xs.forEach((x, i) => {
    if (ys[i] === null) { pen = "M"; return; }
    path += `${pen}${frame.x(x).toFixed(1)} ${frame.y(ys[i]).toFixed(1)}`;
    pen = "L";
  });
  return path;
}

function bandOf(frame, line) {
  const known = line.x.map((_, i) => i).filter((i) => line.low[i] !== null);
  if (known.length < 2) return "";
  const above = known.map((i) => `${frame.x(line.x[i]).toFixed(1)} ${frame.y(line.high[i]).toFixed(1)}`);
  const below = known.map((i) => `${frame.x(line.x[i]).toFixed(1)} ${frame.y(line.low[i]).toFixed(1)}`);
  return `M${above.join("L")}L${below.reverse().join("L")}Z`;
}

function drawLine(frame, line, number) {
  const stroke = colour(number);
  if (line.low) {
    const band = svg("path", { d: bandOf(frame, line), class: "band", "fill-opacity": 0.16 });
    band.style.fill = stroke;
    frame.root.append(band);
  }
  for (const run of line.runs ?? []) {
    frame.root.append(svg("path", { d: pathOf(frame, run[0], run[1]), stroke, "stroke-width": 0.7, "stroke-opacity": 0.45 }));
  }
  frame.root.append(svg("path", {
    d: pathOf(frame, line.x, line.y), stroke, "stroke-width": 2,
    "stroke-dasharray": DASHES[number % DASHES.length], "stroke-linejoin": "round",
  }));
  if (line.x.length <= 24) {
    line.x.forEach((x, i) => {
      if (line.y[i] !== null) frame.root.append(svg("circle", { cx: frame.x(x), cy: frame.y(line.y[i]), r: 2.4, fill: stroke }));
    });
  }
}

let patterns = 0;

/** A colour, and from the fifth on a pattern of stripes with it. */
function fillOf(number) {
  return number < 4 ? colour(number) : `url(#stripes${number})`;
}

function addPatterns() {
  if (patterns) return;
  patterns = 1;
  const all = [4, 5, 6, 7].map((number) => svg("pattern",
    { id: `stripes${number}`, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: `rotate(${45 * (number - 4)})` },
    svg("rect", { width: 6, height: 6, fill: colour(number), "fill-opacity": 0.45 }),
    svg("rect", { width: 2.5, height: 6, fill: colour(number) })));
  document.body.append(svg("svg", { width: 0, height: 0, "aria-hidden": "true", class: "patterns" }, svg("defs", {}, ...all)));
}

/** Lines on top of each other; the x of the first line are those of all. */
function drawStack(frame, lines, numbers) {
  let below = lines[0].x.map(() => 0);
  lines.forEach((line, number) => {
    const known = new Map(line.x.map((x, i) => [x, line.y[i] ?? 0]));
    const above = lines[0].x.map((x, i) => below[i] + (known.get(x) ?? 0));
    const point = (values) => (x, i) => `${frame.x(x).toFixed(1)} ${frame.y(values[i]).toFixed(1)}`;
    const up = lines[0].x.map(point(above)), down = lines[0].x.map(point(below)).reverse();
    const area = svg("path", { d: `M${up.join("L")}L${down.join("L")}Z`, class: "area" });
    area.style.fill = fillOf(numbers[number]);
    frame.root.append(area);
    below = above;
  });
}

function stackBounds(lines, chart) {
  const sums = lines[0].x.map((x) => lines.reduce((sum, line) => {
    const i = line.x.indexOf(x);
    return sum + (i < 0 ? 0 : line.y[i] ?? 0);
  }, 0));
  const sorted = [...sums].sort((a, b) => a - b);
  // one slow iteration (an evaluation, a checkpoint) must not flatten the rest
  const high = chart.most ?? 1.25 * sorted[Math.floor(0.95 * (sorted.length - 1))];
  const xs = lines[0].x;
  return { left: xs[0], right: xs[xs.length - 1] > xs[0] ? xs[xs.length - 1] : xs[0] + 1, low: 0, high: high || 1 };
}

/** What all lines say at the place under the mouse. */
function follow(frame, lines, names) {
  const cursor = svg("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  frame.root.append(cursor);
  const places = [...new Set(lines.flatMap((line) => line.x))].sort((a, b) => a - b);
  frame.root.addEventListener("mousemove", (event) => {
    const box = frame.root.getBoundingClientRect();
    const at = (event.clientX - box.left) * WIDTH / box.width;
    const near = places.reduce((best, x) => Math.abs(frame.x(x) - at) < Math.abs(frame.x(best) - at) ? x : best, places[0]);
    cursor.setAttribute("x1", frame.x(near));
    cursor.setAttribute("x2", frame.x(near));
    cursor.setAttribute("visibility", "visible");
    const told = lines.map((line, number) => {
      const i = line.x.indexOf(near);
      if (i < 0 || line.y[i] === null) return null;
      const range = line.low && line.low[i] !== null ? ` [${short(line.low[i])}, ${short(line.high[i])}]` : "";
      return `${names[number]}: ${short(line.y[i])}${range}`;
    });
    showTip([`iteration ${near}`, ...told.filter((x) => x !== null)].join("\n"), event);
  });
  frame.root.addEventListener("mouseleave", () => {
    cursor.setAttribute("visibility", "hidden");
    hideTip();
  });
}

/** One chart with its legend; `names` are of its lines, `numbers` give their colours. */
function drawChart(chart, lines, names, numbers, withLegend) {
  const frame = frameOf(chart.stack ? stackBounds(lines, chart) : boundsOf(lines, chart));
  if (chart.stack) drawStack(frame, lines, numbers);
  else lines.forEach((line, i) => drawLine(frame, line, numbers[i]));
  follow(frame, lines, names);
  const said = lines.map((line, i) => `${names[i]} ends at ${short(line.y[line.y.length - 1])}`);
  frame.root.setAttribute("aria-label", `${chart.title}, ${chart.note}: ${said.join("; ")}`);
  const title = make("figcaption", {}, chart.title, make("small", {}, chart.note));
  const legend = make("div", { className: "legend" });
  if (withLegend) {
    lines.forEach((line, i) => legend.append(make("span", {}, chart.stack ? block(numbers[i]) : swatch(numbers[i]),
      `${names[i]} ${short(line.y[line.y.length - 1])}`)));
  }
  return make("figure", { className: "chart" }, title, withLegend ? legend : null, frame.root);
}

function drawCurves(head) {
  addPatterns();
  const arms = head.arms.map((arm) => arm.name);
  const several = arms.length > 1;
  byId("legend").replaceChildren(...arms.map((name, i) => make("span", {}, swatch(i), name)));
  byId("legend").hidden = !several;
  byId("arm-charts").replaceChildren(...head.charts.filter((chart) => !chart.of_one_arm).map((chart) =>
    drawChart(chart, chart.lines, chart.lines.map((line) => arms[line.arm]), chart.lines.map((line) => line.arm), false)));
  drawParts(head, Number(byId("arm").value || 0));
}

function drawParts(head, arm) {
  const charts = head.charts.filter((chart) => chart.of_one_arm).map((chart) => {
    const lines = chart.lines.filter((line) => line.arm === arm);
    if (!lines.length) return null;
    return drawChart(chart, lines, lines.map((line) => line.label), lines.map((line, i) => OF_VERDICTS[line.label] ?? i), true);
  });
  byId("part-charts").replaceChildren(...charts.filter((chart) => chart !== null));
}

function drawRuns(head) {
  const unlike = Object.keys(head.arms[0]?.unlike ?? {});
  const fixed = ["name", "iterations", "tokens", "algorithm", "data.path", "run.seed"];
  const rest = [...fixed.slice(3), ...unlike].filter((x, i, all) => all.indexOf(x) === i).slice(0, 12);
  const titles = ["run", "arm", "iterations", "tokens", ...rest];
  const lines = head.runs.map((run, number) => {
    const arm = head.arms.findIndex((each) => each.runs.includes(number));
    const cells = [run.name, head.arms[arm].name, run.iterations, run.tokens?.toLocaleString("en") ?? "–",
      ...rest.map((name) => run[name] ?? head.arms[arm].unlike[name] ?? "–")];
    return make("tr", {}, cells.map((cell) => make("td", {}, typeof cell === "object" ? JSON.stringify(cell) : String(cell))));
  });
  byId("runs").replaceChildren(make("thead", {}, make("tr", {}, titles.map((title) => make("th", {}, title)))), make("tbody", {}, lines));
}
