// One rollout: its program token by token, its tests, its turns, its problem at other steps.

const MODES = [["code", "what ran"], ["advantage", "advantage"], ["value", "value"], ["probability", "probability"]];

/** The bytes at which tokens begin and end: [start, end], or null outside the code. */
function placesOf(details) {
  const gaps = new Map(details.gaps);
  let at = details.begin;
  return details.sizes.map((size, number) => {
    if (size < 0) return null;
    at += gaps.get(number) ?? 0;
    const start = at;
    at += size;
    return [start, at];
  });
}

/** The text of a range of bytes; a character belongs to the token that it begins in. */
function cutter(source) {
  const bytes = new TextEncoder().encode(source), decoder = new TextDecoder();
  const whole = (at) => {
    let place = Math.min(at, bytes.length);
    while (place < bytes.length && (bytes[place] & 0xc0) === 0x80) place++;
    return place;
  };
  return { size: bytes.length, cut: (start, end) => decoder.decode(bytes.subarray(whole(start), whole(end))) };
}

class Sample {
  constructor(head, index, table) {
    Object.assign(this, { head, index, table, mode: "code", row: null, token: -1, asked: 0 });
    this.root = byId("sample");
  }

  async show(row) {
    const asked = ++this.asked;
    const details = await openRollout(this.index, row);
    if (asked !== this.asked) return; // another one was asked for meanwhile
    Object.assign(this, { row, details, token: -1 });
    const side = make("aside", { "aria-label": "Same problem at other steps" }, this.same());
    const body = make("div", {}, this.statement(), this.turns(), this.program(), this.testTable());
    this.root.replaceChildren(this.top(), make("div", { className: "two" }, body, side));
    this.paint();
    this.root.querySelector('[aria-current="true"]')?.scrollIntoView({ block: "nearest" });
    scrollTo(0, 0);
  }

  top() {
    const { columns, problems, difficulties, verdicts } = this.index, i = this.row;
    const place = this.table.found.indexOf(i);
    const button = (text, key, by) => {
      const element = make("button", { type: "button", disabled: by !== 0 && this.table.found[place + by] === undefined }, text, make("kbd", {}, key));
      element.addEventListener("click", () => (by ? this.step(by) : views.show("table")));
      return element;
    };
    const facts = [
      `step ${columns.step[i]}`, difficulties[columns.problem[i]],
      columns.stage[i] === 0 ? "stage 0 (whole)" : `stage ${columns.stage[i]}`,
      `${columns.passed[i]} of ${columns.tests[i]} tests`, `reward ${signed(columns.reward[i])}`,
      `${columns.tokens[i]} tokens`, columns.truncated[i] ? "cut at the length limit" : null,
      columns.valid[i] ? null : "takes no part in learning", this.head.runs[columns.run[i]].name,
    ].filter((x) => x !== null);
    return make("div", {}, make("div", { className: "top" },
      button("← Table ", "esc", 0), button("Previous ", "k", -1), button("Next ", "j", 1),
      make("span", { className: "facts" }, place < 0 ? "not in the filters" : `${place + 1} of ${this.table.found.length}`)),
    make("div", { className: "top" }, make("strong", {}, problems[columns.problem[i]]),
      verdictOf(verdicts[columns.verdict[i]]), make("span", { className: "facts" }, facts.join(" · "))));
  }

  step(by) {
    const next = this.table.found[this.table.found.indexOf(this.row) + by];
    if (next !== undefined) views.open(next);
  }

  statement() {
    const text = this.head.statements[this.index.problems[this.index.columns.problem[this.row]]];
    return text ? make("details", {}, make("summary", {}, "Problem"), make("pre", {}, text)) : null;
  }

  turns() {
    return this.details.turns.map((turn, number) => make("div", { className: "turn" },
      make("h3", {}, `Turn ${number + 1}: program before `, verdictOf(turn.verdict)),
      make("pre", {}, turn.source ?? ""), make("h3", {}, "What the model read of it"), make("pre", {}, turn.feedback ?? "")));
  }

