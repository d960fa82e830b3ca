// Numbers, times and results in words.

export const RANK = { unlikely: 0, possible: 1, match: 2 };

/** Seconds as minutes and seconds, with hours where there are any. */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const end = String(rest).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${end}` : `${minutes}:${end}`;
}

export function date(iso) {
  return iso.replace("T", " ");
}

export function counted(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

/** When a result is seen: from and to in a video, the date of a picture. */
export function when(result) {
  if (result.best.position === null) return date(result.time);
  const [from, to] = [result.seen[0], result.seen.at(-1)].map((seen) => clock(seen.position));
  return from === to ? from : `${from} – ${to}`;
}

/** How a search ended, given all results and how many of them are shown. */
export function headline(results, shown) {
  if (!results.length) return "Nobody is in what was searched";
  const best = results[0];
  if (!best.verdict) return shown === results.length ? counted(shown, "result") : `${shown} of ${counted(results.length, "result")}`;
  const of = (verdict) => results.filter((result) => result.verdict === verdict).length;
  const told = [
    of("match") && counted(of("match"), "match", "matches"),
    of("possible") && `${of("possible")} possible`,
  ].filter(Boolean);
  return told.join(", ") || `Nobody above the threshold; the most similar person has ${best.similarity.toFixed(3)}`;
}

/** An element with text and attributes. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
