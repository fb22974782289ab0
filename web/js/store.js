// Where downloaded pieces are kept: the origin's private file system, the Cache API where there is
// none, nothing where there is neither (a private window, perhaps). Pieces come back as Blobs, which
// live on disk.

const ROOT = "wgforge";

/** Files of the origin's private file system; each model has a folder. */
class PrivateFiles {
  constructor(root) {
    this.root = root;
  }

  static async open() {
    const root = await navigator.storage.getDirectory();
    return new PrivateFiles(await root.getDirectoryHandle(ROOT, { create: true }));
  }

  folder(model) {
    return this.root.getDirectoryHandle(model, { create: true });
  }

  /** Names and Blobs of a model's files. */
  async list(model) {
    const found = new Map();
    for await (const [name, handle] of (await this.folder(model)).entries()) {
      if (handle.kind === "file") found.set(name, await handle.getFile());
    }
    return found;
  }

  /** Writes a whole file; it gets its name when it is complete. */
  async write(model, name, bytes) {
    const handle = await (await this.folder(model)).getFileHandle(name, { create: true });
    if (handle.createWritable) {
      const writable = await handle.createWritable();
      try {
        await writable.write(bytes);
        await writable.close();
      } catch (error) {
        await writable.abort().catch(() => {});
        // Making the handle made an empty file.
        await this.remove(model, name).catch(() => {});
        throw error;
      }
    } else {
      const access = await handle.createSyncAccessHandle();
      try {
        access.truncate(0);
        access.write(bytes, { at: 0 });
        access.flush();
      } finally {
        access.close();
      }
    }
  }

  async remove(model, name) {
    if (name === undefined) await this.root.removeEntry(model, { recursive: true }).catch((error) => {
      if (error.name !== "NotFoundError") throw error;
    });
    else await (await this.folder(model)).removeEntry(name);
  }

  async models() {
    const names = [];
    for await (const [name, handle] of this.root.entries()) if (handle.kind === "directory") names.push(name);
    return names;
  }
}

/** The same in the Cache API, whose keys are URLs. */
class Cached {
  constructor(cache) {
    this.cache = cache;
  }

  static async open() {
    return new Cached(await caches.open(ROOT));
  }

  url(model, name = "") {
    return new URL(`/.${ROOT}/${encodeURIComponent(model)}/${encodeURIComponent(name)}`, location.origin).href;
  }

  async list(model) {
    const [found, prefix] = [new Map(), this.url(model)];
    for (const { url } of await this.cache.keys()) {
      if (!url.startsWith(prefix)) continue;
      const response = await this.cache.match(url);
      found.set(decodeURIComponent(url.slice(prefix.length)), await response.blob());
    }
    return found;
  }

  write(model, name, bytes) {
    return this.cache.put(this.url(model, name), new Response(bytes));
  }

  async remove(model, name) {
    if (name !== undefined) return void (await this.cache.delete(this.url(model, name)));
    for (const { url } of await this.cache.keys()) if (url.startsWith(this.url(model))) await this.cache.delete(url);
  }

  async models() {
    const prefix = new URL(`/.${ROOT}/`, location.origin).href;
    const names = (await this.cache.keys()).map(({ url }) => decodeURIComponent(url.slice(prefix.length).split("/")[0]));
    return [...new Set(names)];
  }
}

/** The best place there is, or null. */
export async function openStore() {
  for (const place of [PrivateFiles, Cached]) {
    try {
      return await place.open();
    } catch {
      // Not offered here, or not in this kind of window.
    }
  }
  return null;
}

/** Bytes that may still be kept; null where the browser does not say. */
export async function room() {
  try {
    const { quota, usage } = await navigator.storage.estimate();
    return quota - usage;
  } catch {
    return null;
  }
}
