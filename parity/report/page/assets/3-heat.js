/** Draw where in a tensor the sides differ: a strip for each axis, and a map of the last two. */
const heat = (() => {
  const number = (digit) => Number(digit);

  /** Say which indices a cell of an axis stands for. */
  function range(cell, cells, length) {
    const start = length > cells ? Math.floor(cell * length / cells) : cell;
    const end = length > cells ? Math.floor((cell + 1) * length / cells) - 1 : cell;
    return start === end ? String(start) : `${start} to ${end}`;
  }

  /** Say how large a difference of a step is. */
  function sizeOfStep(step, { largest, steps, decades }) {
    if (step === 0) return "none";
    if (!largest) return "NaN or Inf on one side";
    if (step === steps) return `up to ${short(largest)}`;
    return `about ${short(largest * 10 ** (decades * (step / steps - 1)))}`;
  }

  /** Draw rows of digits on a canvas, and say what is under the pointer. */
  function canvas(rows, scale, said, tell, label) {
    const columns = rows[0].length, tall = rows.length === 1 ? 18 : Math.max(3, Math.min(12, Math.floor(320 / rows.length)));
    const made = make("canvas", { width: columns * 12, height: rows.length * tall, role: "img", "aria-label": label, class: rows.length === 1 ? "strip" : "map" });
    const paint = () => {
      const colours = getComputedStyle(document.documentElement), context = made.getContext("2d");
      context.clearRect(0, 0, made.width, made.height);
      rows.forEach((row, y) => [...row].forEach((digit, x) => {
        context.globalAlpha = 1;
        context.fillStyle = colours.getPropertyValue("--cold");
        context.fillRect(x * 12, y * tall, 12, tall);
        if (digit === "0") return;
        context.globalAlpha = 0.15 + 0.85 * number(digit) / scale.steps;
        context.fillStyle = colours.getPropertyValue("--hot");
        context.fillRect(x * 12, y * tall, 12, tall);
      }));
    };
    paint();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
    made.addEventListener("pointermove", (event) => {
      const box = made.getBoundingClientRect();
      const x = Math.min(columns - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * columns)));
      const y = Math.min(rows.length - 1, Math.max(0, Math.floor((event.clientY - box.top) / box.height * rows.length)));
      said.textContent = `${tell(x, y)}: ${sizeOfStep(number(rows[y][x]), scale)}`;
    });
    return made;
  }

  /** Return the indices of an axis at which something differs, in words. */
  function summary(strip, length) {
    const hit = [...strip].map((digit, cell) => [digit, cell]).filter(([digit]) => digit !== "0").map(([, cell]) => cell);
    if (hit.length === strip.length) return "differs at every index";
    const parts = [];
    for (const cell of hit) {
      if (parts.length && parts[parts.length - 1][1] === cell - 1) parts[parts.length - 1][1] = cell;
      else parts.push([cell, cell]);
    }
    const first = (cell) => range(cell, strip.length, length).split(" to ")[0], last = (cell) => range(cell, strip.length, length).split(" to ").pop();
    const shown = parts.slice(0, 5).map(([one, two]) => (first(one) === last(two) ? first(one) : `${first(one)} to ${last(two)}`));
    return `differs at ${shown.join(", ")}${parts.length > 5 ? ` and ${parts.length - 5} more` : ""}`;
  }

  /** Return the picture of one record. */
  function picture(record) {
    const it = data.heats[record.index];
    if (!it) return null;
    const scale = { largest: it.largest, steps: data.heat_steps, decades: data.heat_decades };
    const said = make("p", { class: "quiet heat-said" }, "Point at a cell to see which part of the tensor it is.");
    const parts = it.shape.map((length, axis) => ({ length, axis, strip: it.strips[axis] })).filter(({ length }) => length > 1);
    const lines = parts.flatMap(({ length, axis, strip }) => {
      const words = summary(strip, length);
      return [make("dt", {}, `axis ${axis}, ${length.toLocaleString("en")} long`),
        make("dd", {}, canvas([strip], scale, said, (x) => `axis ${axis}, ${range(x, strip.length, length)}`, `axis ${axis}: ${words}`), make("span", { class: "quiet" }, words))];
    });
    const [down, across] = it.axes;
    const map = it.rows.length && parts.length > 1 ? [
      make("p", {}, `Axis ${down} downwards, axis ${across} to the right${parts.length > 2 ? ", the largest over the others" : ""}:`),
      canvas(it.rows, scale, said, (x, y) => `axis ${down}, ${range(y, it.rows.length, it.shape[down])}; axis ${across}, ${range(x, it.rows[0].length, it.shape[across])}`,
        `map of axis ${down} and axis ${across}; the strips above say the same of each axis`),
    ] : [];
    const legend = it.largest ? `Pale: ${short(it.largest * 10 ** -scale.decades)} and less; full colour: ${short(it.largest)}, the largest difference. Each step is ${(10 ** (scale.decades / scale.steps)).toPrecision(2)} times the one before.` : "Full colour: NaN or Inf on one side only.";
    return make("div", { class: "heat" }, make("p", { class: "said" }, "Where in the tensor it differs, and by how much"), make("dl", {}, ...lines), ...map, make("p", { class: "quiet" }, legend), said);
  }

  for (const place of document.querySelectorAll("[data-heat]")) {
    const made = records[place.dataset.heat] && picture(records[place.dataset.heat]);
    if (made) place.append(made);
  }
  return { picture };
})();
