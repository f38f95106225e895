(() => {
  const place = document.getElementById("chart"), said = document.getElementById("chart-said");
  const chooseMeasure = document.getElementById("depth-measure"), choosePhase = document.getElementById("depth-phase");
  const differing = records.filter((record) => record.status !== IDENTICAL);
  const measures = [
    { key: "share", text: "error as a share of what is allowed", limit: 1 },
    { key: "max_abs", text: "largest absolute difference", limit: null },
    { key: "ulps", text: "largest difference in units in the last place", limit: null },
  ].filter(({ key }) => differing.some((record) => record[key] > 0));
  const phases = [];
  for (const record of records) {
    const last = phases[phases.length - 1];
    if (last && last.name === record.phase) last.end = record.index;
    else phases.push({ name: record.phase, start: record.index, end: record.index });
  }
  let plot = null, marked = null, columns = [];

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  /** Return what is drawn: positions, what is equal, what differs, own errors; and how many have no figure. */
  function values(measure) {
    const sizes = differing.map((record) => record[measure.key]).filter((value) => value > 0);
    const top = sizes.reduce((one, two) => Math.max(one, two), 0) * 2 || 1;
    const without = (record) => record.status === REJECTED && record[measure.key] === null;
    const size = (record) => (without(record) ? top : record[measure.key] > 0 ? record[measure.key] : null);
    const series = [
      records.map((record) => record.index),
      records.map((record) => (record.status === ACCEPTED ? size(record) : null)),
      records.map((record) => (record.status === REJECTED ? size(record) : null)),
    ];
    if (data.isolated && measure.key === "max_abs") series.push(records.map((record) => (record.own > 0 ? record.own : null)));
    return { series, without: differing.filter(without).length };
  }

  function guides(measure) {
    return (u) => {
      const { ctx } = u, { left, top, width, height } = u.bbox, ratio = devicePixelRatio;
      const line = (x1, y1, x2, y2, stroke, dash) => {
        ctx.beginPath(); ctx.strokeStyle = stroke; ctx.lineWidth = ratio; ctx.setLineDash(dash.map((part) => part * ratio));
        ctx.moveTo(x1, y1); ctx.lineTo(x2, y2); ctx.stroke();
      };
      ctx.save();
      ctx.font = `${11 * ratio}px system-ui, sans-serif`;
      let free = left;
      for (const phase of phases) {
        const x = u.valToPos(phase.start, "x", true), end = u.valToPos(phase.end, "x", true);
        if (end < left || x > left + width) continue;
        if (x > left) line(x, top, x, top + height, colour("line"), []);
        const from = Math.max(x, left) + 3 * ratio, wide = ctx.measureText(phase.name).width;
        if (from >= free && from + wide < Math.min(end, left + width)) {
          ctx.fillStyle = colour("quiet"); ctx.fillText(phase.name, from, top + 11 * ratio); free = from + wide;
        }
      }
      if (measure.limit) {
        const y = u.valToPos(measure.limit, "y", true);
        if (y > top && y < top + height) line(left, y, left + width, y, colour("bad"), [5, 4]);
      }
      if (data.first !== null) {
        const x = u.valToPos(data.first, "x", true);
        if (x >= left && x <= left + width) line(x, top, x, top + height, colour("bad"), [2, 3]);
      }
      ctx.restore();
    };
  }

  /** Return the record that is drawn nearest to the pointer, within a few pixels. */
  function nearest(u) {
    const { left, top } = u.cursor;
    if (left < 0) return null;
    const from = u.posToIdx(left - 8), to = u.posToIdx(left + 8);
    let best = null, distance = 14;
    for (let index = from; index <= to; index++) {
      for (const column of columns.slice(1)) {
        if (column[index] === null || column[index] === undefined) continue;
        const gap = Math.hypot(u.valToPos(index, "x") - left, u.valToPos(column[index], "y") - top);
        if (gap < distance) [best, distance] = [index, gap];
      }
    }
    return best;
  }

  function tell(u) {
    const index = nearest(u);
    if (index === marked) return;
    marked = index;
    u.over.style.cursor = index === null ? "crosshair" : "pointer";
    if (index === null) return;
    const record = records[index];
    const own = record.own === null ? "" : `, own error ${short(record.own)}`;
    said.textContent = `${record.stage}: ${record.kind} ${nameOf(record)}, ${sizeText(record)}, largest difference ${short(record.max_abs)}${own}`;
  }

  function draw() {
    if (plot) plot.destroy();
    const measure = measures.find(({ key }) => key === chooseMeasure.value);
    const { series, without } = values(measure);
    columns = series;
    const points = (label, name, size) => {
      const fill = colour(name);
      return { label, stroke: fill, paths: () => null, points: { show: true, size, fill, width: 0 } };
    };
    const rejected = records.some((record) => record.status === REJECTED);
    const small = place.clientWidth < 560;
    const axis = { stroke: () => colour("quiet"), grid: { stroke: () => colour("line"), width: 1 }, ticks: { stroke: () => colour("line") } };
    const powers = (u, ticks) => ticks.map((tick) => (Number.isInteger(Number(Math.log10(tick).toFixed(6))) ? tick : null));
    plot = new uPlot({
      width: place.clientWidth, height: small ? 280 : 360, legend: { live: false }, padding: [12, 8, 0, 0],
      cursor: { points: { show: false }, drag: { x: true, y: false }, focus: { prox: -1 } },
      scales: { x: { time: false, range: (u, min, max) => [min, Math.max(max, min + 1)] }, y: { distr: 3 } },
      axes: [
        { ...axis, label: "records in order of execution", labelSize: 22, space: 70, values: (u, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? tick.toLocaleString("en") : "")) },
        { ...axis, size: 58, grid: { ...axis.grid, filter: powers }, ticks: { ...axis.ticks, filter: powers }, values: (u, ticks) => ticks.map((tick) => (tick === null ? "" : tick.toExponential().replace("+", "").replace(/e0$/, ""))) },
      ],
      series: [
        {}, points("equal within the tolerance", "accent", small ? 3 : 4),
        ...(rejected ? [points("differs", "bad", small ? 4 : 5)] : []),
        ...(series.length > 3 ? [points("own error, given equal inputs", "own", 5)] : []),
      ],
      hooks: { drawClear: [guides(measure)], setCursor: [tell] },
    }, rejected ? series : series.filter((column, number) => number !== 2), place);
    plot.over.addEventListener("click", () => {
      if (marked !== null && !plot.select.width) location.hash = `record-${marked}`;
    });
    zoom();
    const identical = records.length - differing.length;
    document.getElementById("depth-said").textContent = [
      data.isolated ? "Blue and red: the error that a record has with all that came before it. Orange: its own error, on its legacy twin's inputs." : "Each point is the error of a record, with all that came before it.",
      identical ? `${counted(identical, "record")} with the same bits ${identical === 1 ? "has" : "have"} no point.` : "",
      without ? `${counted(without, "record")} of another shape or decision ${without === 1 ? "has" : "have"} no figure, and ${without === 1 ? "stands" : "stand"} at the top.` : "",
      measure.limit ? "The dashed line across is what is allowed." : "",
      data.first === null ? "" : "The dotted line down is the first divergence.",
      "Drag to zoom, double-click to see all.",
    ].filter(Boolean).join(" ");
  }

  function zoom() {
    const phase = phases[choosePhase.value];
    plot.setScale("x", phase ? { min: phase.start, max: phase.end } : { min: 0, max: records.length - 1 });
  }

  if (!measures.length) {
    document.getElementById("depth-said").textContent = records.length
      ? "Every record has the same bits, or no figure: there is no error to draw."
      : "Nothing was compared.";
    for (const element of [place, said, chooseMeasure.closest(".controls")]) element.hidden = true;
    place.style.minHeight = 0;
    return;
  }
  options(chooseMeasure, measures.map(({ key, text }) => [key, text]));
  if (data.isolated && measures.some(({ key }) => key === "max_abs")) chooseMeasure.value = "max_abs";
  options(choosePhase, [["all", "all of it"], ...phases.map(({ name, start, end }, number) => [number, `${name} (${(end - start + 1).toLocaleString("en")})`])]);
  chooseMeasure.addEventListener("change", draw);
  choosePhase.addEventListener("change", zoom);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
  new ResizeObserver(() => {
    if (place.clientWidth && Math.abs(place.clientWidth - plot.width) > 1) plot.setSize({ width: place.clientWidth, height: plot.height });
  }).observe(place);
})();
