"use strict";
// The picker of responses: run, step, problem, response. Uses tokens.js.
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

  /** The choice as a URL fragment, so that it can be linked to. */
  address() {
    return `#samples:${encodeURIComponent(this.run.value)}:${this.step.value}:${this.problem.value}`;
  }

  /** [run, step, problem] of the page's URL fragment; null when it names no run of the page. */
  addressed() {
    const [, wanted, step, problem] = /^#samples:([^:]+):(\d+):(\d+)$/.exec(location.hash) ?? [];
    const run = this.data.runs.find((one) => encodeURIComponent(one.id) === wanted);
    return run ? [run.id, Number(step), problem] : null;
  }

  /** Fill a select with [value, text] pairs and select `value`, or the first pair when it is missing. */
  fill(select, pairs, value) {
    select.replaceChildren(...pairs.map(([key, text]) => new Option(text, key)));
    const wanted = String(value);
    select.value = pairs.some(([key]) => String(key) === wanted) ? wanted : String(pairs[0]?.[0] ?? "");
    select.disabled = pairs.length === 0;
  }

  chosenRun() {
    return this.data.runs.find((one) => one.id === this.run.value);
  }

  /** Offer the steps of the chosen run and select the one nearest to `wanted`. */
  fillSteps(wanted) {
    const { steps } = this.chosenRun();
    const nearest = steps.reduce((best, one) =>
      Math.abs(one.step - wanted) < Math.abs(best.step - wanted) ? one : best);
    this.fill(this.step, steps.map((one) => [one.step, `${one.step}`]), nearest.step);
  }

  isWanted(response) {
    return !(this.wrong.checked && response.right) && !(this.masked.checked && !isMasked(response));
  }

  /** Update options, prompt and responses after a change; the rest of the choice is kept where possible. */
  show(wanted = this.problem.value) {
    const run = this.chosenRun();
    this.fillSteps(Number(this.step.value));
    const step = run.steps.find((one) => one.step === Number(this.step.value));
    const problems = step.problems.filter((one) => one.responses.some((response) => this.isWanted(response)));
    this.fill(this.problem, problems.map((one) => [one.problem, Picker.nameOf(one)]), wanted);
    const problem = problems.find((one) => one.problem === Number(this.problem.value));
    const matching = problem ? problem.responses.filter((response) => this.isWanted(response)) : [];
    const options = matching.map((one) => [one.number, `${one.number}: ${one.verdict}, parsed ${one.parsed}`]);
    if (matching.length !== 1) options.unshift(["all", matching.length ? `all ${matching.length}` : "none"]);
    this.fill(this.response, options, this.response.value);
    const shown = matching.filter((one) => ["all", String(one.number)].includes(this.response.value));
    this.prompt.replaceChildren(...(problem ? Picker.promptOf(run, problem) : []));
    this.list.replaceChildren(...shown.map((response) => Picker.articleOf(response)));
    this.note.replaceChildren(...Picker.leftOut(run, step, matching.length));
  }

  static nameOf(problem) {
    const prompt = problem.prompt.replace(/\s+/g, " ");
    const start = prompt.length > MOST_OPTION ? `${prompt.slice(0, MOST_OPTION)}…` : prompt;
    return `${problem.problem}: ${start}`;
  }

  static promptOf(run, problem) {
    const swatch = element("span", "swatch");
    swatch.style.background = run.color;
    const head = element("p", "soft", swatch, `${run.method}, run ${run.id} · reference `, isolated(problem.answer));
    return [element("pre", "prompt", isolated(problem.prompt)), head];
  }

  static leftOut(run, step, matching) {
    const none = matching ? [] : [element("b", "", "No response at this step matches. ")];
    const responses = step.problems.reduce((sum, one) => sum + one.responses.length, 0);
    const some = (count, all, noun) => (count === all ? `all ${plural(all, noun)}` : `${count} of ${plural(all, noun)}`);
    const here = `This page has ${some(run.steps.length, run.kept, "step")} with saved responses of this run, ` +
      `and ${some(responses, step.kept, "saved response")} of step ${step.step}.`;
    if (run.steps.length === run.kept && responses === step.kept) return [...none, here];
    const others = element("code", "", `cppo-lab inspect ${run.id} --step N`);
    return [...none, here, " ", others, " shows the rest."];
  }

  static articleOf(response) {
    const mark = element("span", `mark ${response.right ? "right" : "wrong"}`, response.verdict);
    const facts = response.facts.map(([name, value]) => ` · ${name} ${value}`).join("");
    const head = element("p", "soft", `${response.number} `, mark, " parsed ", isolated(response.parsed), facts);
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
