// The table of rollouts: filters over columns, and only the rows that are in sight.

const ROW = 28; // pixels, as in page.css
const COLUMNS = [
  { name: "step", number: true }, { name: "problem" }, { name: "difficulty" },
  { name: "stage", number: true }, { name: "verdict" }, { name: "tests", number: true },
  { name: "reward", number: true }, { name: "tokens", number: true },
  { name: "masked", number: true, title: "share of tokens that FGO drops" },
  { name: "run" },
];

class Table {
  constructor(head, index, open) {
    Object.assign(this, { head, index, open, found: [], chosen: 0, order: null, down: false });
    this.box = byId("table");
    this.fill();
    this.box.addEventListener("scroll", () => this.draw());
    addEventListener("resize", () => this.draw());
    byId("filters").addEventListener("input", () => this.filter());
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("filter-clear").addEventListener("click", () => { byId("filters").reset(); this.filter(); });
    byId("rows").addEventListener("click", (event) => {
      const row = event.target.closest("tr.row");
      if (row) { this.chosen = Number(row.dataset.place); this.open(this.found[this.chosen]); }
    });
    this.filter();
  }

  fill() {
    const { index, head } = this;
    const used = new Set(index.columns.verdict);
    const stages = [...new Set(index.columns.stage)].sort((a, b) => a - b);
    const options = (id, pairs) => byId(id).replaceChildren(
      make("option", { value: "" }, "all"), ...pairs.map(([value, text]) => make("option", { value: String(value) }, text)));
    options("filter-verdict", index.verdicts.map((name, i) => [i, `${SIGNS[name]} ${name}`]).filter(([i]) => used.has(i)));
    options("filter-stage", stages.map((stage) => [stage, stage === 0 ? "0 (whole)" : String(stage)]));
    options("filter-difficulty", index.order.map((name) => [name, name]));
    options("filter-run", head.runs.map((run, i) => [i, run.name]));
    byId("columns").replaceChildren(...COLUMNS.map((column) => {
      const button = make("button", { type: "button", title: column.title ?? "sort" }, column.name);
      button.addEventListener("click", () => this.sort(column.name));
      return make("th", { className: column.number ? "number" : "", "data-column": column.name, scope: "col" }, button);
    }));
  }

  /** Whether a rollout passes the filters, as a function of its number. */
  test() {
    const { columns, problems, difficulties } = this.index;
    const value = (id) => byId(id).value;
    const part = value("filter-problem").trim().toLowerCase();
    const named = problems.map((name) => !part || name.toLowerCase().includes(part));
    const level = value("filter-difficulty");
    const wanted = problems.map((_, i) => named[i] && (!level || difficulties[i] === level));
    const equal = [["filter-verdict", columns.verdict], ["filter-stage", columns.stage], ["filter-run", columns.run]]
      .filter(([id]) => value(id) !== "").map(([id, column]) => [Number(value(id)), column]);
    const from = value("filter-from") === "" ? -Infinity : Number(value("filter-from"));
    const to = value("filter-to") === "" ? Infinity : Number(value("filter-to"));
    return (i) => wanted[columns.problem[i]] && columns.step[i] >= from && columns.step[i] <= to
      && equal.every(([number, column]) => column[i] === number);
  }

  filter() {
    const passes = this.test(), total = this.index.columns.run.length;
    this.found = [];
    for (let i = 0; i < total; i++) if (passes(i)) this.found.push(i);
    this.arrange();
    this.chosen = 0;
    this.box.scrollTop = 0;
    byId("count").textContent = `${this.found.length.toLocaleString("en")} of ${total.toLocaleString("en")} rollouts`;
    this.draw();
  }

  sort(name) {
    if (this.order === name && this.down) [this.order, this.down] = [null, false];
    else [this.order, this.down] = [name, this.order === name];
    this.filter();
  }

  arrange() {
    for (const cell of byId("columns").children) {
      const is = cell.dataset.column === this.order;
      cell.setAttribute("aria-sort", is ? (this.down ? "descending" : "ascending") : "none");
      cell.firstChild.textContent = cell.dataset.column + (is ? (this.down ? " ▾" : " ▴") : "");
    }
    if (this.order === null) return;
    const { columns, problems, difficulties, order } = this.index;
    const keys = {
      problem: (i) => problems[columns.problem[i]],
      difficulty: (i) => order.indexOf(difficulties[columns.problem[i]]),
      tests: (i) => columns.passed[i] / (columns.tests[i] || 1),
      masked: (i) => columns.masked[i] / (columns.tokens[i] || 1),
    };
    const key = keys[this.order] ?? ((i) => columns[this.order][i]);
    const known = new Map(this.found.map((i) => [i, key(i)]));
    const sign = this.down ? -1 : 1;
    this.found.sort((a, b) => {
      const x = known.get(a), y = known.get(b);
      return x < y ? -sign : x > y ? sign : a - b;
    });
  }

  draw() {
    if (byId("rollouts").hidden) return;
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - 8);
    const last = Math.min(this.found.length, first + Math.ceil(this.box.clientHeight / ROW) + 16);
    const gap = (count) => {
      const cell = make("td", { colSpan: COLUMNS.length });
      cell.style.height = count * ROW + "px";
      return make("tr", { className: "gap", "aria-hidden": "true" }, cell);
    };
    const rows = this.found.slice(first, last).map((i, k) => this.row(i, first + k));
    byId("rows").replaceChildren(gap(first), ...rows, gap(this.found.length - last));
  }

  row(i, place) {
    const { columns, problems, difficulties, verdicts } = this.index;
    const tokens = columns.tokens[i];
    const cells = {
      step: columns.step[i], problem: problems[columns.problem[i]],
      difficulty: difficulties[columns.problem[i]], stage: columns.stage[i],
      verdict: verdictOf(verdicts[columns.verdict[i]]),
      tests: `${columns.passed[i]}/${columns.tests[i]}`, reward: signed(columns.reward[i]),
      tokens: tokens + (columns.truncated[i] ? " cut" : ""),
      masked: tokens ? Math.round(100 * columns.masked[i] / tokens) + " %" : "–",
      run: this.head.runs[columns.run[i]].name,
    };
    const row = make("tr", { className: "row", "aria-selected": String(place === this.chosen) },
      COLUMNS.map(({ name, number }) => make("td", { className: number ? "number" : "" }, cells[name])));
    row.dataset.place = place;
    row.dataset.row = i;
    return row;
  }

  /** Move the choice by some rows, and keep it in sight. */
  move(by) {
    if (!this.found.length) return;
    this.chosen = Math.max(0, Math.min(this.found.length - 1, this.chosen + by));
    const top = this.chosen * ROW, room = this.box.clientHeight - 2 * ROW;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top > this.box.scrollTop + room) this.box.scrollTop = top - room;
    this.draw();
  }

  get row_chosen() {
    return this.found[this.chosen];
  }

  /** Make a rollout the chosen one, where the filters let it through. */
  choose(i) {
    const place = this.found.indexOf(i);
    if (place >= 0) this.chosen = place;
  }
}
