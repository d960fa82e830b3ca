// Choosing a picture or a video of the index.
import { call } from "./api.js";
import { date, element } from "./words.js";

const dialog = document.querySelector("#files");
const list = dialog.querySelector("ul");
const text = document.querySelector("#files-text");
const more = document.querySelector("#files-more");
const PAUSE = 250; // milliseconds without a key, after which the server is asked: it reads the whole index
let shown = 0;
let choose = () => {};
let fail = () => {};
let latest = 0;
let typing = null;

/** Shows the files; `chosen` is called with the one that is clicked, `failed` with an error. */
export function browse(chosen, failed) {
  [choose, fail] = [chosen, failed];
  text.value = "";
  list.replaceChildren();
  dialog.showModal();
  load(true);
}

export function close() {
  dialog.close();
}

async function load(fresh) {
  const own = ++latest;
  if (fresh) shown = 0;
  try {
    const { files, total } = await call(`files?${new URLSearchParams({ text: text.value, offset: shown })}`);
    if (own !== latest) return;
    if (fresh) list.replaceChildren();
    if (!total) list.append(element("li", {}, "No file has this in its path."));
    list.append(...files.map(row));
    shown += files.length;
    more.hidden = shown >= total;
  } catch (error) {
    dialog.close();
    fail(error);
  }
}

function row(file) {
  const about = [file.kind, file.camera, date(file.time)].filter(Boolean).join(" · ");
  const button = element("button", { type: "button", title: file.path }, file.name, element("small", {}, about));
  button.addEventListener("click", () => choose(file));
  return element("li", {}, button);
}

text.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(load, PAUSE, true);
});
more.addEventListener("click", () => load(false));
