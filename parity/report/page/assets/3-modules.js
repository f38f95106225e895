(() => {
  const tree = document.getElementById("tree");
  const children = new Map(data.modules.map(({ path }) => [path, []]));
  for (const module of data.modules) {
    if (module.path) children.get(module.path.split(".").slice(0, -1).join(".")).push(module);
  }
  const differs = (module) => module.accepted < module.records;

  function line(module) {
    const wrong = module.records - module.accepted;
    const name = module.path ? module.path.split(".").pop() : "the whole model";
    const worst = module.worst === null ? null : records[module.worst];
    const kind = module.code ? make("span", { class: "class", title: module.code }, module.code.split(".").pop()) : null;
    return [
      make("span", { class: "path" }, name, kind),
      make("span", { class: "number count" }, counted(module.records, "record")),
      make("span", { class: "number" }, wrong ? `${wrong.toLocaleString("en")} differ` : "equal"),
      make("span", { class: "number" }, worst ? sizeText(worst).replace(" × allowed", " ×") : "0"),
      make("button", { type: "button", class: "show", title: `Records of ${module.path || "the whole model"}`, click: (event) => { event.preventDefault(); rows.ofModule(module.path); } }, "records"),
    ];
  }

  /** Return a module's line; what is in it is made when it is opened first. */
  function node(module) {
    const below = children.get(module.path), wrong = differs(module) ? " bad" : "";
    if (!below.length) return make("div", { class: `leaf module${wrong}` }, ...line(module));
    const details = make("details", {}, make("summary", { class: `module${wrong}` }, ...line(module)));
    details.module = module;
    details.fill = () => {
      if (details.children.length === 1) details.append(make("div", { class: "kids" }, ...below.map(node)));
    };
    details.addEventListener("toggle", () => { if (details.open) details.fill(); });
    return details;
  }

  function openDiffering(details) {
    details.fill();
    details.open = true;
    for (const below of details.querySelectorAll(":scope > .kids > details")) if (differs(below.module)) openDiffering(below);
  }

  const root = node(data.modules[0]);
  tree.append(root);
  if (root.fill) { root.fill(); root.open = true; }
  const button = document.getElementById("open-differing");
  button.hidden = !data.modules.some(differs);
  button.addEventListener("click", () => root.fill && openDiffering(root));
  document.getElementById("close-all").addEventListener("click", () => {
    for (const details of tree.querySelectorAll(".kids details")) details.open = false;
  });
})();
