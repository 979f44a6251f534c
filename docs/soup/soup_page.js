// The page around the model: problems, sliders, the answer as it is written, the map.
"use strict";

(function () {
  const HIGHEST = 1.5, STEP = 0.05; // of the sliders
  const SLICE = 12; // milliseconds of work between two looks at the page
  const numbers = globalThis.SOUP_NUMBERS, { skills, methods, problems, map } = numbers;
  const $ = (id) => document.getElementById(id);
  const percent = (share, digits = 1) => (100 * share).toFixed(digits);
  const spoken = (task) => task.replaceAll("_", " ");
  const ENDING = "\nA:"; // of every prompt

  let model = null, loading = null;
  let chosen = methods[1]; // the button that was pressed last; null once a slider was moved
  let run = 0; // the answer in the making; older ones stop

  /** A new element with attributes and children, in a parent. */
  function make(parent, name, attributes = {}, ...children) {
    const svg = parent.namespaceURI.endsWith("svg");
    const space = svg ? parent.namespaceURI : "http://www.w3.org/1999/xhtml";
    const element = document.createElementNS(space, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    parent.append(element);
    return element;
  }

  // ---- problems

  for (const task of new Set(problems.map((problem) => problem.task))) {
    const group = make($("problem"), "optgroup", { label: `${spoken(task)}: first test problems` });
    problems.forEach((problem, i) => {
      if (problem.task === task) make(group, "option", { value: i }, problem.prompt.split("\n")[0]);
    });
  }
  make($("problem"), "option", { value: "" }, "one of my own");

  function pick() {
    const problem = problems[$("problem").value];
    if (problem) $("prompt").value = problem.prompt.replace(ENDING, "");
    else $("prompt").select();
    restart();
  }

  /** The problem whose text stands in the box, unchanged. */
  const problem = () => problems.find(({ prompt }) => prompt === $("prompt").value.trim() + ENDING);

  $("problem").addEventListener("change", pick);
  $("prompt").addEventListener("input", () => {
    const same = problem();
    $("problem").value = same ? problems.indexOf(same) : "";
    restart();
  });

  // ---- sliders and buttons

  const sliders = skills.map((skill) => {
    const row = make($("sliders"), "div", { class: "slider" });
    make(row, "label", { for: `alpha_${skill}` }, `alpha, ${skill}`);
    const range = { type: "range", min: 0, max: HIGHEST, step: STEP };
    const input = make(row, "input", { id: `alpha_${skill}`, ...range });
    make(row, "output", { for: input.id });
    input.addEventListener("input", () => {
      chosen = null;
      restart();
    });
    return input;
  });

  const buttons = methods.map((method) => {
    const button = make($("methods"), "button", { type: "button" }, method.name);
    button.addEventListener("click", () => {
      chosen = method;
      restart();
    });
    return button;
  });

  /** The two alphas that are shown: a button's, or the sliders'. */
  const alphas = () => chosen?.alphas ?? sliders.map((slider) => Number(slider.value));

  /** The alphas of the soup: CAT has one per module and LoRA; the sliders show their mean. */
  const weights = () => (chosen?.name === "CAT" ? numbers.learned : alphas());

  function show() {
    alphas().forEach((alpha, i) => {
      if (chosen) sliders[i].value = alpha;
      sliders[i].parentNode.lastChild.textContent = alpha.toFixed(2);
    });
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", methods[i] === chosen));
    mark();
  }

  // ---- the map

  const side = 250, left = 40, bottom = 260;
  const axis = [...new Set(map.points.map(({ alphas }) => alphas[0]))];
  const cell = side / axis.length, gap = axis[1] - axis[0];
  const x = (alpha) => left + (alpha / gap + 0.5) * cell;
  const y = (alpha) => bottom - (alpha / gap + 0.5) * cell;
  for (const point of map.points) {
    point.mean = point.solved.reduce((sum, one) => sum + one, 0) / point.solved.length;
  }
  const highest = Math.max(...map.points.map(({ mean }) => mean));

  /** Cividis in three colours: dark blue, grey, yellow. Told apart with any colour blindness. */
  function colour(share) {
    const stops = [[0, 34, 78], [124, 123, 120], [254, 232, 56]];
    const at = 2 * share, i = Math.min(1, Math.floor(at));
    const mixed = stops[i].map((one, k) => Math.round(one + (at - i) * (stops[i + 1][k] - one)));
    return `rgb(${mixed})`;
  }

  for (const { alphas: [first, second], mean } of map.points) {
    const where = { x: x(first) - cell / 2, y: y(second) - cell / 2, width: cell, height: cell };
    const look = { fill: colour(mean / highest), "shape-rendering": "crispEdges" };
    const rect = make($("map"), "rect", { ...where, ...look });
    make(rect, "title", {}, `alphas ${first}, ${second}: ${percent(mean, 0)} %`);
    rect.addEventListener("click", () => {
      [first, second].forEach((alpha, i) => { sliders[i].value = alpha; });
      chosen = null;
      restart();
    });
  }
  for (const alpha of axis.filter((_, i) => i % 2 === 0)) {
    const text = alpha.toFixed(1);
    make($("map"), "text", { x: x(alpha), y: bottom + 16, "text-anchor": "middle" }, text);
    make($("map"), "text", { x: left - 6, y: y(alpha) + 4, "text-anchor": "end" }, text);
  }
  const middle = left + side / 2;
  const across = { x: middle, y: bottom + 33 };
  const up = { transform: `translate(10 ${bottom - side / 2}) rotate(-90)` };
  [across, up].forEach((place, i) => {
    make($("map"), "text", { ...place, "text-anchor": "middle" }, `alpha, ${skills[i]}`);
  });
  [0, 0.25, 0.5, 0.75, 1].forEach((share, i) => {
    const start = left + i * 50, label = `${percent(share * highest, 0)} %`;
    const box = { x: start, y: bottom + 42, width: 50, height: 10 };
    make($("map"), "rect", { ...box, fill: colour(share) });
    make($("map"), "text", { x: start + 25, y: bottom + 66, "text-anchor": "middle" }, label);
  });
  const point = make($("map"), "g", { fill: "none", "pointer-events": "none" });
  make(point, "circle", { r: 8, stroke: "#000", "stroke-width": 5 });
  make(point, "circle", { r: 8, stroke: "#fff", "stroke-width": 2.5 });
  const white = "fill: #fff; paint-order: stroke; pointer-events: none";
  const outlined = { style: white, stroke: "#000", "stroke-width": 3 };
  for (const method of methods.filter(({ alphas }) => alphas.every((alpha) => alpha > 0))) {
    const [a, b] = method.alphas, place = { x: x(a), y: y(b) - 13, "text-anchor": "middle" };
    make($("map"), "circle", { cx: x(a), cy: y(b), r: 3, fill: "#fff", stroke: "#000" });
    make($("map"), "text", { ...place, ...outlined }, method.name);
  }

  /** Put the ring where the sliders stand, and say what the map knows there. */
  function mark() {
    const [a, b] = alphas(), far = ({ alphas: [c, d] }) => (c - a) ** 2 + (d - b) ** 2;
    const nearest = map.points.reduce((one, other) => (far(other) < far(one) ? other : one));
    const { alphas: [first, second], solved, mean, loss } = nearest;
    const [low, high] = [Math.min(...solved), Math.max(...solved)].map((one) => percent(one, 0));
    const own = skills.map((skill, i) => `${percent(nearest.skills[i], 0)} % of ${skill}`);
    point.setAttribute("transform", `translate(${x(a)} ${y(b)})`);
    $("here").textContent =
      `Alphas ${a.toFixed(2)} and ${b.toFixed(2)} (the ring). The nearest point of the map, ` +
      `${first.toFixed(1)} and ${second.toFixed(1)}, solves ${percent(mean, 0)} % of ` +
      `${map.problems} hard math problems (${map.seeds}: ${low} to ${high} %) and ` +
      `${own.join(" and ")} on the skills' own tests; its skill loss is ${loss.toFixed(3)} nats ` +
      "per token. The map has one alpha for all modules; CAT learns one per module, so its point " +
      "is a mean. The model in this page is the first seed's.";
  }

  // ---- the table and the sentences

  const seen = { solved: "hard math solved, %", form: "programs that run, %" };
  for (const skill of skills) seen[skill] = `${skill} solved, %`;
  $("caption").textContent = "What the study measured";
  make($("head"), "th", { scope: "col" }, "soup");
  for (const name of Object.values(seen)) make($("head"), "th", { scope: "col" }, name);
  for (const method of methods) {
    const row = make($("rows"), "tr");
    make(row, "th", { scope: "row" }, method.name);
    for (const key of Object.keys(seen)) make(row, "td", {}, percent(method[key]));
  }
  for (const sentence of numbers.text) make($("text"), "p", {}, sentence);
  const sources = make($("text"), "p", {}, "All of it, with intervals: ");
  make(sources, "a", { href: "docs/results.html" }, "results");
  sources.append(". How it is done: ");
  make(sources, "a", { href: "notebooks/00_one_slider.html" }, "notebook 00");
  sources.append(".");

  // ---- the model

  /** Read the weights, once: a script, as a page opened as a file may not fetch. */
  function load() {
    loading ??= new Promise((done, failed) => {
      $("state").textContent = "Loading the model ...";
      const script = make(document.head, "script", { src: "soup_weights.js" });
      script.onload = () => done(new globalThis.Soup.Model(globalThis.SOUP_WEIGHTS));
      script.onerror = failed;
    }).then((ready) => {
      model = ready;
      $("load").hidden = true;
      document.body.dataset.ready = "true";
    }, () => {
      loading = null;
      $("state").textContent = "The model could not be loaded: soup_weights.js is missing.";
    });
    return loading;
  }

  /** Show where the sliders stand and let the model answer anew. */
  async function restart() {
    const mine = ++run;
    show();
    await load();
    if (model && mine === run) await answer(mine);
  }

  async function answer(mine) {
    const prompt = $("prompt").value.trim() + ENDING, ids = model.tokenizer.encode(prompt);
    const strange = [...new Set(model.tokenizer.unknownPieces(prompt))];
    $("unknown").hidden = !strange.length;
    const words = strange.map((word) => word.trim() || "white space");
    $("unknown").textContent = `The model does not know: ${words.join(", ")}`;
    const room = model.config.max_position_embeddings - numbers.max_new_tokens;
    $("verdict").textContent = "";
    if (ids.length > room) {
      $("answer").textContent = "";
      $("state").textContent = `Too long: ${ids.length} words and signs; at most ${room}.`;
      return;
    }
    $("answer").setAttribute("aria-busy", "true");
    model.setAlphas(weights());
    const start = performance.now();
    let text = "", tokens = 0, shown = start;
    for (text of model.answer(ids, numbers.max_new_tokens)) {
      tokens++;
      if (performance.now() - shown < SLICE) continue;
      if (text) $("answer").textContent = text.replace(/^\s+/, "");
      await new Promise((next) => setTimeout(next));
      if (mine !== run) return;
      shown = performance.now();
    }
    $("answer").textContent = text.replace(/^\s+/, "");
    $("answer").removeAttribute("aria-busy");
    const seconds = (performance.now() - start) / 1000;
    $("state").textContent = `${tokens} tokens read and written in ${seconds.toFixed(2)} s ` +
      `(${Math.round(tokens / Math.max(seconds, 1e-3))} a second).`;
    judge(text);
  }

  /** Say whether the answer is right; the study runs programs in a sandbox, the page reads them. */
  function judge(text) {
    const { form, value } = globalThis.Soup.read(text), target = problem()?.target;
    const program = ["hard_math", "code", undefined].includes(problem()?.task);
    let said;
    if (form === "") said = program ? "No program, no number." : "No answer in words.";
    else if (value === undefined) said = "The program does not run.";
    else if (form === "program") said = `The program returns ${value}.`;
    else said = `The answer in words is ${value}.`;
    const right = form === (program ? "program" : "words") && Math.abs(value - target) < 1e-3;
    const due = program ? `a program that returns ${target}` : `${target}, in words`;
    if (target !== undefined) said += right ? " Solved." : ` Not solved: asked for is ${due}.`;
    $("verdict").textContent = said;
    $("verdict").className = target === undefined ? "" : right ? "good" : "bad";
  }

  $("load").addEventListener("click", restart);
  $("load").textContent = "Load the model and answer";
  $("state").textContent = "The model is loaded when you ask for it or move a slider.";
  $("problem").value = 2; // one that some soups solve
  $("prompt").value = problems[2].prompt.replace(ENDING, "");
  show();
})();
