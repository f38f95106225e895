const rows = (() => {
  const PAGE = 100, NEAR = 4;
  const get = (id) => document.getElementById(id);
  const body = get("rows").tBodies[0], more = get("more-rows"), form = get("filter");
  const text = get("filter-text"), status = get("filter-status"), stage = get("filter-stage"), kind = get("filter-kind"), order = get("filter-order");
  const number = (wanted) => records.filter((record) => wanted(record.status)).length.toLocaleString("en");
  let found = [], shown = 0, module = null, around = null;

  function chosen() {
    if (around !== null) return records.slice(Math.max(0, around - NEAR), around + NEAR + 1);
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const least = { differ: REJECTED, bits: ACCEPTED, all: IDENTICAL }[status.value];
    const list = records.filter((record) =>
      record.status >= least && (!stage.value || record.stage === stage.value) && (!kind.value || record.kind === kind.value)
      && (module === null || !module || record.module === module || record.module.startsWith(module + "."))
      && words.every((word) => `${nameOf(record)} ${record.legacy_name} ${record.kind} ${record.note}`.toLowerCase().includes(word)));
    return order.value === "size" ? list.sort((one, two) => two.status - one.status || sizeOf(two) - sizeOf(one) || one.index - two.index) : list;
  }

  function refresh() {
    found = chosen();
    shown = 0;
    body.replaceChildren();
    grow(PAGE);
    const where = module ? ` in ${module}` : "";
    get("records-said").textContent = around === null
      ? `${counted(found.length, "record")} of ${records.length.toLocaleString("en")}${where}`
      : `Record ${around + 1} and its neighbours in order of execution. Reset to see the list.`;
  }

  function grow(count) {
    body.append(...found.slice(shown, shown + count).map(row));
    shown = Math.min(found.length, shown + count);
    more.hidden = shown >= found.length;
    more.textContent = `Show ${Math.min(PAGE, found.length - shown)} more (${(found.length - shown).toLocaleString("en")} left)`;
  }

  function row(record) {
    const open = make("button", { type: "button", class: "open", "aria-expanded": "false", click: () => toggle(line, open, record) }, nameOf(record));
    const line = make("tr", { class: record.status === REJECTED ? "bad" : null, id: `row-${record.index}` },
      make("td", {}, open), make("td", {}, record.kind), make("td", { class: "stage" }, record.stage), make("td", { class: "number" }, sizeText(record)));
    return line;
  }

  function toggle(line, button, record) {
    const isOpen = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!isOpen));
    if (isOpen) line.nextElementSibling.remove();
    else line.after(make("tr", { class: "detail" }, make("td", { colspan: 4 }, ...details(record))));
  }

  function details(record) {
    const said = { [IDENTICAL]: "The same bits on both sides.", [ACCEPTED]: "Other bits, equal under the tolerance.", [REJECTED]: "Differs." }[record.status];
    const facts = [
      ["phase", record.phase], ["module", record.module || "the model's own code"], ["legacy name", record.legacy_name],
      ...(data.diagnoses[record.index] || []).map(([kind, said]) => [kind, said]),
      ["type and shape", record.form], ["on the legacy side", record.legacy_form], ["what is said of it", record.note], ["why not accepted", record.objection],
      ["largest absolute difference", record.status && record.max_abs !== null && short(record.max_abs)],
      ["mean absolute difference", record.mean_abs !== null && short(record.mean_abs)],
      ["largest relative difference", record.max_rel !== null && short(record.max_rel)],
      ["units in the last place", record.ulps !== null && record.ulps.toLocaleString("en")],
      ["cosine", record.cosine !== null && String(record.cosine)],
      ["elements that differ", record.differing ? `${short(100 * record.differing)} %` : ""],
      ["NaN and Inf, legacy and new", record.not_finite],
      ["largest value", record.size && short(record.size)],
      ["own error, given equal inputs", record.own !== null && `${short(record.own)}${record.own_accepted ? ", accepted" : ""}`],
      ["position", `${record.index + 1} of ${records.length.toLocaleString("en")}`],
    ].filter(([, value]) => value);
    const list = make("dl", {}, ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]));
    return [make("p", { class: "said" }, said), list, record.bounds ? bounds(record.bounds) : null, record.decision ? decision(record.decision) : null, heat.picture(record)].filter(Boolean);
  }

  /** Return the table of errors and of what is derived for them. */
  function bounds([max, rms, maxAllowed, rmsAllowed, max64, rms64, maxAllowed64, rmsAllowed64]) {
    const line = (what, error, allowed) => make("tr", { class: (error || 0) > (allowed || 0) ? "bad" : null },
      make("td", {}, what), make("td", { class: "number" }, short(error)), make("td", { class: "number" }, short(allowed)));
    return make("table", {},
      make("thead", {}, make("tr", {}, make("th", {}, "distance from the float64 reference"), make("th", { class: "number" }, "error"), make("th", { class: "number" }, "allowed"))),
      make("tbody", {}, line("in the run's precision, largest", max, maxAllowed), line("in the run's precision, root mean square", rms, rmsAllowed),
        line("in float64, largest", max64, maxAllowed64), line("in float64, root mean square", rms64, rmsAllowed64)));
  }

  function decision(number) {
    const place = get(`decision-${number}`);
    return make("p", {}, "Decision: ", make("a", { href: `#decision-${number}` }, place.textContent));
  }

  /** Show a record among its neighbours, opened. */
  function show(index) {
    around = index;
    refresh();
    const line = get(`row-${index}`);
    const button = line.querySelector("button");
    toggle(line, button, records[index]);
    button.focus({ preventScroll: true });
    get("records").scrollIntoView();
  }

  function ofModule(path) {
    for (const field of [text, stage, kind]) field.value = "";
    [module, around] = [path, null];
    status.value = "all";
    order.value = "size";
    refresh();
    get("records").scrollIntoView();
    text.focus({ preventScroll: true });
  }

  function follow() {
    const asked = /^#record-(\d+)$/.exec(location.hash);
    if (asked && records[asked[1]]) show(Number(asked[1]));
  }

  options(status, [["differ", `differs (${number((it) => it === REJECTED)})`], ["bits", `other bits (${number((it) => it >= ACCEPTED)})`], ["all", `all (${records.length.toLocaleString("en")})`]]);
  options(stage, [["", "all"], ...[...new Set(records.map((record) => record.stage))].map((name) => [name, name])]);
  options(kind, [["", "all"], ...[...new Set(records.map((record) => record.kind))].sort().map((name) => [name, name])]);
  const initial = records.some((record) => record.status === REJECTED) ? 0 : records.some((record) => record.status === ACCEPTED) ? 1 : 2;
  status.options[initial].defaultSelected = true;
  status.selectedIndex = initial;
  form.addEventListener("input", () => { around = null; refresh(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { [module, around] = [null, null]; refresh(); }));
  more.addEventListener("click", () => {
    const next = shown;
    grow(PAGE);
    get(`row-${found[next].index}`).querySelector("button").focus();
  });
  addEventListener("hashchange", follow);
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest("a[href^='#record-']");
    if (link && link.getAttribute("href") === location.hash) follow();
  });
  refresh();
  follow();
  return { ofModule };
})();
document.documentElement.dataset.ready = "yes";
