// What is shown, and the keys.

const KEYS = [
  ["1", "curves"], ["2", "rollouts"], ["j k", "next, previous rollout"], ["enter", "open the rollout"],
  ["esc", "back; leave a field"], ["/", "filter by problem"], ["← →", "previous, next token of a program"],
  ["c", "colour by the next quantity"], ["d", "light or dark"], ["?", "these keys"],
];

const views = {
  now: "curves",
  show(name) {
    this.now = name;
    hideTip();
    for (const [id, view] of [["curves", "curves"], ["rollouts", "table"], ["sample", "sample"]]) byId(id).hidden = view !== name;
    byId("show-curves").setAttribute("aria-pressed", String(name === "curves"));
    byId("show-table").setAttribute("aria-pressed", String(name !== "curves"));
    if (name === "table") {
      this.table.draw();
      this.table.move(0);
      byId("table").focus({ preventScroll: true });
    }
  },
  async open(row) {
    if (row === undefined) return;
    this.table.choose(row);
    await this.sample.show(row);
    this.show("sample");
  },
};

const theme = {
  get dark() { return document.documentElement.dataset.theme === "dark"; },
  set(dark) {
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    byId("toggle-theme").firstChild.textContent = dark ? "Light " : "Dark ";
    views.heat?.();
  },
};

function isWriting(element) {
  return ["INPUT", "SELECT", "TEXTAREA"].includes(element?.tagName);
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const help = byId("help"), { sample, table } = views;
  if (help.open) { if (event.key === "?") help.close(); return; }
  if (isWriting(document.activeElement)) {
    if (event.key === "Escape" || (event.key === "Enter" && document.activeElement.tagName === "INPUT")) {
      document.activeElement.blur();
      byId("table").focus({ preventScroll: true });
      event.preventDefault();
    }
    return;
  }
  const inSample = views.now === "sample", inTable = views.now === "table";
  const onButton = document.activeElement?.tagName === "BUTTON";
  const actions = {
    1: () => views.show("curves"),
    2: () => views.show("table"),
    "/": () => { views.show("table"); byId("filter-problem").focus(); byId("filter-problem").select(); },
    "?": () => help.showModal(),
    d: () => theme.set(!theme.dark),
    j: () => (inSample ? sample.step(1) : inTable && table.move(1)),
    k: () => (inSample ? sample.step(-1) : inTable && table.move(-1)),
    Escape: () => inSample && views.show("table"),
  };
  if (inTable) {
    actions.ArrowDown = () => table.move(1);
    actions.ArrowUp = () => table.move(-1);
    if (!onButton) actions.Enter = () => views.open(table.row_chosen);
  }
  if (inSample) {
    actions.ArrowRight = () => sample.choose(sample.token + 1);
    actions.ArrowLeft = () => sample.choose(sample.token - 1);
    actions.c = () => {
      sample.modes.selectedIndex = (sample.modes.selectedIndex + 1) % MODES.length;
      sample.modes.dispatchEvent(new Event("change"));
    };
  }
  if (actions[event.key]) {
    event.preventDefault();
    actions[event.key]();
  }
}

function addCurves(head, index) {
  byId("arm").replaceChildren(...head.arms.map((arm, i) => make("option", { value: String(i) }, arm.name)));
  byId("heat-run").replaceChildren(...head.runs.map((run, i) => make("option", { value: String(i) }, run.name)));
  drawRuns(head);
  drawCurves(head);
  views.heat = () => drawHeat(index, Number(byId("heat-run").value), byId("heat-kind").value, (row) => views.open(row));
  byId("arm").addEventListener("change", () => drawParts(head, Number(byId("arm").value)));
  for (const id of ["heat-run", "heat-kind"]) byId(id).addEventListener("change", views.heat);
}

async function begin() {
  byId("keys").replaceChildren(...KEYS.flatMap(([key, text]) => [make("dt", {}, key.split(" ").map((each) => make("kbd", {}, each))), make("dd", {}, text)]));
  theme.set(matchMedia("(prefers-color-scheme: dark)").matches);
  if (typeof DecompressionStream === "undefined") {
    byId("notes").append(make("li", {}, "This browser cannot open compressed data (DecompressionStream): take a newer one."));
    return;
  }
  const [head, index] = await Promise.all([unpack("head"), unpack("index")]);
  byId("notes").replaceChildren(...head.notes.map((note) => make("li", {}, note)));
  views.table = new Table(head, index, (row) => views.open(row));
  views.sample = new Sample(head, index, views.table);
  addCurves(head, index);
  theme.set(theme.dark);
  byId("show-curves").addEventListener("click", () => views.show("curves"));
  byId("show-table").addEventListener("click", () => views.show("table"));
  byId("toggle-theme").addEventListener("click", () => theme.set(!theme.dark));
  byId("toggle-help").addEventListener("click", () => byId("help").showModal());
  byId("close-help").addEventListener("click", () => byId("help").close());
  document.addEventListener("keydown", press);
  document.documentElement.dataset.ready = Math.round(performance.now()); // ms
}

begin();
