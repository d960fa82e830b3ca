// A picture with outlined people to choose from.
import { picture } from "./api.js";
import { element } from "./words.js";

const LEAST_SIDE = 4; // pixels of the picture, as the server asks for

/**
 * Shows a picture in `place`, its people as buttons; `people` have `box`: left, top, right, bottom in its pixels.
 * `chosen` tells who is marked, `choose` is called with who is clicked.
 */
export async function show(place, path, people, { chosen, choose, signal }) {
  clear(place);
  place.classList.add("loading");
  try {
    const image = element("img", { alt: "", draggable: "false" });
    image.src = await picture(path, { signal });
    await image.decode();
    if (signal.aborted) return;
    place.replaceChildren(image);
    // The largest first, so that who stands before somebody else can be clicked, but in order for the keyboard.
    people.forEach((person, index) => {
      const button = outline(image, person.box, `Person ${index + 1}`);
      button.classList.toggle("chosen", chosen(person));
      button.style.zIndex = 1 + people.filter((other) => area(other.box) > area(person.box)).length;
      button.addEventListener("click", () => choose(person));
      place.append(button);
    });
  } finally {
    place.classList.remove("loading");
  }
}

/** Takes the picture away. */
export function clear(place) {
  const old = place.querySelector("img");
  if (old?.src.startsWith("blob:")) URL.revokeObjectURL(old.src);
  place.replaceChildren();
}

/** Lets a box be drawn by mouse, pen or finger; `done` gets it in pixels of the picture. Returns how to stop. */
export function draw(place, done) {
  const image = place.querySelector("img");
  const stop = new AbortController();
  let start = null;
  let frame = null;
  const at = (event) => {
    const area = image.getBoundingClientRect();
    const inside = (value, length) => Math.min(Math.max(value, 0), 1) * length;
    return [
      inside((event.clientX - area.left) / area.width, image.naturalWidth),
      inside((event.clientY - area.top) / area.height, image.naturalHeight),
    ];
  };
  const box = (event) => {
    const [[a, b], [c, d]] = [start, at(event)];
    return [Math.min(a, c), Math.min(b, d), Math.max(a, c), Math.max(b, d)];
  };
  const listen = (name, act) => place.addEventListener(name, act, { signal: stop.signal });
  place.classList.add("drawing");
  listen("pointerdown", (event) => {
    start = at(event);
    place.setPointerCapture(event.pointerId);
    frame = outline(image, box(event), "The box");
    frame.classList.add("chosen");
    place.append(frame);
    event.preventDefault();
  });
  listen("pointermove", (event) => {
    if (start) put(frame, image, box(event));
  });
  listen("pointerup", (event) => {
    if (!start) return;
    const drawn = box(event);
    frame.remove();
    start = null;
    if (drawn[2] - drawn[0] >= LEAST_SIDE && drawn[3] - drawn[1] >= LEAST_SIDE) done(drawn);
  });
  return () => {
    stop.abort();
    place.classList.remove("drawing");
  };
}

function outline(image, box, name) {
  const button = element("button", { type: "button", class: "outline", "aria-label": name, title: name });
  put(button, image, box);
  return button;
}

function put(button, image, [left, top, right, bottom]) {
  const percent = (value, length) => `${(100 * value) / length}%`;
  button.style.left = percent(left, image.naturalWidth);
  button.style.top = percent(top, image.naturalHeight);
  button.style.width = percent(right - left, image.naturalWidth);
  button.style.height = percent(bottom - top, image.naturalHeight);
}

function area([left, top, right, bottom]) {
  return (right - left) * (bottom - top);
}
