"use strict";
// Which responses are shown: the choice of run, step, problem and response. It builds on tokens.js.
const MOST_OPTION = 60;

class Picker {
  constructor(data) {
    this.data = data;
    const find = (id) => document.getElementById(id);
    this.run = find("pick-run");
    this.step = find("pick-step");
    this.problem = find("pick-problem");
    this.response = find("pick-response");
    this.wrong = find("only-wrong");
    this.masked = find("only-masked");
    this.note = find("left-out");
    this.prompt = find("prompt");
    this.list = find("responses");
    for (const control of [this.run, this.step, this.problem, this.response, this.wrong, this.masked]) {
      control.addEventListener("change", () => {
        this.show();
        history.replaceState(null, "", this.address());
      });
    }
    const [run, step, problem] = this.addressed() ?? data.first;
    this.fill(this.run, data.runs.map((one) => [one.id, `${one.method}, ${one.seeds || one.id}`]), run);
    this.fillSteps(step);
    this.show(problem);
  }

  /** The choice as the end of an address, so that a link can lead to it. */
  address() {
    return `#samples:${encodeURIComponent(this.run.value)}:${this.step.value}:${this.problem.value}`;
  }

  /** [run, step, problem] of the address that the page was opened with; null where it names no run of the page. */
  addressed() {
    const [, wanted, step, problem] = /^#samples:([^:]+):(\d+):(\d+)$/.exec(location.hash) ?? [];
    const run = this.data.runs.find((one) => encodeURIComponent(one.id) === wanted);
    return run ? [run.id, Number(step), problem] : null;
  }

  /** Fill a select with [value, text] pairs, and choose `value` where it is among them, else the first. */
  fill(select, pairs, value) {
    select.replaceChildren(...pairs.map(([key, text]) => new Option(text, key)));
    const wanted = String(value);
    select.value = pairs.some(([key]) => String(key) === wanted) ? wanted : String(pairs[0]?.[0] ?? "");
    select.disabled = pairs.length === 0;
  }

  chosenRun() {
    return this.data.runs.find((one) => one.id === this.run.value);
  }

  /** The steps of the chosen run; of those, the one nearest to `wanted` is chosen. */
  fillSteps(wanted) {
    const { steps } = this.chosenRun();
    const nearest = steps.reduce((best, one) =>
      Math.abs(one.step - wanted) < Math.abs(best.step - wanted) ? one : best);
    this.fill(this.step, steps.map((one) => [one.step, `${one.step}`]), nearest.step);
  }

  isWished(response) {
    return !(this.wrong.checked && response.right) && !(this.masked.checked && !isMasked(response));
  }

  /** Bring options, prompt and responses in line with what is chosen; a choice holds on as far as it can. */
  show(wanted = this.problem.value) {
    const run = this.chosenRun();
    this.fillSteps(Number(this.step.value));
    const step = run.steps.find((one) => one.step === Number(this.step.value));
    const problems = step.problems.filter((one) => one.responses.some((response) => this.isWished(response)));
    this.fill(this.problem, problems.map((one) => [one.problem, Picker.nameOf(one)]), wanted);
    const problem = problems.find((one) => one.problem === Number(this.problem.value));
    const wished = problem ? problem.responses.filter((response) => this.isWished(response)) : [];
    const options = wished.map((one) => [one.number, `${one.number}: ${one.verdict}, read ${one.parsed}`]);
    if (wished.length !== 1) options.unshift(["all", wished.length ? `all ${wished.length}` : "none"]);
    this.fill(this.response, options, this.response.value);
    const shown = wished.filter((one) => ["all", String(one.number)].includes(this.response.value));
    this.prompt.replaceChildren(...(problem ? Picker.promptOf(run, problem) : []));
    this.list.replaceChildren(...shown.map((response) => Picker.articleOf(response)));
    this.note.replaceChildren(...Picker.leftOut(run, step, wished.length));
  }

  static nameOf(problem) {
    const prompt = problem.prompt.replace(/\s+/g, " ");
    const start = prompt.length > MOST_OPTION ? `${prompt.slice(0, MOST_OPTION)}…` : prompt;
    return `${problem.problem}: ${start}`;
  }

  static promptOf(run, problem) {
    const swatch = element("span", "swatch");
    swatch.style.background = run.color;
    const head = element("p", "soft", swatch, `${run.method}, run ${run.id} · expected `, isolated(problem.answer));
    return [element("pre", "prompt", isolated(problem.prompt)), head];
  }

  static leftOut(run, step, wished) {
    const none = wished ? [] : [element("b", "", "No response of this step is like that. ")];
    const responses = step.problems.reduce((sum, one) => sum + one.responses.length, 0);
    const some = (count, all, noun) => (count === all ? `all ${plural(all, noun)}` : `${count} of ${plural(all, noun)}`);
    const here = `On this page: ${some(run.steps.length, run.kept, "step")} of which this run kept responses, ` +
      `and ${some(responses, step.kept, "response")} of step ${step.step}.`;
    if (run.steps.length === run.kept && responses === step.kept) return [...none, here];
    const others = element("code", "", `cppo-lab inspect ${run.id} --step N`);
    return [...none, here, " ", others, " shows the others."];
  }

  static articleOf(response) {
    const mark = element("span", `mark ${response.right ? "right" : "wrong"}`, response.verdict);
    const facts = response.facts.map(([name, value]) => ` · ${name} ${value}`).join("");
    const head = element("p", "soft", `${response.number} `, mark, " read ", isolated(response.parsed), facts);
    return element("article", "", head, response.tokens ? tokensOf(response) : textOf(response));
  }
}

const sampleData = document.getElementById("sample-data");
if (sampleData) {
  const picker = new Picker(JSON.parse(sampleData.textContent));
  new TokenNumbers(document.getElementById("responses"), document.getElementById("token"));
  document.getElementById("picker").hidden = false;
  document.getElementById("samples").classList.add("picking");
  if (picker.addressed()) document.getElementById("samples").scrollIntoView();
}
