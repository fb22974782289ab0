// Errors that programs tell apart by their name; `wgforge.d.ts` lists them.

export function named(name, message) {
  const error = new Error(message);
  error.name = name;
  return error;
}

const KNOWN = /^(Abort|NoAdapter|OutOfMemory|DeviceLost|Device|Quota|Network|Read|Model|ContextOverflow|Usage|Worker)Error$/;

/** What crosses from the worker to the page; names that nobody documented are the worker's fault. */
export function packed(error) {
  const name = error?.name === "QuotaExceededError" ? "QuotaError" : error?.name;
  return { name: KNOWN.test(name) ? name : "WorkerError", message: error?.message ?? String(error) };
}

export function unpacked({ name, message }) {
  return name === "AbortError" ? new DOMException(message, name) : named(name, message);
}

export function aborted() {
  return new DOMException("it was stopped", "AbortError");
}

export function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}
