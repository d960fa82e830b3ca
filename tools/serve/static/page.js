// The page. Whom to search for stands behind # in its address, so Back, reloading and links work:
// #upload=ID[&box=LEFT,TOP,RIGHT,BOTTOM] or #image=ID[&person=ID].
import { call, PasswordError } from "./api.js";
import { open } from "./detail.js";
import { browse, close as closeFiles } from "./files.js";
import { clear, draw, show } from "./picture.js";
import { clock, counted, date, element, headline, RANK, when } from "./words.js";

const $ = (selector) => document.querySelector(selector);
const [about, fault, drop, query, hint, frames, drawing, filters, found, list, more] = [
  "#about", "#error", "#drop", "#query", "#hint", "#frames", "#draw", "#filters", "#headline", "#results",
  "#more",
].map($);
const FIRST = 40;
const MOST = 500; // as the server asks for
const place = query.querySelector(".picture");

let index = null;
let top = FIRST; // results asked for
let results = null; // of the last search, before the filter by similarity
let task = new AbortController(); // what the address asks for; a new address ends it
let stopDrawing = null;

const asked = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
const ask = (query) => {
  const before = location.hash;
  location.hash = new URLSearchParams(query);
  if (location.hash === before) follow(); // as after an error; there is no hashchange
};

async function start() {
  try {
    index = await call("index");
  } catch (error) {
    fail(error);
    return;
  }
  about.textContent = index.people
    ? `${counted(index.people, "person", "people")} in ${counted(index.files, "file")}`
    : "The index is empty: end the server, and fill the index with python -m tools.index.";
  filters.camera.append(...index.cameras.map((camera) => element("option", { value: camera }, camera)));
  $("#cameras").hidden = !index.cameras.length;
  $("#verdicts").hidden = !index.thresholds;
  $("#similarity").hidden = Boolean(index.thresholds);
  await follow();
}

/** Shows what the address asks for: a picture with its people, and who is like the chosen one. */
async function follow() {
  task.abort();
  task = new AbortController();
  const { signal } = task;
  const wanted = asked();
  const chosen = wanted.person ?? wanted.box;
  fail(null);
  reset();
  if (!wanted.upload && !wanted.image) return;
  try {
    const shown = wanted.upload ? showUpload(wanted, signal) : showImage(wanted, signal);
    await (chosen ? Promise.all([shown, search(wanted, signal)]) : shown);
  } catch (error) {
    if (!signal.aborted) fail(error);
  }
}

function reset() {
  results = null;
  more.hidden = true;
  endDrawing();
  list.replaceChildren();
  busy(found, "");
  hint.textContent = "";
  const any = Boolean(asked().upload || asked().image);
  drop.hidden = any;
  query.hidden = !any;
  if (!any) clear(place);
}

async function showUpload({ upload, box }, signal) {
  const { name, people } = await call(`uploads/${encodeURIComponent(upload)}`, { signal });
  const drawn = box && !people.some((each) => String(each.box) === box) ? [{ box: box.split(",").map(Number) }] : [];
  await showPicture(name, `uploads/${upload}/picture`, [...people, ...drawn], (each) => String(each.box) === box, (each) =>
    ask({ upload, box: each.box }), signal);
  frames.hidden = true;
  drawing.hidden = false;
  if (!people.length && !box) hint.textContent = "Nobody was found in this picture: draw a box around the person.";
}

async function showImage({ image, person }, signal) {
  const { file, position, time, people } = await call(`images/${image}`, { signal });
  const name = [file.name, file.camera, date(time)].filter(Boolean).join(" · ");
  drawing.hidden = true;
  const details = file.kind === "video" ? await call(`files/${file.id}`, { signal }) : { frames: [] };
  showFrames(details.frames, image, position);
  await showPicture(name, `images/${image}/picture`, people, (each) => each.person === person, (each) =>
    ask({ image, person: each.person }), signal);
}

async function showPicture(name, path, people, chosen, choose, signal) {
  query.querySelector("figcaption").textContent = name;
  await show(place, path, people, { chosen, choose, signal });
  if (people.length && !people.some(chosen)) hint.textContent = `${counted(people.length, "person", "people")} found: click the one you look for.`;
}

function showFrames(all, image, position) {
  frames.hidden = all.length < 2;
  if (frames.hidden) return;
  const [output, slider] = [frames.querySelector("output"), frames.querySelector("input")];
  slider.max = all.length - 1;
  slider.value = all.findIndex((frame) => frame.image === image);
  output.textContent = clock(position);
  slider.oninput = () => {
    output.textContent = clock(all[slider.value].position);
  };
  slider.onchange = () => ask({ image: all[slider.value].image });
}

