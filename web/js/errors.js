// Errors that programs tell apart by their name; `wgforge.d.ts` lists them.

export function named(name, message) {
  const error = new Error(message);
  error.name = name;
  return error;
}

/** What crosses from the worker to the page. */
export function packed(error) {
  return { name: error?.name ?? "Error", message: error?.message ?? String(error) };
}

export function unpacked({ name, message }) {
  return name === "AbortError" ? new DOMException(message, name) : named(name, message);
}

export function aborted() {
  return new DOMException("it was stopped", "AbortError");
}

export const MEGABYTE = 1e6;

export function megabytes(bytes) {
  return `${(bytes / MEGABYTE).toFixed(bytes < 10 * MEGABYTE ? 1 : 0)} MB`;
}
