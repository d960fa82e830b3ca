// Calls of the JSON API, described in /api/openapi.json.

export class PasswordError extends Error {}

/** The JSON of an answer, null where it has none; `json` is posted. */
export async function call(path, { json, ...options } = {}) {
  const response = await request(path, json === undefined ? options : {
    ...options, method: "POST", body: JSON.stringify(json), headers: { "Content-Type": "application/json" },
  });
  return response.status === 204 ? null : response.json();
}

/** A picture as an address for <img>; to be given back by URL.revokeObjectURL. */
export async function picture(path, options) {
  return URL.createObjectURL(await (await request(path, options)).blob());
}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(`api/${path}`, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer: is it still running?");
  }
  if (response.ok) return response;
  const { detail } = await response.json().catch(() => ({}));
  const text = Array.isArray(detail) ? detail.map((fault) => fault.msg).join("; ") : detail;
  if (response.status === 401) throw new PasswordError(text);
  throw new Error(text || "The server failed; the window in which it runs says why.");
}
