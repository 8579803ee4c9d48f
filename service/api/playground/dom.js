// Elements, made without markup in text: the page's policy runs no inline script or style.

const SVG = "http://www.w3.org/2000/svg";

export const at = (id) => document.getElementById(id);

/** Return an element; `on…` properties are listeners, those in `aria` and `data` their families. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "aria") {
      for (const [key, text] of Object.entries(value)) { element.setAttribute("aria-" + key, text); }
    } else if (name === "data") {
      Object.assign(element.dataset, value);
    } else if (name.startsWith("on")) {
      element.addEventListener(name.slice(2), value);
    } else if (name in element) {
      element[name] = value;
    } else {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Return an SVG element; a `title` is what a pointer is told. */
export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  const { title, ...rest } = attributes;
  for (const [name, value] of Object.entries(rest)) { element.setAttribute(name, value); }
  if (title !== undefined) { element.append(draw("title", {}, title)); }
  element.append(...children);
  return element;
}

/** Return what calls a function once nothing has been asked for a while. */
export function debounced(call, waitMs = 150) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(call, waitMs);
  };
}

export function signed(number, digits = 2) {
  return (number < 0 ? "−" : "+") + Math.abs(number).toFixed(digits);
}

/** Call with the width of an element whenever that changes. */
export function onWidth(element, call) {
  let width = 0;
  new ResizeObserver(([entry]) => {
    const now = Math.round(entry.contentRect.width);
    if (now && now !== width) {
      width = now;
      call(now);
    }
  }).observe(element);
}
