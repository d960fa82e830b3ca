// A result in full: the whole scene with its people, and in a video the moments at which the person is seen.
import { call } from "./api.js";
import { clear, show } from "./picture.js";
import { clock, date, element } from "./words.js";

const dialog = document.querySelector("#detail");
const [name, about, scene, video, note, moments, previous, next, play, searchThis] = [
  "#detail-name", "#detail-about", ".picture", "video", "#detail-note", "#moments", "#previous", "#next", "#play",
  "#search-this",
].map((selector) => dialog.querySelector(selector));

let results = [];
let place = 0;
let seen = null; // the moment shown
let loading = new AbortController();
let search = () => {};

/** Shows the nth of `shown`; `find` is called with `{image, person}` of whom to search for next. */
export function open(shown, index, find) {
  [results, search] = [shown, find];
  if (!dialog.open) dialog.showModal();
  go(index);
}

function go(index) {
  place = index;
  const { file, best, seen: hits } = results[place];
  name.textContent = `${place + 1}. ${file.name}`;
  previous.disabled = place === 0;
  next.disabled = place === results.length - 1;
  play.hidden = file.kind !== "video";
  moments.replaceChildren(...(file.kind === "video" ? hits : []).map((hit) => {
    const button = element("button", { type: "button" }, clock(hit.position));
    button.addEventListener("click", () => at(hit));
    return button;
  }));
  stop();
  at(best);
}

/** Shows a moment: as a picture, or, where the video is open, in it. */
function at(hit) {
  seen = hit;
  const { file, best, verdict, seen: hits } = results[place];
  const told = hit.image === best.image ? verdict : ""; // the best moment decides
  const words = [told, `similarity ${hit.similarity.toFixed(3)}`, file.camera, date(hit.time), file.path];
  about.textContent = words.filter(Boolean).join(" · ");
  [...moments.children].forEach((button, index) => button.setAttribute("aria-pressed", hits[index].image === hit.image));
  if (!video.hidden) {
    video.currentTime = hit.position;
    return;
  }
  if (hit.position !== null) play.textContent = `Play from ${clock(hit.position)}`;
  picture();
}

async function picture() {
  loading.abort();
  loading = new AbortController();
  const { signal } = loading;
  const { image, person } = seen;
  tell("");
  try {
    const { people } = await call(`images/${image}`, { signal });
    await show(scene, `images/${image}/picture`, people, {
      chosen: (each) => each.person === person, choose: (each) => find(image, each.person), signal,
    });
  } catch (error) {
    if (signal.aborted) return;
    scene.replaceChildren(element("img", { src: `api/people/${person}/crop`, alt: "The person, from the index" }));
    tell(error.message);
  }
}

function find(image, person) {
  dialog.close();
  search({ image, person });
}

function tell(text) {
  note.textContent = text;
  note.hidden = !text;
}

function stop() {
  video.pause();
  video.hidden = true;
  scene.hidden = false;
  video.removeAttribute("src");
  video.load();
}

play.addEventListener("click", () => {
  if (!video.hidden) {
    stop();
    at(seen);
    return;
  }
  scene.hidden = true;
  video.hidden = false;
  video.src = `api/files/${results[place].file.id}/video#t=${seen.position}`;
  video.play().catch(() => {}); // an error is told below
  play.textContent = "Show the picture";
});
video.addEventListener("loadedmetadata", () => {
  video.currentTime = seen.position;
});
video.addEventListener("error", () => {
  if (!video.getAttribute("src")) return;
  stop();
  at(seen);
  tell("This browser cannot play this video, or its file is gone: here is the picture.");
});
previous.addEventListener("click", () => go(place - 1));
next.addEventListener("click", () => go(place + 1));
searchThis.addEventListener("click", () => find(seen.image, seen.person));
dialog.addEventListener("close", () => {
  loading.abort();
  stop();
  clear(scene);
});
dialog.addEventListener("keydown", (event) => {
  if (event.target === video) return; // has keys of its own
  if (event.key === "ArrowLeft" && place > 0) go(place - 1);
  if (event.key === "ArrowRight" && place < results.length - 1) go(place + 1);
});
