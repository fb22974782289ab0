// wgforge on a web page: Gemma 4 on the visitor's GPU.
//
//   import { WgForge } from "wgforge";
//   const m = await WgForge.load({ model: "demo", onProgress: console.log });
//   for await (const piece of m.chat([{ role: "user", content: "Hello" }])) text += piece;
//
// Everything runs in a worker; this side only asks. Types and documentation: wgforge.d.ts.

import { aborted, named, unpacked } from "./errors.js";

/** A piece of an answer; as a string it is its text. */
class Piece {
  constructor(text, thought, token) {
    Object.assign(this, { text, thought, token });
  }

  toString() {
    return this.text;
  }
}

/** The worker and the questions that are open. */
class Port {
  constructor() {
    this.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "wgforge" });
    this.open = new Map();
    this.next = 0;
    this.failure = null;
    this.worker.onmessage = ({ data: { id, event, error, result } }) => {
      const question = this.open.get(id);
      if (!question) return;
      if (event) return question.onEvent?.(event);
      this.open.delete(id);
      if (error) question.reject(unpacked(error));
      else question.resolve(result);
    };
    const fail = (event) => this.close(named("WorkerError", `the worker stopped: ${event.message ?? "it could not be read"}; load the model again`));
    this.worker.onerror = fail;
    this.worker.onmessageerror = fail;
  }

  ask(method, args = [], { signal, onEvent } = {}) {
    if (this.failure) return Promise.reject(this.failure);
    if (signal?.aborted) return Promise.reject(signal.reason ?? aborted());
    const id = this.next++;
    const stop = () => this.worker.postMessage({ abort: id });
    return new Promise((resolve, reject) => {
      this.open.set(id, { resolve, reject, onEvent });
      signal?.addEventListener("abort", stop, { once: true });
      this.worker.postMessage({ id, method, args });
    }).finally(() => signal?.removeEventListener("abort", stop));
  }

  close(reason) {
    this.failure ??= reason;
    this.worker.terminate();
    for (const { reject } of this.open.values()) reject(reason);
    this.open.clear();
  }
}

export class WgForge {
  #port;

  constructor(port) {
    this.#port = port;
  }

  static async load({ signal, onProgress, ...options } = {}) {
    const port = new Port();
    // Only a window may ask that what is kept be kept for long; some browsers ask the visitor first.
    if (options.keep ?? true) globalThis.navigator?.storage?.persist?.().catch(() => false);
    // What fills the GPU cannot be interrupted, but ended: nothing it has done is worth keeping.
    let fetching = true;
    const end = () => fetching || port.close(aborted());
    const onEvent = (event) => {
      if (event.phase === "upload" || event.phase === "compile") fetching = false;
      onProgress?.(event);
    };
    signal?.addEventListener("abort", end);
    try {
      await port.ask("load", [{ model: "demo", ...options }], { signal, onEvent });
      return new WgForge(port);
    } catch (error) {
      port.close(error);
      throw error;
    } finally {
      signal?.removeEventListener("abort", end);
    }
  }

  /** Pieces of an answer to a conversation. */
  chat(messages, options = {}) {
    return this.#answer("chat", messages, options);
  }

  /** Pieces of a text that begins with token ids. */
  complete(tokens, options = {}) {
    return this.#answer("complete", tokens, options);
  }

  async *#answer(method, what, { signal, onNotice, ...options }) {
    const pieces = [];
    let [wake, done, failure] = [null, false, null];
    const stop = new AbortController();
    const onAbort = () => stop.abort();
    signal?.throwIfAborted();
    signal?.addEventListener("abort", onAbort, { once: true });
    const onEvent = (event) => {
      if (event.phase === "notice") onNotice?.(event.message);
      if (event.text) pieces.push(new Piece(event.text, event.thought, event.token));
      else if (event.token !== undefined) pieces.push(new Piece("", event.thought, event.token));
      wake?.();
    };
    const seed = options.seed ?? Math.floor(Math.random() * 2 ** 32);
    const answer = this.#port
      .ask(method, [what, { ...options, seed }], { signal: stop.signal, onEvent })
      .catch((error) => (failure = error))
      .finally(() => ((done = true), wake?.()));
    try {
      for (;;) {
        while (pieces.length) yield pieces.shift();
        if (done) break;
        await new Promise((resolve) => (wake = resolve));
      }
      if (failure) throw failure;
      // An answer that was stopped is no failure for whoever reads it; the signal says it was.
    } finally {
      // Whoever leaves the loop wants no more.
      stop.abort();
      await answer;
      signal?.removeEventListener("abort", onAbort);
    }
  }

  encode(text) {
    return this.#port.ask("encode", [text]);
  }

  stats() {
    return this.#port.ask("stats");
  }

  reset() {
    return this.#port.ask("reset");
  }

  /** Bytes a second the GPU reads: a second's work. `stats` has it from then on. */
  bandwidth() {
    return this.#port.ask("bandwidth");
  }

  /** Searches faster kernels for this model on this GPU. */
  autotune({ signal, onProgress, ...options } = {}) {
    return this.#port.ask("autotune", [options], { signal, onEvent: onProgress });
  }

  /** Destroys the GPU device, to try what a page does then. */
  loseDevice() {
    return this.#port.ask("lose");
  }

  /** Models that are kept in this browser. */
  static async kept() {
    const port = new Port();
    try {
      return await port.ask("models");
    } finally {
      port.close(named("UsageError", "closed"));
    }
  }

  /** Removes one of them. */
  static async remove(model) {
    const port = new Port();
    try {
      await port.ask("remove", [model]);
    } finally {
      port.close(named("UsageError", "closed"));
    }
  }

  dispose() {
    this.#port.close(named("UsageError", "this model was disposed of"));
  }
}