async function search({ upload, box, image, person }, signal) {
  busy(found, "Searching …");
  const whom = upload ? { upload, box: box.split(",").map(Number) } : { image, person };
  try {
    ({ results } = await call("searches", {
      json: {
        ...whom, top, camera: filters.camera.value || null, cbgm: filters.cbgm.checked,
        earliest: filters.earliest.value || null, latest: filters.latest.value || null,
      },
      signal,
    }));
    showResults();
    if (found.getBoundingClientRect().top > innerHeight / 2) found.parentElement.scrollIntoView({ behavior: "smooth" });
  } catch (error) {
    if (!signal.aborted) busy(found, "");
    throw error;
  }
}

function showResults() {
  const least = Number(filters.similarity.value);
  $("#similarity output").textContent = least.toFixed(2);
  if (!results) return;
  const passes = ({ verdict, similarity }) =>
    verdict ? RANK[verdict] >= RANK[filters.least.value] : similarity >= least;
  const shown = results.filter(passes);
  found.classList.remove("busy");
  found.textContent = headline(results, shown.length);
  list.replaceChildren(...shown.map((result, rank) => card(result, rank, shown)));
  more.hidden = results.length < top || top === MOST || !passes(results.at(-1));
}

function card(result, rank, shown) {
  const { best, file, similarity, verdict } = result;
  const crop = element("img", { src: `api/people/${best.person}/crop`, alt: "", loading: "lazy" });
  const top = element("span", { class: "top" }, element("span", { class: verdict ?? "" }, verdict ?? `${rank + 1}.`),
    element("span", {}, similarity.toFixed(3)));
  const words = [when(result), file.camera, file.name].filter(Boolean).map((text) => element("small", {}, text));
  const button = element("button", { type: "button", class: "card" }, crop, top, ...words);
  button.addEventListener("click", () => open(shown, rank, ask));
  return element("li", {}, button);
}

async function upload(file) {
  if (!file) return;
  if (index && file.size > index.upload_bytes) {
    fail(new Error(`${file.name} has more than ${index.upload_bytes / 2 ** 20} MB: scale it down.`));
    return;
  }
  task.abort();
  task = new AbortController();
  const { signal } = task;
  fail(null);
  busy(found, "Looking for people …");
  list.replaceChildren();
  try {
    const name = encodeURIComponent(file.name.slice(-255));
    const { upload: number } = await call(`uploads?name=${name}`, { method: "POST", body: file, signal });
    ask({ upload: number });
  } catch (error) {
    if (signal.aborted) return;
    busy(found, "");
    showResults(); // those of before
    fail(error);
  }
}

async function chooseFile(file) {
  closeFiles();
  try {
    const { frames: own } = await call(`files/${file.id}`);
    if (own.length) ask({ image: own[0].image });
    else fail(new Error(`Nobody was found in ${file.name}: choose another file.`));
  } catch (error) {
    fail(error);
  }
}

function busy(line, text) {
  line.textContent = text;
  line.classList.toggle("busy", Boolean(text));
}

function fail(error) {
  fault.hidden = !error || error instanceof PasswordError;
  fault.textContent = error?.message ?? "";
  if (error instanceof PasswordError && !$("#login").open) $("#login").showModal();
}

function endDrawing() {
  stopDrawing?.();
  stopDrawing = null;
  drawing.setAttribute("aria-pressed", "false");
}

drawing.addEventListener("click", () => {
  if (stopDrawing) {
    endDrawing();
    return;
  }
  drawing.setAttribute("aria-pressed", "true");
  stopDrawing = draw(place, (box) => ask({ upload: asked().upload, box: box.map((edge) => Math.round(10 * edge) / 10) }));
});
filters.addEventListener("submit", (event) => event.preventDefault());
filters.addEventListener("input", ({ target }) => {
  if (["least", "similarity"].includes(target.name)) showResults();
});
filters.addEventListener("change", ({ target }) => {
  if (!["least", "similarity"].includes(target.name)) follow();
});
$("#browse").addEventListener("click", () => browse(chooseFile, fail));
$("#picture-file").addEventListener("change", ({ target }) => {
  upload(target.files[0]);
  target.value = "";
});
$("#login form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await call("login", { json: { password: event.target.password.value } });
    $("#login").close();
    await (index ? follow() : start());
  } catch (error) {
    $("#login [role=alert]").textContent = error.message;
  }
});
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  addEventListener(name, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dragging", name.endsWith("enter") || name.endsWith("over"));
    if (name === "drop") upload(event.dataTransfer.files[0]);
  });
}
more.addEventListener("click", () => {
  top = Math.min(2 * top, MOST);
  follow();
});
addEventListener("hashchange", () => {
  top = FIRST;
  follow();
});
start();
