// The page without a network: its own files and the demo model, from the visit before. Weights are kept
// elsewhere, by the package itself.

const CACHE = "wgforge-page-1";
const OWN = new URL("./", location.href).href;

self.addEventListener("install", (event) => {
  event.waitUntil(
    (async () => {
      const files = await (await fetch("files.json")).json();
      await (await caches.open(CACHE)).addAll(["./", "files.json", ...files]);
      await self.skipWaiting();
    })(),
  );
});

self.addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      for (const name of await caches.keys()) if (name.startsWith("wgforge-page-") && name !== CACHE) await caches.delete(name);
      await self.clients.claim();
    })(),
  );
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  // Ranges are the business of the download, which keeps its own pieces.
  if (request.method !== "GET" || !request.url.startsWith(OWN) || request.headers.has("Range")) return;
  event.respondWith(
    (async () => {
      const cache = await caches.open(CACHE);
      try {
        const response = await fetch(request);
        if (response.status === 200 && (await cache.match(request))) {
          // Newer than the one from the visit before. A full disk is no reason to fail.
          event.waitUntil(cache.put(request, response.clone()).catch(() => {}));
        }
        return response;
      } catch (error) {
        const kept = await cache.match(request, { ignoreSearch: true, ignoreVary: true });
        if (kept) return kept;
        throw error;
      }
    })(),
  );
});
