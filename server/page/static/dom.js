// Elements and numbers as text.

const SVG = "http://www.w3.org/2000/svg";

export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

// `onclick` and the like are listeners, `style` an object, `dataset` too; true is an empty attribute.
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") setStyle(element, value);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(2).filter((child) => child !== null && child !== undefined));
  return element;
}

// By the object model: the page's policy forbids style attributes.
function setStyle(element, styles) {
  for (const [name, value] of Object.entries(styles)) element.style.setProperty(name, value);
}

let ids = 0;

export function nextId() {
  ids += 1;
  return `id-${ids}`;
}

export function percent(share) {
  return `${(share * 100).toFixed(share < 0.1 ? 2 : 1)} %`;
}

export function milliseconds(us) {
  const ms = us / 1000;
  return `${ms.toFixed(ms < 10 ? 2 : ms < 100 ? 1 : 0)} ms`;
}

const UNITS = [[1e9, "G"], [1e6, "M"], [1e3, "k"]];

export function short(count) {
  for (const [size, unit] of UNITS) {
    if (count >= size) return `${Number((count / size).toPrecision(3))} ${unit}`;
  }
  return String(count);
}

export function grouped(count) {
  return count.toLocaleString("en-US");
}