  program() {
    const { details } = this;
    const text = cutter(details.head + details.completion), places = placesOf(details);
    const code = make("pre", { className: "code", tabIndex: 0, "aria-label": "Program" });
    const rewards = new Map(details.rewards.map(([token, value]) => [token, value]));
    let at = Math.min(...places.filter((place) => place !== null).map((place) => place[0]), text.size);
    this.tokens = [];
    if (at > 0) code.append(make("span", { className: "given" }, text.cut(0, at)));
    places.forEach((place, number) => {
      const element = make("span", { className: "token" });
      element.dataset.token = number;
      if (rewards.has(number)) element.dataset.reward = signed(rewards.get(number));
      this.tokens.push({ element, place, text: place ? text.cut(...place) : "" });
      if (!place) return;
      if (place[0] > at) code.append(make("span", { className: "out" }, text.cut(at, place[0])));
      element.append(visible(this.tokens[number].text));
      code.append(element);
      at = Math.max(at, place[1]);
    });
    if (at < text.size) code.append(make("span", { className: "out" }, text.cut(at, text.size)));
    const outside = this.tokens.filter(({ place }) => !place);
    const explained = details.explained ?? 0;
    outside.forEach(({ element }) => {
      const number = Number(element.dataset.token);
      const isText = number < explained || outside.length === places.length;
      element.append(number + 1 === places.length ? "end" : isText ? "·" : "fence");
    });
    this.line = make("div", { className: "token-line", role: "status" });
    code.addEventListener("mouseover", (event) => this.hover(event));
    code.addEventListener("mouseleave", hideTip);
    code.addEventListener("click", (event) => {
      const token = event.target.closest(".token");
      if (token) this.choose(Number(token.dataset.token));
    });
    const others = outside.map(({ element }) => element).filter((element) => Number(element.dataset.token) >= explained);
    const tail = this.tokenRow(others.length ? "outside the code:" : null, others);
    return make("div", {}, this.explanation(explained), this.controls(), code, tail, this.line,
      details.message ? make("div", {}, make("h3", {}, "Message"), make("pre", {}, details.message)) : null);
  }

  /** A line of tokens that have no place in the program. */
  tokenRow(title, elements) {
    const line = make("div", { className: "key tokens" }, title, elements);
    line.addEventListener("mouseover", (event) => this.hover(event));
    line.addEventListener("mouseleave", hideTip);
    return line;
  }

  /** What the model wrote before its program, and the numbers of these tokens. */
  explanation(count) {
    if (!this.details.explanation) return null;
    const tokens = this.tokens.slice(0, count).map(({ element }) => element);
    return make("div", {}, make("h3", {}, `Explanation, ${count} tokens`), make("pre", {}, this.details.explanation),
      this.tokenRow("its tokens:", tokens));
  }

  controls() {
    const modes = make("select", { "aria-label": "Colour by" }, MODES.map(([value, text]) => make("option", { value }, text)));
    modes.value = this.mode;
    modes.addEventListener("change", () => { this.mode = modes.value; this.paint(); });
    this.modes = modes;
    const key = (name, text) => make("span", { className: "sample " + name }, text);
    return make("div", { className: "key" }, "colour by", modes,
      key("given", "given"), key("ran", "executed"), key("idle", "not executed (FGO drops it)"), key("out", "outside the code"),
      make("span", {}, "⚑ reward"), make("span", { className: "facts" }, "hover or ← → for a token"));
  }

  /** The classes and colours of all tokens, by what is asked for. */
  paint() {
    const values = this.numbers(this.mode);
    const most = Math.max(1e-9, ...values.filter((x) => x !== null).map(Math.abs));
    this.tokens.forEach(({ element, place }, number) => {
      const idle = this.details.executed[number] === "0";
      element.classList.toggle("out", !place);
      element.classList.toggle("ran", place !== null && !idle && this.mode === "code");
      element.classList.toggle("idle", place !== null && idle);
      element.style.background = "";
      element.classList.toggle("below", this.mode !== "code" && values[number] < 0);
      const value = values[number];
      if (this.mode !== "code" && value !== null) {
        const share = this.mode === "probability" ? 1 - value : Math.abs(value) / most;
        const tint = this.mode === "probability" || value < 0 ? "213,94,0" : "0,114,178";
        element.style.background = `rgba(${tint},${(0.65 * share).toFixed(3)})`;
      }
    });
  }

