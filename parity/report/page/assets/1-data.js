// Errors of the page itself are shown, and counted for who tests it.
window.addEventListener("error", (event) => {
  const box = document.getElementById("errors");
  box.hidden = false;
  box.append(`This page has an error: ${event.message} `);
  document.documentElement.dataset.errors = Number(document.documentElement.dataset.errors || 0) + 1;
});

const IDENTICAL = 0, ACCEPTED = 1, REJECTED = 2;
const data = JSON.parse(document.getElementById("data").textContent);
const records = (() => {
  const textual = new Set(data.textual);
  return data.records.map((row, index) => {
    const record = { index };
    data.columns.forEach((column, place) => {
      const value = row[place];
      record[column] = textual.has(column) ? data.texts[value || 0] : value === undefined ? null : value;
    });
    record.status = record.status || 0;
    record.call = record.call || 0;
    return record;
  });
})();

/** Make an element with attributes, event handlers (functions) and children (elements or text). */
function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Write a number in three digits. */
function short(value) {
  if (value === null) return "n/a";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e-4 && size < 1e6 ? String(Number(value.toPrecision(3))) : value.toExponential(2).replace(/\.?0+e/, "e");
}

function nameOf(record) {
  return `${record.name || "the model"}#${record.call}${record.slot ? "." + record.slot : ""}`;
}

/** Return the largest error of a record as it is judged: a share of what is allowed, or absolute. */
function sizeOf(record) {
  if (record.status === IDENTICAL) return 0;
  const value = record.bounds ? record.share : record.max_abs;
  return value === null ? Infinity : value;
}

function sizeText(record) {
  if (record.status === IDENTICAL) return "0";
  if (record.bounds && record.share !== null) return `${short(record.share)} × allowed`;
  return record.max_abs === null ? "n/a" : short(record.max_abs);
}

function options(select, pairs) {
  select.replaceChildren(...pairs.map(([value, text]) => make("option", { value }, text)));
}

function counted(number, one) {
  return `${number.toLocaleString("en")} ${one}${number === 1 ? "" : "s"}`;
}