  numbers(mode) {
    const { details } = this, count = this.tokens.length;
    const list = { advantage: details.advantages, value: details.values, probability: details.logprobs }[mode];
    const number = (x) => (mode === "probability" ? Math.exp(x / 100) : x / 1000);
    return Array.from({ length: count }, (_, i) => (list && list[i] !== undefined ? number(list[i]) : null));
  }

  /** What is known of a token, in words. */
  tell(number) {
    const { text, place } = this.tokens[number];
    const [advantage, value, probability] = ["advantage", "value", "probability"].map((mode) => this.numbers(mode)[number]);
    const reward = this.details.rewards.find(([token]) => token === number);
    const kind = number < (this.details.explained ?? 0) ? "of the explanation" : !place ? "outside the code" : this.details.executed[number] === "0" ? "not executed" : "executed";
    return [
      `token ${number + 1} of ${this.tokens.length}${place ? ": " + JSON.stringify(text) : ""}`, kind,
      probability === null ? null : `probability ${short(probability)}`,
      advantage === null ? null : `advantage ${short(advantage)}`, value === null ? null : `value ${short(value)}`,
      reward ? `reward ${signed(reward[1])}` : null,
    ].filter((x) => x !== null);
  }

  hover(event) {
    const token = event.target.closest(".token");
    if (token) showTip(this.tell(Number(token.dataset.token)).join("\n"), event);
    else hideTip();
  }

  /** Choose a token, by the mouse or the arrows; its numbers are told below the program. */
  choose(number) {
    if (!this.tokens?.length) return;
    this.tokens[this.token]?.element.classList.remove("chosen");
    this.token = Math.max(0, Math.min(this.tokens.length - 1, number));
    this.tokens[this.token].element.classList.add("chosen");
    this.line.textContent = visible(this.tell(this.token).join(" · "));
  }

  testTable() {
    const { tests, shown } = this.details;
    const known = new Map(shown.map((row) => [row.test, row]));
    const names = ["Call", "Input", "Test", "Expected", "Got", "Error"]
      .filter((name) => shown.some((row) => row[name] || (name === "Got" && row.Expected !== undefined)));
    const others = [...new Set(shown.flatMap((row) => Object.keys(row)))].filter((name) => name.endsWith(" returned"));
    const columns = [...names, ...others];
    const rows = tests.map((verdict, number) => {
      const row = known.get(number) ?? {};
      const cells = columns.map((name) => {
        const same = name === "Got" && verdict === "pass" && row.Expected !== undefined;
        return make("td", { className: "mono" }, same ? "as expected" : row[name] ?? "", name === "Error" && row.line ? `\nline ${row.line}` : null);
      });
      return make("tr", {}, make("td", {}, String(number)), make("td", {}, verdictOf(verdict)), cells);
    });
    if (!rows.length) return null;
    const title = make("h3", {}, "Tests", shown.length < tests.length ? make("small", { className: "facts" }, ` what ${shown.length} of ${tests.length} asked is kept`) : null);
    return make("div", {}, title, make("table", { className: "tests" },
      make("thead", {}, make("tr", {}, ["", "verdict", ...columns].map((name) => make("th", {}, name.toLowerCase())))), make("tbody", {}, rows)));
  }

  /** All rollouts of this problem in this run, a line per step. */
  same() {
    const { columns, verdicts } = this.index, here = this.row;
    const steps = new Map();
    columns.problem.forEach((problem, i) => {
      if (problem !== columns.problem[here] || columns.run[i] !== columns.run[here]) return;
      if (!steps.has(columns.step[i])) steps.set(columns.step[i], []);
      steps.get(columns.step[i]).push(i);
    });
    const lines = [...steps].sort((a, b) => a[0] - b[0]).map(([step, rows]) => make("div", {}, make("span", {}, `step ${step}`), rows.map((i) => {
      const verdict = verdicts[columns.verdict[i]];
      const label = `step ${step}, stage ${columns.stage[i]}, ${verdict}`;
      const button = make("button", { type: "button", title: label, "aria-label": label, "aria-current": String(i === here) }, verdictOf(verdict, false));
      button.addEventListener("click", () => views.open(i));
      return button;
    })));
    return [make("h3", {}, "Same problem"), make("div", { className: "same" }, lines)];
  }
}
